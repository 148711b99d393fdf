"""Whether what a task observes of bodies is in the frame and the unit that its components say.

Positions, velocities, angular velocities and the direction of gravity of one body are looked at, and orientations. A
component is wrong if it does not show what it says, and shows just that in another frame, or in other units; whatever
else it may show is not judged. Of positions, a difference that does not change is a matter of where zero is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import mujoco
import numpy as np

from envs.common.errors import TaskError
from envs.task import Component, Task
from envs.validation.rehearsal import Rehearsal

_SAME, _MOVES = 1e-5, 1e-3
_O = mujoco.mjtObj
_POSES = ((_O.mjOBJ_XBODY, "nbody", "body"), (_O.mjOBJ_SITE, "nsite", "site"), (_O.mjOBJ_GEOM, "ngeom", "geom"))
_WORLD = "world"
# What a unit is about, and by what values in SI units are multiplied.
_ABOUT: dict[str, tuple[str, float]] = {
    "m": ("position", 1.0), "mm": ("position", 1e3), "cm": ("position", 1e2),
    "m/s": ("velocity", 1.0), "mm/s": ("velocity", 1e3), "cm/s": ("velocity", 1e2),
    "rad/s": ("angular velocity", 1.0), "deg/s": ("angular velocity", 180.0 / np.pi),
    "1": ("direction of gravity", 1.0),
}  # fmt: skip
_SI = {about: unit for unit, (about, factor) in _ABOUT.items() if factor == 1.0}


@dataclass(frozen=True)
class _Motion:
    """How K samples have something: positions [K, 3], rotations [K, 3, 3], velocities [K, 3] in the world's axes."""

    pos: np.ndarray
    rot: np.ndarray
    linear: np.ndarray
    angular: np.ndarray

    def into(self, vector: np.ndarray) -> np.ndarray:
        """Vectors [K, 3] of the world's axes, in its own."""
        return np.einsum("kji,kj->ki", self.rot, vector)


def check_frames(task: Task, rehearsal: Rehearsal) -> None:
    """Compare what is shown of bodies with where they are. Raises TaskError, naming component and frame."""
    parts = [
        (part, seen[..., where].reshape(-1, part.size))
        for group, seen in rehearsal.seen.items()
        for part, where in zip(task.components(group), task.slices(group).values(), strict=True)
        if len(part.bodies) == 1 and part.size in (3, 4) and part.frame in _names(task.model) and not part.joints
    ]
    parts = [(part, seen) for part, seen in parts if float(np.ptp(seen, axis=0).max(initial=0.0)) > _MOVES]
    if not parts or bool((task.model.body_mocapid >= 0).any()):  # where mocap bodies were is not known
        return
    motions = _motions(task.model, rehearsal)
    for part, seen in parts:
        if np.isfinite(seen).all() and part.bodies[0] in motions:
            _check(task, part, seen, motions)


def _names(model: mujoco.MjModel) -> set[str]:
    """All that may be a frame."""
    found = {
        mujoco.mj_id2name(model, _real(kind), i) for kind, count, _ in _POSES for i in range(getattr(model, count))
    }
    return {name for name in found if name} | {_WORLD}


def _real(kind: mujoco.mjtObj) -> mujoco.mjtObj:
    return _O.mjOBJ_BODY if int(kind) == int(_O.mjOBJ_XBODY) else kind


def _motions(model: mujoco.MjModel, rehearsal: Rehearsal) -> dict[str, _Motion]:
    """By name, the motion of every body, site and geom; bodies first where names are the same."""
    data = mujoco.MjData(model)
    states = zip(rehearsal.qpos.reshape(-1, model.nq), rehearsal.qvel.reshape(-1, model.nv), strict=True)
    things = [(name, kind, i, short) for kind, count, short in _POSES for i in range(getattr(model, count))
              if (name := mujoco.mj_id2name(model, _real(kind), i))]  # fmt: skip
    rows: dict[str, list[tuple[np.ndarray, ...]]] = {}
    for qpos, qvel in states:
        data.qpos[:], data.qvel[:] = qpos, qvel
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_comVel(model, data)
        done: set[str] = set()
        for name, kind, i, short in things:
            if name in done:
                continue
            done.add(name)
            velocity, at = np.zeros(6), getattr(data, short)(i)
            mujoco.mj_objectVelocity(model, data, kind, i, velocity, 0)
            row = at.xpos.copy(), at.xmat.reshape(3, 3).copy(), velocity[3:], velocity[:3]
            rows.setdefault(name, []).append(row)
    return {name: _Motion(*map(np.array, zip(*found, strict=True))) for name, found in rows.items()}


def _check(task: Task, part: Component, seen: np.ndarray, motions: dict[str, _Motion]) -> None:
    of, where = motions[part.bodies[0]], f"task: {task.id}: observation {part.name!r}"
    if part.size == 4:
        frames = [name for name in _frames(part, motions) if _same_rotation(seen, of, motions.get(name))]
        if frames and part.frame not in frames:
            raise TaskError(f"{where}: frame: expected {frames[0]!r}, in which it shows how {part.bodies[0]!r} is "
                            f"turned, got {part.frame!r}")  # fmt: skip
        return
    about, factor = _ABOUT.get(part.unit, ("", 1.0))
    stated = [values for kind, values in _vectors(of, motions.get(part.frame)) if kind == about]
    if any(_shows(seen, factor * values, about == "position") for values in stated):
        return
    for name in _frames(part, motions):
        for kind, values in _vectors(of, motions.get(name)):
            if not _shows(seen, values, False):
                continue
            key, right, got = ("unit", _SI[kind], part.unit) if kind != about or factor != 1.0 else ("frame", name, "")
            raise TaskError(
                f"{where}: {key}: expected {right!r}, as it shows the {kind} of {part.bodies[0]!r} in the frame of "
                f"{name!r}, got {got or part.frame!r}"
            )


def _frames(part: Component, motions: dict[str, _Motion]) -> list[str]:
    """Frames in which a component may be, the likely ones first."""
    return list(dict.fromkeys((part.frame, _WORLD, part.bodies[0], *motions)))


def _vectors(of: _Motion, frame: _Motion | None) -> Iterator[tuple[str, np.ndarray]]:
    """What may be shown of a body in a frame (None: the world's), by what it is."""
    down = np.broadcast_to((0.0, 0.0, -1.0), of.pos.shape)
    if frame is None:
        yield from (("position", of.pos), ("velocity", of.linear), ("angular velocity", of.angular))
        return
    way = of.pos - frame.pos
    yield "position", frame.into(way)
    yield "velocity", frame.into(of.linear)
    yield "velocity", frame.into(of.linear - frame.linear - np.cross(frame.angular, way))
    yield "angular velocity", frame.into(of.angular)
    yield "angular velocity", frame.into(of.angular - frame.angular)
    yield "direction of gravity", frame.into(down)


def _shows(seen: np.ndarray, values: np.ndarray, shifted: bool) -> bool:
    """Whether these are the values, or differ from them by what never changes, where that may be."""
    off = seen - values
    off = off - off.mean(axis=0) if shifted else off
    moves = float(np.ptp(values, axis=0).max()) > _MOVES
    return moves and float(np.abs(off).max()) <= _SAME * (1.0 + float(np.abs(values).max()))


def _same_rotation(seen: np.ndarray, of: _Motion, frame: _Motion | None) -> bool:
    """Whether quaternions [K, 4] are the orientation of a body in a frame."""
    turned = of.rot if frame is None else np.einsum("kji,kjl->kil", frame.rot, of.rot)
    w, v = seen[:, 0], seen[:, 1:]
    length = np.linalg.norm(seen, axis=1)
    if np.abs(length - 1.0).max() > 1e-3:
        return False
    zero = np.zeros_like(w)
    x, y, z = v.T
    cross = np.array([[zero, -z, y], [z, zero, -x], [-y, x, zero]]).transpose(2, 0, 1)
    matrix = np.eye(3) + 2.0 * (w[:, None, None] * cross + cross @ cross)
    return float(np.abs(matrix - turned).max()) <= 1e-4
