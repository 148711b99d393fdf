"""The Shadow hand's tasks against gymnasium-robotics, whose ids they carry: same state and action, same everything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
import torch
from gymnasium_robotics.utils import rotations

import envs.manipulation.shadow_hand.manipulate as manipulate
from conftest import build, manual_layer, only, snapshot
from envs.common.spatial import euler_to_quat, parallel_rotations, quat_multiply, quat_to_euler, quat_to_matrix
from envs.engines.backlash_joints import AddBacklashJoints, BacklashJointEngine, geared_joints, set_backlash
from envs.engines.cpu import CpuEngine
from envs.environment import Environment
from envs.manipulation.shadow_hand.manipulate import HandManipulateTask
from envs.registry import make_task, task_ids
from envs.task import editing_specs
from hands import Episode, compare, differ

BLOCK = [f"HandManipulateBlock{kind}" for kind in ("", "Full", "RotateZ", "RotateParallel", "RotateXYZ")]
OTHERS = [f"HandManipulate{thing}{kind}" for thing in ("Egg", "Pen") for kind in ("", "Full", "Rotate")]
FAMILIES = BLOCK + OTHERS
TOUCH = [f"{f}_{kind}TouchSensors" for f in FAMILIES if "Full" not in f for kind in ("Boolean", "Continuous")]
SPARSE = [f"{name}-v1" for name in FAMILIES + TOUCH]
DENSE = [f"{name}Dense-v1" for name in FAMILIES + TOUCH]
# Every object, every kind of goal and of touch; every task is compared under `slow`.
SEVERAL = (
    "HandReach-v3", "HandReachDense-v3", "HandManipulateBlock-v1", "HandManipulateBlockRotateParallel-v1",
    "HandManipulateBlockRotateZ_BooleanTouchSensors-v1", "HandManipulateBlockRotateXYZ-v1",
    "HandManipulateEgg_ContinuousTouchSensors-v1", "HandManipulatePenRotateDense-v1",
)  # fmt: skip
ONE_OF_EACH = (
    "HandReach-v3", "HandManipulateBlockRotateParallel-v1", "HandManipulateEgg_ContinuousTouchSensorsDense-v1",
    "HandManipulatePenRotate_BooleanTouchSensors-v1",
)  # fmt: skip


def stage(raw: Any, episode: int, random: np.random.Generator) -> None:
    """Goals within reach in episodes 1 and 2: where the object is, a little off; what the task ignores is far off."""
    if episode not in (1, 2):
        return
    if "Reach" in type(raw).__name__:
        ahead = mujoco.MjData(raw.model)
        ahead.qpos[:], ahead.ctrl[:] = raw.data.qpos, raw.model.actuator_ctrlrange.mean(axis=1)
        mujoco.mj_step(raw.model, ahead, 1000)  # where gentle actions keep the hand
        tips = [ahead.site(f"robot0:S_{finger}tip").xpos for finger in ("ff", "mf", "rf", "lf", "th")]
        raw.goal = np.concatenate(tips) + 0.001 * random.normal(size=15)
        return
    raw.goal = raw._get_achieved_goal().copy()
    turn = rotations.euler2quat(0.02 * random.normal(size=3))
    raw.goal[3:] = rotations.quat_mul(turn, raw.goal[3:])
    if raw.ignore_z_target_rotation:
        euler = rotations.quat2euler(raw.goal[3:])
        raw.goal[3:] = rotations.euler2quat(euler + np.array([0.0, 0.0, 1.0]))
    raw.goal[:3] += (1.0 if raw.target_position == "ignore" else 0.002) * random.normal(size=3)


def covers(task_id: str, episodes: list[Episode]) -> None:
    """The comparison is worth nothing where nothing is touched and no goal is reached."""
    successes = [any(e.successes) for e in episodes]
    assert any(successes[1:3])
    assert not all(all(e.successes) for e in episodes)
    if "Reach" in task_id:
        return
    assert min(e.contacts for e in episodes) > 50
    if "Touch" in task_id:
        readings = np.stack([o["observation"][-92:] for e in episodes for o in e.observations])
        assert len(np.flatnonzero(readings.any(axis=0))) > 10  # different sensors feel something
        assert (readings.max() == 1.0) == ("Boolean" in task_id)


@pytest.mark.parametrize("task_id", SEVERAL)
def test_hands_equal_gymnasium_robotics_step_by_step(task_id: str) -> None:
    covers(task_id, compare(task_id, 3, stage=stage))


@pytest.mark.slow
@pytest.mark.parametrize("task_id", sorted({*SPARSE, *DENSE, *SEVERAL}))
def test_every_variant_equals_gymnasium_robotics_over_many_episodes(task_id: str) -> None:
    covers(task_id, compare(task_id, 8, stage=stage))


def test_every_id_of_the_shadow_hand_is_registered_with_its_time_limit_and_spaces() -> None:
    theirs = {
        name: spec
        for name, spec in gymnasium.registry.items()
        if name.startswith("Hand") and "MujocoPy" not in str(spec.entry_point)
    }
    assert theirs.keys() == {name for name in task_ids() if name.startswith("Hand")}
    assert set(SPARSE + DENSE) | {"HandReach-v3", "HandReachDense-v3"} == theirs.keys()
    for name, spec in theirs.items():
        task = make_task(name)
        assert task.id == name
        assert task.max_episode_steps == spec.max_episode_steps
        assert task.control_period_s == pytest.approx(0.04)


@pytest.mark.parametrize("task_id", ONE_OF_EACH)
def test_components_add_up_to_the_observation_and_name_their_parts(task_id: str) -> None:
    space: Any = gymnasium.make(task_id).observation_space
    task = make_task(task_id)
    assert space["observation"].shape == (sum(c.size for c in task.observation[:-1]),)
    assert space["desired_goal"].shape == (task.goal_size,) == (task.observation[-1].size,)
    assert task.observation[-1].name == "desired_goal"
    for component in task.observation:
        assert component.unit
        assert component.description
        assert len(component.elements) == len(set(component.elements)) == component.size, component.name
    model = task.model
    (targets,) = task.action
    assert targets.joints[:3] == ("robot0:WRJ1", "robot0:WRJ0", "robot0:FFJ3")
    assert len(targets.joints) == len(targets.actuators) == targets.size == model.nu == 20
    low, high = (np.array(targets.offset) + side * np.array(targets.scale) for side in (-1.0, 1.0))
    np.testing.assert_allclose(np.stack((low, high), axis=1), model.actuator_ctrlrange, atol=1e-12)
    assert task.observation[0].joints == tuple(model.joint(i).name for i in range(24))


def test_quaternions_and_euler_angles_are_those_of_gymnasium_robotics() -> None:
    random = np.random.default_rng(0)
    a, b, euler = random.normal(size=(500, 4)), random.normal(size=(500, 4)), random.uniform(-4, 4, (500, 3))
    p, q = torch.as_tensor(a), torch.as_tensor(b)
    np.testing.assert_allclose(quat_multiply(p, q).numpy(), rotations.quat_mul(a, b), atol=1e-14)
    np.testing.assert_allclose(quat_to_matrix(p).numpy(), rotations.quat2mat(a), atol=1e-14)
    np.testing.assert_allclose(quat_to_euler(p).numpy(), rotations.quat2euler(a), atol=1e-13)
    np.testing.assert_allclose(euler_to_quat(torch.as_tensor(euler)).numpy(), rotations.euler2quat(euler), atol=1e-14)
    theirs = [rotations.euler2quat(r) for r in rotations.get_parallel_rotations()]
    np.testing.assert_allclose(parallel_rotations().numpy(), theirs, atol=1e-14)


@pytest.mark.parametrize("name", ["HandManipulateBlock", "HandManipulateEggRotate", "HandManipulatePen", "HandReach"])
def test_rewards_of_relabelled_goals_are_the_oracles_goal_by_goal(name: str) -> None:
    """In batches the oracle's Pen sets the angle of one goal instead of one angle of all goals; ours does not."""
    random = np.random.default_rng(3)
    version = "v3" if "Reach" in name else "v1"
    for dense in ("", "Dense"):
        task, raw = make_task(f"{name}{dense}-{version}"), gymnasium.make(f"{name}{dense}-{version}").unwrapped
        oracle: Any = raw
        start = oracle._get_achieved_goal()
        goals = start + random.normal(size=(60, 2, len(start))) * random.choice([1e-3, 1e-2, 0.1], (60, 1, 1))
        if task.goal_size == 7:
            goals[..., 3:] /= np.linalg.norm(goals[..., 3:], axis=-1, keepdims=True)
            goals[::3, 0, 3:] *= -1.0  # the same orientation, but 2 pi away
        ours = torch.as_tensor(goals).view(12, 5, 2, -1)
        rewards = task.goal_reward(ours[..., 0, :], ours[..., 1, :])
        successes = task.goal_success(ours[..., 0, :], ours[..., 1, :])
        assert rewards.shape == successes.shape == (12, 5)
        expected = [oracle.compute_reward(a.copy(), b.copy(), {}) for a, b in goals]
        np.testing.assert_allclose(rewards.flatten().numpy(), expected, atol=1e-7)
        assert successes.flatten().tolist() == [bool(oracle._is_success(a.copy(), b.copy())) for a, b in goals]
        assert 5 < int(successes.sum()) < 55


def test_readings_of_touch_sensors_may_be_logarithms_too() -> None:
    env = build(make_task("HandManipulateBlock_ContinuousTouchSensors-v1", touch="log"), 2)
    touch = env.task.slices()["touch"]
    for _ in range(5):
        env.step(torch.ones(2, 20))
    first = int(env.task.model.sensor("robot0:TS_palm_b0").adr[0])
    forces = env.engine.data("sensordata")[:, first : first + 92]
    assert bool(forces.any())
    assert torch.equal(env.observed.policy[:, touch], torch.log(forces + 1.0))


STARTS = ("HandManipulateBlockRotateZ-v1", "HandManipulateBlockRotateParallel-v1", "HandManipulateEgg-v1",
          "HandManipulatePen-v1")  # fmt: skip


@pytest.mark.parametrize("task_id", STARTS)
def test_objects_settle_and_goals_are_drawn_as_the_oracles(task_id: str) -> None:
    oracle: Any = gymnasium.make(task_id).unwrapped
    theirs = []
    for seed in range(60):
        oracle.reset(seed=seed)
        theirs.append(np.concatenate((oracle.data.qpos[:31], oracle.data.qvel[:30], oracle.goal, [oracle.data.time])))
    env = build(make_task(task_id), 120)
    data = env.engine.data
    parts = (data("qpos")[:, :31], data("qvel")[:, :30], env.task.goal, data("time")[:, None])
    ours, expected = torch.cat(parts, dim=1).numpy(), np.stack(theirs)
    assert float(ours[:, 26].min()) > 0.04  # on the palm
    random = (expected.std(axis=0) > 1e-9) | (ours.std(axis=0) > 1e-9)
    np.testing.assert_allclose(ours[:, ~random], np.tile(expected[0, ~random], (120, 1)), atol=1e-9)
    assert len(np.unique(ours[:, 24], axis=0)) == 120
    # 2.4 has odds of 2e-5 in each of some 60 columns.
    for column in np.flatnonzero(random):
        assert differ(ours[:, column], expected[:, column]) < 2.4, column
    offset = differ(np.abs(ours[:, 61] - ours[:, 24]), np.abs(expected[:, 61] - expected[:, 24]))
    assert offset < 2.4
    turned = [np.einsum("ij,ij->i", rows[:, 27:31], rows[:, 64:68]) for rows in (ours, expected)]
    assert differ(*turned) < 2.4


def test_reaching_starts_in_the_oracles_pose_and_its_goals_are_drawn_alike() -> None:
    oracle: Any = gymnasium.make("HandReach-v3").unwrapped
    goals = []
    for seed in range(300):
        oracle.reset(seed=seed)
        goals.append(oracle.goal)
    theirs = np.stack(goals)
    env = build(make_task("HandReach-v3"), 2000)
    np.testing.assert_allclose(env.engine.data("qpos").numpy(), np.tile(oracle.data.qpos, (2000, 1)), atol=1e-12)
    assert not env.engine.data("qvel").any()
    ours = env.task.goal.numpy()
    moved = [
        (np.abs(g.reshape(-1, 5, 3) - oracle.initial_goal.reshape(5, 3)) > 1e-9).any(axis=2) for g in (ours, theirs)
    ]
    assert set(moved[0].sum(axis=1)) == {0, 2}  # nobody, or the thumb and a finger
    assert (moved[0][:, 4] == moved[0].any(axis=1)).all()
    # shares of 0.225 and 0.9 among 2000: 4.5 standard deviations
    assert (np.abs(moved[0].mean(axis=0) - [0.225, 0.225, 0.225, 0.225, 0.9]) < [0.042] * 4 + [0.03]).all()
    for finger in range(5):
        for axis in range(3):
            columns = [g[m[:, finger], 3 * finger + axis] for g, m in zip((ours, theirs), moved, strict=True)]
            assert differ(*columns) < 2.2


def test_an_object_that_misses_the_palm_is_laid_down_again_and_the_others_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manipulate, "_START_SPREAD_M", 0.05)
    task = make_task("HandManipulateBlock-v1")
    tries: list[int] = []
    advance_some = type(build(task, 1).engine).advance_some

    def counted(engine: Any, nstep: int, mask: torch.Tensor) -> None:
        tries.append(int(mask.sum()))
        advance_some(engine, nstep, mask)

    monkeypatch.setattr(type(task.engine), "advance_some", counted)
    task = make_task("HandManipulateBlock-v1")
    env = build(task, 60)
    assert tries[0] == 60
    assert 0 < tries[1] < 40
    assert tries[-1] < tries[1]
    height = env.engine.data("qpos")[:, 26]
    assert float(height.min()) > 0.04
    # An episode is the same whatever others do.
    alone = build(make_task("HandManipulateBlock-v1"), 60)
    before = alone.engine.data("qpos").clone()
    assert torch.equal(before, env.engine.data("qpos"))
    alone.reset(only(60, 7))
    kept = torch.ones(60, dtype=torch.bool)
    kept[7] = False
    assert torch.equal(alone.engine.data("qpos")[kept], before[kept])
    assert not torch.equal(alone.engine.data("qpos")[7], before[7])


@pytest.mark.parametrize(("setting", "value"), [("_ON_PALM_M", 9.0), ("_START_SPREAD_M", 1e12)])
def test_an_object_that_never_stays_is_given_up(
    setting: str, value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too low to be on the palm, or so far away that the simulation is unstable."""
    monkeypatch.chdir(tmp_path)  # MuJoCo leaves a log where it warns
    monkeypatch.setattr(manipulate, setting, value)
    env = build(make_task("HandManipulateBlock-v1"), 2)
    assert bool(torch.isfinite(env.observed.policy).all())
    monkeypatch.undo()
    assert not env.step(torch.zeros(2, 20)).diverged.any()


RANDOMIZED = {
    "size": {"quantity": "body_size", "of": "object", "range": [0.9, 1.1]},
    "mass": {"quantity": "body_mass", "of": "object", "range": [0.5, 1.5]},
    "joint_damping": {"of": "robot0:*", "range": [0.5, 2.0]},
    "tendon_range": {"range": [0, 0.001]},
    "actuator_gain": {"range": [0.75, 1.5]},
    "action_delay": {"range": [0, 80]},
    "noise": {"quantity": "observation_noise", "of": "object_pos", "range": [0, 0.005]},
}


@pytest.mark.parametrize("task_id", ONE_OF_EACH)
def test_a_restored_hand_goes_on_bit_for_bit(task_id: str) -> None:
    entries = {k: v for k, v in RANDOMIZED.items() if "Reach" not in task_id or k not in ("size", "mass", "noise")}

    def begin(seed: int) -> Any:
        task = make_task(task_id)
        task.max_episode_steps = 9
        return build(task, 4, manual_layer(task, entries), seed)

    first, random = begin(4), np.random.default_rng(3)
    for _ in range(5):
        first.step(torch.as_tensor(random.uniform(-1.0, 1.0, (4, 20))))
    saved = snapshot(first)
    second = begin(77)
    second.load_state_dict(saved)
    assert torch.equal(second.task.observe(), first.task.observe())
    for _ in range(12):
        action = torch.as_tensor(random.uniform(-1.0, 1.0, (4, 20)))
        a, b = first.step(action), second.step(action)
        assert torch.equal(a.reward, b.reward)
        assert torch.equal(a.final.policy, b.final.policy)
        assert torch.equal(a.observed.policy, b.observed.policy)


def test_worlds_differ_while_the_object_settles() -> None:
    task = HandManipulateTask("Block")
    heavy = {"mass": {"quantity": "body_mass", "of": "object", "range": [4.0, 4.0]}}
    env, plain = build(task, 2, manual_layer(task, heavy), seed=1), build(HandManipulateTask("Block"), 2, seed=1)
    joints = [e.engine.data("qpos")[:, :24] for e in (env, plain)]
    assert float((joints[0] - joints[1]).abs().max()) > 1e-3  # the hand gives way under the weight


def test_a_hand_with_play_in_its_gears_settles_and_is_seen_where_its_links_are() -> None:
    task = make_task("HandManipulateBlock-v1")
    with editing_specs(AddBacklashJoints.to(task.model, geared_joints(task.model))):
        model = make_task(task.id).model
    assert set_backlash(model, 0.05) == 20
    env = Environment(task, BacklashJointEngine(CpuEngine(model, 2, threads=1)))
    env.reset()
    for _ in range(3):
        env.step(torch.ones(2, 20))
    env.engine.forward()
    qpos, data = env.engine.data("qpos"), mujoco.MjData(task.model)
    assert float(qpos[:, 26].min()) > 0.0
    for i in range(2):
        data.qpos[:] = qpos[i].numpy()
        mujoco.mj_kinematics(task.model, data)
        np.testing.assert_allclose(env.engine.data("xpos")[i].numpy(), data.xpos, atol=1e-9)


@pytest.mark.parametrize("task_id", ONE_OF_EACH)
def test_goals_are_drawn_where_they_are(task_id: str) -> None:
    env = build(make_task(task_id), 2)
    model, data = env.engine.export_to_mujoco(1)
    env.task.draw_goal(model, data, 1)
    goal = env.task.goal[1].numpy()
    if "Reach" in task_id:
        sites = [data.site(f"target{i}").xpos for i in range(5)]
        np.testing.assert_allclose(np.concatenate(sites), goal, atol=1e-12)
        np.testing.assert_allclose(data.site("finger4").xpos, data.site("robot0:S_thtip").xpos, atol=1e-12)
        return
    aside = 0.15 if "Rotate" in task_id else 0.0
    np.testing.assert_allclose(data.body("target").xpos, goal[:3] + np.array([aside, 0.0, 0.0]), atol=1e-12)
    np.testing.assert_allclose(data.body("target").xquat, goal[3:], atol=1e-12)


def test_a_measured_orientation_has_length_one() -> None:
    task = make_task("HandManipulateEggRotate-v1")
    noise = {"noise": {"quantity": "observation_noise", "of": "object_quat", "range": [0.2, 0.2]}}
    env = build(task, 5, manual_layer(task, noise))
    quat = env.observed.policy[:, task.slices()["object_quat"]]
    torch.testing.assert_close(quat.norm(dim=1), torch.ones(5).double())
    assert float((quat - env.engine.data("qpos")[:, 27:31]).abs().max()) > 0.05
