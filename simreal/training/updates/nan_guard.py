"""Notices an update that ended in NaN or infinity, and takes it back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn

from simreal.learners.adam import Adam
from simreal.learners.base import Learner


class NanGuard:
    """Copies what an update changes, so that one that ends in NaN or infinity can be taken back.

    All tensors (weights, running statistics, moments of the optimizers) are copied in one pass; experience is not, as
    updates only read it.

    Args:
        learner: whose updates are watched. Make another guard after loading a state into it.
        beside: whether it goes on collecting during an update: what that changes is no part of the state before it.
    """

    def __init__(self, learner: Learner, beside: bool = False) -> None:
        self._learner = learner
        self._apart = (learner.COLLECTED or ()) if beside else ()
        parts = list(vars(learner).values())
        self._optimizers = [part for part in parts if isinstance(part, Adam)]
        tensors = {id(part): part.data for part in parts if isinstance(part, nn.Parameter)}
        for module in (part for part in parts if isinstance(part, nn.Module)):
            tensors |= {id(t): t.data for t in (*module.parameters(), *module.buffers())}
        self._weights: list[Tensor] = [t for t in tensors.values() if t.is_floating_point()]
        tensors |= {id(part): part.data for part in parts if isinstance(part, Tensor)}
        tensors |= {id(t): t for optimizer in self._optimizers for t in optimizer.tensors()}
        for part in (attrgetter(name)(learner) for name in self._apart):
            for collected in (*part.parameters(), *part.buffers()) if isinstance(part, nn.Module) else ():
                tensors.pop(id(collected), None)
        self._live: list[Tensor] = list(tensors.values())
        self._kept: list[Tensor] = [torch.empty_like(t) for t in self._live]
        self._plain: dict[str, Any] = {}

    def snapshot(self) -> None:
        """Copy the present state; call it before an update."""
        torch._foreach_copy_(self._kept, self._live)
        self._random_state = self._learner.generator.get_state()
        self._rates = [optimizer.lr for optimizer in self._optimizers]
        self._plain = {
            name: list(value) if isinstance(value, list) else value
            for name, value in vars(self._learner).items()
            if isinstance(value, (int, float, list)) and name not in self._apart
        }
        self._plain["begun"] = self._learner.begun
        rollout = getattr(self._learner, "rollout", None)
        self._rollout_time = None if rollout is None else rollout.time

    def nonfinite(self, metrics: Mapping[str, float]) -> list[str]:
        """Lines that name what is NaN or infinite after an update: entries of `metrics`, or else a weight."""
        names = [f"{name} is {value}" for name, value in metrics.items() if not math.isfinite(value)]
        if names:
            return names
        # The norm of norms is finite if every weight is; looked at once per update.
        total = torch.stack([norm.double() for norm in torch._foreach_norm(self._weights)]).sum()
        return [] if math.isfinite(float(total)) else ["a weight is not finite"]

    def restore(self) -> None:
        """Return to the state of the last `snapshot`."""
        torch._foreach_copy_(self._live, self._kept)
        if "generator" not in self._apart:
            self._learner.generator.set_state(self._random_state)
        for optimizer, rate in zip(self._optimizers, self._rates, strict=True):
            optimizer.lr = rate
        for name, value in self._plain.items():
            setattr(self._learner, name, value)
        rollout = getattr(self._learner, "rollout", None)
        if rollout is not None:
            rollout.time = self._rollout_time
