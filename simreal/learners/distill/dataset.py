"""What a student learns from: the last rollouts, with what the teacher would have done, every observation once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from simreal.learners.distill.options import DistillConfig
from simreal.learners.history import HistoryLayout
from simreal.learners.normalizer import Normalizer


@dataclass(frozen=True)
class Lesson:
    """Segments of L steps in B sequences; without memory L is 1."""

    seen: Tensor  # [L, B, n] as the student's network sees it
    label: Tensor  # [L, B, A] what the teacher would have done
    world: Tensor  # [L, B, d] parameters of the world in [-1, 1], where they are estimated
    weight: Tensor  # [L, B] 0 where the simulation diverged then or later in the episode, else 1
    start: Tensor  # [L, B] bool, the step begins an episode
    state: Tensor  # [B, S] the student's memory at the start of the segments


class Dataset:
    """A ring of rollouts of T steps of N environments.

    Args:
        config: T, how many rollouts, steps of a segment.
        layout: what the student looks back on. One more rollout is kept for that, and not learnt from.
        num_envs: N.
        sizes: nobs; d, parameters that are estimated; S, of the student's memory.
        device: where it lies.

    Attributes:
        row: where the present step is.
        filled: rollouts that are there, the present one included.
    """

    def __init__(
        self, config: DistillConfig, layout: HistoryLayout, num_envs: int, sizes: tuple[int, int, int],
        device: torch.device,
    ) -> None:  # fmt: skip
        self.layout = layout
        self._horizon, self._most = config.horizon, config.rollouts
        self._segment = config.segment if config.memory != "none" else 1
        self._blocks = config.rollouts + (1 if layout.size else 0)
        count = self._blocks * self._horizon

        def rows(*shape: int, count: int = count, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(count, num_envs, *shape, dtype=dtype, device=device)

        size, parameters, state = sizes
        self.observation, self.world = rows(size), rows(parameters)
        self.action, self.label = rows(layout.action_size), rows(layout.action_size)
        self.age = rows(dtype=torch.int64)  # steps of the episode before
        self.weight = rows()
        self.state = rows(state, count=count // self._segment)
        self.row, self.filled = 0, 1
        self._every = torch.arange(num_envs, device=device)

    @property
    def latest_rows(self) -> slice:
        """The rows of the rollout that has just become full."""
        return slice(self.row - self._horizon, self.row)

    def turn(self) -> None:
        """Begin the next rollout, in the place of the oldest."""
        self.row %= len(self.observation)
        self.filled = min(self.filled + 1, self._blocks)

    def begin_segment(self, state: Tensor) -> None:
        """Note the student's memory [N, S] where a segment starts."""
        if self.row % self._segment == 0:
            self.state[self.row // self._segment] = state

    def seen(self, normalizer: Normalizer, row: Tensor, column: Tensor) -> Tensor:
        """What the student's network sees [B, n] at rows [B] of environments [B], normalized."""
        present = normalizer(self.observation[row, column])
        if not self.layout.size:
            return present
        past = self.layout.gathered(self.observation, self.action, self.age[row, column], (row, column))
        at = self.layout.observations * self.layout.kept
        earlier = normalizer(past[:, :at].reshape(-1, self.layout.kept)).view(len(past), at)
        return torch.cat((present, earlier, past[:, at:]), dim=1)

    def now(self, normalizer: Normalizer) -> Tensor:
        """What the student's network sees [N, n] at the present step."""
        return self.seen(normalizer, torch.full_like(self._every, self.row), self._every)

    def latest(self, normalizer: Normalizer) -> Lesson:
        """All of the rollout that was made last."""
        first = self.latest_rows.start // self._segment
        segments = torch.arange(self._horizon // self._segment, device=self._every.device) + first
        return self._lesson(normalizer, segments.repeat_interleave(len(self._every)), self._every.repeat(len(segments)))

    def sample(self, normalizer: Normalizer, steps: int, generator: torch.Generator) -> Lesson:
        """About `steps` steps, in whole segments, uniformly from the rollouts that are learnt from."""
        device, per_block = self._every.device, self._horizon // self._segment
        count = max(steps // self._segment, 1)
        blocks = min(self.filled, self._most)
        newest = self.latest_rows.start // self._horizon
        drawn = torch.randint(blocks * per_block, (count,), generator=generator, device=device)
        column = torch.randint(len(self._every), (count,), generator=generator, device=device)
        block = (newest - drawn // per_block) % self._blocks
        return self._lesson(normalizer, block * per_block + drawn % per_block, column)

    def _lesson(self, normalizer: Normalizer, segment: Tensor, column: Tensor) -> Lesson:
        row = segment * self._segment + torch.arange(self._segment, device=segment.device)[:, None]  # [L, B]
        columns = column.expand_as(row)
        seen = self.seen(normalizer, row.flatten(), columns.flatten()).unflatten(0, row.shape)
        parts = (values[row, columns] for values in (self.label, self.world, self.weight))
        return Lesson(seen, *parts, start=self.age[row, columns] == 0, state=self.state[segment, column])

    def _tensors(self) -> dict[str, Tensor]:
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor) and name[0] != "_"}

    def state_dict(self) -> dict[str, Any]:
        """Everything that later updates depend on."""
        return self._tensors() | {"row": self.row, "filled": self.filled}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        for name, value in self._tensors().items():
            value.copy_(state[name])
        self.row, self.filled = state["row"], state["filled"]
