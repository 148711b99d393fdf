"""Ends of episodes that are counted on the CPU while the episodes run on a GPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from randomization.samplers.base import Sampler


class EpisodeQueue:
    """Gathers what is known of ended episodes over several control steps.

    To say which episodes ended, a GPU would have to finish its work first; so it is asked once in `steps` control steps
    instead of in each.

    Args:
        steps: control steps after which the queue is full.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self._kept: list[tuple[Tensor, ...]] = []

    def add(self, done: Tensor, *values: Tensor) -> bool:
        """Add a step after which the episodes in done [N] are over, with values [N, ...]. True if the queue is full."""
        self._kept.append((done, *values))
        return len(self._kept) >= self.steps

    def take(self) -> list[tuple[Tensor, ...]]:
        """Empty the queue: of every step, in order, the values [k, ...] of its k ended episodes, on the CPU."""
        if not self._kept:
            return []
        over, *columns = (torch.stack(column) for column in zip(*self._kept, strict=True))
        self._kept = []
        ended = over.sum(dim=1).tolist()
        return list(zip(*(column[over].cpu().split(ended) for column in columns), strict=True))

    def state_dict(self) -> dict[str, Any]:
        """What is waiting."""
        return {"kept": [torch.stack(column) for column in zip(*self._kept, strict=True)]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self._kept = list(zip(*(column.unbind() for column in state["kept"]), strict=True))


class EpisodeReporter(EpisodeQueue):
    """Reports to a sampler how episodes went: in order, so that its ranges move up to `steps` control steps later.

    Args:
        sampler: whose `record` is called.
        steps: control steps whose reports are handed over together.
    """

    def __init__(self, sampler: Sampler, steps: int) -> None:
        super().__init__(steps)
        self._sampler = sampler

    def report(self, done: Tensor, boundary: Tensor, performance: Tensor, lam: Tensor) -> None:
        """A step after which the episodes in done [N] are over: boundary [N], performance [N], lam [N, d]."""
        if self.add(done, boundary, performance.double(), lam):
            for episodes in self.take():  # step by step: ranges that move bear on the episodes after
                self._sampler.record(*episodes)
