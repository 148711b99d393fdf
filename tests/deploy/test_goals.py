"""A plan's goals on a robot: what the policy is shown, and when the next one comes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from envs.common.spatial import quat_canonical, quat_conjugate, quat_multiply, uniform_quat
from envs.manipulation.rubiks.goals import Heading, with_face_up, without_heading
from envs.manipulation.rubiks.mechanism import wrapped
from envs.manipulation.rubiks.notation import FAIR_SCRAMBLE, parse_moves
from envs.manipulation.rubiks.planner import subgoals
from envs.manipulation.rubiks.task import by_side
from simreal.deploy import GoalSequence


def test_goals_follow_one_another_when_they_are_seen_to_be_reached() -> None:
    plan = subgoals(parse_moves("R U2 F'"))
    goals = GoalSequence.of(plan)
    off = torch.tensor([math.cos(0.25), math.sin(0.25), 0.0, 0.0], dtype=torch.float64)  # 0.5 rad
    for number, step in enumerate(plan):
        assert goals.reached == number
        np.testing.assert_allclose(
            goals.goal_face_angle, wrapped(torch.as_tensor(step.quarters * math.pi / 2)), atol=1e-12
        )
        quat, angles = goals.goal_quat, goals.goal_face_angle
        assert not goals.see(quat, angles + np.array([0.25, 0, 0, 0, 0, 0]))
        assert not goals.see(quat_multiply(off, torch.as_tensor(quat)).numpy(), angles)
        assert goals.see(-3.0 * quat, angles + 2 * math.pi)
    assert goals.done
    assert not goals.see(goals.goal_quat, goals.goal_face_angle)


@pytest.mark.parametrize("heading", ["fixed", "free"])
def test_what_it_derives_is_what_the_task_does(heading: Heading) -> None:
    plan = subgoals(parse_moves(FAIR_SCRAMBLE))
    goals = GoalSequence.of(plan, heading)
    g = torch.Generator().manual_seed(0)
    for step in plan:
        quat = uniform_quat(torch.rand(1, 3, generator=g, dtype=torch.float64))
        angles = torch.rand(1, 6, generator=g, dtype=torch.float64) * 6 - 3
        derived = goals.derived(quat[0].numpy(), angles[0].numpy())
        goal, wanted = torch.as_tensor(goals.goal_quat)[None], torch.as_tensor(goals.goal_face_angle)[None]
        left = wrapped(wanted - angles)
        expected = quat_canonical(quat_multiply(goal, quat_conjugate(quat)))
        if heading == "free":
            expected = without_heading(expected)
            wanted = quat_canonical(torch.as_tensor(GoalSequence.of([step]).goal_quat)[None])
            torch.testing.assert_close(with_face_up(wanted), goal)
        np.testing.assert_allclose(derived["goal_rel_quat"], expected[0], atol=1e-12)
        np.testing.assert_allclose(derived["goal_rel_face_angle"], left[0], atol=1e-12)
        np.testing.assert_allclose(derived["side_turn"], by_side(quat, left)[0], atol=1e-12)
        assert goals.see(goals.goal_quat, goals.goal_face_angle)


def test_with_a_free_heading_a_goal_is_reached_however_the_cube_is_turned_about_the_vertical() -> None:
    plan = subgoals(parse_moves("R"))
    fixed, free = GoalSequence.of(plan), GoalSequence.of(plan, "free")
    turned = quat_multiply(
        torch.tensor([math.cos(0.5), 0.0, 0.0, math.sin(0.5)], dtype=torch.float64), torch.as_tensor(fixed.goal_quat)
    ).numpy()
    assert not fixed.see(turned, fixed.goal_face_angle)
    assert free.see(turned, free.goal_face_angle)
    with pytest.raises(ValueError, match="heading: expected 'fixed' or 'free', got 'any'"):
        GoalSequence.of(plan, "any")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("quats", "angles"), [([[1, 0, 0, 0]], []), ([[0, 0, 0, 0]], [[0] * 6]), ([[1, 0, 0, math.nan]], [[0] * 6])]
)
def test_goals_that_are_none_are_refused(quats: list[list[float]], angles: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="expected"):
        GoalSequence(quats, angles)
