"""Finds in a log what actuators were told and what joints showed, by name."""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.common.messages import listed
from envs.validation.drives import Drive, find_drive
from simreal.common.errors import UserError
from simreal.common.logs import Log, Signal

from .coordinates import QUATERNION, TURN, Coordinates, rotation_vector
from .recording import Recording, check_recording, tracks_of

_PREFERRED = {  # parts of names of signals, best first
    "command": ("/sent/", "/target/", "sent", "command", "ctrl", "control", "target", "effort_desired"),
    "position": ("/measured/", "observation/joint_pos", "joint_states", "joint_pos", "qpos", "position"),
    "velocity": ("/measured/", "observation/joint_vel", "joint_states", "joint_vel", "qvel", "velocity"),
}


def recording_of(log: Log, model: mujoco.MjModel, chosen: dict[str, str]) -> Recording:
    """The commands and the motion of a model's joints that a log holds.

    Args:
        log: as it was read.
        model: of the robot.
        chosen: names of signals for "command", "position", "velocity", where they are not to be found by their names.

    Raises:
        UserError: there are no such signals, or their names are of another robot; see also `check_recording`.
    """
    name = str(log.source)
    drives = [drive for i in range(model.nactuator) if (drive := find_drive(model, i)) is not None]
    columns = _columns(model, drives)
    names = _shown(model)
    time, commands = _commands(_matching(log, "command", chosen.get("command"), set(columns)), model, columns)
    tracks = []
    for kind in ("position", "velocity"):
        signals = _matching(log, kind, chosen.get(kind), names, needed=kind == "position")
        for signal in signals[:1] + [s for s in signals[1:2] if not set(s.elements) & set(signals[0].elements)]:
            tracks.append(tracks_of(model, kind, *_turned(signal), name))
    recording = Recording(name, time, commands, tuple(tracks))
    check_recording(recording, model)
    return recording


def _shown(model: mujoco.MjModel) -> set[str]:
    """Names of coordinates, and of quaternions of floating bodies."""
    names = set(Coordinates(model).names)
    bodies = {name.rpartition(".")[0] for name in names if name.endswith(f".{TURN[0]}")}
    return names | {f"{body}.{part}" for body in bodies for part in QUATERNION}


def _turned(signal: Signal) -> tuple[tuple[str, ...], NDArray[np.float64], NDArray[np.float64]]:
    """Elements, times and values of a signal, with rotation vectors in the place of quaternions."""
    elements, values = list(signal.elements), signal.values
    for body in [e.rpartition(".")[0] for e in elements if e.endswith(f".{QUATERNION[0]}")]:
        places = [elements.index(f"{body}.{part}") for part in QUATERNION if f"{body}.{part}" in elements]
        if len(places) < len(QUATERNION):
            raise UserError(f"{signal.name}: expected all of {', '.join(f'{body}.{part}' for part in QUATERNION)}")
        values = np.column_stack((np.delete(values, places, axis=1), rotation_vector(values[:, places])))
        elements = [e for k, e in enumerate(elements) if k not in places] + [f"{body}.{part}" for part in TURN]
    return tuple(elements), signal.time, values


def _columns(model: mujoco.MjModel, drives: list[Drive]) -> dict[str, int]:
    """Columns of ctrl by the name of their actuator, and of the joint where no other acts on it."""
    of_joints: dict[str, list[int]] = {}
    for drive in drives:
        if drive.joint is not None:
            of_joints.setdefault(model.joint(drive.joint).name, []).append(drive.column)
    return {name: places[0] for name, places in of_joints.items() if len(places) == 1} | {
        drive.name: drive.column for drive in drives
    }


def _matching(log: Log, what: str, chosen: str | None, names: set[str], needed: bool = True) -> list[Signal]:
    """Signals all of whose elements are among names, the likeliest first.

    Raises:
        UserError: none is, or the chosen one is not.
    """
    expected = f"expected {what}s of {listed(sorted(names))}"
    if chosen is not None:
        if chosen not in log.signals:
            raise UserError(f"{log.source}: no signal {chosen!r}; there are: {listed(list(log.signals))}")
        strange = [e for e in log.signals[chosen].elements if e not in names]
        if strange:
            raise UserError(f"{log.source}: {chosen}: the robot has no {strange[0]!r}; {expected}")
        return [log.signals[chosen]]
    words = _PREFERRED[what]
    ranked: list[tuple[int, Signal]] = []
    for name, signal in log.signals.items():
        field = name.rpartition(":")[2]
        if field in ("position", "velocity") and what in ("position", "velocity") and field != what:
            continue
        rank = next((k for k, word in enumerate(words) if word in name.lower()), None)
        if rank is not None and signal.elements and all(e in names for e in signal.elements):
            ranked.append((rank, signal))
    if what == "command":  # a robot with several groups of actuators is told each of them
        best = min((rank for rank, _ in ranked), default=0)
        found = [signal for rank, signal in ranked if rank == best]
    else:
        found = [signal for _, signal in sorted(ranked, key=lambda pair: (pair[0], -len(pair[1].elements)))]
    if not found and needed:
        raise UserError(
            f"{log.source}: no {what}s of this robot's joints by name; {expected}, there are: {listed(_told(log))}"
        )
    return found


def _told(log: Log) -> list[str]:
    return [f"{name} ({', '.join(signal.elements[:2])}, ...)" for name, signal in log.signals.items()]


def _commands(
    signals: list[Signal], model: mujoco.MjModel, columns: dict[str, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Times [K] and controls [K, C]; an actuator that nothing is said of gets 0."""
    time = np.unique(np.concatenate([signal.time for signal in signals]))
    commands = np.zeros((len(time), model.nu))
    for signal in signals:
        # Of two at one time the later counts; before the first it is held.
        last = np.clip(np.searchsorted(signal.time, time, side="right") - 1, 0, None)
        commands[:, [columns[element] for element in signal.elements]] = signal.values[last]
    return time, commands
