"""Symmetry loss: policies of symmetric robots should answer a mirrored state with the mirrored action.

Yu, Turk and Liu 2018 (arXiv 1801.08093, eq. 4) add mean |pi(s) - M_a pi(M_s s)|^2 to the loss, where M_s and M_a mirror
observations and actions. It keeps a gait from limping, and every step teaches both sides.
"""

from __future__ import annotations

import torch
from torch import Tensor

from envs.common.deterministic_ops import mean_all
from envs.task import Mirror
from simreal.learners.history import HistoryLayout
from simreal.learners.normalizer import Normalizer
from simreal.learners.on_policy.actor_critic import Policy
from simreal.learners.on_policy.distribution import Distribution


def mirrored(x: Tensor, mirror: Mirror, normalizer: Normalizer) -> Tensor:
    """Mirror images of normalized observations [..., nobs], normalized with the same statistics."""
    index, sign = _tensors(mirror.observation, mirror.observation_sign, x)
    mean, std, inverse = normalizer.offset(), normalizer.scale(), normalizer.inverse()
    image = x[..., index] * (sign * std[index] * inverse).to(x) + ((sign * mean[index] - mean) * inverse).to(x)
    return image.clamp(-normalizer.clip, normalizer.clip)


def mirrored_features(x: Tensor, mirror: Mirror, normalizer: Normalizer, layout: HistoryLayout | None) -> Tensor:
    """Mirror images of what a policy sees [..., n]: the present observation, earlier ones, and actions."""
    if layout is None or not layout.inputs:
        return mirrored(x, mirror, normalizer)
    observations = layout.observations + 1
    at = observations * layout.kept  # in a task without goals all of an observation is kept
    seen = mirrored(x[..., :at].unflatten(-1, (observations, layout.kept)), mirror, normalizer).flatten(-2)
    index, sign = _tensors(mirror.action, mirror.action_sign, x)
    actions = x[..., at:].unflatten(-1, (layout.actions, layout.action_size))[..., index] * sign
    return torch.cat((seen, actions.flatten(-2)), dim=-1)


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
