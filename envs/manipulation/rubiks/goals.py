"""What a Rubik's Cube in a hand is to become next: an orientation, and an angle of every face.

| kind     | a new goal is                                                                                            |
|----------|----------------------------------------------------------------------------------------------------------|
| spin     | a quarter turn of the cube about the vertical, counter-clockwise from above: what a hand learns first    |
| flip     | a quarter turn of the cube about a horizontal axis of the palm, either way: another face comes up        |
| face     | a quarter turn of the face that is up, either way                                                        |
| mixed    | a flip or a turn of the face that is up, with equal odds                                                 |
| solve    | the next step of a plan that solves the cube: from a scramble, another one in every episode              |
| scramble | the next step of the fixed fair scramble of arXiv 1910.07113, of a solved cube                           |

With a free heading (as `FaceFree` of openai/robogym for turns of a face) only which face is up counts, not which way
the cube is turned about the vertical: goals are one orientation for each face, and what is left to one is the least
rotation that brings that face up.

Plans are followed as `envs.manipulation.rubiks.planner.subgoals` says: flip until the face to be turned is up, turn it.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from envs.common.spatial import constant, quat_canonical, quat_multiply, quat_rotate
from envs.manipulation.rubiks.notation import FACES, Move
from envs.manipulation.rubiks.state import NORMALS

RubiksGoals = Literal["spin", "flip", "face", "mixed", "solve", "scramble"]
Heading = Literal["fixed", "free"]
PLANNED: tuple[RubiksGoals, ...] = ("solve", "scramble")
GOAL_DRAWS = 3  # uniform numbers that `next_goal` uses

_HALF = math.sqrt(0.5)
_FLIPS = ((_HALF, _HALF, 0.0, 0.0), (_HALF, -_HALF, 0.0, 0.0), (_HALF, 0.0, _HALF, 0.0), (_HALF, 0.0, -_HALF, 0.0))
_SPIN, _OVER = (_HALF, 0.0, 0.0, _HALF), (0.0, 0.0, 1.0, 0.0)
_NORMALS = tuple(tuple(map(float, normal)) for normal in NORMALS)
# With U R F D L B up.
_UPWARDS = ((1.0, 0.0, 0.0, 0.0), _FLIPS[3], _FLIPS[1], _OVER, _FLIPS[2], _FLIPS[0])


def faces_along(quat: Tensor, direction: tuple[float, float, float]) -> Tensor:
    """Index in `FACES` [N] of the face of cubes with orientations [N, 4] that points most along a direction."""
    normals = constant(_NORMALS, quat.dtype, quat.device)
    out = quat_rotate(quat[:, None].expand(-1, 6, -1), normals.expand(len(quat), -1, -1))  # [N, 6, 3]
    return (out @ constant(direction, quat.dtype, quat.device)).argmax(dim=1)


def with_face_up(quat: Tensor) -> Tensor:
    """The orientation [N, 4] that stands for all that have the same face up as those given [N, 4]."""
    return constant(_UPWARDS, quat.dtype, quat.device)[faces_along(quat, (0.0, 0.0, 1.0))]


def without_heading(quat: Tensor) -> Tensor:
    """The least rotations [N, 4] that bring up what rotations [N, 4] bring up: these less what follows in them about
    the vertical."""
    w, x, y, z = quat.unbind(dim=1)
    length = torch.hypot(w, z)
    over = length < 1e-6  # half a turn about some horizontal axis
    cos, sin = torch.where(over, 1.0, w / length), torch.where(over, 0.0, z / length)
    return torch.stack((length, cos * x + sin * y, cos * y - sin * x, torch.zeros_like(z)), dim=1)


def upright(u: Tensor) -> Tensor:
    """Orientations [N, 4] with U or D up and sides along the palm's axes, for u [N, 2] uniform in (0, 1)."""
    half, zero = (4.0 * u[:, 1]).floor() * (math.pi / 4.0), torch.zeros_like(u[:, 0])
    turned = torch.stack((half.cos(), zero, zero, half.sin()), dim=1)
    over = quat_multiply(turned, constant(_OVER, u.dtype, u.device).expand_as(turned))
    return torch.where(u[:, :1] < 0.5, turned, over)


def next_goal(
    kind: RubiksGoals, quat: Tensor, quarters: Tensor, u: Tensor, turning: tuple[int, ...] = tuple(range(6))
) -> tuple[Tensor, Tensor]:
    """Goals that follow goals: orientations [N, 4] (w >= 0) and quarter turns [N, 6] of faces.

    Args:
        kind: one that is not planned.
        quat, quarters: of the last goal.
        u: [N, GOAL_DRAWS] uniform numbers in (0, 1).
        turning: faces that turn, by index; where another one is up the goal is a flip, of `mixed`.
    """
    if kind == "spin":
        return quat_canonical(quat_multiply(constant(_SPIN, quat.dtype, quat.device).expand_as(quat), quat)), quarters
    flips = constant(_FLIPS, quat.dtype, quat.device)[(4.0 * u[:, 0]).long()]
    flipped = quat_canonical(quat_multiply(flips, quat))
    sense = torch.where(u[:, 1] < 0.5, -1, 1)
    up = faces_along(quat, (0.0, 0.0, 1.0))[:, None]
    turned = quarters.scatter_add(1, up, sense[:, None])
    can = (up == constant(turning, up.dtype, up.device)).any(dim=1)
    turns = (can & (u[:, 2] < {"flip": 0.0, "mixed": 0.5, "face": 1.0}[kind]))[:, None]
    return torch.where(turns, quat, flipped), torch.where(turns, turned, quarters)


def planned_goal(quat: Tensor, quarters: Tensor, face: Tensor, sense: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The next step towards a turn of a face: a flip until it is up, else the turn.

    Args:
        quat, quarters: of the last goal, as in `next_goal`.
        face: [N] index in `FACES` of the face that is to be turned.
        sense: [N] 1 for counter-clockwise as seen from outside, -1 for clockwise.

    Returns:
        the goal, and where [N] it is the turn.
    """
    normal = constant(_NORMALS, quat.dtype, quat.device)[face]
    out = quat_rotate(quat, normal)
    up, down = out[:, 2] > 0.5, out[:, 2] < -0.5
    axis = torch.stack((out[:, 1], -out[:, 0], torch.zeros_like(out[:, 0])), dim=1)  # out x up
    quarter = torch.cat((torch.full_like(out[:, :1], _HALF), _HALF * axis), dim=1)
    by = torch.where(down[:, None], constant(_OVER, quat.dtype, quat.device), quarter)
    flipped = quat_canonical(quat_multiply(by, quat))
    turned = quarters.scatter_add(1, face[:, None], sense[:, None])
    rows = up[:, None]
    return torch.where(rows, quat, flipped), torch.where(rows, turned, quarters), up


def as_plan(moves: list[Move], length: int) -> np.ndarray:
    """Quarter turns as rows (index of the face, sense) of `planned_goal`, [length, 2], with zeros after their end."""
    plan = np.zeros((length, 2), dtype=np.int64)
    for row, move in zip(plan, moves, strict=False):
        row[:] = FACES.index(move.face), -1 if move.quarters == 1 else 1
    return plan
