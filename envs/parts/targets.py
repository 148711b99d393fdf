"""From actions to commands, for N environments: what the components of the contract say, and their state.

`simreal/deploy/targets.py` is the same in NumPy, for the robot; tests/parts/test_same_as_deployed.py compares them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from envs.common.kinematics import Kinematics, damped_least_squares
from envs.common.stateful import Stateful
from envs.engines.base import Engine
from envs.task import ActionComponent, Attached, Component
from envs.validation.drives import Drive, named_drives


@dataclass(frozen=True)
class _Place:
    """Where a component lies: `values` of the action [A], `sent` of the targets [S], `columns` of ctrl."""

    part: ActionComponent
    values: slice
    sent: slice
    drives: tuple[Drive, ...]
    seen: tuple[int, ...]  # columns of the policy's observation that show the joints; empty where none are asked
    inverse: Kinematics | None


class Targets(Stateful, Attached):
    """What is sent to a robot's actuators, action after action, in N environments.

    Two chains of it: what was sent for the actions that were executed, late and noisy as they may have been, and what
    the robot's controller means to have sent for the policy's own. Commands come from the first; observations show the
    second, as the controller knows no other.

    Args:
        parts: the components of the action, each with one actuator for each of its targets.
        observation: the policy's components, in order.
        engine: of the task.
    """

    _state = ("_sent", "_meant", "_base")

    def __init__(self, parts: Sequence[ActionComponent], observation: Sequence[Component], engine: Engine) -> None:
        self._engine, self._places = engine, _places(parts, observation, engine)
        dtype, device, model = engine.dtype, engine.device, engine.model
        tensor = lambda x: torch.tensor(x, dtype=dtype, device=device)  # noqa: E731
        self._scale, self._offset = (tensor([v for p in parts for v in getattr(p, key)]) for key in ("scale", "offset"))
        ends = [p.target_limits or ((-math.inf,) * p.sent_size, (math.inf,) * p.sent_size) for p in parts]
        self._low, self._high = (tensor([v for end in ends for v in end[side]]) for side in (0, 1))
        self._smoothing = tensor([p.smoothing for p in parts for _ in range(p.sent_size)])
        self._smooths = any(p.smoothing < 1.0 for p in parts)
        self._keeps = self._smooths or any(p.relative for p in parts)
        drives = [drive for place in self._places for drive in place.drives]
        units = [p.inverse.unit if p.inverse else p.unit for p in parts for _ in range(p.sent_size)]
        self._factor = tensor([d.per_ctrl(model, unit) for d, unit in zip(drives, units, strict=True)])
        self._columns = torch.tensor([drive.column for drive in drives], device=device)
        self._ctrl, self._qpos = engine.data("ctrl"), engine.data("qpos")
        self._joints = torch.tensor([int(model.jnt_qposadr[d.joint]) for d in drives], device=device)
        shape = engine.num_envs, len(drives)
        self._sent, self._meant, self._base = (torch.zeros(shape, dtype=dtype, device=device) for _ in range(3))
        seen = [c for place in self._places for c in place.seen or (0,) * place.part.sent_size]
        self._watched = torch.tensor(seen, device=device)  # [S]; of what no joint is asked of, any
        self._watches = any(place.seen for place in self._places)
        # Where an episode starts: at numbers, or where the joint is (NaN); speeds and forces from none.
        self._start = tensor([v for place in self._places for v in _start(place)])

    def begin(self, mask: Tensor) -> None:
        """Episodes begin in mask [N], in the state that was written: actuators hold what smoothing starts from."""
        rows = mask[:, None]
        start = torch.where(self._start.isnan(), self._qpos[:, self._joints], self._start)
        self._sent, self._meant, self._base = (
            torch.where(rows, start, values) for values in (self._sent, self._meant, self._base)
        )
        ctrl = self._ctrl[:, self._columns]
        self._ctrl[:, self._columns] = torch.where(rows, start / self._factor, ctrl)

    def decided(self, action: Tensor) -> None:
        """Take note of the policy's own action [N, A]."""
        self._meant = self._after(self._meant, action)

    def command(self, action: Tensor) -> Tensor:
        """`ctrl` [N, nu] for the action [N, A] that is executed; what no part drives is as it was."""
        self._sent = self._after(self._sent, action)
        command = self._ctrl.clone()
        command[:, self._columns] = self._sent / self._factor
        return command

    def shown(self, observation: Tensor) -> None:
        """Take note of where an observation [N, nobs] shows the joints."""
        if self._watches:
            self._base = observation[:, self._watched].to(self._base.dtype)

    def meant(self, name: str) -> Tensor:
        """What the controller has sent last [N, size] by the name of the component."""
        return self._meant[:, next(place.sent for place in self._places if place.part.name == name)]

    def _after(self, last: Tensor, action: Tensor) -> Tensor:
        """What is sent [N, S] after `last` [N, S] for actions [N, A]."""
        value = self._offset + self._scale * action.to(last.dtype)
        parts: list[Tensor] = []
        for place in self._places:
            asked, before = value[:, place.values], last[:, place.sent]
            base = before if place.part.relative == "target" else self._base[:, place.sent]
            if place.inverse is not None:
                assert place.part.inverse is not None
                jacobian = place.inverse.jacobian(base)[:, : place.part.size]
                asked = damped_least_squares(jacobian, asked, place.part.inverse.damping)
            parts.append(asked if place.part.relative is None else base + asked)
        target = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        target = torch.minimum(torch.maximum(target, self._low), self._high)
        if not self._smooths:
            return target
        return torch.where(self._smoothing == 1.0, target, last + self._smoothing * (target - last))


def _start(place: _Place) -> tuple[float, ...]:
    if isinstance(place.part.initial_target, tuple):
        return place.part.initial_target
    return tuple(math.nan if drive.follows == "position" else 0.0 for drive in place.drives)


def _places(parts: Sequence[ActionComponent], observation: Sequence[Component], engine: Engine) -> list[_Place]:
    places, value, sent = list[_Place](), 0, 0
    columns: dict[str, tuple[int, Component]] = {}
    for part in observation:
        columns[part.name] = (sum(p.size for _, p in columns.values()), part)
    for part in parts:
        drives, seen = named_drives(engine.model, part), tuple[int, ...]()
        assert drives is not None
        if part.relative not in (None, "target"):
            first, shown = columns[part.relative]
            seen = tuple(first + shown.joints.index(joint) for joint in part.joints)
        kinematics = None if part.inverse is None else Kinematics(part.inverse.chain, engine.dtype, engine.device)
        place = slice(value, value + part.size), slice(sent, sent + part.sent_size)
        places.append(_Place(part, *place, drives, seen, kinematics))
        value, sent = value + part.size, sent + part.sent_size
    return places
