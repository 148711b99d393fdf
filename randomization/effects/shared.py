"""What several effects may change at once: values of model fields, and forces on bodies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from envs.common.stateful import Stateful
from envs.engines.base import Engine
from randomization.effects.parameter_index import Index, index_of


class ModelValues(Stateful):
    """Values of one model field that effects change in the course of an episode.

    Where a world is about to be written they are nominal again, and before each control step they are what the world of
    the episode has, so that effects multiply or add to what they find, and act together.

    Attributes:
        live: [N, size] view of the engine's field.
    """

    _state = ("_world",)

    def __init__(self, engine: Engine, field: str) -> None:
        self.live = engine.field(field).view(engine.num_envs, -1)
        self._nominal = engine.nominal(field).to(self.live).flatten()
        self._changed: set[int] = set()
        self._elements = torch.zeros(0, dtype=torch.int64, device=self.live.device)
        self._world = self.live[:, self._elements]  # [N, elements]

    def change(self, elements: Iterable[int]) -> None:
        """Some effect changes these flat indices within one environment's values."""
        self._changed.update(elements)
        self._elements = torch.tensor(sorted(self._changed), dtype=torch.int64, device=self.live.device)
        self._world = self.live[:, self._elements].clone()

    def restore(self, mask: Tensor) -> None:
        """Nominal values in mask [N]: new worlds are about to be written there."""
        nominal, present = self._nominal[self._elements], self.live[:, self._elements]
        self.live[:, self._elements] = torch.where(mask[:, None], nominal, present)

    def take(self, mask: Tensor) -> None:
        """The present values are those of new worlds in mask [N]."""
        self._world = torch.where(mask[:, None], self.live[:, self._elements], self._world)

    def begin_step(self) -> None:
        """Back to the values of the world."""
        self.live[:, self._elements] = self._world


class ExternalForces(Stateful):
    """Adds what effects do to bodies to what a task writes to MuJoCo's `xfrc_applied` itself.

    A task may write its forces at every control step, or once for many: what differs from what was left here is the
    task's, and the rest is what the task had written before.
    """

    _state = ("_own", "_left")

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._asked: list[Sequence[int]] = []
        self._added: Tensor | None = None

    def on(self, bodies: Sequence[int]) -> int:
        """Announce forces on bodies; returns what `add` calls them by."""
        self._asked.append(bodies)
        return len(self._asked) - 1

    def prepare(self) -> None:
        """All forces have been announced."""
        bodies, device = sorted({body for some in self._asked for body in some}), self._engine.device
        if not bodies:
            return
        self._applied, self._all = self._engine.data("xfrc_applied"), index_of(bodies, device)
        self._places: list[Index] = [index_of([bodies.index(body) for body in some], device) for some in self._asked]
        self._own = torch.zeros_like(self._applied[:, self._all])  # [N, bodies, 6] of the task
        self._left = torch.zeros_like(self._own)  # what was written here last

    def add(self, which: int, wrenches: Tensor) -> None:
        """Forces [N, bodies, 3] in N, or with torques [N, bodies, 6], of this control step, in the world frame."""
        if self._added is None:
            self._added = torch.zeros_like(self._own)
        self._added[:, self._places[which], : wrenches.shape[2]] += wrenches.to(self._added.dtype)

    def write(self) -> None:
        """Write this control step's forces, if any were added."""
        if self._added is None:
            return
        present = self._applied[:, self._all]
        self._own = torch.where(present == self._left, self._own, present)
        self._left, self._added = self._own + self._added, None
        self._applied[:, self._all] = self._left
