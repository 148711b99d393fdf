"""From actions to commands, for N environments: what the components of the contract say, and their state.

`simreal/deploy/targets.py` is the same in NumPy, for the robot; tests/parts/test_same_as_deployed.py compares them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import torch
from torch import Tensor

from envs.common.stateful import Stateful
from envs.engines.base import Engine
from envs.parts.kinematics import Kinematics, damped_least_squares
from envs.task import ActionComponent, Attached, Component, Fixed
from envs.validation.drives import Drive, named_drives, sent_unit


@dataclass(frozen=True)
class _Place:
    """Where a component lies: `values` of the action [A], `sent` of the targets [S], `columns` of ctrl."""

    part: ActionComponent
    values: slice
    sent: slice
    drives: tuple[Drive, ...]
    seen: tuple[int, ...]  # columns of the policy's observation that show the joints; empty where none are asked
    inverse: Kinematics | None


class _Rules(Fixed):
    """What is sent for an action, in numbers [A] of values and [S] of targets.

    Attributes:
        places: of the components.
        columns, factor: of ctrl, and how much of the contract's unit one unit of it is.
        watched: columns of the observation that targets are added to; None where none are.
        start: of an episode's commands; NaN where it is where the joint is, whose coordinates are at `joints`.
    """

    def __init__(
        self, parts: Sequence[ActionComponent], observation: Sequence[Component], engine: Engine, model: mujoco.MjModel
    ) -> None:
        self.places = _places(parts, observation, engine, model)
        dtype, device = engine.dtype, engine.device
        tensor = lambda x: torch.tensor(x, dtype=dtype, device=device)  # noqa: E731
        self.scale, self.offset = (tensor([v for p in parts for v in getattr(p, key)]) for key in ("scale", "offset"))
        ends = [p.target_limits or ((-math.inf,) * p.sent_size, (math.inf,) * p.sent_size) for p in parts]
        self.low, self.high = (tensor([v for end in ends for v in end[side]]) for side in (0, 1))
        self.smoothing = tensor([p.smoothing for p in parts for _ in range(p.sent_size)])
        self.smooths = any(p.smoothing < 1.0 for p in parts)
        drives = [drive for place in self.places for drive in place.drives]
        units = [sent_unit(p) for p in parts for _ in range(p.sent_size)]
        self.factor = tensor([d.per_ctrl(model, unit) for d, unit in zip(drives, units, strict=True)])
        self.columns = torch.tensor([drive.column for drive in drives], device=device)
        self.joints = torch.tensor([int(model.jnt_qposadr[d.joint]) for d in drives], device=device)
        seen = [c for place in self.places for c in place.seen or (0,) * place.part.sent_size]  # or any
        self.watched = torch.tensor(seen, device=device) if any(place.seen for place in self.places) else None
        self.start = tensor([v for place in self.places for v in _start(place)])

    def after(self, last: Tensor, shown: Tensor, action: Tensor) -> Tensor:
        """What is sent [N, S] after `last` [N, S] for actions [N, A]; `shown` [N, S] is what is seen of the joints."""
        value = self.offset + self.scale * action.to(last.dtype)
        parts: list[Tensor] = []
        for place in self.places:
            asked, base = value[:, place.values], (last if place.part.relative == "target" else shown)[:, place.sent]
            if place.inverse is not None:
                assert place.part.inverse is not None
                jacobian = place.inverse.jacobian(base)[:, : place.part.size]
                asked = damped_least_squares(jacobian, asked, place.part.inverse.damping)
            parts.append(asked if place.part.relative is None else base + asked)
        target = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        target = torch.minimum(torch.maximum(target, self.low), self.high)
        if not self.smooths:
            return target
        return torch.where(self.smoothing == 1.0, target, last + self.smoothing * (target - last))


class Targets(Stateful, Attached):
    """What is sent to a robot's actuators, action after action, in N environments.

    Two chains of it: what was sent for the actions that were executed, late and noisy as they may have been, and what
    the robot's controller means to have sent for the policy's own. Commands come from the first; observations show the
    second, as the controller knows no other.

    Args:
        parts: the components of the action, each with one actuator for each of its targets.
        observation: the policy's components, in order.
        engine: of the task.
        model: of the task; the engine shows its joints, also where its own model has more of them (gears with play).
    """

    _state = ("_sent", "_meant", "_shown")

    def __init__(
        self, parts: Sequence[ActionComponent], observation: Sequence[Component], engine: Engine, model: mujoco.MjModel
    ) -> None:
        self.rules = _Rules(parts, observation, engine, model)
        self._ctrl, self._qpos = engine.data("ctrl"), engine.data("qpos")
        shape = engine.num_envs, len(self.rules.columns)
        self._sent, self._meant, self._shown = (
            torch.zeros(shape, dtype=engine.dtype, device=engine.device) for _ in range(3)
        )

    def begin(self, mask: Tensor) -> None:
        """Episodes begin in mask [N], in the state that was written: actuators hold what smoothing starts from."""
        rows, rules = mask[:, None], self.rules
        start = torch.where(rules.start.isnan(), self._qpos[:, rules.joints], rules.start)
        self._sent, self._meant, self._shown = (
            torch.where(rows, start, values) for values in (self._sent, self._meant, self._shown)
        )
        ctrl = self._ctrl[:, rules.columns]
        self._ctrl[:, rules.columns] = torch.where(rows, start / rules.factor, ctrl)

    def decided(self, action: Tensor) -> None:
        """Take note of the policy's own action [N, A]."""
        self._meant = self.rules.after(self._meant, self._shown, action)

    def command(self, action: Tensor) -> Tensor:
        """`ctrl` [N, nu] for the action [N, A] that is executed; what no part drives is as it was."""
        self._sent = self.rules.after(self._sent, self._shown, action)
        command = self._ctrl.clone()
        command[:, self.rules.columns] = self._sent / self.rules.factor
        return command

    def shown(self, observation: Tensor) -> None:
        """Take note of where an observation [N, nobs] shows the joints."""
        if self.rules.watched is not None:
            self._shown = observation[:, self.rules.watched].to(self._shown.dtype)

    def meant(self, name: str) -> Tensor:
        """What the controller has sent last [N, size] by the name of the component."""
        return self._meant[:, next(place.sent for place in self.rules.places if place.part.name == name)]


def _start(place: _Place) -> tuple[float, ...]:
    if isinstance(place.part.initial_target, tuple):
        return place.part.initial_target
    return tuple(math.nan if drive.follows == "position" else 0.0 for drive in place.drives)


def _places(
    parts: Sequence[ActionComponent], observation: Sequence[Component], engine: Engine, model: mujoco.MjModel
) -> list[_Place]:
    places, value, sent = list[_Place](), 0, 0
    columns: dict[str, tuple[int, Component]] = {}
    for part in observation:
        columns[part.name] = (sum(p.size for _, p in columns.values()), part)
    for part in parts:
        drives, seen = named_drives(model, part), tuple[int, ...]()
        assert drives is not None
        if part.relative not in (None, "target"):
            first, shown = columns[part.relative]
            seen = tuple(first + shown.joints.index(joint) for joint in part.joints)
        kinematics = None if part.inverse is None else Kinematics(part.inverse.chain, engine.dtype, engine.device)
        place = slice(value, value + part.size), slice(sent, sent + part.sent_size)
        places.append(_Place(part, *place, drives, seen, kinematics))
        value, sent = value + part.size, sent + part.sent_size
    return places
