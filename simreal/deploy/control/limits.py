"""What may be sent and what may be measured: a user's limits beside those of the contract.

Part of `simreal.deploy`, which imports nothing else of simreal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..bundle_reader import ActionPart, Layout
from ..files import one_line, unknown_name
from ..targets import Numbers
from .events import Fault

Ranges = Mapping[str, tuple[ArrayLike, ArrayLike]]
PERIODS = (
    3.0  # after which a measurement is stale, and a controller that did nothing has stalled, unless said otherwise
)
_SLACK = 0.1  # of the span of a component's stated limits: noise leads beyond them
_START_SLACK = 0.05  # of the span of the positions: a robot that lies on its stops may start
_SPEED = {"rad": 1.0, "m": 0.2, "deg": 57.3, "mm": 200.0}  # of the soft start, per s


@dataclass(frozen=True)
class Limits:
    """What a robot may be told and what it may show, beyond the contract; the narrower of the two holds.

    A value is one number for all values of a component, or one for each; a range is a pair of such.

    Attributes:
        position: action component -> lowest and highest of what is sent, in its unit. Without it, the contract's
            `target_limits`, and what actions in [-1, 1] can lead to.
        rate: action component -> largest change of what is sent, per s.
        effort: action component -> largest torque (force) of stiffness * (target - position) - damping * velocity,
            with the contract's gains and the positions and velocities that the robot shows.
        sensors: observation component -> lowest and highest values that are physically possible. Without it, the
            contract's `limits`, widened by a tenth of their span.
        start: action component -> where its joints have to be for a start. Without it, `position`, widened by 5 %.
        start_s: least time that the soft start takes, s.
        start_speed: action component -> fastest change of what is sent during the soft start, per s. Without it,
            1 rad/s and 0.2 m/s.
        deadline_s: age of a measurement that stops the robot, s, for all or by observation component. Without it, three
            control periods beyond the largest delay of that sensor in training.
        stall_s: time that the controller may lose before it stops the robot, s. Without it, three control periods.
        wait_s: how long a start waits for complete and fresh measurements, s.
        stop_out_of_training: whether measurements outside the trained range stop the robot; else they are told only.
    """

    position: Ranges = field(default_factory=dict)
    rate: Mapping[str, ArrayLike] = field(default_factory=dict)
    effort: Mapping[str, ArrayLike] = field(default_factory=dict)
    sensors: Ranges = field(default_factory=dict)
    start: Ranges = field(default_factory=dict)
    start_s: float = 2.0
    start_speed: Mapping[str, ArrayLike] = field(default_factory=dict)
    deadline_s: float | Mapping[str, float] | None = None
    stall_s: float | None = None
    wait_s: float = 5.0
    stop_out_of_training: bool = False

    def __post_init__(self) -> None:
        for name in ("start_s", "wait_s", "stall_s"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, (int, float)) and 0.0 <= value < np.inf):
                raise ValueError(f"Limits.{name}: expected a time in s, got {value!r}")


@dataclass(frozen=True)
class Joints:
    """What a contract says of the joints of an action component.

    Attributes:
        names: of the joints, one for each value that is sent; empty where the contract does not say.
        unit: of what is sent.
        position: whether it is a position that the joints are to take; else a torque, a velocity, a displacement.
        stiffness, damping, effort: [sent] the controller's gains and its largest torque; None where not stated.
    """

    names: tuple[str, ...]
    unit: str
    position: bool
    stiffness: Numbers | None
    damping: Numbers | None
    effort: Numbers | None


def joints_of(entry: Mapping[str, Any], part: ActionPart) -> Joints:
    """The joints of one action component of a contract."""
    size, inverse = len(part.low), entry.get("inverse")
    names = [link["joint"] for link in inverse["links"]] if inverse else entry.get("joints") or []
    # Gains are per rad and m, whatever the unit.
    gains = [_gain(entry.get(key) if part.unit in ("rad", "m") else None, size)
             for key in ("stiffness", "damping", "effort_limit")]  # fmt: skip
    angles = part.unit in _SPEED and not entry.get("afterwards")
    fits = len(names) == size
    return Joints(tuple(names) if fits else (), part.unit, angles and (fits or gains[0] is not None), *gains)


def _gain(values: Any, size: int) -> Numbers | None:
    if not isinstance(values, list) or len(values) not in (1, size) or any(v is None for v in values):
        return None
    return np.broadcast_to(np.array(values, dtype=np.float64), (size,)).copy()


class Bounds:
    """The limits of everything that is sent, as one flat vector [S].

    Args:
        limits: the user's.
        layout: of the policy.
        joints: of each action component.

    Attributes:
        start_low, start_high: [S] where joints have to be for a start.
        speed: [S] of the soft start, per s.
        needs_measured: action components whose effort is limited, which needs positions and velocities.
        stiffness, damping: [S] gains, 1 and 0 where the contract states none.
        effort: [S] of `Limits.effort`, infinite where it says nothing.

    Raises:
        ValueError: a limit names an unknown component, has another size, or leaves nothing.
    """

    def __init__(self, limits: Limits, layout: Layout, joints: Mapping[str, Joints]) -> None:
        if not isinstance(limits, Limits):
            raise ValueError(f"limits: expected simreal.deploy.Limits, got {type(limits).__name__}")
        parts = layout.action
        self._parts, size = parts, parts[-1].sent.stop
        self.low, self.high = np.full(size, -np.inf), np.full(size, np.inf)
        self.start_low, self.start_high = self.low.copy(), self.high.copy()
        self.rate, self.effort, self.speed = (np.full(size, np.inf) for _ in range(3))
        self.stiffness, self.damping = np.ones(size), np.zeros(size)
        sizes = {part.name: len(part.low) for part in parts}
        for key in ("position", "rate", "effort", "start", "start_speed"):
            _known(f"Limits.{key}", getattr(limits, key), list(sizes))
        for part in parts:
            self._set(part, limits, joints[part.name])
        self.needs_measured = [part.name for part in parts if np.isfinite(self.effort[part.sent]).any()]
        self._plain = not np.isfinite(self.rate).any() and not self.needs_measured

    def _set(self, part: ActionPart, limits: Limits, joints: Joints) -> None:
        size, name, where = len(part.low), part.name, part.sent
        low, high = _stated(part)
        if name in limits.position:
            given = _range(f"Limits.position of {name!r}", limits.position[name], size)
            low, high = np.maximum(low, given[0]), np.minimum(high, given[1])
            if (low > high).any():
                raise ValueError(f"Limits.position of {name!r}: nothing is left of what the contract allows")
        self.low[where], self.high[where] = low, high
        slack = np.where(np.isfinite(high - low), _START_SLACK * (high - low), 0.0)
        start = low - slack, high + slack
        if name in limits.start:
            start = _range(f"Limits.start of {name!r}", limits.start[name], size)
        self.start_low[where], self.start_high[where] = start if joints.position else (low, high)
        if joints.position:
            self.speed[where] = _SPEED[joints.unit]
        for key, to in (("rate", self.rate), ("start_speed", self.speed), ("effort", self.effort)):
            if name in getattr(limits, key):
                to[where] = _positive(f"Limits.{key} of {name!r}", getattr(limits, key)[name], size)
        if joints.stiffness is not None and joints.damping is not None:
            self.stiffness[where], self.damping[where] = joints.stiffness, joints.damping
        elif name in limits.effort:
            raise ValueError(f"Limits.effort of {name!r}: the contract states no gains, so the effort is not known")

    def clamp(
        self, asked: Numbers, last: Numbers, position: Numbers, velocity: Numbers, period: float, starting: bool
    ) -> Numbers:
        """What may be sent [S] in place of what was asked for.

        Args:
            asked: [S].
            last: [S] what was sent before; NaN where that is not known.
            position, velocity: [S] of the joints, NaN where not known.
            period: time since `last` was sent, s.
            starting: whether the soft start is on its way, which begins within the start envelope.

        Raises:
            Fault: no value keeps all limits of a joint at once.
        """
        low, high = self.low, self.high
        if starting:
            low, high = np.fmin(low, self.start_low), np.fmax(high, self.start_high)
        if self._plain:
            return np.minimum(np.maximum(asked, low), high)
        # fmax and fmin pass over NaN: what is not known limits nothing.
        low, high = np.fmax(low, last - self.rate * period), np.fmin(high, last + self.rate * period)
        # |stiffness (target - position) - damping velocity| <= effort
        middle, reach = position + self.damping * velocity / self.stiffness, self.effort / self.stiffness
        low, high = np.fmax(low, middle - reach), np.fmin(high, middle + reach)
        if (low > high).any():
            raise self._nothing_left(int(np.argmax(low > high)), last, position)
        return np.minimum(np.maximum(asked, low), high)

    def _nothing_left(self, column: int, last: Numbers, position: Numbers) -> Fault:
        part = next(part for part in self._parts if column < part.sent.stop)
        return Fault(
            "limits", part.name, f"value {column - part.sent.start} is at {position[column]:.4g} {part.unit} and was "
            f"last told {last[column]:.4g}: no target keeps position, rate and effort limits at once",
        )  # fmt: skip


def _stated(part: ActionPart) -> tuple[Numbers, Numbers]:
    """Lowest and highest values [sent] that a component can lead to according to the contract; infinite where that is
    not known. They do nothing to what a policy asks for in accordance with it."""
    low, high = part.low.copy(), part.high.copy()
    absolute = not part.onto_last and part.onto_columns is None and part.inverse is None
    known = part.smoothing == 1.0 or part.initial is not None
    if absolute and known:
        reach = np.abs(part.scale)
        low, high = np.maximum(low, part.offset - reach), np.minimum(high, part.offset + reach)
    if part.initial is not None:
        low, high = np.minimum(low, part.initial), np.maximum(high, part.initial)
    # Smoothing rounds: last + smoothing * (target - last) may lie a last digit beyond both.
    slack = np.where(np.isfinite(high - low), 1e-9 * (high - low), 0.0)
    return low - slack, high + slack


def sensor_ranges(limits: Limits, layout: Layout, contract: Mapping[str, Any]) -> tuple[Numbers, Numbers]:
    """Lowest and highest physically possible values [nobs].

    Raises:
        ValueError: `Limits.sensors` names an unknown component or has another size.
    """
    size = layout.observation[-1].stop
    low, high = np.full(size, -np.inf), np.full(size, np.inf)
    _known("Limits.sensors", limits.sensors, [part.name for part in layout.observation])
    for part, entry in zip(layout.observation, contract["observation"], strict=True):
        where, stated = slice(part.start, part.stop), entry.get("limits")
        if part.name in limits.sensors:
            given = _range(f"Limits.sensors of {part.name!r}", limits.sensors[part.name], part.stop - part.start)
            low[where], high[where] = given
        elif isinstance(stated, list) and len(stated) == 2 and None not in stated:
            slack = _SLACK * (stated[1] - stated[0])
            low[where], high[where] = stated[0] - slack, stated[1] + slack
    return low, high


def deadlines(limits: Limits, layout: Layout, period: float, trained: Mapping[str, float]) -> NDArray[np.float64]:
    """Age at which each observation component [components] is stale, s.

    Args:
        limits: the user's.
        layout: of the policy.
        period: of control, s.
        trained: the largest delay of a sensor in training, s, by component.

    Raises:
        ValueError: `Limits.deadline_s` names an unknown component, or is no time.
    """
    names, given = [part.name for part in layout.observation], limits.deadline_s
    found = {name: PERIODS * period + trained.get(name, 0.0) for name in names}
    if isinstance(given, Mapping):
        _known("Limits.deadline_s", given, names)
        found |= given
    elif given is not None:
        found = dict.fromkeys(names, given)
    return np.array([_positive(f"Limits.deadline_s of {name!r}", found[name], 1)[0] for name in names])


def _known(where: str, given: Any, names: list[str]) -> None:
    if not isinstance(given, Mapping):
        raise ValueError(f"{where}: expected a mapping from components ({', '.join(names)}), got {given!r}")
    for name in given:
        if name not in names:
            raise ValueError(unknown_name(f"{where}: unknown component", str(name), names))


def _numbers(where: str, values: ArrayLike, size: int) -> Numbers:
    try:
        array = np.asarray(values, dtype=np.float64)
        return np.broadcast_to(array, (size,)).copy()
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: expected a number or {size}: {one_line(error)}") from None


def _positive(where: str, values: ArrayLike, size: int) -> Numbers:
    array = _numbers(where, values, size)
    if not (array > 0.0).all():
        raise ValueError(f"{where}: expected positive numbers, got {array[~(array > 0.0)][0]:g}")
    return array


def _range(where: str, pair: tuple[ArrayLike, ArrayLike], size: int) -> tuple[Numbers, Numbers]:
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise ValueError(f"{where}: expected (lowest, highest), got {pair!r}")
    low, high = (_numbers(where, side, size) for side in pair)
    if not (low <= high).all():
        raise ValueError(f"{where}: expected lowest before highest values")
    return low, high
