"""What a policy with a history saw along a rollout, gathered from observations that are stored once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from simreal.learners.history import HistoryLayout
from simreal.learners.on_policy.rollout import RolloutBuffer


class RolloutStacks:
    """Earlier observations and actions of N environments along a rollout of T steps, and K steps before it.

    Args:
        layout: what is looked back on; K is its `steps`.
        rollout: with room for K rows before it.

    Attributes:
        age: [T + 1, N] steps of the episode before an observation.
        action: [K + T, N, A] that was taken.
    """

    def __init__(self, layout: HistoryLayout, rollout: RolloutBuffer) -> None:
        _, num_envs, size = rollout.action.shape
        device = rollout.action.device
        self.layout, self._rollout = layout, rollout
        self.age = torch.zeros(rollout.horizon + 1, num_envs, dtype=torch.int64, device=device)
        self.action = torch.zeros(layout.steps + rollout.horizon, num_envs, size, device=device)
        self._every = torch.arange(num_envs, device=device)

    def before(self, t: int) -> Tensor:
        """What networks see beside the observations of row t: [N, inputs]."""
        return self._gathered(self.age[t], torch.full_like(self._every, t), self._every)

    def before_final(self, t: int) -> Tensor:
        """What networks see beside the observations that step t led to, whose episodes end there: [N, inputs]."""
        return self._gathered(self.age[t] + 1, torch.full_like(self._every, t + 1), self._every)

    def gather(self, place: Tensor) -> Tensor:
        """What networks see beside observations of the rollout [B], counted row by row: [B, inputs]."""
        row, column = place // len(self._every), place % len(self._every)
        return self._gathered(self.age[row, column], row, column)

    def _gathered(self, age: Tensor, row: Tensor, column: Tensor) -> Tensor:
        return self.layout.gathered(self._rollout.with_past, self.action, age, (row + self.layout.steps, column))

    def record(self, t: int, action: Tensor, done: Tensor) -> None:
        """Take in the action [N, A] of step t and which episodes ended with it [N]."""
        self.action[self.layout.steps + t] = action
        self.age[t + 1] = (self.age[t] + 1).masked_fill(done, 0)

    def turn(self, last: Tensor) -> None:
        """Begin another rollout; `last` [K, N, n] are the last observations of this one, as they are normalized now."""
        steps = self.layout.steps
        self._rollout.with_past[:steps] = last
        self.action[:steps] = self.action[-steps:].clone()
        self.age[0] = self.age[-1]

    def state_dict(self) -> dict[str, Any]:
        """What later steps depend on."""
        return {"age": self.age, "action": self.action, "past": self._rollout.with_past[: self.layout.steps]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self._rollout.with_past[: self.layout.steps] = state["past"]
        self.age.copy_(state["age"])
        self.action.copy_(state["action"])
