"""Ground in patches: it is where the task thinks that it is, flat at first and harder from level to level."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import mujoco
import numpy as np
import pytest
import torch

from broken_robots import DOG
from conftest import build, fixed_worlds, only
from envs.common.errors import TaskError
from envs.common.messages import warn_again
from envs.locomotion.legged.describe import describe_legged
from envs.locomotion.legged.ground import Ground, add_ground
from envs.locomotion.legged.terrain import (
    GRADED,
    LEVELS,
    PATCH_M,
    Graded,
    level_for,
    middle_of,
    patch_heights,
    promoted,
)
from envs.locomotion.legged.velocity import LeggedVelocity
from randomization.parameters import RandomizationError, build_parameters


def dog(**options: Any) -> LeggedVelocity:
    load = partial(mujoco.MjSpec.from_string, DOG)
    found = describe_legged(load, load, {})
    task = LeggedVelocity(found.robot, found.gait, **options)
    task.id = "dog"
    return task


@pytest.mark.parametrize("kind", GRADED)
def test_the_first_level_is_flat_and_each_is_harder_than_the_one_before(kind: Graded) -> None:
    for variant in (0, 1):
        levels = [patch_heights(kind, level / (LEVELS - 1), variant, 0.3) for level in range(LEVELS)]
        assert not levels[0].any()
        spread = [float(np.ptp(heights)) for heights in levels]
        assert all(b > a for a, b in pairwise(spread))
        for heights in levels:  # edges are level, so that patches meet without a wall; the middle is where one begins
            assert not np.concatenate((heights[0], heights[-1], heights[:, 0], heights[:, -1])).any()
            middle = heights[70:91, 70:91]
            assert float(np.ptp(middle)) == 0.0


def test_slopes_and_steps_are_as_steep_and_as_high_as_they_say() -> None:
    # 0.4 m per metre at most, over the 2.5 m between the edge and the platform: 1 m
    assert float(patch_heights("slopes", 1.0, 0, 0.3).max()) == pytest.approx(1.0)
    assert float(patch_heights("slopes", 1.0, 1, 0.3).min()) == pytest.approx(-1.0)
    # steps of half of the robot's height; 2.5 m hold eight of 0.31 m
    stairs = patch_heights("stairs", 1.0, 0, 0.3)
    assert np.unique(stairs.round(6)).tolist() == pytest.approx([0.15 * k for k in range(9)])
    assert np.unique(patch_heights("stairs", 0.5, 0, 0.3).round(6))[1] == pytest.approx(0.075)


@pytest.mark.parametrize("kind", GRADED)
def test_a_ball_rests_where_the_function_says_that_the_ground_is(kind: Graded) -> None:
    spec, generator, radius = mujoco.MjSpec(), np.random.default_rng(0), 0.1
    add_ground(spec, kind, 0.0, 0.3)
    places = []
    for level in range(0, LEVELS, 3):
        for variant in (0, 1):
            middle = middle_of(torch.tensor([float(level)]), torch.tensor([float(variant)]))[0].numpy()
            places.append(middle + generator.uniform(-0.5, 0.5, 2))
    for number, (x, y) in enumerate(places):
        ball = spec.worldbody.add_body(name=f"ball{number}", pos=(x, y, 2.5))
        ball.add_joint(type=mujoco.mjtJoint.mjJNT_SLIDE, axis=(0, 0, 1), damping=4.0)
        ball.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=(radius, 0, 0), mass=1.0)
    model = spec.compile()
    data = mujoco.MjData(model)
    for _ in range(2500):
        mujoco.mj_step(model, data)
    ground = Ground(model, kind, torch.float64, torch.device("cpu"))
    expected = ground.below(torch.tensor(np.array(places))[None])[0].numpy()
    np.testing.assert_allclose(data.xpos[1:, 2] - radius, expected, atol=3e-3)
    assert np.ptp(expected) > 0.2 or kind == "stones"


def test_rays_meet_the_ground_at_the_heights_that_the_task_takes_it_for() -> None:
    task = dog(terrain="stairs", difficulty=1.0)
    env = build(task, 1)
    model, data = env.engine.export_to_mujoco(0)
    model.geom_pos[model.geom_bodyid > 0] += 100.0  # the robot is not in the way
    mujoco.mj_forward(model, data)
    middle = task._middle[0].numpy()
    generator = np.random.default_rng(1)
    points = middle + generator.uniform(-3.9, 3.9, (200, 2))
    heights = task.ground.below(torch.tensor(points)[None])[0].numpy()
    met = []
    for x, y in points:
        geom = np.zeros(1, np.int32)
        above, down = np.array([x, y, 5.0]), np.array([0.0, 0.0, -1.0])
        met.append(5.0 - mujoco.mj_ray(model, data, above, down, None, 1, -1, geom, None))
    # a cell is two triangles to MuJoCo and curved to us: they differ within the cells that a step's edge runs through
    apart = np.abs(np.array(met) - heights)
    assert np.median(apart) < 1e-6
    assert apart.max() < 0.5 * 0.5 * task.robot.height_m + 1e-6


@pytest.mark.parametrize("kind", GRADED)
def test_a_robot_begins_on_its_patch_stands_and_measures_heights_from_the_ground(kind: Graded) -> None:
    task = dog(terrain=kind, difficulty=1.0, command_limits=(0.0, 0.0, 0.0))
    env = build(task, 4)
    height = task.robot.height_m
    assert task._level.tolist() == [LEVELS - 1.0] * 4
    away = (env.engine.data("qpos")[:, :2] - task._middle).abs()
    assert float(away.max()) <= 0.5
    zero = torch.zeros(4, task.action_size, dtype=torch.float64)
    assert not any(bool(env.step(zero).done.any()) for _ in range(50))
    assert env.observed.privileged is not None
    above_ground = env.observed.privileged[:, task.slices("privileged")["base_height"]]
    assert above_ground.flatten().tolist() == pytest.approx([height] * 4, abs=0.05)
    assert float(task._foot_heights().abs().max()) < 0.02
    assert float(env.step(zero).terms["terrain_level"].min()) == LEVELS - 1.0


def test_an_episode_ends_without_a_fall_where_the_robot_leaves_its_patch() -> None:
    task = dog(terrain="slopes", difficulty=0.0)
    env = build(task, 2)
    qpos = env.engine.data("qpos")
    qpos[1, 0] = float(task._middle[1, 0]) + PATCH_M / 2 + 0.05
    result = env.step(torch.zeros(2, task.action_size, dtype=torch.float64))
    assert result.truncated.tolist() == [False, True]
    assert not result.terminated.any()


def test_levels_follow_difficulties_on_average() -> None:
    u = (torch.arange(1000) + 0.5) / 1000
    for difficulty in (0.0, 0.3, 0.5, 1.0):
        levels = level_for(torch.full((1000,), difficulty), u)
        assert float(levels.mean()) == pytest.approx(9.0 * difficulty, abs=0.01)
        assert float(levels.max() - levels.min()) <= 1.0


def test_the_quantity_decides_the_level_and_only_where_there_are_levels() -> None:
    task = dog(terrain="stones")
    env = build(task, 3, fixed_worlds(task, {"terrain_difficulty": {}}, [[0.0], [1.0], [4.0 / 9.0]]))
    assert task._level.tolist() == [0.0, 9.0, 4.0]
    env.reset(only(3, 1))
    assert task._level.tolist() == [0.0, 9.0, 4.0]
    with pytest.raises(RandomizationError, match="terrain_difficulty: changes nothing: the ground of dog has"):
        build_parameters(dog(terrain="rough"), {"terrain_difficulty": {}})
    with pytest.raises(RandomizationError, match="has no levels to choose from"):
        build_parameters(dog(terrain="stones", curriculum=True), {"terrain_difficulty": {}})


def test_a_difficulty_beside_the_quantity_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    warn_again()
    task = dog(terrain="stones", difficulty=0.5)
    build(task, 2, fixed_worlds(task, {"terrain_difficulty": {}}, [[0.0], [1.0]]))
    assert task._level.tolist() == [0.0, 9.0]
    assert caplog.messages == ["warning: terrain_difficulty says how hard the ground is, and not difficulty: 0.5"]


def test_a_curriculum_goes_up_with_success_and_down_with_falls() -> None:
    ended = torch.tensor([1.0, -1.0, 0.0, -1.0, 1.0])
    level = torch.tensor([3.0, 3.0, 3.0, 0.0, 9.0])
    assert promoted(level, ended, torch.full((5,), 0.45)).tolist() == [4.0, 2.0, 3.0, 0.0, 4.0]
    task = dog(terrain="slopes", curriculum=True, success_errors=(9.0, 9.0))
    assert task.evaluation_options == {"curriculum": False}
    env = build(task, 2)
    assert task._level.tolist() == [0.0, 0.0]
    zero = torch.zeros(2, task.action_size, dtype=torch.float64)
    env.step(zero)
    env.reset(only(2, 0))  # it stood, and no error is too large: a success
    assert task._level.tolist() == [1.0, 0.0]
    state = env.state_dict()
    again = dog(terrain="slopes", curriculum=True, success_errors=(9.0, 9.0))
    build(again, 2).load_state_dict(state)
    assert again._level.tolist() == [1.0, 0.0]
    env.engine.data("qpos")[0, 3:7] = torch.tensor([0.0, 1.0, 0.0, 0.0])  # on its back
    assert bool(env.step(zero).terminated[0])
    assert task._level.tolist() == [0.0, 0.0]


def test_options_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(TaskError, match="curriculum: terrain: flat has no levels"):
        dog(curriculum=True)
    with pytest.raises(TaskError, match="difficulty: expected a number from 0 to 1, got 2"):
        dog(terrain="stairs", difficulty=2.0)
    with pytest.raises(TaskError, match="difficulty: expected None with curriculum"):
        dog(terrain="stairs", difficulty=0.5, curriculum=True)
    with pytest.raises(ValueError, match=r"terrain: expected one of 'flat', .*got 'stars' \(did you mean 'stairs'\?\)"):
        dog(terrain="stars")
