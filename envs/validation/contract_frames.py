"""Whether what a task observes of bodies is in the frame and the unit that its components say.

Positions, velocities, angular velocities and the direction of gravity of one body are looked at, and orientations. A
component is wrong if it does not show what it says, and shows just that in another frame, in other units, of another
body, or with its values in another order or scale; whatever else it may show is not judged. Of positions, a difference
that does not change is a matter of where zero is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import mujoco
import numpy as np

from envs.common.errors import TaskError
from envs.task import Component, Task
from envs.validation.rehearsal import Rehearsal

_SAME, _MOVES, _TURNED = 1e-5, 1e-3, 1e-4
_QUATERNION = "wxyz"
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
        if len(part.bodies) == 1 and part.frame in _names(task.model) and not part.joints
        and (part.size in (3, 4, 6) or (part.size < 3 and _axes(part) is not None))
    ]  # fmt: skip
    parts = [(part, seen) for part, seen in parts if float(np.ptp(seen, axis=0).max(initial=0.0)) > _MOVES]
    if not parts or bool((task.model.body_mocapid >= 0).any()):  # where mocap bodies were is not known
        return
    motions = _motions(task.model, rehearsal)
    for part, seen in parts:
        if np.isfinite(seen).all() and part.bodies[0] in motions:
            (_check_rotation if part.size in (4, 6) else _check_vector)(task, part, seen, motions)


def multiple(seen: np.ndarray, truth: np.ndarray) -> float | None:
    """By how much a coordinate [K] is multiplied, but for a constant (1.0 where it is not); None if another is shown.

    The negative of a coordinate with a constant is the way to something that stays, and no multiple.
    """
    if np.ptp(truth) <= _MOVES or len(np.unique(truth.round(6))) < 5:
        return None
    matrix = np.stack((truth, np.ones_like(truth)), axis=1)
    scale, constant = np.linalg.lstsq(matrix, seen, rcond=None)[0].tolist()
    if np.abs(matrix @ (scale, constant) - seen).max() > _SAME * np.ptp(seen) + 1e-12 or np.ptp(seen) == 0.0:
        return None
    if abs(scale + 1.0) < 1e-3 and abs(constant) > _SAME * (1.0 + float(np.abs(truth).max())):
        return None
    return 1.0 if abs(scale - 1.0) < 1e-3 else scale


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


def _check_vector(task: Task, part: Component, seen: np.ndarray, motions: dict[str, _Motion]) -> None:
    """Raise TaskError where what is shown along some axes is not what is said, and can be told."""
    own, where = part.bodies[0], f"task: {task.id}: observation {part.name!r}"
    axes = _axes(part) or [0, 1, 2]
    about, factor = _ABOUT.get(part.unit, ("", 1.0))

    def stated(of: str) -> list[np.ndarray]:
        both = _vectors(motions[of], motions.get(part.frame))
        return [factor * values[:, axes] for kind, values in both if kind == about]

    if any(_shows(seen, values, about == "position") for values in stated(own)):
        return
    for name in _frames(part, motions):
        for kind, values in _vectors(motions[own], motions.get(name)):
            if not _shows(seen, values[:, axes], False):
                continue
            key, right, got = ("unit", _SI[kind], part.unit) if kind != about or factor != 1.0 else ("frame", name, "")
            raise TaskError(
                f"{where}: {key}: expected {right!r}, as it shows the {kind} of {own!r} in the frame of "
                f"{name!r}, got {got or part.frame!r}"
            )
    for name in _others(task.model, own, motions):
        if any(_shows(seen, values, False) for values in stated(name)):
            raise TaskError(f"{where}: bodies: expected {name!r}, whose {about} it shows, got {own!r}")
    if about not in ("", "direction of gravity"):
        for values in _vectors(motions[own], motions.get(part.frame)):
            if values[0] == about:
                _check_values(part, seen, factor * values[1], f"{where}: ", f"the {about} of {own!r}")


def _check_values(part: Component, seen: np.ndarray, truth: np.ndarray, where: str, what: str) -> None:
    """Raise TaskError where each value is a multiple of what is said of it, or of what is so along another axis.

    Args:
        part: what is said.
        seen: [K, size] what is shown.
        truth: [K, 3] what is along x, y and z.
        where: for the message.
        what: it is.
    """
    axes = _axes(part)  # of elements with names of their own, nothing is said of order and sign
    found: dict[int, tuple[int, float]] = {}
    for i in np.flatnonzero(np.ptp(seen, axis=0) > _MOVES).tolist():
        own = i if axes is None else axes[i]
        for k in (own, *(() if axes is None else (k for k in range(3) if k != own))):
            scale = multiple(seen[:, i], truth[:, k])
            if scale is not None and (axes is not None or scale > 0.0):
                found[i] = k, scale
                break
        else:
            return
    if len({k for k, _ in found.values()}) < len(found):
        return
    for i, (k, scale) in found.items():
        own = i if axes is None else axes[i]
        if (k, scale) != (own, 1.0):
            times = "" if scale == 1.0 else f"{scale:.4g} times "
            along = "" if axes is None else f" along {'xyz'[k]}"
            lie = "another order" if k != own else "another scale"
            raise TaskError(f"{where}element {(part.elements or 'xyz')[i]!r} shows {times}{what}{along}: {lie}")


def _check_rotation(task: Task, part: Component, seen: np.ndarray, motions: dict[str, _Motion]) -> None:
    """Raise TaskError where an orientation is that in another frame, of another body, or written in another order."""
    own, where = part.bodies[0], f"task: {task.id}: observation {part.name!r}"
    of, frame = motions[own], motions.get(part.frame)
    letters = "".join(element[-1:].lower() for element in part.elements)
    order = letters if sorted(letters) == sorted(_QUATERNION) else _QUATERNION
    frames = [name for name in _frames(part, motions) if _turned(seen, order, of, motions.get(name))]
    if part.frame in frames:
        return
    if frames:
        raise TaskError(f"{where}: frame: expected {frames[0]!r}, in which it shows how {own!r} is turned, got "
                        f"{part.frame!r}")  # fmt: skip
    for name in _others(task.model, own, motions):
        if _turned(seen, order, motions[name], frame):
            raise TaskError(f"{where}: bodies: expected {name!r}, whose orientation it shows, got {own!r}")
    for other in (_QUATERNION, "xyzw"):
        if part.size == 4 and other != order and _turned(seen, other, of, frame):
            raise TaskError(f"{where}: elements: expected the order {', '.join(other)}, in which it shows the "
                            f"orientation of {own!r}, got {', '.join(order)}")  # fmt: skip
    if part.size == 4 and _turned(seen * np.where([c == "w" for c in order], 1.0, -1.0), order, of, frame):
        raise TaskError(f"{where}: expected how {own!r} is turned in {part.frame!r}, got how {part.frame!r} is "
                        f"turned in {own!r}: another sign of {', '.join(order.replace('w', ''))}")  # fmt: skip


def _axes(part: Component) -> list[int] | None:
    """Which of x, y and z each value is about, by the names of elements; None where they do not say it."""
    letters = [element[-1:].lower() for element in part.elements] or list("xyz")[: part.size]
    known = len(set(letters)) == len(letters) == part.size and set(letters) <= set("xyz")
    return ["xyz".index(letter) for letter in letters] if known and (part.elements or part.size == 3) else None


def _others(model: mujoco.MjModel, own: str, motions: dict[str, _Motion]) -> list[str]:
    """Bodies, sites and geoms that are not fixed to the one of this name: a fixed one may stand for it."""
    welded: dict[str, int] = {}
    for kind, count, _ in _POSES:
        for i in range(getattr(model, count)):
            body = {_O.mjOBJ_SITE: model.site_bodyid, _O.mjOBJ_GEOM: model.geom_bodyid}.get(
                kind, np.arange(model.nbody)
            )
            welded.setdefault(mujoco.mj_id2name(model, _real(kind), i) or "", int(model.body_weldid[body[i]]))
    return [name for name in motions if welded[name] != welded[own]]


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


def _turned(seen: np.ndarray, order: str, of: _Motion, frame: _Motion | None) -> bool:
    """Whether quaternions [K, 4], their values in this order, or two columns [K, 6] are a body's orientation."""
    turned = of.rot if frame is None else np.einsum("kji,kjl->kil", frame.rot, of.rot)
    if seen.shape[1] == 6:
        return float(np.abs(seen - turned[:, :, :2].transpose(0, 2, 1).reshape(-1, 6)).max()) <= _TURNED
    if np.abs(np.linalg.norm(seen, axis=1) - 1.0).max() > 1e-3:
        return False
    w, x, y, z = seen[:, [order.index(letter) for letter in _QUATERNION]].T
    zero = np.zeros_like(w)
    cross = np.array([[zero, -z, y], [z, zero, -x], [-y, x, zero]]).transpose(2, 0, 1)
    matrix = np.eye(3) + 2.0 * (w[:, None, None] * cross + cross @ cross)
    return float(np.abs(matrix - turned).max()) <= _TURNED
