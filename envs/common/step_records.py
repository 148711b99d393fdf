"""Records of what N environments show, and of a control step of theirs: trees of tensors; and marks in pictures."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Observed:
    """What N environments show. `policy` is what a robot would measure; the rest only a simulator knows."""

    policy: Tensor  # [N, nobs] with sensor errors
    privileged: Tensor | None  # [N, nprivileged] clean: the task's group, then what the layer knows of the world
    achieved_goal: Tensor | None  # [N, G] clean
    desired_goal: Tensor | None  # [N, G]
    pictures: Tensor | None = None  # [N, height, width, 3] uint8: what the policy's camera shows, where it has one

    def to(self, device: torch.device) -> Observed:
        """This record with all tensors on `device`; no copy is made of one that is there."""
        return self if self.policy.device == device else on_device(self, device)


@dataclass(frozen=True)
class StepResult:
    """One control step of N environments.

    `final` is where the step led; `observed` is where the next action starts from. They differ only in the
    environments that `done` names, which have been reset.
    """

    observed: Observed
    final: Observed
    reward: Tensor  # [N]
    terminated: Tensor  # [N] bool
    truncated: Tensor  # [N] bool
    success: Tensor  # [N] bool
    diverged: Tensor  # [N] bool: the simulation became unstable; do not learn from this step
    done: Tensor  # [N] bool: terminated or truncated
    episode_return: Tensor  # [N] so far, this step included
    episode_steps: Tensor  # [N]
    episode_successes: Tensor  # [N] steps of the episode at which `success` held
    terms: dict[str, Tensor]

    def to(self, device: torch.device) -> StepResult:
        """This record with all tensors on `device`; no copy is made of one that is there."""
        return self if self.reward.device == device else on_device(self, device)


@dataclass(frozen=True)
class Mark:
    """Something that only pictures for people show, such as a goal."""

    pos: np.ndarray  # [3] in the world, m
    quat: np.ndarray | None = None  # [4] w, x, y, z: axes are drawn; None: a ball
    size: float | None = None  # radius of the ball, length of the axes, m; None: as fits the model
    rgba: tuple[float, float, float, float] = (0.1, 0.8, 0.2, 0.6)  # of the ball


def merged(mask: Tensor, new: Observed, old: Observed) -> Observed:
    """`new` in the environments of `mask` [N], `old` elsewhere."""

    def merge(a: Tensor | None, b: Tensor | None) -> Tensor | None:
        return None if a is None or b is None else torch.where(mask.view(-1, *[1] * (a.dim() - 1)), a, b)

    return Observed(
        torch.where(mask[:, None], new.policy, old.policy),
        merge(new.privileged, old.privileged),
        merge(new.achieved_goal, old.achieved_goal),
        merge(new.desired_goal, old.desired_goal),
        merge(new.pictures, old.pictures),
    )


def on_device(value: Any, device: torch.device) -> Any:
    """A tree of dicts, lists, tuples and records with all its tensors on a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: on_device(item, device) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(on_device(item, device) for item in value)
    if isinstance(value, (Observed, StepResult)):
        return replace(value, **{f.name: on_device(getattr(value, f.name), device) for f in fields(value)})
    return value


def copied(value: Any) -> Any:
    """A tree of dicts, lists and tuples with copies of its tensors and arrays: later steps do not change it."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, list) or type(value) is tuple:
        return type(value)(copied(item) for item in value)
    return value
