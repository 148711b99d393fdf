"""What MuJoCo's geoms and sites look like, as triangles in the frame of their body; one list for each colour.

Colours of textures are their mean, of a cube's texture that of each side. Skins and flexible bodies are left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import mujoco
import numpy as np
import trimesh
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Rgba = tuple[float, float, float, float]

_GEOM = mujoco.mjtGeom
_ROUND = (int(_GEOM.mjGEOM_SPHERE), int(_GEOM.mjGEOM_CAPSULE), int(_GEOM.mjGEOM_ELLIPSOID), int(_GEOM.mjGEOM_MESH))
_COLOUR_ROLES = (mujoco.mjtTextureRole.mjTEXROLE_RGB, mujoco.mjtTextureRole.mjTEXROLE_RGBA)
_SHOWN_GROUPS = 3  # of geoms and sites, as MuJoCo's own viewer shows them
WIDE_M = 20.0  # half of the side of a plane without end
_MOST_FACES, _MOST_POINTS = 4_000, 150_000  # of a mesh; of a height field
_SIDES = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])  # of a cube's texture


@dataclass(frozen=True)
class Triangles:
    """A surface of one colour.

    Attributes:
        vertices: [k, 3] m.
        faces: [n, 3] rows of vertices.
        rgba: its colour.
        round: whether it is to look smooth.
    """

    vertices: Numbers
    faces: NDArray[np.int64]
    rgba: Rgba
    round: bool


def body_shapes(model: mujoco.MjModel, body: int, without_sites: frozenset[int]) -> list[Triangles]:
    """What is to be seen of a body: its geoms, and its sites but those that move by themselves."""
    found: dict[tuple[Rgba, bool], list[tuple[Numbers, NDArray[np.int64]]]] = {}
    for piece in (*_geoms(model, body), *_sites(model, body, without_sites)):
        found.setdefault((piece.rgba, piece.round), []).append((piece.vertices, piece.faces))
    return [Triangles(*_joined(parts), rgba, smooth) for (rgba, smooth), parts in found.items()]


def colours_of(model: mujoco.MjModel, kind: str, index: int) -> bytes:
    """The colours of a body's geoms and sites, or of a site: a task may paint them as it goes on."""
    if kind == "site":
        return model.site_rgba[index].tobytes()
    first = int(model.body_geomadr[index])
    geoms = model.geom_rgba[first : first + int(model.body_geomnum[index])]
    return geoms.tobytes() + model.site_rgba[model.site_bodyid == index].tobytes()


def site_shape(model: mujoco.MjModel, site: int) -> Triangles | None:
    """A site in its own frame; None where nothing of it is to be seen."""
    rgba = _rgba(model, int(model.site_matid[site]), model.site_rgba[site])
    if rgba[3] <= 0.0 or int(model.site_group[site]) >= _SHOWN_GROUPS:
        return None
    kind = int(model.site_type[site])
    surface = _primitive(kind, model.site_size[site])
    return None if surface is None else Triangles(*surface, rgba, kind in _ROUND)


def _geoms(model: mujoco.MjModel, body: int) -> Iterator[Triangles]:
    for geom in range(model.body_geomadr[body], model.body_geomadr[body] + model.body_geomnum[body]):
        rgba = _rgba(model, int(model.geom_matid[geom]), model.geom_rgba[geom])
        if rgba[3] <= 0.0 or int(model.geom_group[geom]) >= _SHOWN_GROUPS:
            continue
        kind = int(model.geom_type[geom])
        surface = _surface(model, geom, kind)
        if surface is None:
            continue
        vertices, faces = surface
        moved = _placed(vertices, model.geom_pos[geom], model.geom_quat[geom])
        sides = _side_colours(model, int(model.geom_matid[geom]))
        if sides is None:
            yield Triangles(moved, faces, rgba, kind in _ROUND)
            continue
        corners = vertices[faces]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        nearest = np.argmax(normals @ _SIDES.T, axis=1)
        for side in range(6):
            if (nearest == side).any():
                yield Triangles(moved, faces[nearest == side], (*sides[side], rgba[3]), False)


def _sites(model: mujoco.MjModel, body: int, without: frozenset[int]) -> Iterator[Triangles]:
    for site in range(model.nsite):
        if int(model.site_bodyid[site]) == body and site not in without and (found := site_shape(model, site)):
            yield Triangles(
                _placed(found.vertices, model.site_pos[site], model.site_quat[site]), found.faces, found.rgba,
                found.round,
            )  # fmt: skip


def _surface(model: mujoco.MjModel, geom: int, kind: int) -> tuple[Numbers, NDArray[np.int64]] | None:
    """Vertices and faces of a geom in its own frame."""
    data = int(model.geom_dataid[geom])
    if kind == int(_GEOM.mjGEOM_MESH):
        first, count = int(model.mesh_vertadr[data]), int(model.mesh_vertnum[data])
        begin, faces = int(model.mesh_faceadr[data]), int(model.mesh_facenum[data])
        vertices = model.mesh_vert[first : first + count].astype(np.float64)
        return thinned(vertices, model.mesh_face[begin : begin + faces].astype(np.int64))
    if kind == int(_GEOM.mjGEOM_HFIELD):
        return _height_field(model, data)
    if kind == int(_GEOM.mjGEOM_PLANE):
        x, y = (float(half) or WIDE_M for half in model.geom_size[geom][:2])
        return np.array([[-x, -y, 0.0], [x, -y, 0.0], [x, y, 0.0], [-x, y, 0.0]]), np.array([[0, 1, 2], [0, 2, 3]])
    return _primitive(kind, model.geom_size[geom])


def _primitive(kind: int, size: Numbers) -> tuple[Numbers, NDArray[np.int64]] | None:
    """Vertices and faces of a shape that sizes describe; None for others."""
    r, half = float(size[0]), float(size[1])
    make = trimesh.creation
    if kind == int(_GEOM.mjGEOM_SPHERE):
        made = make.icosphere(radius=r, subdivisions=2)
    elif kind == int(_GEOM.mjGEOM_CAPSULE):
        made = make.capsule(radius=r, height=2.0 * half, count=(12, 12))
    elif kind == int(_GEOM.mjGEOM_CYLINDER):
        made = make.cylinder(radius=r, height=2.0 * half, sections=24)
    elif kind == int(_GEOM.mjGEOM_BOX):
        made = make.box(extents=2.0 * np.asarray(size))
    elif kind == int(_GEOM.mjGEOM_ELLIPSOID):
        made = make.icosphere(radius=1.0, subdivisions=2)
        made.apply_scale(np.asarray(size))
    else:
        return None
    return np.asarray(made.vertices, dtype=np.float64), np.asarray(made.faces, dtype=np.int64)


def _height_field(model: mujoco.MjModel, field: int) -> tuple[Numbers, NDArray[np.int64]]:
    rows, columns = int(model.hfield_nrow[field]), int(model.hfield_ncol[field])
    x, y, top, _ = model.hfield_size[field]
    first = int(model.hfield_adr[field])
    heights = model.hfield_data[first : first + rows * columns].reshape(rows, columns) * top
    along_x, along_y = np.meshgrid(np.linspace(-x, x, columns), np.linspace(-y, y, rows))
    if (stride := math.ceil(math.sqrt(heights.size / _MOST_POINTS))) > 1:
        along_x, along_y, heights = (values[::stride, ::stride] for values in (along_x, along_y, heights))
        rows, columns = heights.shape
    vertices = np.stack((along_x, along_y, heights), axis=2).reshape(-1, 3)
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    near = np.stack((corner, corner + 1, corner + columns + 1), axis=1)
    far = np.stack((corner, corner + columns + 1, corner + columns), axis=1)
    return vertices, np.concatenate((near, far))


def thinned(vertices: Numbers, faces: NDArray[np.int64], most: int = _MOST_FACES) -> tuple[Numbers, NDArray[np.int64]]:
    """A surface with fewer triangles, where it has too many to be sent and drawn: vertices in one cell of a grid become
    one, and the grid is as fine as leaves about `most` of them (Rossignac and Borrel 1993)."""
    cells = 256.0
    while len(faces) > most and cells > 8.0:
        size = float(np.ptp(vertices, axis=0).max()) / cells or 1.0
        _, first, cell = np.unique(np.floor(vertices / size), axis=0, return_index=True, return_inverse=True)
        merged = cell.reshape(-1)[faces]
        kept = (merged[:, 0] != merged[:, 1]) & (merged[:, 1] != merged[:, 2]) & (merged[:, 2] != merged[:, 0])
        if int(kept.sum()) <= most:
            middles = np.zeros((len(first), 3))
            np.add.at(middles, cell.reshape(-1), vertices)
            return middles / np.bincount(cell.reshape(-1))[:, None], np.unique(merged[kept], axis=0)
        cells *= 0.8
    return vertices, faces


def _placed(vertices: Numbers, pos: Numbers, quat: Numbers) -> Numbers:
    """Vertices [k, 3] of a frame at pos [3], quat [4], in the frame around it."""
    turn = np.zeros(9)
    mujoco.mju_quat2Mat(turn, np.asarray(quat, dtype=np.float64))
    return vertices @ turn.reshape(3, 3).T + pos


def _joined(parts: list[tuple[Numbers, NDArray[np.int64]]]) -> tuple[Numbers, NDArray[np.int64]]:
    starts = np.cumsum([0, *(len(vertices) for vertices, _ in parts)])
    faces = [faces + start for (_, faces), start in zip(parts, starts, strict=False)]
    return np.concatenate([vertices for vertices, _ in parts]), np.concatenate(faces)


def _rgba(model: mujoco.MjModel, material: int, own: NDArray[np.float32]) -> Rgba:
    """The colour of a geom or a site: where it has a material, that one's, times what its texture is on average."""
    rgba = np.asarray(model.mat_rgba[material] if material >= 0 else own, dtype=np.float64)
    texture = _texture(model, material)
    if texture is not None:
        rgba = rgba * np.append(texture.reshape(-1, texture.shape[-1])[:, :3].mean(axis=0) / 255.0, 1.0)
    if material >= 0 and own[3] == 0.0:
        rgba[3] = 0.0  # hidden, as tasks hide it
    red, green, blue, alpha = np.clip(rgba, 0.0, 1.0).round(4).tolist()
    return red, green, blue, alpha


def _texture(model: mujoco.MjModel, material: int) -> NDArray[np.uint8] | None:
    """The texels [height, width, channels] of a material; None where it has none, or one of less than three colours."""
    if material < 0:
        return None
    texture = max(int(model.mat_texid[material][int(role)]) for role in _COLOUR_ROLES)
    if texture < 0 or int(model.tex_nchannel[texture]) < 3:
        return None
    height, width = int(model.tex_height[texture]), int(model.tex_width[texture])
    channels = int(model.tex_nchannel[texture])
    first = int(model.tex_adr[texture])
    return model.tex_data[first : first + height * width * channels].reshape(height, width, channels)


def _side_colours(model: mujoco.MjModel, material: int) -> list[tuple[float, float, float]] | None:
    """The colours of the six sides of a cube's texture, as +x, -x, +y, -y, +z, -z; None for any other."""
    texture = _texture(model, material)
    if texture is None or texture.shape[0] != 6 * texture.shape[1]:
        return None
    means = texture.reshape(6, -1, texture.shape[-1])[..., :3].mean(axis=1) / 255.0
    tints = np.clip(means * model.mat_rgba[material][:3], 0.0, 1.0).round(4)
    if np.ptp(tints, axis=0).max() < 0.01:
        return None  # alike all around
    return [(float(r), float(g), float(b)) for r, g, b in tints]
