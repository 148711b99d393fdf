"""Ground in patches: from one row to the next it is harder to walk on, from flat to as hard as it gets.

One height field of all patches lies along x, level after level (after Rudin et al. 2021, arXiv 2109.11978); an episode
is played on one of them. In the middle of each is a platform, on which episodes begin; its edge is level and
everywhere at height 0. Sizes are shares of the robot's height, so that they fit any robot.

* slopes: four sides that rise to the platform, or fall, by up to 22 degrees;
* stairs: steps of 0.31 m depth, up or down, each up to half of the robot's height;
* stones: blocks at heights of their own, with gaps between them that become wider and deeper.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Graded = Literal["slopes", "stairs", "stones"]
Heights = NDArray[np.float64]

GRADED: tuple[Graded, ...] = ("slopes", "stairs", "stones")
LEVELS, VARIANTS = 10, 2
PATCH_M, CELL_M, MARGIN_M = 8.0, 0.05, 1.0  # side of a patch, of a cell; flat ground around them all
HALF_X_M, HALF_Y_M = LEVELS * PATCH_M / 2 + MARGIN_M, VARIANTS * PATCH_M / 2 + MARGIN_M
START_M = 0.5  # episodes begin within it around the middle of a patch, along x and y
_PLATFORM_M, _RIM_M = 1.0, 0.5  # half of the platform's side; width of the level edge
_STEEPEST, _TREAD_M = 0.4, 0.31  # rise per run; depth of a step
_STEP, _STONE, _GAP = 0.5, 0.15, 0.8  # of the robot's height: a step, how uneven stones are, depth of gaps
_PITCHES_M, _WIDEST_GAP_M = (0.5, 0.8), 0.2  # from stone to stone, by variant; between them


def patch_heights(kind: Graded, difficulty: float, variant: int, height_m: float, seed: int = 0) -> Heights:
    """Heights [points along y, points along x], m, of one patch.

    Args:
        kind: of ground.
        difficulty: 0 is flat, 1 the hardest.
        variant: 0 or 1: up or down; coarse or fine stones.
        height_m: of the robot's base when it stands.
        seed: of what is random in it.
    """
    half = PATCH_M / 2
    along = np.linspace(-half, half, round(PATCH_M / CELL_M) + 1)
    x, y = np.meshgrid(along, along)
    inwards = (half - _RIM_M) - np.maximum(np.abs(x), np.abs(y))  # how far within the edge, m
    run = half - _RIM_M - _PLATFORM_M
    if kind == "slopes":
        return (1 - 2 * variant) * _STEEPEST * difficulty * np.clip(inwards, 0.0, run)
    if kind == "stairs":
        steps = np.clip(np.floor(inwards / _TREAD_M + 1e-9) + 1, 0, int(run / _TREAD_M))
        return (1 - 2 * variant) * _STEP * height_m * difficulty * np.where(inwards < 0.0, 0.0, steps)
    pitch, gap = _PITCHES_M[variant], _WIDEST_GAP_M * difficulty
    column, row = np.floor((x + half) / pitch).astype(int), np.floor((y + half) / pitch).astype(int)
    tops = np.random.default_rng((seed, variant)).uniform(-1.0, 1.0, (row.max() + 1, column.max() + 1))
    from_edge = np.minimum(np.mod(x + half, pitch), np.mod(y + half, pitch))
    stones = _STONE * height_m * difficulty * tops[row, column]
    stones = np.where(from_edge < gap, -_GAP * height_m * difficulty, stones)
    return np.where((inwards < 0.0) | (inwards > run), 0.0, stones)


@cache
def graded_heights(kind: Graded, height_m: float, seed: int = 0) -> Heights:
    """Heights [points along y, points along x], m, of all patches and the flat ground around them."""
    edge = round(MARGIN_M / CELL_M)
    cells = round(PATCH_M / CELL_M)
    ground = np.zeros((VARIANTS * cells + 2 * edge + 1, LEVELS * cells + 2 * edge + 1))
    for level in range(LEVELS):
        for variant in range(VARIANTS):
            patch = patch_heights(kind, level / (LEVELS - 1), variant, height_m, seed)
            y, x = edge + variant * cells, edge + level * cells
            ground[y : y + cells + 1, x : x + cells + 1] = patch
    ground.flags.writeable = False
    return ground


def middle_of(level: Tensor, variant: Tensor) -> Tensor:
    """The middles [N, 2] of patches, m, for levels [N] from 0 and variants [N]."""
    x = PATCH_M * (level + 0.5) - (HALF_X_M - MARGIN_M)
    y = PATCH_M * (variant + 0.5) - (HALF_Y_M - MARGIN_M)
    return torch.stack((x, y), dim=1)


def level_for(difficulty: Tensor, u: Tensor) -> Tensor:
    """Levels [N], whole numbers from 0, for difficulties [N] in [0, 1] and uniform numbers u [N]: of the two nearest
    ones the one that chance takes, so that on average they are `difficulty` of the way."""
    return (difficulty * (LEVELS - 1) + u).floor().clamp(0.0, LEVELS - 1.0)


def promoted(level: Tensor, ended: Tensor, u: Tensor) -> Tensor:
    """The next levels [N] of robots that have succeeded (`ended` [N] above 0), failed (below) or neither: one up, one
    down, the same. Who has succeeded at the hardest goes to any (Rudin et al. 2021)."""
    moved = (level + ended.sign()).clamp(min=0.0)
    anywhere = (u * LEVELS).floor()
    return torch.where(moved > LEVELS - 1, anywhere, moved)
