"""What is exported: a copy of the policy with its task, its layers where it states them, and what torch answers."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from envs.task import Task
from simreal.common.layers import Clip, Layer, UnstatedError, layers_of, state_size, width_after
from simreal.learners.normalizer import Normalizer

EXPORT_TOLERANCE = 1e-5
"""Largest |ONNX Runtime - torch| / max(1, |torch|), over every action and state, for observations as in training.

Both get the same float32 observations. Actions lie in [-1, 1], so for them it is a share of half the range."""

# Far outside training activations are large and so is float32's rounding; a missing clip would be off by far more.
EXTREME_TOLERANCE, EXTREME_WIDTH = 1e-3, 10.0

Array = NDArray[np.float32]


class ExportError(ValueError):
    """A policy that cannot be exported, or a place that cannot be written; nothing was changed."""


class Step(nn.Module):
    """One control step: observation [B, nobs] and, with memory, state [B, *shape] -> action [B, A] and next state."""

    def __init__(self, policy: nn.Module) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        outputs = self.policy(*inputs)
        action, *state = outputs if isinstance(outputs, tuple) else (outputs,)
        return action.float().clamp(-1.0, 1.0), *(s.float() for s in state)  # clipped as the environment does it


@dataclass(frozen=True)
class Source:
    """What is exported.

    Attributes:
        step: the policy.
        task: an instance of its task.
        size: nobs, values of an observation.
        normalizer: of the observation, if the policy has one.
        initial: [*shape] state at the start of an episode; None without memory.
        layers: what `step` computes; None where the policy does not say it.
    """

    step: Step
    task: Task
    size: int
    normalizer: Normalizer | None
    initial: Tensor | None
    layers: list[Layer] | None

    @property
    def read(self) -> tuple[str, ...]:
        """Names of the components that the policy reads, in order."""
        return tuple(part.name for part in self.task.components("policy"))

    def draw(self, count: int, width: float, seed: int) -> Tensor:
        """Observations [count, size] float32: normal, `width` times as wide as in training."""
        noise = torch.randn(count, self.size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        n = self.normalizer
        return (width * noise if n is None else n.mean + n.deviation() * width * noise).float()

    def decided(self, tolerance: float, *inputs: Tensor) -> Tensor:
        """[B] bool, where errors of a relative size do not decide which of several discrete actions is taken."""
        ask = getattr(self.step.policy, "undecided", None)
        return torch.ones(len(inputs[0]), dtype=torch.bool) if ask is None else ~ask(tolerance, *inputs)


def prepare(policy: nn.Module, task: Task) -> Source:
    """A copy of the policy, if it fits the task. Raises ExportError."""
    step = Step(copy.deepcopy(policy).cpu().eval().requires_grad_(False))
    size, begin = sum(c.size for c in task.components("policy")), getattr(step.policy, "initial_state", None)
    try:
        states = None if begin is None else begin(3).float()
        inputs = (torch.zeros(3, size),) if states is None else (torch.zeros(3, size), states)
        action, *after = step(*inputs)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ExportError(
            f"the policy does not take {task.id}'s observations [B, {size}]: {first_line(error)}"
        ) from None
    if action.shape != (3, task.action_size):
        raise ExportError(f"action: expected shape [3, {task.action_size}] for 3 rows, got {list(action.shape)}")
    if states is not None and (len(states) != 3 or not torch.equal(states, states[:1].expand_as(states))):
        raise ExportError("initial_state(batch): expected [batch, ...] with equal rows")
    if states is not None and (len(after) != 1 or after[0].shape != states.shape):
        raise ExportError(f"next state: expected shape {list(states.shape)}, got {[list(a.shape) for a in after]}")
    normalizer = getattr(step.policy, "normalizer", None)
    initial = None if states is None else states[0].clone()
    layers = _layers(step, size, task.action_size, initial)
    return Source(step, task, size, normalizer if isinstance(normalizer, Normalizer) else None, initial, layers)


def _layers(step: Step, size: int, actions: int, initial: Tensor | None) -> list[Layer] | None:
    """What a step computes, from the layers that its policy states. Raises ExportError."""
    try:
        layers: list[Layer] = [*layers_of(step.policy), Clip(-1.0, 1.0)]
    except UnstatedError:
        return None
    width = size
    for number, layer in enumerate(layers):
        try:
            width = width_after(layer, width)
        except ValueError as error:
            what = type(layer).__name__
            raise ExportError(f"the policy's layers(): layer {number}, {what}, of {width} values: {error}") from None
    if width != actions:
        raise ExportError(f"the policy's layers(): expected {actions} values in the end, got {width}")
    stated, given = [sum(map(state_size, layers))], [0] if initial is None else list(initial.shape)
    if stated != given:
        raise ExportError(f"the policy's layers(): their state has the shape {stated}, its initial_state {given}")
    return layers


def golden_answers(source: Source, given: Tensor | NDArray[Any]) -> dict[str, Array]:
    """What torch answers: `observations` [K, nobs], `actions` [K, A]; with memory, `states` [K, *shape] after each.

    Raises:
        ExportError: `given` has another shape or is not finite, or the answers are not.
    """
    observations = torch.as_tensor(given).detach().cpu().float()
    if observations.ndim != 2 or observations.shape[1] != source.size or not len(observations):
        raise ExportError(f"observations: expected shape [K, {source.size}], got {list(observations.shape)}")
    if not observations.isfinite().all():
        raise ExportError("observations: expected finite float32 values")
    # Where two discrete actions are as good as each other another processor may round to the other one.
    if source.initial is None:
        observations = observations[source.decided(EXPORT_TOLERANCE, observations)]
        golden = {"observations": observations, "actions": source.step(observations)[0]}
    else:
        steps: list[tuple[Tensor, ...]] = []
        for observation in observations.split(1):
            before = source.initial[None] if not steps else steps[-1][2]
            if bool(source.decided(EXPORT_TOLERANCE, observation, before)):
                steps.append((observation, *source.step(observation, before)))
        columns = map(torch.cat, zip(*steps, strict=True))
        golden = dict(zip(("observations", "actions", "states"), columns, strict=False))
    if not len(golden.get("observations", ())):
        raise ExportError("observations: in each of them two discrete actions are as good as each other")
    if not all(bool(value.isfinite().all()) for value in golden.values()):
        raise ExportError("the policy puts out NaN or infinity; its weights or its normalizer are broken")
    return {name: value.numpy() for name, value in golden.items()}


def first_line(error: Exception) -> str:
    """The first line of a message."""
    return str(error).strip().split("\n")[0][:300] or type(error).__name__
