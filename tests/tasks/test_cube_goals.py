"""Rotations as quaternions, and the sequences of goal orientations that are made of them."""

from __future__ import annotations

import math

import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

from envs.common.spatial import quat_angle, quat_canonical, quat_conjugate, quat_multiply, quat_rotate, uniform_quat
from envs.manipulation.cube.goals import GOAL_DRAWS, MIN_TURN_RAD, START_DRAWS, GoalKind, first_orientation, next_goal


def quat(axis: tuple[float, float, float], degrees: float) -> Tensor:
    """A turn about a unit axis as a quaternion [4]."""
    half = math.radians(degrees) / 2.0
    return torch.tensor([math.cos(half), *(math.sin(half) * a for a in axis)], dtype=torch.float64)


# Rotations


def test_quaternion_operations_agree_with_mujocos() -> None:
    u = torch.rand(50, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    a, b, v = uniform_quat(u[:, :3]), uniform_quat(u[:, 3:6]), 4.0 * u[:, :3] - 2.0
    for i in range(50):
        product, rotated, velocity = np.zeros(4), np.zeros(3), np.zeros(3)
        mujoco.mju_mulQuat(product, a[i].numpy(), b[i].numpy())
        mujoco.mju_rotVecQuat(rotated, v[i].numpy(), a[i].numpy())
        assert torch.allclose(quat_multiply(a, b)[i], torch.from_numpy(product), atol=1e-14)
        assert torch.allclose(quat_rotate(a, v)[i], torch.from_numpy(rotated), atol=1e-14)
        mujoco.mju_quat2Vel(velocity, a[i].numpy(), 1.0)
        assert float(quat_angle(a)[i]) == pytest.approx(math.sqrt((velocity**2).sum()), abs=1e-12)
    assert torch.allclose(quat_multiply(a, quat_conjugate(a)), quat((1, 0, 0), 0.0).expand(50, 4), atol=1e-14)
    assert (quat_canonical(-2.0 * a)[:, 0] >= 0).all()
    assert torch.allclose(quat_canonical(-2.0 * a), quat_canonical(a), atol=1e-14)


def test_uniform_quaternions_are_uniform_rotations() -> None:
    u = torch.rand(40_000, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    drawn = uniform_quat(u)
    assert torch.allclose(drawn.norm(dim=1), torch.ones(40_000, dtype=torch.float64))
    # The angle of a uniform rotation has the distribution (x - sin x) / pi: mean pi / 2 + 2 / pi.
    assert float(quat_angle(drawn).mean()) == pytest.approx(math.pi / 2 + 2 / math.pi, abs=0.02)
    moved = quat_rotate(drawn, torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64).expand(40_000, 3))
    assert moved.mean(dim=0).abs().max() < 0.02
    assert float((moved[:, 2] > 0.5).double().mean()) == pytest.approx(0.25, abs=0.01)  # the cap's share of a sphere


# Goals


def turns(kind: GoalKind, count: int = 4000) -> tuple[Tensor, Tensor]:
    """Goals before, and the rotations [N, 4] in the world's frame that lead to the next ones."""
    u = torch.rand(count, GOAL_DRAWS + 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    last = quat_canonical(uniform_quat(u[:, :3]))
    following = next_goal(kind, last, u[:, 3:])
    assert (following[:, 0] >= 0).all()
    assert torch.allclose(following.norm(dim=1), torch.ones(count, dtype=torch.float64))
    return last, quat_canonical(quat_multiply(following, quat_conjugate(last)))


def test_spin_goals_are_a_quarter_turn_counter_clockwise_about_the_vertical() -> None:
    _, turn = turns("spin")
    assert torch.allclose(turn, quat((0, 0, 1), 90.0).expand_as(turn), atol=1e-12)


def test_face_goals_are_quarter_turns_about_the_six_half_axes_of_the_cube_alike() -> None:
    last, turn = turns("face")
    assert torch.allclose(quat_angle(turn), torch.full((4000,), math.pi / 2, dtype=torch.float64), atol=1e-12)
    axis = quat_rotate(quat_conjugate(last), turn[:, 1:]) * math.sqrt(2.0)  # in the cube's frame
    hits = torch.stack([(axis - s * torch.eye(3)[i]).norm(dim=1) < 1e-9 for i in range(3) for s in (1, -1)])
    assert (hits.sum(dim=0) == 1).all()
    assert (hits.double().mean(dim=1) - 1 / 6).abs().max() < 0.03


def test_random_goals_are_all_rotations_beyond_the_least_turn() -> None:
    _, turn = turns("random", 20_000)
    angle = quat_angle(turn)
    assert float(angle.min()) >= MIN_TURN_RAD
    # P(angle > x) = 1 - (x - sin x) / pi, given that it is above the least
    tail = lambda x: 1.0 - (x - math.sin(x)) / math.pi  # noqa: E731
    assert float((angle > 2.5).double().mean()) == pytest.approx(tail(2.5) / tail(MIN_TURN_RAD), abs=0.012)


def test_episodes_begin_in_each_of_the_24_aligned_orientations_alike() -> None:
    u = torch.rand(12_000, START_DRAWS, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    found = quat_canonical(first_orientation("face", u))
    axes = torch.stack([quat_rotate(found, torch.eye(3).double()[i].expand_as(found[:, 1:])) for i in range(3)], dim=1)
    assert torch.allclose(axes, axes.round(), atol=1e-12)
    kinds, counts = axes.round().flatten(1).unique(dim=0, return_counts=True)
    assert len(kinds) == 24
    assert (counts / 12_000 - 1 / 24).abs().max() < 0.01
    assert torch.equal(first_orientation("spin", u), quat((0, 0, 1), 0.0).expand(12_000, 4))
