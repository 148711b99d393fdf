"""What collides in a compiled model and should not, and what should and does not."""

from __future__ import annotations

from collections.abc import Iterator

import mujoco
import numpy as np

from envs.common.names import label_of
from envs.robots.doctor.symptom import Symptom, several
from envs.validation.health.rest import penetrations
from envs.validation.health.subject import Subject

_MESH = int(mujoco.mjtGeom.mjGEOM_MESH)
_FREE = int(mujoco.mjtJoint.mjJNT_FREE)
_COVERED = 0.6  # share of a mesh's box that shapes beside it cover: both are the same part
_SLIPPERY = 0.05
_FAR = 20.0  # sizes of the skeleton: a shape as large is in millimetres
_LONGEST_M = 0.05


def examine_contacts(model: mujoco.MjModel) -> Iterator[Symptom]:
    """Looks that collide, robots that nothing holds up, feet like ice, meshes in millimetres."""
    collides = (model.geom_contype != 0) | (model.geom_conaffinity != 0)
    of_robot = model.geom_bodyid > 0
    yield from _doubled(model, collides)
    free = any(int(kind) == _FREE for kind in model.jnt_type)
    if free and not (collides & of_robot).any():
        yield Symptom("error", "collision", "the robot", "is free, and none of its shapes collides: it falls forever",
                      "give its feet contype and conaffinity, or <collision> elements")  # fmt: skip
    touching = collides & of_robot
    if free and touching.any() and float(model.geom_friction[touching, 0].max()) < _SLIPPERY:
        ground = collides & ~of_robot
        if not ground.any() or float(model.geom_friction[ground, 0].max()) < _SLIPPERY:
            yield Symptom("warning", "friction", "the robot", "none of its shapes has friction: it cannot stand",
                          "give feet or ground a friction, 0.4 to 1")  # fmt: skip
    yield from _huge(model)


def _doubled(model: mujoco.MjModel, collides: np.ndarray) -> Iterator[Symptom]:
    """Bodies of which a mesh and the simple shapes for it both collide."""
    found = list[str]()
    for body in range(1, model.nbody):
        geoms = [int(g) for g in np.flatnonzero(model.geom_bodyid == body) if collides[g]]
        meshes = [g for g in geoms if int(model.geom_type[g]) == _MESH]
        others = [g for g in geoms if g not in meshes]
        same = len(meshes) - len({(int(model.geom_dataid[g]), *model.geom_pos[g].round(6)) for g in meshes})
        if same or any(_cover(model, mesh, others) > _COVERED for mesh in meshes if others):
            found.append(label_of(model, "body", body))
    if found:
        yield Symptom(
            "warning", "visual", several("body", found, "bodies"),
            "a mesh collides, and so do the shapes that stand for it",
            "let looks not collide: contype=\"0\" conaffinity=\"0\" group=\"2\", mass=\"0\"",
        )  # fmt: skip


def _cover(model: mujoco.MjModel, mesh: int, others: list[int]) -> float:
    """Which share of a mesh's box the boxes of other shapes of its body cover, by points of a grid."""
    low, high = _corners(model, mesh)
    axes = [np.linspace(low[i], high[i], 7)[1:-1] for i in range(3)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    inside = np.zeros(len(points), dtype=bool)
    for other in others:
        start, end = _corners(model, other)
        inside |= ((points >= start) & (points <= end)).all(axis=1)
    return float(inside.mean())


def _corners(model: mujoco.MjModel, geom: int) -> tuple[np.ndarray, np.ndarray]:
    """The box round a shape in the frame of its body."""
    turned = np.zeros(9)
    mujoco.mju_quat2Mat(turned, model.geom_quat[geom])
    rot = turned.reshape(3, 3)
    middle = model.geom_pos[geom] + rot @ model.geom_aabb[geom, :3]
    reach = np.abs(rot) @ model.geom_aabb[geom, 3:]
    return middle - reach, middle + reach


def _huge(model: mujoco.MjModel) -> Iterator[Symptom]:
    """Shapes that are far larger than the skeleton that carries them."""
    moving = [b for b in range(1, model.nbody) if model.body_weldid[b]]
    bones = float(sum(np.linalg.norm(model.body_pos[b]) for b in moving if model.body_parentid[b]))
    if bones < _LONGEST_M:
        return
    names = [label_of(model, "body", int(model.geom_bodyid[g])) for g in range(model.ngeom)
             if int(model.geom_bodyid[g]) in moving and float(model.geom_rbound[g]) > _FAR * bones]  # fmt: skip
    if names:
        yield Symptom("warning", "units", several("body", list(dict.fromkeys(names)), "bodies"),
                      f"shapes of more than {_FAR:g} times the length of the robot ({bones:.3g} m)",
                      "meshes are in m: scale=\"0.001 0.001 0.001\" where they are drawn in mm")  # fmt: skip


def let_neighbours_through(subject: Subject) -> bool:
    """Leave out contacts of bodies that a joint ties together at the start; returns whether there were any. MuJoCo does
    so by itself, but for those of a base that is fixed to the world, as a URDF's is until it floats."""
    found = False
    for data in subject.starts:
        for contact in data.contact[: data.ncon]:
            if _neighbours(subject.model, int(contact.geom[0]), int(contact.geom[1])):
                contact.exclude, found = 1, True
    return found


def examine_overlaps(subject: Subject) -> Iterator[Symptom]:
    """Bodies of the robot that push each other apart at the stance, and what is stuck in the ground; the deepest."""
    found, _ = penetrations(subject)
    if not found:
        return
    more = f" (and {len(found) - 1} other pairs)" if len(found) > 1 else ""
    evidence = found[0].evidence.replace("an episode", "it")
    yield Symptom("warning", "collision", found[0].of + more, evidence, found[0].remedy)


def _neighbours(model: mujoco.MjModel, one: int, other: int) -> bool:
    """Whether two shapes belong to one body, or to two that a joint ties together; those of the world are nobody's."""
    a, b = int(model.geom_bodyid[one]), int(model.geom_bodyid[other])
    if not a or not b:
        return False
    welds = [int(model.body_weldid[x]) for x in (a, b)]
    parents = [int(model.body_weldid[model.body_parentid[weld]]) if weld else -1 for weld in welds]
    return welds[0] == welds[1] or parents[0] == welds[1] or parents[1] == welds[0]
