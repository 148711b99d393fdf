"""A hand that turns a cube: what it sees and does, when a goal counts, how episodes end, what a resumed run keeps."""

from __future__ import annotations

import math
from pathlib import Path

import mujoco
import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from conftest import build, fixed_worlds, manual_layer, only, snapshot
from envs.common.spatial import quat_angle, quat_canonical, quat_conjugate, quat_multiply
from envs.environment import Environment
from envs.manipulation.cube.goals import MIN_TURN_RAD, GoalKind
from envs.manipulation.cube.reorientation import SUCCESS_RAD, CubeReorientation
from envs.registry import TaskError, UnknownOptionError, make_task
from randomization.config import randomization_config
from randomization.randomizer import DomainRandomizer
from randomization.samplers.base import Manual
from robots import ALLEGRO, SHADOW, needs
from simreal.cli.suggest import suggested_yaml
from simreal.deploy import Policy
from simreal.evaluation.model_variants import ModelVariant
from simreal.export.bundle import export_bundle
from simreal.learners.base import LearnerSpec
from simreal.learners.on_policy.ppo import PPO
from simreal.learners.options import PPOConfig
from simreal.training.build import make_environment

HANDS = ("AllegroCube-v0", "ShadowCube-v0")


def cube_task(task_id: str = "AllegroCube-v0", goals: GoalKind = "spin", **options: float) -> CubeReorientation:
    """A task, where its model is on this machine."""
    task = make_task(task_id, goals=goals, **options)
    assert isinstance(task, CubeReorientation)
    return task


needs_models = needs(ALLEGRO, SHADOW)


def quat(axis: tuple[float, float, float], degrees: float) -> Tensor:
    """A turn about a unit axis as a quaternion [4]."""
    half = math.radians(degrees) / 2.0
    return torch.tensor([math.cos(half), *(math.sin(half) * a for a in axis)], dtype=torch.float64)


def place(environment: Environment, orientation: Tensor) -> None:
    """Hold the cubes over the palm, turned to orientations [N, 4]: in the next control step they fall freely."""
    task, engine = environment.task, environment.engine
    assert isinstance(task, CubeReorientation)
    engine.data("qpos")[:, -7:-4] = torch.tensor(task.hand.cube_rest) + torch.tensor([0.0, 0.0, 0.04])
    engine.data("qpos")[:, -4:] = orientation
    engine.data("qvel")[:] = 0.0


def still(environment: Environment) -> Tensor:
    """The action that keeps the grasp."""
    return torch.zeros(environment.num_envs, environment.task.action_size)


def some_actions(environment: Environment, step: int) -> Tensor:
    """Random actions [N, A]; those of environment i do not depend on N."""
    generators = (torch.Generator().manual_seed(1000 * step + i) for i in range(environment.num_envs))
    return torch.stack([2.0 * torch.rand(environment.task.action_size, generator=g) - 1.0 for g in generators])


# What it sees and does


@needs_models
@pytest.mark.parametrize(("task_id", "joints", "actuators", "tips"), [(HANDS[0], 16, 16, 4), (HANDS[1], 24, 20, 5)])
def test_observation_is_laid_out_as_its_components_say(task_id: str, joints: int, actuators: int, tips: int) -> None:
    task = cube_task(task_id)
    environment = build(task, 3)
    for step in range(3):
        environment.step(some_actions(environment, step))
    before = environment.engine.data("qpos")[:, :joints].clone()
    environment.step(some_actions(environment, 3))
    observed, where = environment.observed.policy, task.slices()
    qpos, cube = environment.engine.data("qpos"), torch.tensor(task.hand.cube_rest)
    assert observed.shape[1] == sum(c.size for c in task.components("policy")) == 3 * joints + actuators + 15
    assert torch.equal(observed[:, where["joint_pos"]], qpos[:, :joints])
    assert torch.equal(observed[:, where["joint_pos_history"]][:, :joints], before)
    assert torch.allclose(observed[:, where["cube_pos"]], qpos[:, joints : joints + 3] - cube)
    assert torch.allclose(observed[:, where["cube_quat"]], quat_canonical(qpos[:, joints + 3 :]))
    assert torch.equal(observed[:, where["joint_target"]], environment.engine.data("ctrl"))
    turned = quat_multiply(observed[:, where["goal_rel_quat"]], observed[:, where["cube_quat"]])
    assert torch.allclose(quat_canonical(turned), observed[:, where["goal_quat"]], atol=1e-12)
    secret, at = environment.observed.privileged, task.slices("privileged")
    assert secret is not None
    assert secret.shape[1] == joints + 13 + 4 * tips
    assert torch.equal(secret[:, at["joint_vel"]], environment.engine.data("qvel")[:, :joints])
    for component in task.observation:
        assert component.size == len(component.elements), component.name
    names = [task.model.joint(i).name for i in range(joints)]
    assert list(task.observation[0].joints) == names
    assert task.control_period_s == pytest.approx(0.05)


@needs_models
def test_angular_velocity_and_fingertips_are_those_that_mujoco_reports() -> None:
    task = cube_task()
    environment = build(task, 2)
    for step in range(6):
        environment.step(some_actions(environment, step))
    secret, at = environment.observed.privileged, task.slices("privileged")
    assert secret is not None
    model, data = environment.engine.export_to_mujoco(1)
    velocity = np.zeros(6)
    mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_BODY, model.body("cube").id, velocity, 0)
    assert torch.allclose(secret[1, at["cube_velr"]], torch.from_numpy(velocity[:3]), atol=1e-9)
    tip = torch.from_numpy(data.site("ff_tip_touch").xpos) - torch.tensor(task.hand.cube_rest, dtype=torch.float64)
    # fingertips are those of the last physics step's start
    assert torch.allclose(secret[1, at["fingertip_pos"]][:3], tip, atol=0.01)


@needs_models
def test_a_fingertip_that_is_pressed_feels_it() -> None:
    task = cube_task()
    environment = build(task, 1)
    where = task.slices("privileged")["fingertip_force"]
    middle = task.action[0].elements.index("mfa1")
    action = still(environment)
    forces = []
    for step in range(20):
        action[:, middle : middle + 3] = 1.0 if step >= 5 else 0.0  # the middle finger closes on the cube
        secret = environment.step(action).observed.privileged
        assert secret is not None
        forces.append(secret[0, where])
    assert torch.stack(forces[:5]).abs().max() == 0.0
    assert float(torch.stack(forces)[5:, 1].max()) > 0.1


@needs_models
def test_targets_are_smoothed_and_limited() -> None:
    task = cube_task(smoothing=0.25)
    environment = build(task, 1)
    offset, scale = (torch.tensor(x, dtype=torch.float64) for x in (task.action[0].offset, task.action[0].scale))
    ctrl = environment.engine.data("ctrl")
    environment.step(torch.full((1, 16), 0.4))
    assert torch.allclose(ctrl[0], offset + 0.25 * 0.4 * scale, atol=1e-7)  # a quarter of the way
    environment.step(torch.full((1, 16), 0.4))
    assert torch.allclose(ctrl[0], offset + (0.25 + 0.75 * 0.25) * 0.4 * scale, atol=1e-7)
    environment.step(torch.full((1, 16), -0.2))
    assert torch.allclose(ctrl[0], offset + (0.75 * 0.4375 * 0.4 - 0.25 * 0.2) * scale, atol=1e-7)
    for _ in range(80):
        environment.step(torch.full((1, 16), -1.0))
    low = torch.from_numpy(task.model.actuator_ctrlrange[:, 0].copy())
    assert torch.allclose(ctrl[0], torch.maximum(offset - scale, low), atol=1e-6)
    assert task.action[0].smoothing == 0.25


@needs_models
def test_asking_for_a_command_does_not_move_the_servos() -> None:
    """Randomization asks for the command of an action of zero when an episode begins, and does not send it."""
    at_once = manual_layer(cube_task(), {"action_delay": {"range": [0, 0]}})
    plain, delayed = build(cube_task(), 2), build(cube_task(), 2, at_once)
    for step in range(5):
        plain.step(some_actions(plain, step))
        delayed.step(some_actions(delayed, step))
    assert torch.equal(plain.observed.policy, delayed.observed.policy)


@needs_models
def test_the_policy_sees_what_it_commanded_and_the_servos_get_what_arrives() -> None:
    task = cube_task()
    late = manual_layer(task, {"action_latency": {"range": [2, 2]}})
    environment = build(task, 2, late)
    where, ctrl, shown, told = task.slices()["joint_target"], environment.engine.data("ctrl"), [], []
    for step in range(6):
        result = environment.step(some_actions(environment, step))
        shown.append(result.observed.policy[:, where].clone())
        told.append(ctrl.clone())
    offset = torch.tensor(task.action[0].offset, dtype=torch.float64)
    assert torch.allclose(torch.stack(told[:2]), offset)  # an action of zero keeps the grasp
    assert torch.allclose(torch.stack(told[2:]), torch.stack(shown[:-2]))
    assert not torch.allclose(shown[0], offset.expand(2, -1), atol=0.01)


# Success, drops, patience


@needs_models
@pytest.mark.parametrize("goals", ["spin", "face", "random"])
def test_a_goal_that_is_reached_counts_once_and_is_followed_by_another(goals: GoalKind) -> None:
    task = cube_task(goals=goals)
    environment = build(task, 4)
    goal = task.goal.clone()
    place(environment, torch.where(only(4, 0, 2)[:, None], goal, environment.engine.data("qpos")[:, -4:]))
    result = environment.step(still(environment))
    assert result.success.tolist() == [True, False, True, False]
    assert result.terms["success"].tolist() == [5.0, 0.0, 5.0, 0.0]
    assert torch.equal(task.goal[1::2], goal[1::2])
    turn = quat_angle(quat_multiply(task.goal, quat_conjugate(goal)))[::2]
    least = MIN_TURN_RAD if goals == "random" else math.pi / 2 - 1e-9
    assert (turn >= least).all()
    assert torch.equal(result.observed.policy[:, task.slices()["goal_quat"]], task.goal)
    for _ in range(3):
        result = environment.step(still(environment))
        assert not result.success.any()
        assert (result.terms["progress"].abs() < 0.8).all()  # a goal farther away is no step backwards
    assert result.episode_successes.tolist() == [1, 0, 1, 0]


@needs_models
def test_success_begins_at_the_published_angle_and_progress_is_paid_by_the_radian() -> None:
    task = cube_task()
    environment = build(task, 2)
    task.patience_steps = 10_000
    task.goal_angle.fill_(math.pi)
    for degrees, paid in ((-60.0, 120.0), (-90.0, 0.0), (-60.0, 0.0)):  # what is turned back is not paid again
        place(environment, quat_multiply(quat((0, 0, 1), degrees).expand(2, 4), task.goal))
        progress = environment.step(still(environment)).terms["progress"]
        expected = torch.full_like(progress, task.weights.progress * math.radians(paid))
        assert torch.allclose(progress, expected, atol=1e-5)
    away = math.degrees(SUCCESS_RAD)
    off = torch.stack((quat((0, 0, 1), -(away + 3.0)), quat((0, 0, 1), -(away - 3.0))))
    place(environment, quat_multiply(off, task.goal))
    result = environment.step(still(environment))
    assert result.success.tolist() == [False, True]
    expected = task.weights.progress * torch.deg2rad(torch.tensor([60.0 - away - 3.0, 60.0 - away + 3.0]))
    assert torch.allclose(result.terms["progress"].float(), expected, atol=1e-5)
    assert torch.allclose(result.reward, torch.stack(list(result.terms.values())).sum(dim=0))


@needs_models
@pytest.mark.parametrize("task_id", HANDS)
@pytest.mark.parametrize("goals", ["spin", "face"])
def test_a_hand_that_holds_still_keeps_the_cube_until_its_patience_ends(task_id: str, goals: GoalKind) -> None:
    environment = build(cube_task(task_id, goals), 24)
    for step in range(160):
        result = environment.step(still(environment))
        assert not result.terminated.any()
        assert bool(result.truncated.all()) == (step == 159)  # 8 s at 20 Hz
        assert (result.episode_successes == 0).all()
    assert environment.divergences == 0


@needs_models
@pytest.mark.parametrize("task_id", HANDS)
def test_a_cube_of_another_size_lies_in_the_hand_as_quietly(task_id: str) -> None:
    task = cube_task(task_id, "face")
    sizes = [[0.7], [0.85], [1.0], [1.15], [1.3]]
    environment = build(task, 5, fixed_worlds(task, {"body_size": {"of": "cube", "range": [0.7, 1.3]}}, sizes))
    fastest = torch.zeros(5, dtype=torch.float64)
    for _ in range(60):
        assert not environment.step(still(environment)).terminated.any()
        fastest = torch.maximum(fastest, environment.engine.data("qvel")[:, -6:-3].norm(dim=1))
    assert fastest.max() < 0.5  # m/s: nothing was thrown out of something it began in
    heights = environment.engine.data("qpos")[:, -5]  # of the cube's centre
    assert (heights.diff() > 0.002).all()


@needs_models
def test_a_dropped_cube_ends_the_episode() -> None:
    environment = build(cube_task(), 3)
    environment.engine.data("qpos")[1, -7] += 0.15
    result = environment.step(still(environment))
    assert result.terminated.tolist() == [False, True, False]
    assert result.terms["drop"].tolist() == [0.0, -1.0, 0.0]
    assert not result.truncated.any()
    assert result.observed.policy[1, environment.task.slices()["cube_pos"]].norm() < 0.03  # the next one has begun


@needs_models
def test_a_success_renews_the_patience() -> None:
    task = cube_task()
    task.patience_steps = 5
    environment = build(task, 2)
    for step in range(7):
        if step == 3:
            place(environment, torch.where(only(2, 0)[:, None], task.goal, environment.engine.data("qpos")[:, -4:]))
        result = environment.step(still(environment))
        assert result.truncated.tolist() == [False, step == 4]
    assert environment.steps.tolist() == [7, 2]


@needs_models
def test_the_goal_is_drawn_as_it_is() -> None:
    task = cube_task(goals="random")
    environment = build(task, 2)
    model, data = environment.engine.export_to_mujoco(1)
    task.draw_goal(model, data, 1)
    drawn = np.zeros(4)
    mujoco.mju_mat2Quat(drawn, data.site("goal").xmat)
    assert torch.allclose(quat_canonical(torch.from_numpy(drawn)), task.goal[1], atol=1e-12)


# Determinism, state, randomization


@needs_models
def test_the_same_seed_gives_the_same_episodes_for_any_number_of_environments() -> None:
    few, many = build(cube_task(goals="random"), 2, seed=5), build(cube_task(goals="random"), 5, seed=5)
    for step in range(12):
        if step == 4:  # the first ones reach a goal, so that goals drawn on the way are compared too
            for environment in (few, many):
                task = environment.task
                assert isinstance(task, CubeReorientation)
                place(environment, task.goal)
        a, b = few.step(some_actions(few, step)), many.step(some_actions(many, step))
        assert torch.equal(a.observed.policy, b.observed.policy[:2])
        assert torch.equal(a.reward, b.reward[:2])
    assert (few.episode_successes == 1).all()


@needs_models
def test_a_state_restored_in_the_middle_of_an_episode_goes_on_bit_for_bit() -> None:
    entries = {
        "observation_noise": {"of": ["joint_pos", "cube_quat"], "range": [0, 0.02]},
        "body_size": {"of": "cube", "range": [0.9, 1.1]},
        "action_delay": {"range": [0, 60]},
    }
    first, second = (build(cube_task(goals="face"), 4, manual_layer(cube_task(), entries), seed=s) for s in (1, 2))
    for step in range(30):
        first.step(some_actions(first, step))
    second.load_state_dict(snapshot(first))
    for step in range(30, 60):
        a, b = first.step(some_actions(first, step)), second.step(some_actions(second, step))
        assert torch.equal(a.observed.policy, b.observed.policy)
        assert a.observed.privileged is not None
        assert b.observed.privileged is not None
        assert torch.equal(a.observed.privileged, b.observed.privileged)
        assert torch.equal(a.reward, b.reward)


@needs_models
def test_history_holds_readings_as_they_were_measured() -> None:
    task = cube_task()
    task.patience_steps = 6  # episodes end while it looks
    environment = build(task, 3, manual_layer(task, {"observation_noise": {"of": "joint_pos", "range": [0.05, 0.05]}}))
    where = task.slices()
    now, before = where["joint_pos"], where["joint_pos_history"]
    readings = [environment.observed.policy[:, now]]
    first = environment.observed.policy[:, before]
    assert torch.equal(first, torch.cat((readings[0], readings[0]), dim=1))
    for step in range(9):
        result = environment.step(some_actions(environment, step))
        policy = result.observed.policy
        if result.done.all():
            readings = [policy[:, now]]
            assert torch.equal(policy[:, before], torch.cat((readings[0], readings[0]), dim=1))
            continue
        readings.append(policy[:, now])
        expected = torch.cat((readings[-2], readings[max(len(readings) - 3, 0)]), dim=1)
        assert torch.equal(policy[:, before], expected)
    assert (environment.observed.policy[:, now] - environment.engine.data("qpos")[:, :16]).std() > 0.03


@needs_models
def test_the_relative_rotation_is_computed_from_the_measured_one() -> None:
    task = cube_task()
    environment = build(task, 8, manual_layer(task, {"observation_noise": {"of": "cube_quat", "range": [0.1, 0.1]}}))
    where, observed = task.slices(), environment.observed.policy
    measured = observed[:, where["cube_quat"]]
    assert torch.allclose(measured.norm(dim=1), torch.ones(8, dtype=torch.float64))
    assert (quat_angle(quat_multiply(measured, quat_conjugate(environment.engine.data("qpos")[:, -4:]))) > 0.01).all()
    expected = quat_canonical(quat_multiply(task.goal, quat_conjugate(measured)))
    assert torch.allclose(observed[:, where["goal_rel_quat"]], expected)


@needs_models
def test_the_critic_is_told_the_world_and_the_policy_is_not() -> None:
    task = cube_task()
    entries = {"body_size": {"of": "cube", "range": [0.9, 1.1]}, "gravity": {"of": "z", "range": [-1, 1]}}
    layer = manual_layer(task, entries)
    environment = build(task, 5, layer)
    observed = environment.observed
    assert observed.privileged is not None
    assert observed.policy.shape[1] == sum(c.size for c in task.components("policy"))
    expected = torch.stack(((layer.lam[:, 0] - 1.0) / 0.1, layer.lam[:, 1]), dim=1)
    assert torch.allclose(observed.privileged[:, -2:], expected)


@needs_models
@pytest.mark.parametrize("task_id", HANDS)
def test_everything_that_describe_suggests_runs(task_id: str) -> None:
    task = cube_task(task_id)
    config = randomization_config(yaml.safe_load(suggested_yaml(task))["randomization"])
    sampler = config.sampler_for(task)
    assert isinstance(sampler, Manual)
    assert len(sampler.parameters) > 15
    environment = build(task, 8, DomainRandomizer(sampler))
    for step in range(200):
        result = environment.step(some_actions(environment, step))
        assert result.observed.policy.isfinite().all()
        assert result.reward.isfinite().all()
    assert environment.divergences == 0


@needs_models
def test_a_policy_with_memory_is_exported_with_every_joint_in_order(tmp_path: Path) -> None:
    parameters = {"cube_size": {"quantity": "body_size", "of": "cube"}}
    block = {"sampler": "adr", "performance": "successes", "parameters": parameters}
    task, environment = cube_task(), make_environment("AllegroCube-v0", 2, block)
    environment.reset()
    config = PPOConfig(
        memory="lstm", memory_size=8, actor_hidden=(8,), critic_hidden=(8,), horizon=4, segment=2, minibatches=1
    )  # pyright: ignore[reportCallIssue]
    learner = PPO(LearnerSpec.of(environment, torch.device("cpu")), config, seed=0)
    assert learner.critic.normalizer.mean.shape == (16 + 13 + 12 + 4 + 1,)  # the privileged group and lambda
    policy = Policy.load(export_bundle(learner.policy, task, tmp_path / "bundle"))
    (action,) = policy.contract["action"]
    assert action["joints"] == [task.model.joint(i).name for i in range(16)]
    assert action["unit"] == "rad"
    assert action["smoothing"] == 0.3
    assert action["target_limits"] == task.model.actuator_ctrlrange.T.tolist()
    assert (action["stiffness"], action["effort_limit"]) == ([3.0] * 16, [0.5] * 16)
    assert policy.contract["observation"][0]["joints"] == action["joints"]
    assert policy.contract["observation"][1]["derived_from"] == ["joint_pos"]
    assert policy.contract["recurrent_state"]["shape"] == [16]
    assert policy(np.zeros(sum(c.size for c in task.components("policy")), dtype=np.float32)).shape == (16,)


def test_wrong_options_are_answered_in_one_line() -> None:
    with pytest.raises(TaskError, match=r"option 'goals': expected 'random', 'face' or 'spin', got 'spinning'"):
        make_task("AllegroCube-v0", goals="spinning")
    with pytest.raises(UnknownOptionError, match=r"smoothing: expected a number above 0 and up to 1, got 0"):
        make_task("AllegroCube-v0", smoothing=0)


@needs_models
@pytest.mark.parametrize("task_id", HANDS)
def test_hands_can_have_backlash(task_id: str) -> None:
    world = ModelVariant.model_validate({"model": {"backlash": {"play": 0.02}}})
    environment = make_environment(task_id, 2, variant=world)
    plain, loose = environment.task.model, environment.engine.model
    slack = [i for i in range(loose.njnt) if loose.joint(i).name.endswith("~slack")]
    assert len(slack) == loose.njnt - plain.njnt >= 16
    dofs = loose.jnt_dofadr[slack]
    for field in ("dof_armature", "dof_frictionloss", "dof_damping"):  # which the task writes to all of the hand's dofs
        assert not getattr(loose, field)[dofs].any(), field
        assert getattr(loose, field).sum() == pytest.approx(getattr(plain, field).sum(), rel=0.01), field
    observed = environment.reset().policy
    rest = environment.step(torch.zeros(2, environment.task.action_size)).observed.policy
    assert observed.shape == rest.shape
    assert rest.isfinite().all()
    assert environment.divergences == 0
