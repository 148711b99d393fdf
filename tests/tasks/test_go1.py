"""Go1Velocity-v0: what it observes, rewards and ends, against MuJoCo's own computations and worked numbers."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
import pytest
import torch

from envs.locomotion.go1.model import FEET, FOOT_RADIUS_M, JOINTS, STANCE
from envs.locomotion.go1.velocity import REWARD_WEIGHTS, Go1VelocityTask
from envs.registry import TaskError, make_task
from robots import GO1, needs
from simreal.training.build import make_environment

pytestmark = needs(GO1)

TASK = "Go1Velocity-v0"


def environment(num_envs: int = 2, randomization: dict[str, Any] | None = None, **options: Any) -> Any:
    env = make_environment(TASK, num_envs, randomization, task_options=options)
    env.reset()
    return env


def wander(env: Any, steps: int = 15, seed: int = 0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    actions = torch.rand(steps, env.num_envs, 12, generator=generator, dtype=torch.float64) * 1.2 - 0.6
    return [env.step(action) for action in actions][-1]


def test_the_policy_sees_what_the_machine_measures() -> None:
    env = environment()
    wander(env)
    model, data = env.engine.export_to_mujoco(1)
    observed, where = env.observed.policy[1].numpy(), env.task.slices()
    velocity = np.zeros(6)
    mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_XBODY, 1, velocity, 1)
    down = np.zeros(3)
    mujoco.mju_rotVecQuat(down, np.array([0.0, 0.0, -1.0]), data.qpos[3:7] * [1, -1, -1, -1])
    np.testing.assert_allclose(observed[where["gyro"]], velocity[:3], atol=1e-12)
    np.testing.assert_allclose(observed[where["projected_gravity"]], down, atol=1e-12)
    for i, name in enumerate(JOINTS):
        joint = model.joint(name)
        assert observed[where["joint_pos"]][i] == data.qpos[joint.qposadr[0]]
        assert observed[where["joint_vel"]][i] == data.qvel[joint.dofadr[0]]
    privileged = env.observed.privileged[1].numpy()
    np.testing.assert_allclose(privileged[:3], velocity[3:], atol=1e-12)
    assert privileged[3] == data.qpos[2]


def test_feet_report_contacts_forces_and_heights() -> None:
    env = environment()
    for _ in range(60):
        env.step(torch.zeros(2, 12, dtype=torch.float64))
    names, start = {}, 0
    for part in env.task.components("privileged"):
        names[part.name], start = slice(start, start + part.size), start + part.size
    privileged = env.observed.privileged[0]
    weight = float(env.task.model.body_mass.sum() * 9.81)
    assert privileged[names["foot_contact"]].tolist() == [1.0] * 4
    assert float(privileged[names["foot_force"]].sum()) == pytest.approx(weight, rel=0.02)
    height = privileged[names["foot_height"]]
    assert height.max() < 0.0
    assert height.min() > -0.02  # the Menagerie's feet are soft, as rubber is
    assert privileged[names["foot_air_time"]].abs().max() == 0.0


def test_holding_still_stands_for_the_whole_episode() -> None:
    env = environment(4)
    fell = torch.zeros(4)
    result: Any = None
    for _ in range(499):
        result = env.step(torch.zeros(4, 12, dtype=torch.float64))
        fell += result.terms["fell"]
    assert fell.sum() == 0
    assert not result.done.any()
    assert env.step(torch.zeros(4, 12, dtype=torch.float64)).truncated.all()


@pytest.mark.parametrize("quat", [(0.0, 1.0, 0.0, 0.0), (0.7071, 0.0, 0.7071, 0.0)])
def test_a_fall_terminates_and_is_no_success(quat: Any) -> None:
    env = environment()
    env.engine.data("qpos")[0, 3:7] = torch.tensor(quat, dtype=torch.float64)
    result = env.step(torch.zeros(2, 12, dtype=torch.float64))
    assert result.terminated.tolist() == [True, False]
    assert not result.success[0]
    assert float(result.terms["fall"][0]) == pytest.approx(REWARD_WEIGHTS["fall"])
    assert env.task.state_dict()["_errors"][0].sum() == 0  # the next episode starts without errors


def test_tracking_is_rewarded_as_stated() -> None:
    env = environment()
    env.task.command_velocity.copy_(torch.tensor([[0.5, 0.0, 0.0], [0.0, 0.0, -0.8]]))
    quat = env.engine.data("qpos")[:, 3:7].clone()
    result = env.step(torch.zeros(2, 12, dtype=torch.float64))
    qpos, qvel = env.engine.data("qpos"), env.engine.data("qvel")
    for i in range(2):
        world = np.zeros(3)
        mujoco.mju_rotVecQuat(world, qvel[i, :3].numpy(), qpos[i, 3:7].numpy() * [1, -1, -1, -1])
        error = np.linalg.norm(world[:2] - env.task.command_velocity[i, :2].numpy())
        turning = abs(float(qvel[i, 5]) - float(env.task.command_velocity[i, 2]))
        assert float(result.terms["linear_error"][i]) == pytest.approx(error)
        assert float(result.terms["turning_error"][i]) == pytest.approx(turning)
        expected = REWARD_WEIGHTS["track_linear"] * 0.02 * np.exp(-error / 0.3)
        assert float(result.terms["track_linear"][i]) == pytest.approx(expected)
    total = sum(v for name, v in result.terms.items() if name in REWARD_WEIGHTS)
    torch.testing.assert_close(result.reward, total)
    assert not torch.equal(quat, qpos[:, 3:7])


def test_success_needs_small_errors_over_the_whole_episode() -> None:
    env = environment(2, success_errors=(0.3, 0.3))
    env.task.command_velocity.zero_()
    result: Any = None
    for _ in range(20):
        result = env.step(torch.zeros(2, 12, dtype=torch.float64))
    assert result.success.all()
    env.task.command_velocity[0, 0] = 1.0
    for _ in range(20):
        result = env.step(torch.zeros(2, 12, dtype=torch.float64))
    assert result.success.tolist() == [False, True]


def test_commands_change_every_five_seconds_and_keep_to_their_limits() -> None:
    env = environment(400, command_limits=(1.0, 0.4, 0.7))
    first = env.observed.policy[:, -3:].clone()
    standing = (first == 0).all(dim=1).double().mean()
    assert 0.05 < standing < 0.16
    assert (first.abs() <= torch.tensor([1.0, 0.4, 0.7])).all()
    assert first[:, 0].abs().max() > 0.9
    env = environment(60, command_limits=(1.0, 0.4, 0.7))
    first = env.observed.policy[:, -3:].clone()
    for step in range(250):
        env.step(torch.zeros(60, 12, dtype=torch.float64))
        same = (env.observed.policy[:, -3:] == first).all(dim=1)
        assert same.all() if step < 249 else same.double().mean() < 0.05


def test_the_policy_sees_its_own_last_action_under_latency_and_noise() -> None:
    block = {
        "sampler": "manual",
        "parameters": {"action_latency": {"range": [2, 2]}, "action_noise": {"range": [0.3, 0.3]}},
    }
    env = environment(2, block)
    action = torch.full((2, 12), 0.25, dtype=torch.float64)
    env.step(action)
    assert torch.equal(env.observed.policy[:, env.task.slices()["last_action"]], action)
    assert (env.engine.data("ctrl") - torch.tensor(STANCE)).abs().max() > 0.0


def test_rough_ground_is_what_the_task_takes_it_for() -> None:
    env = environment(3, terrain="rough", roughness_m=0.05)
    wander(env, 5)
    for i in range(3):
        model, data = env.engine.export_to_mujoco(i)
        feet = np.array([data.site(foot).xpos for foot in FEET])
        above = feet[:, 2] - FOOT_RADIUS_M
        for j, foot in enumerate(feet):
            hit = np.zeros(1, dtype=np.int32)
            only_ground = np.zeros(6, dtype=np.uint8)
            only_ground[0] = 1
            start = np.array([foot[0], foot[1], 2.0])
            distance = mujoco.mj_ray(model, data, start, np.array([0.0, 0.0, -1.0]), only_ground, 1, -1, hit)
            ground = 2.0 - distance
            ours = float(env.task._ground(torch.from_numpy(foot[None, None, :2]))[0, 0])
            assert ours == pytest.approx(ground, abs=0.01)  # bilinear here, triangles there
            assert above[j] > ground - 0.03


def test_episodes_do_not_depend_on_the_number_of_environments() -> None:
    few, many = environment(2), environment(6)
    wander_few: Any = None
    for _ in range(3):
        torch.testing.assert_close(few.observed.policy, many.observed.policy[:2], rtol=0, atol=0)
        wander_few = few.step(torch.full((2, 12), 0.1, dtype=torch.float64))
        many.step(torch.full((6, 12), 0.1, dtype=torch.float64))
    assert wander_few.reward.isfinite().all()


@pytest.mark.parametrize("terrain", ["flat", "rough"])
def test_a_restored_environment_goes_on_bit_for_bit(terrain: Any) -> None:
    env, other = environment(3, terrain=terrain), environment(3, terrain=terrain)
    wander(env, 30)
    other.load_state_dict(env.state_dict())
    a, b = wander(env, 20, seed=1), wander(other, 20, seed=1)
    assert torch.equal(a.observed.policy, b.observed.policy)
    assert torch.equal(a.observed.privileged, b.observed.privileged)
    assert torch.equal(a.reward, b.reward)


def test_lambda_is_part_of_what_the_critic_reads() -> None:
    block = {"sampler": "manual", "parameters": {"body_mass": {"of": "trunk", "range": [0.5, 1.5]}}}
    env, plain = environment(4, block), environment(4)
    assert env.observed.privileged.shape[1] == plain.observed.privileged.shape[1] + 1
    torch.testing.assert_close(env.observed.privileged[:, -1], (env.layer.lam[:, 0] - 1.0) / 0.5)
    mass = env.engine.field("body_mass")[:, 1] / env.task.model.body_mass[1]
    torch.testing.assert_close(mass, env.layer.lam[:, 0])


def test_wrong_options_name_what_there_is() -> None:
    with pytest.raises(ValueError, match="terrain: expected one of 'flat', 'rough', 'slopes', 'stairs', 'stones'"):
        Go1VelocityTask(terrain="ice")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="unknown jump; there are track_linear"):
        Go1VelocityTask(reward_weights={"jump": 1.0})
    with pytest.raises(ValueError, match="roughness_m: expected more than 0 on rough ground, got 0"):
        Go1VelocityTask(terrain="rough", roughness_m=0.0)
    with pytest.raises(ValueError, match="roughness_m: terrain 'stairs' has no bumps, expected terrain 'rough'"):
        Go1VelocityTask(terrain="stairs", roughness_m=0.05)
    with pytest.raises(TaskError, match=r"option 'command_limits': a value is missing, got \[1\]"):
        make_task("Go1Velocity-v0", command_limits=[1])


def test_a_mirrored_state_moves_as_the_mirror_image() -> None:
    """The reflection is one of the physics: mirrored states under mirrored actions stay mirror images."""
    env = environment(2)
    task, mirror = env.task, env.task.mirror
    qpos, qvel = env.engine.data("qpos"), env.engine.data("qvel")
    legs, sides = torch.tensor(mirror.action), torch.tensor(mirror.action_sign, dtype=torch.float64)
    qpos[0, 3:7] = torch.nn.functional.normalize(torch.tensor([1.0, 0.1, -0.05, 0.0], dtype=torch.float64), dim=0)
    qpos[1] = qpos[0]
    qpos[1, :7] = qpos[0, :7] * torch.tensor([1, -1, 1, 1, -1, 1, -1])
    qpos[1, 7:] = qpos[0, 7:][legs] * sides
    qvel[1, :6] = qvel[0, :6] * torch.tensor([1, -1, 1, -1, 1, -1])
    qvel[1, 6:] = qvel[0, 6:][legs] * sides
    task.command_velocity[:] = torch.tensor([[0.5, 0.2, -0.4], [0.5, -0.2, 0.4]])
    assert env.observed.privileged is not None
    index, sign = torch.tensor(mirror.observation), torch.tensor(mirror.observation_sign, dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    result: Any = None
    for _ in range(8):
        action = torch.rand(12, generator=generator, dtype=torch.float64) - 0.5
        result = env.step(torch.stack((action, action[legs] * sides)))
        observed = result.final.policy
        # The Menagerie's trunk is not symmetric to the millimetre: its centre of mass lies 2 mm beside the middle.
        torch.testing.assert_close(observed[1], observed[0][index] * sign, rtol=0, atol=0.3)
        hidden, order = result.final.privileged, torch.tensor(mirror.privileged)
        image = hidden[0][order] * torch.tensor(mirror.privileged_sign, dtype=torch.float64)
        forces = slice(
            8, 12
        )  # contacts are stiff: what feet carry differs by newtons where their heights do by microns
        hidden[:, forces], image[forces] = hidden[:, forces] * 0.01, image[forces] * 0.01
        torch.testing.assert_close(hidden[1], image, rtol=0, atol=0.3)
    np.testing.assert_allclose(result.terms["track_linear"][0], result.terms["track_linear"][1], atol=0.005)
