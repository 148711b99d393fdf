"""A camera with a clock of its own, in N environments.

A picture is taken at the first control step at or after each of its ticks, counted from the beginning of an episode,
and what it shows is known `latency_s` later, in whole control steps, rounded up. Until then, and where pictures are
lost, what was known last stays. An episode's first picture is there at once.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Protocol

import torch
from torch import Tensor

from envs.common.stateful import Stateful
from envs.environment import Environment

_EPS = 1e-9


class Timing(Protocol):
    """When a camera's pictures are taken and known; see `SensorConfig`."""

    @property
    def rate_hz(self) -> float | None: ...

    @property
    def latency_s(self) -> float: ...

    @property
    def drop(self) -> float: ...


class Camera(Stateful):
    """What is known of a camera's pictures; subclasses say what that is.

    Args:
        environment: whose `layer` is attached.
        timing: of the pictures.
        name: of its random numbers.
        shape: of what is known of one picture.
        dtype: of that.
    """

    _state = ("_shown", "_ring", "_valid", "_newest")

    def __init__(
        self, environment: Environment, timing: Timing, name: str, shape: tuple[int, ...], dtype: torch.dtype
    ) -> None:
        self._environment, self._timing, self._name = environment, timing, name
        n, period_s = environment.num_envs, environment.task.control_period_s
        late = math.ceil(timing.latency_s / period_s - _EPS)
        self._per_step = None if timing.rate_hz is None else timing.rate_hz * period_s
        self._shown = torch.zeros(n, *shape, dtype=dtype)
        self._ring = torch.zeros(n, late + 1, *shape, dtype=dtype)  # what pictures of the last steps showed
        self._valid = torch.zeros(n, late + 1, dtype=torch.bool)
        self._newest = 0

    @abstractmethod
    def read(self, rows: Tensor) -> Tensor:
        """What pictures of environments rows [n] show now, [n, *shape]."""

    def look(self, first: Tensor | None) -> Tensor:
        """What is known now [N, *shape]; `first` as in `Randomizer.measure`."""
        if first is not None:
            self._shown = self._shown.clone()  # what was given of the last step is of episodes that ended with it
            self._read_into(self._shown, first)
            self._valid &= ~first[:, None]
        else:
            slots = self._ring.shape[1]
            self._newest = (self._newest + 1) % slots
            taken = self._due()
            self._read_into(self._ring[:, self._newest], taken)
            self._valid[:, self._newest] = taken
            arrives = (self._newest + 1) % slots
            known = self._valid[:, arrives].view(-1, *[1] * (self._shown.dim() - 1))
            self._shown = torch.where(known, self._ring[:, arrives], self._shown)
        return self._shown

    def _due(self) -> Tensor:
        """Environments [N] whose camera takes a picture in this step that is not lost."""
        environment = self._environment
        steps = environment.steps
        due = torch.ones_like(steps, dtype=torch.bool)
        if self._per_step is not None:
            ticks = lambda at: torch.floor(at * self._per_step + _EPS)  # noqa: E731
            due = ticks(steps) > ticks(steps - 1)
        if self._timing.drop:
            lost = environment.rng.uniform(f"picture {self._name}", 1)[:, 0] < self._timing.drop
            due &= ~lost
        return due

    def _read_into(self, values: Tensor, mask: Tensor) -> None:
        """Put what pictures of the environments in mask [N] show into values [N, *shape]."""
        rows = mask.nonzero()[:, 0]
        if len(rows):
            values[rows] = self.read(rows).to(values.dtype)
