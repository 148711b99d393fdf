"""Finds the legs of a robot in its model: which chains of joints end in a foot, and what of it touches the ground."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import mujoco
import numpy as np

from envs.common.errors import TaskError
from envs.common.names import label_of
from envs.locomotion.legged.robot import Foot
from envs.robots.ready import FREE
from envs.task import Fixed

_HINGE = int(mujoco.mjtJoint.mjJNT_HINGE)
_SLIDE = int(mujoco.mjtJoint.mjJNT_SLIDE)
_SPHERE = int(mujoco.mjtGeom.mjGEOM_SPHERE)
_FOOT_SHARE = 0.3  # of the way from the lowest point to the base within which a chain ends in a foot
_SOLE_M = 0.015  # shapes that end within so much of the lowest point stand on the ground
_LEAST_LEG_M = 0.03
_LONG, _ALIKE = 5, 0.9  # hinges of a leg that has an ankle in any case; cosine between axes that are one
_SOLE_LENGTH = 2.0  # of the height of a foot that lies
_MOST_SHAPES = 4  # of a foot


@dataclass(frozen=True)
class Leg(Fixed):
    """A leg.

    Attributes:
        joints: its hinges, from the base to the foot, indices in the model.
        foot: at its end.
        body: that the foot belongs to, index in the model.
        shapes: that the foot stands on, indices in the model.
        ankle: whether its foot can be kept flat.
    """

    joints: tuple[int, ...]
    foot: Foot
    body: int
    shapes: tuple[int, ...]
    ankle: bool = False


def find_base(model: mujoco.MjModel) -> int:
    """The body that carries all else: that of the free joint, or the heaviest tree that stands on the world."""
    free = np.flatnonzero(model.jnt_type == FREE)
    if len(free):
        heaviest = max(free, key=lambda j: model.body_subtreemass[model.jnt_bodyid[j]])
        return int(model.jnt_bodyid[heaviest])
    trees = [b for b in range(1, model.nbody) if int(model.body_parentid[b]) == 0]
    return max(trees, key=lambda b: model.body_subtreemass[b], default=0)


def find_legs(model: mujoco.MjModel, data: mujoco.MjData, base: int) -> list[Leg]:
    """The legs in the pose of `data`, in which they hang down from a level base. What carries several of them, as a
    waist below the base does, is part of none.

    Raises:
        TaskError: there are none; the message says what was looked for.
    """
    ends = [(end, _shapes(model, end)) for end in _ends(model, base)]
    height = float(data.xpos[base, 2])
    lowest = {end: min((bottom(model, data, g) for g in shapes), default=np.inf) for end, shapes in ends}
    ground = min(lowest.values(), default=np.inf)
    if not np.isfinite(ground) or height - ground < _LEAST_LEG_M:
        raise TaskError(
            "no legs: expected chains of hinges that end below the base in shapes that collide; "
            "--task hold or --task reach fit robots without"
        )
    feet = [(end, shapes) for end, shapes in ends if lowest[end] <= ground + _FOOT_SHARE * (height - ground)]
    chains = [(_chain(model, base, end), end, shapes) for end, shapes in feet]
    if slides := [name for chain, end, _ in chains if len(chain) < 2 and (name := _slide(model, base, end))]:
        raise TaskError(f"no legs: joint {slides[0]!r} before a foot is a slide, expected legs of hinges")
    legs = [_leg(model, data, chain, shapes, lowest[end]) for chain, end, shapes in chains if len(chain) >= 2]
    if not legs:
        raise TaskError("no legs: what ends below the base has fewer than two hinges before it")
    return _well_named([replace(leg, ankle=_has_ankle(model, data, leg)) for leg in _parted(legs)])


def _has_ankle(model: mujoco.MjModel, data: mujoco.MjData, leg: Leg) -> bool:
    """Whether a leg has so many hinges that its foot may be kept flat at any height: as those of people have, or three
    of one axis before a foot that lies on its sole."""
    axes = data.xaxis[list(leg.joints)]
    alike = int((np.abs(axes @ axes[-1]) > _ALIKE).sum())
    ends = np.array([_extent(model, data, g) for g in leg.shapes])
    size = ends[:, 1].max(axis=0) - ends[:, 0].min(axis=0)
    return len(leg.joints) >= _LONG or (bool(size[:2].max() > _SOLE_LENGTH * size[2]) and alike >= 3)


def _parted(legs: list[Leg]) -> list[Leg]:
    """Legs without the joints that others have too. Raises TaskError where one has no hinges of its own."""
    many = Counter(j for leg in legs for j in leg.joints)
    parted = [replace(leg, joints=tuple(j for j in leg.joints if many[j] == 1)) for leg in legs]
    if any(len(leg.joints) < 2 for leg in parted):
        raise TaskError("legs share joints: expected two hinges or more of its own for each foot")
    return parted


def _ends(model: mujoco.MjModel, base: int) -> list[int]:
    """Bodies that move against the base and that nothing else moves on."""
    moving = [b for b in range(1, model.nbody) if model.body_jntnum[b] and _below(model, b, base) and b != base]
    carriers = {int(model.body_weldid[model.body_parentid[b]]) for b in moving}
    return [b for b in moving if b not in carriers]


def _below(model: mujoco.MjModel, body: int, base: int) -> bool:
    while body and body != base:
        body = int(model.body_parentid[body])
    return body == base


def _chain(model: mujoco.MjModel, base: int, end: int) -> list[int]:
    """Hinges from the base to a body."""
    found: list[int] = []
    while end and end != base:
        first, count = int(model.body_jntadr[end]), int(model.body_jntnum[end])
        found = [*(j for j in range(first, first + count) if int(model.jnt_type[j]) == _HINGE), *found]
        end = int(model.body_parentid[end])
    return found


def _slide(model: mujoco.MjModel, base: int, end: int) -> str:
    """The last slide from the base to a body; "" without one."""
    while end and end != base:
        first, count = int(model.body_jntadr[end]), int(model.body_jntnum[end])
        for joint in range(first, first + count):
            if int(model.jnt_type[joint]) == _SLIDE:
                return label_of(model, "joint", joint)
        end = int(model.body_parentid[end])
    return ""


def _shapes(model: mujoco.MjModel, end: int) -> list[int]:
    """Shapes that collide of a body and of what is fixed to it."""
    collides = (model.geom_contype != 0) | (model.geom_conaffinity != 0)
    return [g for g in range(model.ngeom) if collides[g] and int(model.body_weldid[model.geom_bodyid[g]]) == end]


def bottom(model: mujoco.MjModel, data: mujoco.MjData, geom: int) -> float:
    """The lowest point of a shape, m; of a mesh by its corners, of all else by its box (exact for balls)."""
    return float(_extent(model, data, geom)[0][2])


def _extent(model: mujoco.MjModel, data: mujoco.MjData, geom: int) -> tuple[np.ndarray, np.ndarray]:
    """Corners of the box round a shape, along the world's axes, m."""
    rot, at = data.geom_xmat[geom].reshape(3, 3), data.geom_xpos[geom]
    kind, size = int(model.geom_type[geom]), model.geom_size[geom]
    if kind == int(mujoco.mjtGeom.mjGEOM_MESH):
        mesh = int(model.geom_dataid[geom])
        first, count = int(model.mesh_vertadr[mesh]), int(model.mesh_vertnum[mesh])
        points = at + model.mesh_vert[first : first + count] @ rot.T
        return points.min(axis=0), points.max(axis=0)
    if kind == _SPHERE:
        return at - size[0], at + size[0]
    if kind == int(mujoco.mjtGeom.mjGEOM_CAPSULE):
        reach = np.abs(rot[:, 2]) * size[1] + size[0]
        return at - reach, at + reach
    middle, reach = at + rot @ model.geom_aabb[geom, :3], np.abs(rot) @ model.geom_aabb[geom, 3:]
    return middle - reach, middle + reach


def _leg(model: mujoco.MjModel, data: mujoco.MjData, chain: list[int], shapes: list[int], lowest: float) -> Leg:
    """A leg: of the shapes at its end, those that stand on the ground, and the middle of their sole."""
    first = min(shapes, key=lambda g: bottom(model, data, g))
    body = int(model.geom_bodyid[first])
    standing = [g for g in shapes if int(model.geom_bodyid[g]) == body and bottom(model, data, g) < lowest + _SOLE_M]
    balls = [g for g in standing if int(model.geom_type[g]) == _SPHERE]
    if len(balls) == 1:
        standing = balls
        sole, radius = model.geom_pos[balls[0]].copy(), float(model.geom_size[balls[0], 0])
    else:
        standing, low, high = _outermost(model, data, standing)
        point = np.array([0.5 * (low[0] + high[0]), 0.5 * (low[1] + high[1]), lowest])
        sole, radius = data.xmat[body].reshape(3, 3).T @ (point - data.xpos[body]), 0.0
    of_body = [int(g) for g in np.flatnonzero(model.geom_bodyid == body)]
    names = tuple(model.geom(g).name or of_body.index(g) for g in standing)
    place = tuple(round(float(v), 5) for v in sole)
    label = label_of(model, "body", body)
    foot = Foot(label, label, place, round(radius, 5), names)  # pyright: ignore[reportArgumentType]
    return Leg(tuple(chain), foot, body, tuple(standing))


def _outermost(
    model: mujoco.MjModel, data: mujoco.MjData, standing: list[int]
) -> tuple[list[int], np.ndarray, np.ndarray]:  # fmt: skip
    """Shapes that a foot stands on, and the corners of the box round them, m. Of many, as of a sole of seven rails,
    those that reach to its sides: what lies between them bears nothing more, and each is contacts to solve."""
    ends = np.array([_extent(model, data, g) for g in standing])
    low, high = ends[:, 0].min(axis=0), ends[:, 1].max(axis=0)
    if len(standing) > _MOST_SHAPES:
        sides = [*ends[:, 0, :2].argmin(axis=0), *ends[:, 1, :2].argmax(axis=0)]
        standing = [standing[k] for k in sorted(set(sides))]
    return standing, low, high


def _well_named(legs: list[Leg]) -> list[Leg]:
    """Feet by what tells their names apart: FL_calf, FR_calf become FL, FR; left_ankle_link stays as it is."""
    names = [leg.foot.name for leg in legs]
    short = [name.split("_")[0] for name in names]
    if len(set(short)) == len(short) and all(short):
        names = short
    return [replace(leg, foot=replace(leg.foot, name=name)) for leg, name in zip(legs, names, strict=True)]
