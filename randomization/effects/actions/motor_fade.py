"""Motors that lose force: slowly, as warm motors and empty batteries do, or altogether.

`actuator_fade` multiplies the force of an actuator, and where it saturates, by 1 - fade * t / T, where T is the longest
episode: full at the start, and less by the fade at the time limit. `actuator_failure` is the probability that it is 0.
A limit that several actuators share (see `randomization.physics.force_limits`) is multiplied by the mean of theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from envs.engines.base import Engine
from randomization.effects.context import EffectContext
from randomization.effects.effect import Effect
from randomization.physics.model_edits import actuator_strength
from randomization.targets.objects import outputs_of


@dataclass
class _Field:
    """The values of one model field that make up the force of some actuators."""

    name: str
    live: Tensor  # [N, size] view of the engine's field
    places: list[int]  # m flat indices
    elements: Tensor  # [m] the same
    owner: Tensor  # [owners, m] actuators that own each value; the number of actuators where it has fewer owners
    sharers: Tensor  # [m] how many actuators each belongs to, these or others
    nominal: Tensor  # [m]

    def left(self, left: Tensor) -> Tensor:
        """What is left of each value [N, m] where left [N, actuators] is left of each actuator."""
        padded = torch.cat((left, torch.ones_like(left[:, :1])), dim=1)
        return (padded[:, self.owner].sum(dim=1) + (self.sharers - len(self.owner))) / self.sharers

    def read(self) -> Tensor:
        return self.live[:, self.elements]

    def write(self, values: Tensor) -> None:
        self.live[:, self.elements] = values.to(self.live.dtype)


def _fields(context: EffectContext, actuators: Sequence[int]) -> list[_Field]:
    """All values that make up the force of actuators, by field. What has no gains of a motor is left without gear."""
    owned: dict[str, dict[int, tuple[list[int], int]]] = {}  # field: element: owners, number of sharers
    for owner, actuator in enumerate(actuators):
        edits = [(e.field, e.elements, e.sharers) for e in actuator_strength(context.task.model, actuator)]
        outputs, _ = outputs_of(context.task.model, [actuator])
        gear = [("actuator_gear", range(6 * output, 6 * output + 6), 1) for output in outputs]
        for name, elements, sharers in edits or gear:
            for element in elements:
                owners, _ = owned.setdefault(name, {}).setdefault(element, ([], sharers))
                owners.append(owner)
    return [_field(context.engine, name, owners, len(actuators)) for name, owners in owned.items()]


def _field(engine: Engine, name: str, owned: dict[int, tuple[list[int], int]], nobody: int) -> _Field:
    device, live = engine.device, engine.field(name).view(engine.num_envs, -1)
    most = max(len(owners) for owners, _ in owned.values())
    padded = [owners + [nobody] * (most - len(owners)) for owners, _ in owned.values()]
    elements, owner = torch.tensor(list(owned), device=device), torch.tensor(padded, device=device).T
    sharers = torch.tensor([n for _, n in owned.values()], dtype=torch.float64, device=device)
    nominal = engine.nominal(name).to(device, live.dtype).flatten()[elements]
    return _Field(name, live, list(owned), elements, owner, sharers, nominal)


class LimpActuators(Effect):
    """Applies `actuator_failure`: an actuator exerts no force on anything. Its rotor and its friction stay."""

    def __init__(self, context: EffectContext) -> None:
        self._index, self._rng = context.index("actuator_failure"), context.rng
        self._fields = _fields(context, self._index.places)

    def before_reset(self, mask: Tensor) -> None:
        """Give actuators back what they have lost in mask [N]."""
        for field in self._fields:
            field.write(torch.where(mask[:, None], field.nominal, field.read()))

    def reset(self, mask: Tensor, lam: Tensor) -> None:
        """Draw which actuators fail in the worlds lam [N, d] of mask [N], whose own values have been written."""
        fails = self._rng.episode_uniform("actuator_failure", self._index.size) < self._index.of(lam)
        left = torch.where(fails & mask[:, None], 0.0, 1.0)
        for field in self._fields:
            field.write(field.read() * field.left(left))

    def held_fields(self) -> set[str]:
        """What an actuator that fails has lost."""
        return {field.name for field in self._fields}


class MotorFade(Effect):
    """Applies `actuator_fade`."""

    order = 30
    _state = ("_fade",)

    def __init__(self, context: EffectContext) -> None:
        self._environment, self._index = context.environment, context.index("actuator_fade")
        self._fade = context.zeros(self._index.size)
        self._fields = _fields(context, self._index.places)
        for field in self._fields:
            context.model_values(field.name, field.places)

    def reset(self, mask: Tensor, lam: Tensor) -> None:
        """Take the fade of new worlds lam [N, d] in mask [N]."""
        self._fade = torch.where(mask[:, None], self._index.of(lam), self._fade)

    def change(self, mask: Tensor, lam: Tensor) -> None:
        """Take another fade."""
        self.reset(mask, lam)

    def on_step(self) -> None:
        """Let the actuators have the force of this control step."""
        passed = self._environment.steps / self._environment.max_episode_steps
        left = 1.0 - self._fade * passed[:, None]
        for field in self._fields:
            field.write(field.read() * field.left(left))
