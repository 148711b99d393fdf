"""Symmetry loss: policies of symmetric robots should answer a mirrored state with the mirrored action.

Yu, Turk and Liu 2018 (arXiv 1801.08093, eq. 4) add mean |pi(s) - M_a pi(M_s s)|^2 to the loss, where M_s and M_a mirror
observations and actions. It keeps a gait from limping, and every step teaches both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from envs.common.deterministic_ops import mean_all
from envs.task import Mirror
from randomization.catalogue.quantity import Parameter
from simreal.learners.history import HistoryLayout
from simreal.learners.normalizer import Normalizer
from simreal.learners.on_policy.actor_critic import Policy
from simreal.learners.on_policy.distribution import Distribution


def with_privileged(mirror: Mirror, size: int, parameters: Sequence[Parameter]) -> Mirror:
    """The mirror of a policy that reads the privileged group too, behind the policy group.

    Args:
        mirror: of the task.
        size: values of the privileged group, the parameters of the world among them.
        parameters: of the world, which are its last values, each brought to [-1, 1] over its limits.

    Raises:
        ValueError: the task does not say how its group is mirrored, or the worlds' ranges are not symmetric.
    """
    own = size - len(parameters)
    index, sign = mirror.privileged or (), mirror.privileged_sign
    if len(index) != own:
        raise ValueError("mirror_coef: the task does not say how its privileged group is mirrored, set it to 0")
    images = [_image(mirror, parameter, parameters) for parameter in parameters]
    places = (*index, *(own + place for place, _ in images))
    first = len(mirror.observation)
    return replace(
        mirror,
        observation=(*mirror.observation, *(first + place for place in places)),
        observation_sign=(*mirror.observation_sign, *sign, *(s for _, s in images)),
    )


def _image(mirror: Mirror, parameter: Parameter, parameters: Sequence[Parameter]) -> tuple[int, float]:
    """Which parameter is a parameter's mirror image, and with which sign. Raises ValueError."""
    reverses = parameter.quantity in mirror.reversed
    targets = {mirror.exchanged.get(name, name) for name in parameter.targets}
    low, high = parameter.limits
    limits = (-high, -low) if reverses else (low, high)
    for place, other in enumerate(parameters):
        if other.quantity == parameter.quantity and set(other.targets) == targets and other.limits == limits:
            return place, -1.0 if reverses else 1.0
    raise ValueError(
        f"mirror_coef: nothing is the mirror image of parameter {parameter.name!r} with limits {list(limits)}, "
        "add one or set mirror_coef to 0"
    )


def mirrored(x: Tensor, mirror: Mirror, normalizer: Normalizer) -> Tensor:
    """Mirror images of normalized observations [..., n], with the same statistics: of the first n values."""
    n = x.shape[-1]
    index, sign = _tensors(mirror.observation[:n], mirror.observation_sign[:n], x)
    mean, std, inverse = normalizer.offset()[:n], normalizer.scale(), normalizer.inverse()[:n]
    image = x[..., index] * (sign * std[index] * inverse).to(x) + ((sign * mean[index] - mean) * inverse).to(x)
    return image.clamp(-normalizer.clip, normalizer.clip)


def mirrored_features(x: Tensor, mirror: Mirror, normalizer: Normalizer, layout: HistoryLayout | None) -> Tensor:
    """Mirror images of what a policy sees [..., n]: the present observation, earlier ones, and actions."""
    if layout is None or not layout.inputs:
        return mirrored(x, mirror, normalizer)
    # In a task without goals all of an observation of the policy group is kept; the privileged group never is.
    parts = [layout.observations * layout.kept, layout.actions * layout.action_size]
    present, past, actions = x.split([x.shape[-1] - sum(parts), *parts], dim=-1)
    seen = mirrored(past.unflatten(-1, (layout.observations, layout.kept)), mirror, normalizer).flatten(-2)
    index, sign = _tensors(mirror.action, mirror.action_sign, x)
    actions = actions.unflatten(-1, (layout.actions, layout.action_size))[..., index] * sign
    return torch.cat((mirrored(present, mirror, normalizer), seen, actions.flatten(-2)), dim=-1)


def symmetry_loss(
    policy: Policy, x: Tensor, now: Distribution, mirror: Mirror, layout: HistoryLayout | None = None
) -> Tensor:
    """mean |pi(s) - M_a pi(M_s s)|^2 [] over steps, of what the distributions are compared by.

    Args:
        policy: without memory.
        x: normalized observations [..., nobs], with what the policy remembers beside them.
        now: pi(s) over [..., A], the policy's distribution for x.
        mirror: how the task is symmetric.
        layout: of what the policy remembers.
    """
    image, _ = policy.actor(mirrored_features(x, mirror, policy.normalizer, layout), x[0, :, :0])
    return mean_all(now.asymmetry(image, *_tensors(mirror.action, mirror.action_sign, x)))


def _tensors(index: tuple[int, ...], sign: tuple[float, ...], like: Tensor) -> tuple[Tensor, Tensor]:
    return torch.tensor(index, device=like.device), torch.tensor(sign, dtype=like.dtype, device=like.device)
