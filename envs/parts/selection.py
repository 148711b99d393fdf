"""Which actuators and joints of a model a part of a task is about, from names or patterns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import TypeVar

import mujoco
import numpy as np

from envs.common.errors import TaskError
from envs.common.messages import listed, nearest
from envs.common.names import label_of, labels_of
from envs.validation.drives import Drive, Quantity, find_drive

Patterns = str | Sequence[str]
Values = float | Sequence[float]
ONE_DOF = (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE))
_Found = TypeVar("_Found")
_INPUTS: dict[Quantity, str] = {
    "position": "<position joint=...>", "velocity": "<velocity joint=...>", "force": "<motor joint=...>",
}  # fmt: skip


def select_drives(where: str, model: mujoco.MjModel, of: Patterns, follows: Quantity) -> tuple[Drive, ...]:
    """The actuators on joints whose input is of a kind, in the model's order, or in that of several patterns.

    Args:
        where: part that asks, for messages.
        of: names or patterns (`*`, `?`, `[...]`) of actuators or of their joints.

    Raises:
        TaskError: there is none, or an actuator named outright has another input.
    """
    labels = labels_of(model, "joint")
    drives = [drive for i in range(model.nactuator) if (drive := find_drive(model, i)) and drive.joint is not None]
    fit = [drive for drive in drives if drive.follows == follows]
    if not fit:
        has = listed(f"{d.name} ({d.follows or 'another input'})" for d in drives)
        raise TaskError(f"{where}: expected actuators such as {_INPUTS[follows]}, got {has}")
    names = [(d, (d.name, labels[d.joint])) for d in fit if d.joint is not None]
    return tuple(_matching(where, of, names, "actuator or joint"))


def select_joints(where: str, model: mujoco.MjModel, of: Patterns) -> list[int]:
    """Hinges and slides by names or patterns, in the model's order or in that of several patterns. Raises TaskError."""
    labels = labels_of(model, "joint")
    names = [(i, (labels[i],)) for i in range(model.njnt) if int(model.jnt_type[i]) in ONE_DOF]
    return _matching(where, of, names, "hinge or slide")


def _matching(where: str, of: Patterns, names: Iterable[tuple[_Found, tuple[str, ...]]], kind: str) -> list[_Found]:
    """What at least one of its names matches each pattern; nothing twice."""
    pairs, chosen = list(names), list[_Found]()
    for pattern in [of] if isinstance(of, str) else of:
        found = [thing for thing, its in pairs if any(fnmatchcase(name, pattern) for name in its)]
        if not found:
            known = [name for _, its in pairs for name in its]
            raise TaskError(f"{where}: of: no {kind} {pattern!r}{nearest(pattern, known)}; there are: {listed(known)}")
        chosen += [thing for thing in found if thing not in chosen]
    if not chosen:
        raise TaskError(f"{where}: of: expected names or patterns, got {of!r}")
    return chosen


def joint_of(model: mujoco.MjModel, drive: Drive) -> str:
    """The name of a drive's joint."""
    assert drive.joint is not None
    return label_of(model, "joint", drive.joint)


def per_value(where: str, values: Values, size: int) -> tuple[float, ...]:
    """One number for each value: a number stands for all. Raises TaskError for another count or what is not finite."""
    try:
        array = np.atleast_1d(np.asarray(values, dtype=np.float64))
    except (TypeError, ValueError):
        array = np.full(1, np.nan)
    if array.ndim != 1 or len(array) not in (1, size) or not np.isfinite(array).all():
        raise TaskError(f"{where}: expected a finite number, or {size} of them, got {values!r}")
    return tuple(np.broadcast_to(array, size).tolist())


def unit_of(model: mujoco.MjModel, joints: Sequence[int], hinge: str, slide: str) -> str:
    """The unit of values of joints; "hinge, slide" units where both are among them."""
    units = {hinge if int(model.jnt_type[i]) == ONE_DOF[0] else slide for i in joints}
    return units.pop() if len(units) == 1 else f"{hinge}, {slide}"


def joint_limits(model: mujoco.MjModel, drive: Drive, unit: str) -> tuple[float, float]:
    """Lowest and highest target of a position servo: its control range, or the joint's; infinite without either."""
    assert drive.joint is not None
    clips, factor = drive.clips(model), drive.per_ctrl(model, unit)
    if clips is not None and factor is not None:
        low, high = sorted(end * factor for end in clips)
        return low, high
    if model.jnt_limited[drive.joint]:
        low, high = model.jnt_range[drive.joint].tolist()
        return low, high
    return -math.inf, math.inf
