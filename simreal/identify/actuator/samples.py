"""Finds in logs what actuators were told, what their joints did and what torque they exerted, on one grid of time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from envs.common.messages import listed, nearest
from simreal.common.errors import UserError
from simreal.common.logs import Log, Signal
from simreal.common.logs.signals import Numbers

KINDS = ("command", "position", "velocity", "torque")
_WORDS = {  # parts of names of signals, best first
    "command": ("/sent/", "/target/", "sent", "command", "ctrl", "control", "target"),
    "position": ("/measured/", "joint_states", "joint_pos", "qpos", "position"),
    "velocity": ("/measured/", "joint_states", "joint_vel", "qvel", "velocity"),
    "torque": ("torque", "effort", "tau", "actuator_force", "joint_states"),
}
_FIELDS = {"position": "position", "velocity": "velocity", "torque": "effort"}  # of a JointState
_SHORTEST_S = 4.0
_STILL = 1e-6  # spread that counts as constant
_FINEST_S = 0.001


@dataclass(frozen=True)
class ActuatorLog:
    """One log on a grid.

    Attributes:
        name: of the log.
        joints: n names.
        step_s: of the grid.
        command, position, velocity, torque: [T, n], rad, rad, rad/s, N m.
    """

    name: str
    joints: tuple[str, ...]
    step_s: float
    command: Numbers
    position: Numbers
    velocity: Numbers
    torque: Numbers

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.torque) * self.step_s


def actuator_log(log: Log, chosen: dict[str, str], patterns: Sequence[str], step_s: float | None) -> ActuatorLog:
    """What a log says of joints.

    Args:
        log: as it was read.
        chosen: names of signals by kind, where they are not to be found by their names.
        patterns: of the joints that are wanted.
        step_s: of the grid; None: as torques were recorded, but no finer than 1 ms.

    Raises:
        UserError: there are no such signals, no such joints, or too little in them.
    """
    signals = {kind: _signal(log, kind, chosen.get(kind)) for kind in KINDS if kind != "velocity"}
    velocity = _signal(log, "velocity", chosen.get("velocity"), needed=False)
    joints = _joints(log, [s for s in (*signals.values(), velocity) if s is not None], patterns)
    found = {kind: signal for kind, signal in signals.items() if signal is not None}
    begin = max(float(s.time[0]) for s in found.values())
    end = min(float(s.time[-1]) for s in found.values())
    if end - begin < _SHORTEST_S:
        raise UserError(
            f"{log.source}: commands, positions and torques are there together for {max(end - begin, 0.0):.3g} s, "
            f"expected at least {_SHORTEST_S:g} s"
        )
    step = step_s or max(float(np.median(np.diff(found["torque"].time))), _FINEST_S)
    step = round(step, 9)
    grid = np.arange(begin, end, step)
    values = {kind: _on_grid(log, kind, signal, joints, grid) for kind, signal in found.items()}
    if velocity is None:
        values["velocity"] = np.gradient(values["position"], step, axis=0)
    else:
        values["velocity"] = _on_grid(log, "velocity", velocity, joints, grid)
    for kind in ("command", "torque"):
        still = np.flatnonzero(np.ptp(values[kind], axis=0) < _STILL)
        if len(still):
            raise UserError(
                f"{log.source}: {kind} of {joints[still[0]]} is constant; expected a motion that shows what the "
                "actuator does, or leave the joint out (--joints)"
            )
    return ActuatorLog(str(log.source), joints, step, **values)


def _signal(log: Log, kind: str, chosen: str | None, needed: bool = True) -> Signal | None:
    """The signal of a kind: the chosen one, or the one whose name says so best."""
    if chosen is not None:
        if chosen not in log.signals:
            known = list(log.signals)
            raise UserError(f"{log.source}: no signal {chosen!r}{nearest(chosen, known)}; there are: {listed(known)}")
        return log.signals[chosen]
    ranked: list[tuple[int, int, str]] = []
    for place, name in enumerate(log.signals):
        field = name.lower().rpartition(":")[2] if ":" in name else ""
        if field in ("position", "velocity", "effort") and field != _FIELDS.get(kind, "position"):
            continue
        rank = next((k for k, word in enumerate(_WORDS[kind]) if word in name.lower()), None)
        told = any(word in name.lower() for word in _WORDS["command"])
        if rank is not None and (kind == "command" or not told):
            ranked.append((rank, place, name))
    if ranked:
        return log.signals[min(ranked)[2]]
    if needed:
        raise UserError(
            f"{log.source}: no {kind} of joints; expected a signal with {' or '.join(map(repr, _WORDS[kind][-3:]))} in "
            f"its name, or --{kind} SIGNAL; there are: {listed(list(log.signals))}"
        )
    return None


def _joints(log: Log, signals: Sequence[Signal], patterns: Sequence[str]) -> tuple[str, ...]:
    """The joints of all signals, in the order of the first. Raises UserError where there are none."""
    common = [e for e in signals[0].elements if all(e in s.elements for s in signals)]
    if not common:
        told = "; ".join(f"{s.name}: {listed(list(s.elements), 3)}" for s in signals)
        raise UserError(f"{log.source}: commands, positions and torques have no joint in common: {told}")
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in common):
            raise UserError(
                f"{log.source}: no joint matches {pattern!r}{nearest(pattern, common)}; there are: {listed(common)}"
            )
    return tuple(name for name in common if any(fnmatchcase(name, pattern) for pattern in patterns))


def _on_grid(log: Log, kind: str, signal: Signal, joints: Sequence[str], grid: Numbers) -> Numbers:
    """Values [T, n] at the times of a grid: commands hold until the next, measurements go straight to it."""
    values = signal.values[:, [signal.elements.index(joint) for joint in joints]]
    if not np.isfinite(values).all():
        at = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
        raise UserError(f"{log.source}: {signal.name}: message {at} holds what is no number")
    if kind == "command":
        return values[np.clip(np.searchsorted(signal.time, grid + 1e-9, side="right") - 1, 0, None)]
    return np.column_stack([np.interp(grid, signal.time, column) for column in values.T])
