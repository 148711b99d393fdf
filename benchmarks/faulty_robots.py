"""Robots with one fault each, for `audit_process`: what is wrong with them, and the drivers that make it so."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.robot_process import WORLD
from simreal.robot.process.ports import Port
from simreal.robot.process.simulation import Drive, Simulation, State
from simreal.robot.sources import matrix

Numbers = NDArray[np.float64]
DEGREES = 180.0 / np.pi


@dataclass(frozen=True)
class Case:
    """One log.

    Attributes:
        kind: of fault, "" for none.
        signals: what it spoils: of "position", "velocity", "gyro", "orientation", "commands".
        elements: joints (or axes of the gyroscope) that it spoils; () for all.
        value: factor, shift, seconds, share, or Hz.
        port, world, log: protocol, world file or "", ending of the log ("" for a rosbag2 directory).
        commands: "constant" or "changing".
        seed: of the robot and of the commands.
    """

    kind: str
    signals: tuple[str, ...] = ()
    elements: tuple[int, ...] = ()
    value: float = 0.0
    port: str = "ros2"
    world: str = ""
    log: str = ".npz"
    commands: str = "changing"
    seed: int = 0

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Case:
        """From JSON, which has lists for tuples."""
        given: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()}
        return cls(**given)


class FaultyPort:
    """The driver of a robot with a fault.

    Args:
        port: the right one.
        robot: behind it.
        case: the fault; joints in the order of `robot.driven`.
    """

    def __init__(self, port: Port, robot: Simulation, case: Case) -> None:
        self.topics, self._port, self._robot, self._case = port.topics, port, robot, case
        self._joints = [robot.joints.index(name) for name in robot.driven]
        self._chance = np.random.default_rng(case.seed + 1)
        self._past: deque[State] = deque(
            maxlen=1 + round(max(case.value, 0.0) / robot.timestep_s) if case.kind == "lag" else 1
        )
        self._kept: State | None = None
        self._count = 0

    def commands(self) -> list[Drive | str]:
        """Commands as the motors understand them."""
        found, case = self._port.commands(), self._case
        if case.kind == "loss" and "commands" in case.signals:
            found = [command for command in found if self._chance.random() >= case.value]
        if case.kind == "gains":
            return [c if isinstance(c, str) else self._stiffer(c) for c in found]
        return found

    def _stiffer(self, drive: Drive) -> Drive:
        kp = self._robot.stiffness if drive.stiffness is None else drive.stiffness
        kd = self._robot.damping if drive.damping is None else drive.damping
        return replace(drive, stiffness=self._case.value * kp, damping=self._case.value * kd)

    def publish(self, state: State, wall_s: float, time_s: float) -> None:
        """Tell what the sensors show, as this driver does."""
        case = self._case
        self._past.append(state)
        self._count += 1
        if (
            case.kind == "rate"
            and "states" in case.signals
            and self._count % round(1.0 / case.value / self._robot.timestep_s)
        ):
            return
        if case.kind == "loss" and "states" in case.signals:
            every = round(0.02 / self._robot.timestep_s)
            if self._count % every or self._chance.random() < case.value:
                return
        self._port.publish(self._spoilt(state, time_s), wall_s, time_s)

    def _spoilt(self, state: State, time_s: float) -> State:
        case, changed = self._case, dict[str, Any]()
        if case.kind in ("", "gains", "rate", "loss"):
            return state
        if case.kind == "frozen" and (time_s < case.value or self._kept is None):
            self._kept = state
            return state
        for name in case.signals:
            value = np.array(getattr(state, name))
            other = getattr(self._past[0] if case.kind == "lag" else self._kept, name, value)
            changed[name] = self._value(name, value, np.array(other), state)
        return replace(state, **changed)

    def _value(self, name: str, value: Numbers, other: Numbers, state: State) -> Numbers:
        case, out = self._case, value.copy()
        at = [self._joints[i] for i in case.elements] if name in ("position", "velocity") else list(case.elements)
        at = at or list(range(len(value)))
        if case.kind == "permuted":
            out[at] = value[at[::-1]]
        elif case.kind == "sign":
            out[at] *= -1.0
        elif case.kind in ("scale", "degrees"):
            out[at] *= case.value
        elif case.kind == "offset":
            out[at] += case.value
        elif case.kind in ("lag", "frozen"):
            out[at] = other[at]
        elif case.kind == "quaternion_order":
            out = value[[1, 2, 3, 0]]  # w, x, y, z that are taken for x, y, z, w and put into w, x, y, z
        elif case.kind == "frame":
            assert state.orientation is not None
            out = matrix(state.orientation) @ value
        return out


def cases_of(seed: int) -> list[Case]:
    """The twelve faults, drawn by a seed."""
    rng = np.random.default_rng(seed)
    pick = lambda *options: options[int(rng.integers(len(options)))]  # noqa: E731
    joint = lambda: (int(rng.integers(12)),)  # noqa: E731
    both, one, imu = ("position", "velocity"), pick(("position",), ("velocity",)), ("gyro", "orientation")
    faults: list[Case] = [
        Case("permuted", pick(both, one), tuple(int(j) for j in rng.choice(12, 2, replace=False))),
        pick(Case("sign", both, joint()), Case("sign", ("gyro",), (int(rng.integers(3)),))),
        Case("degrees", pick(both, ("gyro",), ("position",)), (), DEGREES),
        Case("quaternion_order", ("orientation",)),
        Case("frame", ("gyro",)),
        Case("scale", (pick("velocity", "gyro", "position"),), (), 0.5),
        Case("offset", ("position",), joint(), float(pick(-1, 1) * rng.uniform(0.15, 0.35))),
        Case("lag", pick(both, ("gyro",), ("position",), ("velocity",), (*both, *imu)), (), 0.04),
        Case("loss", (pick("commands", "states"),), (), 0.1),
        pick(
            Case("frozen", (pick("gyro", "position", "orientation"),), (), float(rng.uniform(3.0, 8.0))),
            Case("frozen", ("position",), joint(), float(rng.uniform(3.0, 8.0))),
        ),
        Case("gains", (), (), 2.0),
        Case("rate", (pick("policy", "states"),), (), 25.0),
    ]
    return [around(case, rng) for case in faults]


def around(case: Case, rng: np.random.Generator) -> Case:
    """The protocol, the world, the kind of log and the commands of a log."""
    pick = lambda *options: options[int(rng.integers(len(options)))]  # noqa: E731
    return replace(
        case, port=pick("ros2", "unitree"), world=pick("", str(WORLD)), log=pick(".npz", ".mcap", ""),
        commands=pick("constant", "changing"), seed=int(rng.integers(10**6)),
    )  # fmt: skip
