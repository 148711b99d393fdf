"""How a sampler, which lives on the CPU, hears of episodes that were played on a GPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from randomization.samplers import Sampler


class EpisodeNews:
    """Tells a sampler how episodes went.

    To say which episodes ended a GPU would have to finish its work first, so there it is asked once in several control
    steps; the sampler hears the same, in the same order, and moves its ranges up to so many steps later.

    Args:
        sampler: which listens.
        steps: control steps of which it hears at once.
    """

    def __init__(self, sampler: Sampler, steps: int) -> None:
        self._sampler, self._steps = sampler, steps
        self._kept: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def tell(self, done: Tensor, boundary: Tensor, performance: Tensor, lam: Tensor) -> None:
        """A step after which the episodes in done [N] are over: boundary [N], performance [N], lam [N, d]."""
        if self._steps == 1:
            self._sampler.record(boundary[done], performance[done].double(), lam[done])
            return
        self._kept.append((done, boundary, performance.double(), lam))
        if len(self._kept) < self._steps:
            return
        over, *columns = (torch.stack(column) for column in zip(*self._kept, strict=True))
        self._kept = []
        ended = over.sum(dim=1).tolist()
        parts = (column[over].cpu().split(ended) for column in columns)
        for episodes in zip(*parts, strict=True):  # step by step: ranges that move bear on the episodes after
            self._sampler.record(*episodes)

    def state_dict(self) -> dict[str, Any]:
        return {"kept": [torch.stack(column) for column in zip(*self._kept, strict=True)]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._kept = list(zip(*(column.unbind() for column in state["kept"]), strict=True))
