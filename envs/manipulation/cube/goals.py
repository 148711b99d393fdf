"""Sequences of goal orientations for a cube in a hand.

Kinds of goals, from hard to easy (the first two after arXiv 1808.00177 and 1910.07113):

| kind   | a new goal is                                                                                    |
|--------|--------------------------------------------------------------------------------------------------|
| random | uniform over all orientations at least `MIN_TURN_RAD` away from the last goal                     |
| face   | a quarter turn from the last goal about one of the cube's axes, either way: faces stay aligned    |
| spin   | a quarter turn from the last goal about the palm's normal, always counter-clockwise seen from above |
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from envs.common.spatial import constant, quat_angle, quat_canonical, quat_conjugate, quat_multiply, uniform_quat

GoalKind = Literal["random", "face", "spin"]

MIN_TURN_RAD = 1.0  # 95 % of all rotations are farther away: without a minimum, some goals would be reached at once
_TRIES = 8  # odds of no acceptable rotation: 0.05 ** 8
GOAL_DRAWS = 3 * _TRIES  # uniform numbers that `next_goal` uses
START_DRAWS = 2  # that `first_orientation` uses
_HALF = math.sqrt(0.5)
_QUARTER_TURNS = tuple((_HALF, *(s * _HALF * (axis == i) for i in range(3))) for axis in range(3) for s in (1.0, -1.0))


def first_orientation(kind: GoalKind, u: Tensor) -> Tensor:
    """Orientations [N, 4], faces aligned with the palm, in which a cube lies there when an episode starts.

    Any of the 24 for `random` and `face`; for `spin` always the same.

    Args:
        u: [N, START_DRAWS] uniform numbers in (0, 1).
    """
    upright = constant((1.0, 0.0, 0.0, 0.0), u.dtype, u.device)
    if kind == "spin":
        return upright.expand(len(u), 4)
    turns = constant(_QUARTER_TURNS, u.dtype, u.device)
    flipped = constant((0.0, 1.0, 0.0, 0.0), u.dtype, u.device)
    up = torch.cat((turns[:4], upright[None], flipped[None]))[(6.0 * u[:, 0]).long()]  # which face is up
    half, zero = (4.0 * u[:, 1]).floor() * (math.pi / 4.0), torch.zeros_like(u[:, 0])
    return quat_multiply(torch.stack((half.cos(), zero, zero, half.sin()), dim=1), up)


def next_goal(kind: GoalKind, last: Tensor, u: Tensor) -> Tensor:
    """Goals [N, 4] (unit quaternions, w >= 0) that follow the goals `last` [N, 4].

    Args:
        u: [N, GOAL_DRAWS] uniform numbers in (0, 1).
    """
    if kind == "random":
        return _distant(last, u)
    turns = constant(_QUARTER_TURNS, last.dtype, last.device)
    if kind == "spin":
        return quat_canonical(quat_multiply(turns[4].expand_as(last), last))
    return quat_canonical(quat_multiply(last, turns[(6.0 * u[:, 0]).long()]))


def _distant(last: Tensor, u: Tensor) -> Tensor:
    """Uniform rotations, each the first of several that is far enough from the last goal."""
    drawn = uniform_quat(u.view(-1, _TRIES, 3)).to(last.dtype)
    turn = quat_angle(quat_multiply(drawn, quat_conjugate(last)[:, None].expand_as(drawn)))
    first = (turn >= MIN_TURN_RAD).to(torch.int8).argmax(dim=1)
    return quat_canonical(drawn[torch.arange(len(last), device=last.device), first])
