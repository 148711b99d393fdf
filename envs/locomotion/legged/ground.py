"""The ground that legged robots walk on: flat, rough, or in patches of rising difficulty (`terrain`)."""

from __future__ import annotations

import math
from typing import Literal, get_args

import mujoco
import numpy as np
import torch
from torch import Tensor

from envs.common.messages import nearest
from envs.locomotion.legged.terrain import GRADED, HALF_X_M, HALF_Y_M, graded_heights
from envs.task import Fixed

Terrain = Literal["flat", "rough", "slopes", "stairs", "stones"]

HALF_SIZE_M = 16.0
ROUGHNESS_M = 0.03
_CELL_M = 0.1


def check_terrain(terrain: str, roughness_m: float) -> None:
    """Raise ValueError for a ground that there is not, and for bumps where there are none."""
    known = get_args(Terrain)
    if terrain not in known:
        expected = ", ".join(map(repr, known))
        raise ValueError(f"terrain: expected one of {expected}, got {terrain!r}{nearest(str(terrain), known)}")
    if terrain == "rough" and not 0.0 < roughness_m < math.inf:
        raise ValueError(f"roughness_m: expected more than 0 on rough ground, got {roughness_m}")
    if terrain != "rough" and roughness_m != ROUGHNESS_M:  # the default, which tasks hand on
        raise ValueError(f"roughness_m: terrain {terrain!r} has no bumps, expected terrain 'rough', or no roughness_m")


def terrain_heights(roughness_m: float, seed: int = 0) -> np.ndarray:
    """Heights [rows along y, columns along x] in [0, 1] of uneven ground: bumps of 0.2 to 0.4 m on waves of 2 m.

    Args:
        roughness_m: height of the bumps; only decides how they compare with the waves.
        seed: of the ground; the same for every simulation.
    """
    size = round(2 * HALF_SIZE_M / _CELL_M) + 1
    generator = np.random.default_rng(seed)
    heights = np.zeros((size, size))
    for wavelength_m, amplitude in ((0.2, 0.5 * roughness_m), (0.4, roughness_m), (2.0, 1.5 * roughness_m)):
        coarse = generator.random((round(2 * HALF_SIZE_M / wavelength_m) + 2,) * 2)
        at = np.arange(size) * _CELL_M / wavelength_m
        low, part = at.astype(int), at - at.astype(int)
        along_y = coarse[low] * (1 - part)[:, None] + coarse[low + 1] * part[:, None]
        heights += amplitude * (along_y[:, low] * (1 - part) + along_y[:, low + 1] * part)
    heights -= heights.min()
    return heights / heights.max()


def terrain_amplitude_m(roughness_m: float) -> float:
    """Height of the highest point of `terrain_heights` above the lowest."""
    return 2.5 * roughness_m


def add_ground(spec: mujoco.MjSpec, terrain: Terrain, roughness_m: float, height_m: float = 0.3) -> None:
    """Give a model sky, light and the ground "floor", in patches for a robot whose base stands at `height_m`."""
    world = spec.worldbody
    spec.add_texture(
        name="sky", type=mujoco.mjtTexture.mjTEXTURE_SKYBOX, builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
        rgb1=(0.75, 0.84, 0.92), rgb2=(0.96, 0.97, 0.98), width=64, height=384,
    )  # fmt: skip
    spec.add_texture(
        name="ground", type=mujoco.mjtTexture.mjTEXTURE_2D, builtin=mujoco.mjtBuiltin.mjBUILTIN_CHECKER,
        rgb1=(0.62, 0.66, 0.70), rgb2=(0.72, 0.76, 0.80), width=256, height=256,
    )  # fmt: skip
    material = spec.add_material(name="ground", texrepeat=(1, 1), texuniform=True)
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "ground"
    world.add_light(  # without a shadow: that of a directional light covers the origin only
        pos=(0, 0, 4), dir=(0.2, 0.2, -1), type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL, diffuse=(0.5, 0.5, 0.5),
        castshadow=False,
    )  # fmt: skip
    ground = world.add_geom(name="floor", material="ground", contype=1, conaffinity=1, condim=3)
    if terrain == "flat":
        ground.type, ground.size = mujoco.mjtGeom.mjGEOM_PLANE, (0, 0, 0.05)
        return
    ground.type, ground.hfieldname = mujoco.mjtGeom.mjGEOM_HFIELD, "ground"
    if terrain == "rough":
        heights = terrain_heights(roughness_m)
        size = (HALF_SIZE_M, HALF_SIZE_M, terrain_amplitude_m(roughness_m), 0.1)
    else:
        metres = graded_heights(terrain, height_m)
        lowest, amplitude = float(metres.min()), max(float(np.ptp(metres)), 1e-3)
        heights, size = (metres - lowest) / amplitude, (HALF_X_M, HALF_Y_M, amplitude, 0.1)
        ground.pos = (0.0, 0.0, lowest)  # edges of patches are at height 0
    spec.add_hfield(name="ground", nrow=len(heights), ncol=heights.shape[1], userdata=heights.flatten(), size=size)


class Ground(Fixed):
    """Heights of the ground under points; flat where there is no grid.

    Attributes:
        heights: [rows along y, columns along x], m; None on flat ground.
    """

    def __init__(self, model: mujoco.MjModel, terrain: Terrain, dtype: torch.dtype, device: torch.device) -> None:
        self.heights: Tensor | None = None
        if terrain != "flat":
            values = model.hfield_data.reshape(int(model.hfield_nrow[0]), int(model.hfield_ncol[0]))
            self.heights = torch.as_tensor(values * model.hfield_size[0, 2], dtype=dtype, device=device)
            if terrain in GRADED:
                self.heights = self.heights + float(model.geom("floor").pos[2])
            real = lambda *values: torch.tensor(values, dtype=dtype, device=device)  # noqa: E731
            rows, columns = self.heights.shape
            x, y = float(model.hfield_size[0, 0]), float(model.hfield_size[0, 1])
            self._half, self._per_m = real(x, y), real((columns - 1) / (2 * x), (rows - 1) / (2 * y))
            self._last = real(columns - 1.001, rows - 1.001)

    def below(self, xy: Tensor) -> Tensor:
        """Height of the ground [N, k] at points xy [N, k, 2], m, between the points of the grid."""
        if self.heights is None:
            return torch.zeros_like(xy[..., 0])
        at = torch.minimum(((xy + self._half) * self._per_m).clamp(min=0.0), self._last)
        low = at.long()
        part = at - low
        x, y, px, py = low[..., 0], low[..., 1], part[..., 0], part[..., 1]
        near = self.heights[y, x] * (1 - px) + self.heights[y, x + 1] * px
        far = self.heights[y + 1, x] * (1 - px) + self.heights[y + 1, x + 1] * px
        return near * (1 - py) + far * py

    def highest(self, xy: Tensor) -> Tensor:
        """The highest ground [N] under a robot at xy [N, 2], m."""
        if self.heights is None:
            return torch.zeros_like(xy[:, 0])
        return self._under(xy, 0.35, 8).amax(dim=1)

    def mean(self, xy: Tensor) -> Tensor:
        """The mean height [N] of the ground under a robot at xy [N, 2], m: on steps it changes little by little."""
        return self._under(xy, 0.15, 3).mean(dim=1)

    def _under(self, xy: Tensor, half_m: float, points: int) -> Tensor:
        """Heights [N, points^2] in a square around xy [N, 2]."""
        step = torch.linspace(-half_m, half_m, points, dtype=xy.dtype, device=xy.device)
        offsets = torch.cartesian_prod(step, step)
        return self.below(xy[:, None] + offsets)
