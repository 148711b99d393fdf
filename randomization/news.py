"""How episodes went, for a sampler on the CPU, where they may have been played on a GPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from randomization.samplers import Sampler


class EpisodeReporter:
    """Reports episodes to a sampler.

    Finding out which episodes ended makes a GPU's caller wait for all work in progress, so there the reports of several
    control steps are handed over together: in order, but ranges move up to so many steps later.

    Args:
        sampler: whose `record` is called.
        steps: control steps whose reports are handed over together.
    """

    def __init__(self, sampler: Sampler, steps: int) -> None:
        self._sampler, self._steps = sampler, steps
        self._queue: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def report(self, done: Tensor, boundary: Tensor, performance: Tensor, lam: Tensor) -> None:
        """A step after which the episodes in done [N] are over: boundary [N], performance [N], lam [N, d]."""
        if self._steps == 1:
            self._sampler.record(boundary[done], performance[done].double(), lam[done])
            return
        self._queue.append((done, boundary, performance.double(), lam))
        if len(self._queue) < self._steps:
            return
        over, *columns = (torch.stack(column) for column in zip(*self._queue, strict=True))
        self._queue = []
        ended = over.sum(dim=1).tolist()
        parts = (column[over].cpu().split(ended) for column in columns)
        for episodes in zip(*parts, strict=True):  # step by step: ranges that move bear on the episodes after
            self._sampler.record(*episodes)

    def state_dict(self) -> dict[str, Any]:
        """Reports that have not been handed over."""
        return {"queue": [torch.stack(column) for column in zip(*self._queue, strict=True)]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self._queue = list(zip(*(column.unbind() for column in state["queue"]), strict=True))
