"""Where the black pieces in the middle of a Rubik's Cube's faces lie, as a camera at the palm sees it.

How far a face has been turned is told relative to the cube: to read it from a picture is to find out which face that is
and which way the cube lies, and to relate the black piece to both. Where the black piece on top of the cube points to,
in the palm's frame, a picture shows at once. So a network reads that, for each side of the palm, and the orientation;
the angles of the faces follow.

Sides are those of `SIDES`; an angle is counter-clockwise about the side's axis, from its axis in `_RIGHT`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from envs.common.spatial import constant, quat_rotate, rotate_inverse
from envs.manipulation.rubiks.model import CORNERS
from envs.manipulation.rubiks.state import NORMALS

SIDES = ("x+", "x-", "y+", "y-", "z+", "z-")
_X, _Y, _Z = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
# Of each side two axes of the palm that lie in it; their cross product points out of it.
_RIGHT, _UP = (_Y, _Z, _Z, _X, _X, _Y), (_Z, _Y, _X, _Z, _Y, _X)
_OUT = ((1.0, 0.0, 0.0), (-1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, 1.0), (0.0, 0.0, -1.0))
_NORMALS = tuple(tuple(map(float, normal)) for normal in NORMALS)
_FIRST = tuple(tuple(float(v) / 2.0**0.5 for v in corners[0]) for corners in CORNERS)
_ACROSS = tuple(tuple(float(v) / 2.0**0.5 for v in corners[1]) for corners in CORNERS)  # a quarter turn further


def faces_by_side(quat: Tensor) -> Tensor:
    """Index in `FACES` [N, 6] of the face of cubes with orientations [N, 4] that points most to each of `SIDES`."""
    normals = constant(_NORMALS, quat.dtype, quat.device)
    out = quat_rotate(quat[:, None].expand(-1, 6, -1), normals.expand(len(quat), -1, -1))  # [N, face, xyz]
    return torch.stack((out.argmax(dim=1), out.argmin(dim=1)), dim=2).flatten(1)


def by_side(quat: Tensor, values: Tensor) -> Tensor:
    """Values [N, 6] of the faces of cubes with orientations [N, 4], by side of the palm; see `SIDES`."""
    return values.gather(1, faces_by_side(quat))


def marks_of(quat: Tensor, angles: Tensor) -> Tensor:
    """Angles [N, 6] of the black pieces by side, rad, of cubes with orientations [N, 4] whose faces have been turned by
    angles [N, 6]."""
    first, across, u, v, _, _ = _tables(quat)
    faces = faces_by_side(quat)
    turned = angles.gather(1, faces)[..., None]
    mark = turned.cos() * first[faces] + turned.sin() * across[faces]  # [N, side, xyz] in the cube's frame
    mark = quat_rotate(quat[:, None].expand(-1, 6, -1), mark)
    return torch.atan2((mark * v).sum(dim=2), (mark * u).sum(dim=2))


def angles_of(quat: Tensor, marks: Tensor) -> Tensor:
    """The inverse of `marks_of`: angles [N, 6] of the faces, rad from -pi to pi.

    Where a cube lies so askew that a face points most to no side, that face's angle is 0.
    """
    first, across, u, v, out, normals = _tables(quat)
    faces = faces_by_side(quat)
    every = quat[:, None].expand(-1, 6, -1)
    seen = marks.cos()[..., None] * u + marks.sin()[..., None] * v
    normal = quat_rotate(every, normals[faces])
    # What a picture from outside does not show of the direction is that it lies in the face.
    along = (seen * normal).sum(dim=2) / (out * normal).sum(dim=2).clamp(min=1e-6)
    mark = rotate_inverse(every, seen - along[..., None] * out)
    turned = torch.atan2((mark * across[faces]).sum(dim=2), (mark * first[faces]).sum(dim=2))
    return torch.zeros_like(marks).scatter(1, faces, turned)


def rule() -> dict[str, object]:
    """`angles_of` for an exported estimator; see `simreal.deploy.seeing.follows`."""
    tables = {"first": _FIRST, "across": _ACROSS, "normals": _NORMALS, "right": _RIGHT, "up": _UP, "out": _OUT}
    return {"rule": "marks", "tables": {name: [list(row) for row in table] for name, table in tables.items()}}


def _tables(like: Tensor) -> tuple[Tensor, ...]:
    """Directions [6, 3]: of each face its first corner and the next one; of each side its axes and out of it; out of
    each face."""
    rows = (_FIRST, _ACROSS, _RIGHT, _UP, _OUT, _NORMALS)
    return tuple(constant(row, like.dtype, like.device) for row in rows)
