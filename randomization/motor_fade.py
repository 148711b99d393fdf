"""Motors that lose force during an episode, as warm motors and empty batteries do.

The force of an actuator, and where it saturates, is multiplied by 1 - `actuator_fade` * t / T, where T is the longest
episode: full at the start, and less by the fade at the time limit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from envs.engine import Engine
from envs.environment import Environment
from randomization.columns import Columns
from randomization.fields import edits_of
from randomization.names import single_places
from randomization.parameters import Parameter


@dataclass
class _Field:
    """The values of one model field that fade."""

    live: Tensor  # [N, size] view of the engine's field
    elements: Tensor  # [m] flat indices
    owner: Tensor  # [m] which of the fading actuators each belongs to
    nominal: Tensor  # [m]
    fresh: Tensor  # [N, m] at the start of the episode, as its world has them

    def write(self, values: Tensor) -> None:
        self.live[:, self.elements] = values.to(self.live.dtype)


class MotorFade:
    """Applies `actuator_fade`.

    Args:
        environment: that the actuators belong to; its task and engine are attached to each other.
        parameters: all of lambda, in order.
    """

    def __init__(self, environment: Environment, parameters: list[Parameter]) -> None:
        self._environment, engine, task = environment, environment.engine, environment.task
        self._columns = Columns("actuator_fade", parameters, single_places(task, "actuator"), engine.device)
        self.configured = self._columns.size > 0
        self._fade = torch.zeros(engine.num_envs, self._columns.size, dtype=torch.float64, device=engine.device)
        owned: dict[str, list[tuple[int, int]]] = {}
        for owner, actuator in enumerate(self._columns.places):
            for edit in edits_of(task.model, "actuator_strength", actuator):
                owned.setdefault(edit.field, []).extend((element, owner) for element in edit.elements)
        self._fields = {name: _field(engine, name, pairs) for name, pairs in owned.items()}

    def before_reset(self, mask: Tensor) -> None:
        """Give actuators back what they have lost in mask [N], before the world's own values are written."""
        for field in self._fields.values():
            field.write(torch.where(mask[:, None], field.nominal, field.live[:, field.elements]))

    def reset(self, mask: Tensor, lam: Tensor) -> None:
        """Take the fade of new worlds lam [N, d] in mask [N]; their own values have been written."""
        rows = mask[:, None]
        self._fade = torch.where(rows, self._columns.of(lam), self._fade)
        for field in self._fields.values():
            field.fresh = torch.where(rows, field.live[:, field.elements], field.fresh)

    def apply(self) -> None:
        """Let the actuators have the force of this control step."""
        passed = self._environment.steps / self._environment.max_episode_steps
        left = 1.0 - self._fade * passed[:, None]
        for field in self._fields.values():
            field.write(field.fresh * left[:, field.owner])

    def state_dict(self) -> dict[str, Any]:
        return {"fade": self._fade, "fresh": {name: field.fresh for name, field in self._fields.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._fade = state["fade"].clone()
        for name, field in self._fields.items():
            field.fresh = state["fresh"][name].clone()


def _field(engine: Engine, name: str, pairs: list[tuple[int, int]]) -> _Field:
    device, live = engine.device, engine.field(name).view(engine.num_envs, -1)
    elements, owner = (torch.tensor(column, device=device) for column in zip(*pairs, strict=True))
    nominal = engine.nominal(name).to(device, live.dtype).flatten()[elements]
    return _Field(live, elements, owner, nominal, nominal.expand(engine.num_envs, -1).clone())
