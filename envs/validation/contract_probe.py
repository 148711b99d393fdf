"""Whether actions do what a task's contract says they do: compared with what reaches the actuators of a rehearsal.

Compared is where an actuator takes what the component speaks of: a position servo an angle, a motor a torque, a
velocity servo a speed. Elsewhere (torques that the task computes from targets, mocap bodies, units that nobody states)
only the order of the values can be told, and often not even that. Nothing is said where it is not certain.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, is_dataclass
from weakref import WeakKeyDictionary

import mujoco
import numpy as np
import torch
from torch import Tensor

from envs.common.errors import TaskError
from envs.common.messages import warn_once
from envs.parts.kinematics import Kinematics, damped_least_squares
from envs.task import ActionComponent, Attached, Task
from envs.validation.contract_model import problem
from envs.validation.contract_seen import check_seen
from envs.validation.contract_start import SAME, Start, equal, find_start, shown_positions
from envs.validation.drives import FACTORS, UNITS, Drive, drives_by_order, named_drives, sent_name, sent_unit
from envs.validation.rehearsal import AGAIN, USUAL, Rehearsal, rehearse

_PLAIN = (str, int, float, bool, tuple, list, dict, slice, type(None))
_OF_ENGINES = (Tensor, np.ndarray, torch.dtype, torch.device)  # what `on_attach` looks up, the same for all options
# Classes, and attributes with which they kept their contract.
_passed: WeakKeyDictionary[type[Task], set[str]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Sent:
    """What a rehearsal shows of an action component that does what it says.

    Attributes:
        limits: lowest and highest targets that have an effect, where MuJoCo limits what the contract does not.
        start: from where smoothing starts; None without smoothing, or where nothing explains it.
    """

    limits: tuple[tuple[float, ...], tuple[float, ...]] | None
    start: Start | None


def check_truth(task: Task) -> None:
    """Rehearse a task, unless one of the same class and attributes has been, and compare what it does and shows with
    its components. Raises TaskError, naming component and element, what the contract says and what is done."""
    options = _attributes(task)
    passed = _passed.setdefault(type(task), set())
    if options is None or options not in passed:
        look(task)
        if options is not None:
            passed.add(options)


def look(task: Task) -> dict[str, Sent]:
    """Rehearse a task and compare; what is found of the action components that can be compared, by name.

    Raises:
        TaskError: the task does not do what it says.
    """
    actions = [(part, _drives_of(task, part)) for part in task.action]
    observed = any(part.measured and (part.joints or part.bodies) for part in task.observation)
    if not observed and not any(drives for _, drives in actions):
        return {}
    rehearsal = rehearse(task)
    if rehearsal is None:
        return {}
    check_seen(task, rehearsal)
    found: dict[str, Sent] = {}
    start = 0
    for part, drives in actions:
        if drives is not None:
            sent = _Probe(task, part, drives, start, rehearsal).compare()
            if sent is not None:
                found[part.name] = sent
        start += part.size
    return found


def _attributes(task: Task) -> str | None:
    """All that tells a task from others of its class, as text; None where something may not show in text."""
    told: dict[str, str] = {}
    for name, value in vars(task).items():
        if isinstance(value, Attached):
            continue
        if isinstance(value, mujoco.MjModel):
            fields = (value.actuator_gainprm, value.actuator_biasprm, value.actuator_gear, value.actuator_ctrlrange)
            content = value.names + b"".join(field.tobytes() for field in fields)
            told[name] = hashlib.sha256(content).hexdigest()
        elif isinstance(value, _PLAIN) or is_dataclass(value):
            told[name] = repr(value)
        elif name not in ("engine", "rng") and not isinstance(value, _OF_ENGINES):
            return None
    return repr(sorted(told.items()))


def _drives_of(task: Task, part: ActionComponent) -> tuple[Drive, ...] | None:
    if part.afterwards or "ctrl" not in task.command_fields:
        return None
    return named_drives(task.model, part) or drives_by_order(task, part)


@dataclass(frozen=True)
class _Fit:
    """sent = scale * a[value] + offset, smoothed: what explains an element's commands exactly."""

    value: int  # of the action
    scale: float
    offset: float
    smoothing: float


class _Probe:
    """One action component beside what its actuators were told. Arrays are [E, T, N, ...]: episodes, steps, rows."""

    def __init__(
        self, task: Task, part: ActionComponent, drives: Sequence[Drive], start: int, rehearsal: Rehearsal
    ) -> None:
        self.task, self.part, self.drives, self.start = task, part, drives, start
        self.stated = named_drives(task.model, part) is not None
        factors = [drive.per_ctrl(task.model, sent_unit(part)) for drive in drives]
        self.comparable = all(factor is not None for factor in factors)
        factor = np.array([1.0 if f is None else f for f in factors])
        columns, model = [d.column for d in drives], task.model
        self.action, self.first = rehearsal.action, rehearsal.seen["policy"][:, 0]  # first: [E, N, nobs]
        self.sent, self.held = rehearsal.ctrl[..., columns] * factor, rehearsal.held[..., columns] * factor

        def coordinates(values: np.ndarray, addresses: np.ndarray) -> np.ndarray:
            """Of the joints that are driven, before each step; 0 for what drives none."""
            of_joints = [0.0 * values[:, :-1, :, 0] if d.joint is None else values[:, :-1, :, addresses[d.joint]]
                         for d in drives]  # fmt: skip
            return np.stack(of_joints, axis=-1)

        self.joint = coordinates(rehearsal.qpos, model.jnt_qposadr)
        self.speed = coordinates(rehearsal.qvel, model.jnt_dofadr)
        clips = [drive.clips(model) for drive in drives]
        self.clips = np.array([  # [2, size]
            (-np.inf, np.inf) if ends is None else sorted(end * f for end in ends)
            for ends, f in zip(clips, factor, strict=True)
        ]).T  # fmt: skip
        limits = part.target_limits or ((-np.inf,) * part.sent_size, (np.inf,) * part.sent_size)
        self.limits = np.array(limits, dtype=np.float64)
        self.scale, self.offset = np.array(part.scale), np.array(part.offset)
        # What was sent last, and what targets are added to; nobody knows the former before the first step.
        self.last = np.concatenate((np.full_like(self.sent[:, :1], np.nan), self.sent[:, :-1]), axis=1)
        self.base = np.zeros(self.sent.shape)
        if part.relative == "target":
            self.base = self.last
        elif part.relative is not None:
            shown, where = shown_positions(task, part, part.relative, "relative"), task.slices()[part.relative]
            self.base = rehearsal.seen["policy"][:, :-1, :, where][..., list(shown.index)]
        self.target = self._target(self.action, self.base)

    def _target(self, action: np.ndarray, base: np.ndarray) -> np.ndarray:
        """Targets [..., N, sent] of the whole action [..., N, A], added to `base` [..., N, sent]."""
        asked = self.offset + self.scale * action[..., self.start : self.start + self.part.size]
        if self.part.inverse is not None:
            q, wanted = (torch.from_numpy(v.reshape(-1, v.shape[-1]).copy()) for v in (base, asked))
            jacobian = Kinematics(self.part.inverse.chain, q.dtype, q.device).jacobian(q)[:, : self.part.size]
            asked = damped_least_squares(jacobian, wanted, self.part.inverse.damping).numpy().reshape(base.shape)
        return np.clip(base + asked, *self.limits)

    def compare(self) -> Sent | None:
        """What is sent, if it is what the contract says; None if that cannot be told. Raises TaskError if not."""
        if not self.comparable:
            self._check_order()
            self._check_quantity()
            return None
        s = self.part.smoothing
        expected = self.target if s == 1.0 else self.last + s * (self.target - self.last)
        # What MuJoCo limits anyway is the same whether a task limits it first or not.
        off = np.abs(np.clip(expected, *self.clips) - np.clip(self.sent, *self.clips))
        wrong = off > SAME * (1.0 + np.abs(self.sent) + self._reach())  # a first step that nobody knows is not
        if wrong.any():
            self._explain(wrong, expected)
            return None
        return Sent(self._effective_limits(), self._begin())

    def _reach(self) -> np.ndarray | float:
        """How far targets move, for tolerances."""
        return np.abs(self.scale) if self.part.inverse is None else 1.0

    def _begin(self) -> Start | None:
        """What explains the first commands; None where nothing does, or where none is looked back at."""
        s, part = self.part.smoothing, self.part
        if s == 1.0 and part.relative != "target":
            return None
        action, sent = self.action[:, 0], self.sent[:, 0]
        if part.relative != "target":
            values = (sent - s * self.target[:, 0]) / (1.0 - s)
        else:  # what `reset` left in ctrl, if that is it
            moved = self.held + s * (self._target(action, self.held) - self.held)
            asked = self.offset + self.scale * action[..., self.start : self.start + part.size]
            if not equal(moved, sent) and part.inverse is not None:
                return None
            values = self.held if equal(moved, sent) else sent - s * asked
        for exact in (np.broadcast_to(self.offset, values.shape) if part.inverse is None else self.held, self.held):
            # without the rounding of float32
            values = np.where(np.abs(values - exact) <= SAME * (1.0 + np.abs(exact)), exact, values)
        return find_start(
            self.task, part, values.reshape(-1, part.sent_size), self.first.reshape(-1, self.first.shape[-1])
        )

    def _effective_limits(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        if self.part.target_limits is not None or self.part.smoothing < 1.0 or self.part.relative is not None:
            return self.part.target_limits
        reach = np.abs(self.scale)
        if ((self.offset - reach >= self.clips[0] - 1e-9) & (self.offset + reach <= self.clips[1] + 1e-9)).all():
            return None
        return tuple(self.clips[0].tolist()), tuple(self.clips[1].tolist())

    def _explain(self, wrong: np.ndarray, expected: np.ndarray) -> None:
        """Say how what is sent differs. What depends on the state may be meant so: a warning; all else is an error."""
        element = int(np.argwhere(wrong)[0, -1])
        if self.part.relative is not None:
            raise TaskError(f"task: {self.task.id}: {self._says_relative(element, wrong, expected)}")
        fits = [self._fit(i) for i in range(self.part.size)]
        if not self.stated:  # which actuator belongs to which value is a guess
            fit = fits[element]
            if fit is not None and fit.value == self.start + element and fit.smoothing > 0.0:
                self._warn(self._says(element, fit))
            return
        if fits[element] is None and any(fits[i] is not None for i in np.flatnonzero(wrong.any(axis=(0, 1, 2)))):
            element = next(int(i) for i in np.flatnonzero(wrong.any(axis=(0, 1, 2))) if fits[i] is not None)
        fit = fits[element]
        if fit is not None and fit.smoothing > 0.0:
            raise TaskError(f"task: {self.task.id}: {self._says(element, fit)}")
        if fit is not None:
            self._warn(f"{self._named(element)}: what is sent moves on from the command before by the action")
        elif (kept := self._from_joint(element)) is not None and abs(kept - 1.0) > 1e-6:
            raise TaskError(
                f"task: {self.task.id}: {self._named(element)}: the contract says {self._stated(element)}, the task "
                f"sends what goes {1.0 - kept:.4g} of the way from the joint's present position, not from the command "
                f"before; say in `afterwards` if that is meant"
            )
        elif kept is not None:
            self._warn(f"{self._named(element)}: what is sent is the target added to the joint's present position")
        elif self._differs_for_one_action(element):
            self._warn(f"{self._named(element)}: what is sent depends on more than the action, and is not the target")
        else:
            said = self._says_otherwise(element, wrong, expected)
            raise TaskError(f"task: {self.task.id}: {said}; say in `afterwards` what else it does with the target")

    def _says_otherwise(self, i: int, wrong: np.ndarray, expected: np.ndarray) -> str:
        """One line on an element whose commands are not explained, with an example."""
        e, t, n, _ = np.argwhere(wrong & (np.arange(wrong.shape[-1]) == i))[0]
        values = self.action[e, t, n, self.start : self.start + self.part.size]
        shown = f"{values[i]:.3g}" if self.part.inverse is None else str(values.round(3).tolist())
        stated = f" ({self._stated(i)})" if self.part.inverse is None else ""
        return (
            f"{self._named(i)}: for a = {shown} the contract says {expected[e, t, n, i]:.4g} {sent_unit(self.part)}"
            f"{stated}, the task sends {self.sent[e, t, n, i]:.4g}"
        )

    def _says_relative(self, i: int, wrong: np.ndarray, expected: np.ndarray) -> str:
        """One line on an element whose commands are added to something, or should be."""
        onto = "the last command" if self.part.relative == "target" else f"what {self.part.relative!r} shows"
        if self.part.inverse is None:
            own, at = self.start + i, USUAL
            moved = ((self.sent - self.base) / (self.part.smoothing if self.part.relative == "target" else 1.0))[:, at]
            for value in [own, *(j for j in range(self.action.shape[-1]) if j != own)]:
                action = self.action[:, at, :, value].ravel()
                found = _exactly(moved[..., i].ravel(), (action, np.ones_like(action)))
                if found is not None and abs(found[0]) > 1e-9:
                    sends = _formula(float(found[0]), self._value(value), float(found[1]), 1.0, None)
                    return f"{self._named(i)}: the contract says {self._stated(i)}, the task adds {sends} to {onto}"
        return f"{self._says_otherwise(i, wrong, expected)}; targets are said to be added to {onto}"

    def _warn(self, message: str) -> None:
        advice = "`afterwards` of the component can say so, and a robot has to do the same"
        warn_once(f"{self.task.id}: {message}; {advice}")

    def _fit(self, i: int) -> _Fit | None:
        """The value of the action, its own if possible, that explains an element's commands."""
        own = self.start + i
        for value in [own, *(j for j in range(self.action.shape[-1]) if j != own)]:
            sent, last = self.sent[:, USUAL, :, i].ravel(), self.sent[:, [t - 1 for t in USUAL], :, i].ravel()
            action = self.action[:, USUAL, :, value].ravel()
            found = _exactly(sent, (action, np.ones_like(action), last))
            if found is None:
                found = _exactly(sent, (action, np.ones_like(action)))
                found = None if found is None else np.append(found, 0.0)
            if found is None or (value != own and abs(found[0]) < 1e-9):
                continue
            a, b, kept = found.tolist()
            share = 1.0 - kept
            if abs(share) < 1e-6:
                return _Fit(value, a, b, 0.0)
            return _Fit(value, a / share, b / share, share)
        return None

    def _says(self, i: int, fit: _Fit) -> str:
        """One line on an element whose commands are explained."""
        own, scale, offset = self.start + i, self.scale[i], self.offset[i]
        kinds = ["another order"] if fit.value != own else []
        if not np.isclose(fit.scale, scale, rtol=1e-4, atol=1e-9):
            times = f" ({fit.scale / scale:.4g} times)" if scale and fit.value == own else ""
            kinds.append(f"another scale{times}")
        factor = FACTORS.get(self.part.unit)
        if scale and factor is not None and np.isclose(fit.scale / scale, factor, rtol=1e-4):
            kinds = [f"the numbers are not in {self.part.unit}"]
        elif not np.isclose(fit.offset, offset, rtol=1e-4, atol=1e-5 * (1.0 + abs(scale))):
            kinds.append("another offset")
        if not np.isclose(fit.smoothing, self.part.smoothing, rtol=1e-4):
            kinds.append("another smoothing")
        sends = _formula(fit.scale, self._value(fit.value), fit.offset, fit.smoothing, None)
        if not kinds:
            kinds, reached = ["other limits"], self.sent[..., i]
            sends += f" between {reached.min():.4g} and {reached.max():.4g}"
        return f"{self._named(i)}: the contract says {self._stated(i)}, the task sends {sends}: {', '.join(kinds)}"

    def _stated(self, i: int) -> str:
        limits = None if self.part.target_limits is None else (self.limits[0, i], self.limits[1, i])
        value = self._value(self.start + i)
        said = _formula(self.scale[i], value, self.offset[i], self.part.smoothing, limits)
        return said if self.part.relative is None else f"{said}, added to {self.part.relative}"

    def _named(self, i: int) -> str:
        element = sent_name(self.part, i)
        return f"action {self.part.name!r}: element {element!r} (actuator {self.drives[i].name!r})"

    def _value(self, index: int) -> str:
        """A value of the whole action, as a[...]."""
        for part in self.task.action:
            if index < part.size:
                place = part.elements[index] if part.elements else str(index)
                return f"a[{place}]" if part is self.part else f"{part.name}[{place}]"
            index -= part.size
        raise IndexError(index)

    def _from_joint(self, i: int) -> float | None:
        """The share of its joint's present position that, with its value of the action, explains an element's
        commands; 1 where the target is added to it."""
        action = self.action[:, USUAL, :, self.start + i].ravel()
        joint = self.joint[:, USUAL, :, i].ravel()
        found = _exactly(self.sent[:, USUAL, :, i].ravel(), (action, np.ones_like(action), joint))
        return None if found is None or abs(found[2]) < 1e-6 else float(found[2])

    def _differs_for_one_action(self, i: int) -> bool:
        """Whether one and the same action leads to different commands."""
        s, (first, second) = self.part.smoothing, AGAIN
        moved = [self.sent[:, t, :, i] - (1.0 - s) * self.sent[:, t - 1, :, i] for t in (first, second)]
        both = np.stack(moved) / s
        return float(np.ptp(both)) > SAME * (1.0 + float(np.abs(both).max()))

    def _check_order(self) -> None:
        """Whatever is sent: each element's actuator follows that element's value, if it follows a single one at all."""
        if not self.stated or self.part.unit == "unknown" or self.part.size < 2 or self.part.inverse is not None:
            return
        followed = [self._follows(i) for i in range(self.part.size)]
        own = list(range(self.start, self.start + self.part.size))
        if None in followed or followed == own or sorted(f for f in followed if f is not None) != own:
            return
        i = next(i for i, (f, o) in enumerate(zip(followed, own, strict=True)) if f != o)
        value = followed[i]
        assert value is not None
        raise problem(self.task, self._named(i), f"expected it to follow {self._value(own[i])}",
                      f"{self._value(value)}: the task sends another order")  # fmt: skip

    def _check_quantity(self) -> None:
        """Raise TaskError where actuators of another quantity get just the numbers that the contract states."""
        if not self.stated or self.part.unit not in UNITS or self.part.inverse is not None or self.base.any():
            return
        units = [next(unit for unit, kind in UNITS.items() if kind == (drive.follows, bool(drive.turns)))
                 if drive.follows else None for drive in self.drives]  # fmt: skip
        factors = [None if unit is None else drive.per_ctrl(self.task.model, unit)
                   for drive, unit in zip(self.drives, units, strict=True)]  # fmt: skip
        s, ctrl = self.part.smoothing, self.sent  # without factors, as it is not comparable
        if any(factor is None for factor in factors):
            return
        sent = ctrl * np.array(factors, dtype=np.float64)
        last = np.concatenate((sent[:, :1], sent[:, :-1]), axis=1)
        expected = self.target if s == 1.0 else last + s * (self.target - last)
        if equal(expected[:, 1:], sent[:, 1:]):
            drive, unit = self.drives[0], units[0]
            expected = f"expected {unit!r}, as actuator {drive.name!r} takes just these numbers so"
            raise problem(self.task, f"action {self.part.name!r}: unit", expected, repr(self.part.unit))

    def _follows(self, i: int) -> int | None:
        """The value of the action that, with the joint's state and the last command, explains an element's commands."""
        own = self.start + i
        at, before = np.array(USUAL), np.array(USUAL) - 1
        sent, last = self.sent[:, at, :, i].ravel(), self.sent[:, before, :, i].ravel()
        state = [self.joint[:, at, :, i].ravel(), self.speed[:, at, :, i].ravel(), last, np.ones_like(last)]
        for value in [own, *(j for j in range(self.action.shape[-1]) if j != own)]:
            action = self.action[:, at, :, value].ravel()
            for rest in (state, state[2:], state[3:]):
                found = _exactly(sent, (action, *rest))
                if found is not None and abs(found[0]) > 1e-6 * (1.0 + np.abs(sent).max()):
                    return value
        return None


def _exactly(values: np.ndarray, columns: Sequence[np.ndarray]) -> np.ndarray | None:
    """Factors of columns that add up to values, if they do."""
    matrix = np.stack(columns, axis=1)
    if np.linalg.matrix_rank(matrix) < matrix.shape[1] or len(np.unique(matrix.round(9), axis=0)) <= len(columns) + 1:
        return None
    factors = np.linalg.lstsq(matrix, values, rcond=None)[0]
    off = np.abs(matrix @ factors - values).max()
    return factors if off <= SAME * max(float(np.ptp(values)), 1e-3 * float(np.abs(values).max()), 1e-12) else None


def _formula(
    scale: float, value: str, offset: float, smoothing: float, limits: tuple[float, float] | None
) -> str:  # fmt: skip
    text = f"{scale:.4g} * {value}"
    if abs(offset) > 1e-6 * (1.0 + abs(scale)):
        text += f" {'+' if offset > 0 else '-'} {abs(offset):.4g}"
    if limits is not None:
        text += f" within {limits[0]:.4g} to {limits[1]:.4g}"
    return text + (f", smoothed by {smoothing:.4g}" if abs(smoothing - 1.0) > 1e-6 else "")
