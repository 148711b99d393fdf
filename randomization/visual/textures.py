"""Procedural textures: checkers, stripes, noise, gradients, flat; and the backgrounds of pictures.

Patterns are bright (a surface's own colour multiplies them), made once from fixed seeds and shared by all
environments: a world names patterns, it does not carry any.
"""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

PATTERNS = 24  # in the library
UNSEEN = PATTERNS  # the first of as many others, which no training is given
_SIZE = 64  # pixels along an edge of a pattern
_SKY = 32  # pixels along an edge of the background's cube
Tile = NDArray[np.float64]  # [size, size] in [0, 1]: 0 one colour, 1 the other


def checker(size: int, cells: int) -> Tile:
    """Squares, `cells` along an edge."""
    line = np.arange(size) * cells // size
    return ((line[:, None] + line) % 2).astype(np.float64)


def stripes(size: int, cells: int) -> Tile:
    """Bars along the second axis, `cells` of them across."""
    line = np.arange(size) * cells // size % 2
    return np.repeat(line[:, None], size, axis=1).astype(np.float64)


def gradient(size: int) -> Tile:
    """From 0 at the first row to 1 at the last."""
    return np.repeat(np.linspace(0.0, 1.0, size)[:, None], size, axis=1)


def noise(size: int, cells: int, random: np.random.Generator) -> Tile:
    """Value noise without seams: random values on a grid of `cells` x `cells`, smoothly interpolated, over [0, 1]."""
    grid = random.random((cells, cells))
    where = np.arange(size) * cells / size
    low = where.astype(int)
    part = where - low
    part = part * part * (3.0 - 2.0 * part)  # smoothstep
    high = (low + 1) % cells
    rows = grid[low] * (1.0 - part[:, None]) + grid[high] * part[:, None]
    tile = rows[:, low] * (1.0 - part) + rows[:, high] * part
    return (tile - tile.min()) / max(float(np.ptp(tile)), 1e-9)


def rings(size: int, cells: int) -> Tile:
    """Circles around the middle, `cells` along an edge."""
    line = np.abs(2 * np.arange(size) + 1 - size) / size
    return (np.hypot(line[:, None], line) * cells).astype(int) % 2.0


def diagonal(size: int, cells: int) -> Tile:
    """Bars along a diagonal, `cells` of them across."""
    line = np.arange(size)
    return ((line[:, None] + line) * cells // size % 2).astype(np.float64)


def dots(size: int, cells: int) -> Tile:
    """Discs, `cells` along an edge."""
    line = np.arange(size) * cells / size % 1.0 - 0.5
    return (np.hypot(line[:, None], line) < 0.35).astype(np.float64)


def flat(size: int) -> Tile:
    """One colour."""
    return np.zeros((size, size))


def pattern(index: int) -> NDArray[np.uint8]:
    """Pattern `index` of the library, [size, size, 3]: a tile between two bright colours; from UNSEEN on other ones."""
    random = np.random.default_rng(index)
    scale = 2 ** (1 + index // 6 % 4)  # 2, 4, 8, 16 cells along an edge
    if index < UNSEEN:
        tile = (
            checker(_SIZE, scale),
            noise(_SIZE, scale, random),
            stripes(_SIZE, scale),
            noise(_SIZE, 2 * scale, random),
            gradient(_SIZE),
            flat(_SIZE),
        )[index % 6]
    else:
        tile = (
            rings(_SIZE, scale),
            diagonal(_SIZE, scale),
            dots(_SIZE, scale),
            noise(_SIZE, scale, random),
            rings(_SIZE, 2 * scale),
            diagonal(_SIZE, 2 * scale),
        )[index % 6]
    first = random.uniform(0.7, 1.0, 3)
    second = random.uniform(0.35, 0.75) * random.uniform(0.7, 1.0, 3)
    colours = first + tile[..., None] * (second - first)
    return np.rint(255.0 * colours).astype(np.uint8)


def library(first: int = 0) -> mujoco.MjModel:
    """A model without bodies that holds the textures, of patterns from `first` on.

    Textures 0 to PATTERNS - 1 are the patterns for planes (2D), the next PATTERNS the same for solids (cubes), the
    last is the background (skybox).
    """
    spec = mujoco.MjSpec()
    for kind, faces in ((mujoco.mjtTexture.mjTEXTURE_2D, 1), (mujoco.mjtTexture.mjTEXTURE_CUBE, 6)):
        for index in range(PATTERNS):
            _add(spec, f"{kind.name}{index}", kind, np.tile(pattern(first + index), (faces, 1, 1)))
    _add(spec, "sky", mujoco.mjtTexture.mjTEXTURE_SKYBOX, np.zeros((6 * _SKY, _SKY, 3), np.uint8))
    return spec.compile()


def _add(spec: mujoco.MjSpec, name: str, kind: mujoco.mjtTexture, data: NDArray[np.uint8]) -> None:
    texture = spec.add_texture(name=name, type=kind, width=data.shape[1], height=data.shape[0], nchannel=3)
    texture.data = data.tobytes()


def nominal_sky(model: mujoco.MjModel) -> NDArray[np.uint8]:
    """The model's background as [6 * size, size, 3], by nearest pixel; black where it has none."""
    found = np.flatnonzero(model.tex_type == int(mujoco.mjtTexture.mjTEXTURE_SKYBOX))
    if not len(found):
        return np.zeros((6 * _SKY, _SKY, 3), np.uint8)
    texture = int(found[0])
    width, height, channels = (int(a[texture]) for a in (model.tex_width, model.tex_height, model.tex_nchannel))
    start = int(model.tex_adr[texture])
    image = model.tex_data[start : start + width * height * channels].reshape(height, width, channels)
    if height == width:  # one face for all six
        image = np.tile(image, (6, 1, 1))
    pick = (2 * np.arange(_SKY) + 1) * width // (2 * _SKY)
    rows = (np.arange(6)[:, None] * width + pick).ravel()
    return image[rows][:, pick, :3].astype(np.uint8)


def gradient_sky(top: NDArray[Any], bottom: NDArray[Any]) -> NDArray[np.float64]:
    """A background [6 * size, size, 3] that goes from one colour overhead to another below; colours in [0, 1].

    MuJoCo's faces are right, left, up, down, front, back.
    """
    sides = bottom + (1.0 - gradient(_SKY))[..., None] * (top - bottom)
    faces = [sides, sides, np.broadcast_to(top, sides.shape), np.broadcast_to(bottom, sides.shape), sides, sides]
    return np.concatenate(faces)


def mixed_sky(nominal: NDArray[np.uint8], amount: float, top: NDArray[Any], bottom: NDArray[Any]) -> NDArray[np.uint8]:
    """The nominal background (amount 0), a gradient between two colours (1), or in between."""
    mixed = (1.0 - amount) * nominal + amount * 255.0 * gradient_sky(top, bottom)
    return np.rint(mixed).astype(np.uint8)
