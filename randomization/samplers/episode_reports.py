"""Ends of episodes that are counted on the CPU while the episodes run on a GPU."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from envs.common.ranks import ALONE, Ranks
from randomization.samplers.base import NamedState, Sampler


class EpisodeQueue:
    """Gathers what is known of ended episodes over several control steps.

    To say which episodes ended, a GPU would have to finish its work first; so it is asked once in `steps` control steps
    instead of in each.

    Args:
        steps: control steps after which the queue is full.
        ranks: whose episodes are gathered; their environments in order.
    """

    def __init__(self, steps: int, ranks: Ranks = ALONE) -> None:
        self.steps, self._ranks = steps, ranks
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
        columns = [column[over].cpu() for column in columns]
        if self._ranks.size > 1:
            over, *columns = self._of_all(over.cpu(), columns)
        ended = over.sum(dim=1).tolist()
        return list(zip(*(column.split(ended) for column in columns), strict=True))

    def _of_all(self, over: Tensor, columns: list[Tensor]) -> list[Tensor]:
        """Values [k, ...] of the episodes that ended on all ranks, step by step and in each by environment, and how
        many in each step: [steps, 1]."""
        step = over.nonzero()[:, :1]
        flat = [column.reshape(len(step), math.prod(column.shape[1:])) for column in columns]
        whole = self._ranks.rows(torch.cat([step.double(), *(column.double() for column in flat)], dim=1))
        whole = whole[torch.argsort(whole[:, 0], stable=True)]
        count = torch.bincount(whole[:, 0].long(), minlength=len(over))[:, None]
        values = whole[:, 1:].split([column.shape[1] for column in flat], dim=1)
        shaped = [v.reshape(len(whole), *c.shape[1:]).to(c.dtype) for v, c in zip(values, columns, strict=True)]
        return [count, *shaped]

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
        ranks: all tell the same to their samplers, in the same order.
    """

    def __init__(self, sampler: Sampler, steps: int, ranks: Ranks = ALONE) -> None:
        super().__init__(steps, ranks)
        self._sampler = sampler
        self.listens = isinstance(sampler, NamedState)  # the others learn nothing

    def report(self, done: Tensor, boundary: Tensor, performance: Tensor, lam: Tensor) -> None:
        """A step after which the episodes in done [N] are over: boundary [N], performance [N], lam [N, d]."""
        if self._ranks.size > 1 and not self.listens:
            return
        if self.add(done, boundary, performance.double(), lam):
            for episodes in self.take():  # step by step: ranges that move bear on the episodes after
                self._sampler.record(*episodes)
