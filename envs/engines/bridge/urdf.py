"""Links and joints as the text of a URDF, for simulators that read one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.engines.bridge.mechanism import Joint, Link, Shape
from envs.engines.bridge.rotors import with_rotor

Array = NDArray[np.float64]
_POINTS = 12  # along each angle of an ellipsoid's hull
_MASSLESS = '<inertial><mass value="0"/><inertia ixx="0" iyy="0" izz="0" ixy="0" ixz="0" iyz="0"/></inertial>'
_STRAIGHT = np.array([1.0, 0.0, 0.0, 0.0])
_ZERO = np.zeros(3)


def turn_of(quat: Array) -> Array:
    """Rotation matrix [3, 3] of a quaternion, w first."""
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, quat)
    return matrix.reshape(3, 3)


def link_name(link: Link, joint: Joint) -> str:
    """The name of the element that a joint of a link moves."""
    return f"body{link.body}" if joint is link.joints[-1] else f"between{joint.index}"


def urdf(tree: Sequence[Link], folder: Path) -> str:
    """A tree of links, parents first: an element for each body, for each joint but the last of a body, and, without
    mass and fixed to its body, for each shape ("geom" and its index). What is not free hangs on an element "base",
    beside an empty one, "first".

    Inertias are 1 about the principal axes of `with_rotor`, to be set to its moments afterwards.

    Args:
        tree: the links.
        folder: gets the files of shapes that are hulls.
    """
    free = tree[0].free is not None
    parts: list[str] = []
    if not free:
        # PyBullet 3.2.7 lets a shape touch nothing that stands if all joints between it and a standing base are fixed,
        # but does not look at the first joint: so that is one that carries nothing.
        parts += [f'<link name="{name}">{_MASSLESS}</link>' for name in ("base", "first")]
        parts.append(_joint("fixed", "base", "first", _pose(_ZERO, _STRAIGHT)))
    for link in tree:
        parts += _elements(link, folder)
        if link.free is None:
            parent = next((other for other in tree if other.body == link.parent), None)
            parts += _joints(link, parent)
    return f'<robot name="tree">{"".join(parts)}</robot>'


def _elements(link: Link, folder: Path) -> Iterator[str]:
    # Parents first: PyBullet 3.2.7 computes nonsense where a link is listed before the one that carries it.
    for joint in link.joints[:-1]:
        yield f'<link name="{link_name(link, joint)}">{_MASSLESS}</link>'
    _, axes = with_rotor(link)
    at = _origin_of(link)
    yield (
        f'<link name="body{link.body}"><inertial>{_pose(link.com - at, axes)}<mass value="{link.mass!r}"/>'
        '<inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/></inertial></link>'
    )
    for shape in link.shapes:
        solid = f"<collision><geometry>{_solid(shape, folder)}</geometry></collision>"
        yield f'<link name="geom{shape.geom}">{_MASSLESS}{solid}</link>'
        yield _joint("fixed", f"body{link.body}", f"geom{shape.geom}", _pose(shape.pos - at, shape.quat))


def _origin_of(link: Link) -> Array:
    """Where the frame of a link's element is in the body's: at its last joint, for a URDF's joints are at origins."""
    return link.joints[-1].anchor if link.joints else _ZERO


def _joints(link: Link, parent: Link | None) -> Iterator[str]:
    before, at = ("base", _ZERO) if parent is None else (f"body{parent.body}", _origin_of(parent))
    if not link.joints:
        yield _joint("fixed", before, f"body{link.body}", _pose(link.pos - at, link.quat))
    pos, quat = link.pos - at + turn_of(link.quat) @ (link.joints[0].anchor if link.joints else _ZERO), link.quat
    for number, joint in enumerate(link.joints):
        name = link_name(link, joint)
        kind = "prismatic" if joint.slides else "revolute" if joint.range else "continuous"
        low, high = joint.range or ((-1e9, 1e9) if joint.slides else (0.0, 0.0))
        axis = " ".join(repr(x) for x in joint.axis.tolist())
        limit = f'<limit lower="{low - joint.zero!r}" upper="{high - joint.zero!r}" effort="1e9" velocity="1e9"/>'
        inner = f'<axis xyz="{axis}"/>{limit if joint.range or joint.slides else ""}'
        yield _joint(kind, before, name, _pose(pos, quat) + inner)
        if number + 1 < len(link.joints):
            pos, quat, before = link.joints[number + 1].anchor - joint.anchor, _STRAIGHT, name


def _joint(kind: str, parent: str, child: str, inner: str) -> str:
    return f'<joint name="to_{child}" type="{kind}"><parent link="{parent}"/><child link="{child}"/>{inner}</joint>'


def _pose(pos: Array, quat: Array) -> str:
    m = turn_of(quat / np.linalg.norm(quat))
    flat = math.hypot(m[0, 0], m[1, 0])
    pitch = math.atan2(-m[2, 0], flat)
    if flat < 1e-9:  # roll and yaw turn about one axis
        roll, yaw = math.atan2(-m[1, 2], m[1, 1]), 0.0
    else:
        roll, yaw = math.atan2(m[2, 1], m[2, 2]), math.atan2(m[1, 0], m[0, 0])
    place, angles = (" ".join(repr(float(x)) for x in values) for values in (pos, (roll, pitch, yaw)))
    return f'<origin xyz="{place}" rpy="{angles}"/>'


def _solid(shape: Shape, folder: Path) -> str:
    size = shape.size.tolist()
    if shape.kind == "sphere":
        return f'<sphere radius="{size[0]!r}"/>'
    if shape.kind in ("capsule", "cylinder"):
        return f'<{shape.kind} radius="{size[0]!r}" length="{2.0 * size[1]!r}"/>'
    if shape.kind == "box":
        return f'<box size="{2.0 * size[0]!r} {2.0 * size[1]!r} {2.0 * size[2]!r}"/>'
    return f'<mesh filename="{write_points(shape, folder)}"/>'


def write_points(shape: Shape, folder: Path) -> Path:
    """Write a file of a hull's corners, of a mesh or on an ellipsoid: what reads it makes the hull."""
    points = shape.points
    if points is None:
        along, around = np.linspace(0.0, math.pi, _POINTS), np.linspace(0.0, 2.0 * math.pi, 2 * _POINTS)
        a, b = np.meshgrid(along, around)
        on = np.stack((np.sin(a) * np.cos(b), np.sin(a) * np.sin(b), np.cos(a)), axis=-1).reshape(-1, 3)
        points = on * shape.size
    path = folder / f"{folder.name}_{shape.geom}.obj"
    lines = [f"v {x!r} {y!r} {z!r}" for x, y, z in points.tolist()]
    faces = [f"f {i} {i + 1} {i + 2}" for i in range(1, len(points) - 1)]
    path.write_text("\n".join((*lines, *faces)) + "\n", encoding="utf-8")
    return path
