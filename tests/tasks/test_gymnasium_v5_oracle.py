"""Gymnasium's MuJoCo tasks of version v5 against Gymnasium: same state and action, same everything."""

from __future__ import annotations

import inspect
import math
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
import torch

from conftest import build, manual_layer, only, snapshot
from envs.engines.cpu import CpuEngine
from envs.environment import Environment
from envs.locomotion.gymnasium_v5.common import GymnasiumTask, model_path, sum_like_numpy
from envs.registry import UnknownOptionError, make_task

# Non-default options, all of which change something within the steps played.
OPTIONS: dict[str, dict[str, Any]] = {
    "HalfCheetah-v5": {
        "frame_skip": 4, "forward_reward_weight": 0.7, "ctrl_cost_weight": 0.3, "reset_noise_scale": 0.2,
        "exclude_current_positions_from_observation": False,
    },
    "Hopper-v5": {
        "frame_skip": 3, "forward_reward_weight": 0.7, "ctrl_cost_weight": 0.3, "healthy_reward": 0.3,
        "terminate_when_unhealthy": False, "healthy_state_range": (-5.0, 6.0), "healthy_z_range": (0.3, 1.24),
        "healthy_angle_range": (-0.1, 0.3), "reset_noise_scale": 0.02,
        "exclude_current_positions_from_observation": False,
    },
    "Walker2d-v5": {
        "frame_skip": 5, "forward_reward_weight": 0.7, "ctrl_cost_weight": 0.3, "healthy_reward": 0.3,
        "terminate_when_unhealthy": False, "healthy_z_range": (0.3, 1.26), "healthy_angle_range": (-0.1, 0.3),
        "reset_noise_scale": 0.02, "exclude_current_positions_from_observation": False,
    },
    "Swimmer-v5": {
        "frame_skip": 5, "forward_reward_weight": 0.7, "ctrl_cost_weight": 0.3, "reset_noise_scale": 0.3,
        "exclude_current_positions_from_observation": False,
    },
    "Ant-v5": {
        "frame_skip": 4, "forward_reward_weight": 0.7, "ctrl_cost_weight": 0.3, "contact_cost_weight": 0.02,
        "healthy_reward": 0.3, "main_body": "aux_1", "terminate_when_unhealthy": False,
        "healthy_z_range": (0.3, 0.7), "contact_force_range": (-7.0, 9.0), "reset_noise_scale": 0.2,
        "exclude_current_positions_from_observation": False,
    },
    "Humanoid-v5": {
        "frame_skip": 4, "forward_reward_weight": 0.7, "ctrl_cost_weight": 0.3, "contact_cost_weight": 5e-6,
        "contact_cost_range": (0.01, 2.0), "healthy_reward": 0.3, "terminate_when_unhealthy": False,
        "healthy_z_range": (0.9, 1.3), "reset_noise_scale": 0.05,
        "exclude_current_positions_from_observation": False, "include_cvel_in_observation": False,
    },
    "HumanoidStandup-v5": {
        "frame_skip": 4, "uph_cost_weight": 0.7, "ctrl_cost_weight": 0.3, "impact_cost_weight": 5e-6,
        "impact_cost_range": (0.01, 2.0), "reset_noise_scale": 0.05,
        "exclude_current_positions_from_observation": False, "include_cinert_in_observation": False,
        "include_qfrc_actuator_in_observation": False,
    },
    "Reacher-v5": {"frame_skip": 3, "reward_dist_weight": 0.7, "reward_control_weight": 0.3},
    "Pusher-v5": {
        "frame_skip": 4, "reward_near_weight": 0.7, "reward_dist_weight": 0.6, "reward_control_weight": 0.3,
    },
    "InvertedPendulum-v5": {"frame_skip": 3, "reset_noise_scale": 0.03},
    "InvertedDoublePendulum-v5": {"frame_skip": 3, "healthy_reward": 7.3, "reset_noise_scale": 0.05},
}  # fmt: skip
IDS = tuple(OPTIONS)
TOUCHING = {"HalfCheetah-v5", "Hopper-v5", "Walker2d-v5", "Ant-v5", "Humanoid-v5", "HumanoidStandup-v5", "Pusher-v5"}
NUM_ENVS = 4


class Twin:
    """Gymnasium's environment, put where ours is."""

    def __init__(self, task_id: str, options: dict[str, Any]) -> None:
        self.env: Any = gymnasium.make(task_id, **options).unwrapped
        self.env.reset(seed=0)

    def start(self, environment: Environment, index: int) -> np.ndarray:
        """Start an episode in the state of environment `index`; returns the first observation."""
        mujoco.mj_resetData(self.env.model, self.env.data)
        qpos, qvel = (environment.engine.data(name)[index].numpy() for name in ("qpos", "qvel"))
        self.env.set_state(qpos, qvel)
        return self.env._get_obs()


def chosen_actions(task: GymnasiumTask, random: np.random.Generator) -> np.ndarray:
    """float32 actions [N, A]: random; random at the limits; gentle; balancing where there is a pole."""
    actions = random.uniform(-1.0, 1.0, (NUM_ENVS, task.action_size))
    actions[1] = np.sign(actions[1])
    actions[2] *= 0.2
    if "Pendulum" in task.id:
        qpos, qvel = (task.engine.data(name)[3].numpy() for name in ("qpos", "qvel"))
        actions[3] = np.clip(3.0 * qpos[1] + 0.5 * qvel[1] + 0.05 * qpos[0] + 0.1 * qvel[0], -1.0, 1.0)
    return actions.astype(np.float32)


def same(ours: Any, theirs: Any) -> None:
    """Equal to 1e-8 in every entry, absolutely."""
    np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=0.0, atol=1e-8)


def play_side_by_side(task_id: str, options: dict[str, Any], steps: int) -> dict[str, Any]:
    """Both sides, episode after episode, for `steps` steps. Returns what makes the comparison worth something."""
    task: Any = make_task(task_id, **options)
    env = build(task, NUM_ENVS, seed=11)
    twins = [Twin(task_id, options) for _ in range(NUM_ENVS)]
    for i, twin in enumerate(twins):
        same(env.observed.policy[i], twin.start(env, i))
    random, scale = np.random.default_rng(len(task_id)), np.array(task.action[0].scale, dtype=np.float32)
    seen: dict[str, Any] = {"contacts": 0, "terminated": 0, "truncated": 0, "healthy": set()}
    for _ in range(steps):
        actions = chosen_actions(task, random)
        result = env.step(torch.as_tensor(actions))
        for i, twin in enumerate(twins):
            observation, reward, terminated, _, info = twin.env.step(actions[i] * scale)
            same(result.final.policy[i], observation)
            same(result.reward[i], reward)
            assert bool(result.terminated[i]) == terminated
            assert result.terms.keys() <= info.keys()
            assert {name for name in info if name.startswith("reward_") or "penalty" in name} <= result.terms.keys()
            for name, value in result.terms.items():
                same(value[i], info[name])
            seen["contacts"] += int(twin.env.data.ncon > 0)
            seen["healthy"].add(float(info.get("reward_survive", 0.0)))
            if result.done[i]:
                seen["terminated" if terminated else "truncated"] += 1
                same(result.observed.policy[i], twin.start(env, i))
    return seen


@pytest.mark.parametrize("task_id", IDS)
def test_every_value_equals_gymnasiums_step_by_step(task_id: str) -> None:
    seen = play_side_by_side(task_id, {}, steps=80)
    assert (seen["contacts"] > 25) == (task_id in TOUCHING)
    if task_id in ("Hopper-v5", "Walker2d-v5", "Ant-v5", "Humanoid-v5") or "Pendulum" in task_id:
        assert seen["terminated"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("task_id", IDS)
def test_every_value_equals_gymnasiums_step_by_step_for_whole_episodes(task_id: str) -> None:
    seen = play_side_by_side(task_id, {}, steps=1005)
    assert (seen["contacts"] > 100) == (task_id in TOUCHING)
    if task_id in ("Hopper-v5", "Walker2d-v5", "Ant-v5", "Humanoid-v5"):
        assert seen["terminated"] > 5
    elif "Pendulum" in task_id:
        assert seen["terminated"] > 5
        assert len(seen["healthy"]) == 2
    elif task_id in ("Reacher-v5", "Pusher-v5"):
        assert seen["truncated"] >= 3 * NUM_ENVS
    else:
        assert seen["terminated"] == 0
        assert seen["truncated"] == NUM_ENVS


@pytest.mark.parametrize("steps", [50, pytest.param(150, marks=pytest.mark.slow)])
@pytest.mark.parametrize("task_id", IDS)
def test_every_option_means_what_it_means_in_gymnasium(task_id: str, steps: int) -> None:
    seen = play_side_by_side(task_id, OPTIONS[task_id], steps)
    if OPTIONS[task_id].get("terminate_when_unhealthy") is False:
        assert seen["healthy"] == {0.0, 0.3}  # lying about does not end the episode, but is not rewarded
        assert seen["terminated"] == 0


@pytest.mark.parametrize("task_id", IDS)
def test_options_defaults_and_time_limit_are_gymnasiums(task_id: str) -> None:
    theirs = inspect.signature(type(gymnasium.make(task_id).unwrapped)).parameters
    ours = inspect.signature(type(make_task(task_id))).parameters
    assert ours.keys() == theirs.keys() - {"default_camera_config", "kwargs"}
    for name, parameter in ours.items():
        assert parameter.default == theirs[name].default, name
    used = OPTIONS[task_id].keys() | {"xml_file", "include_cfrc_ext_in_observation"}
    used |= {n for n in ours if n.startswith("include_")}
    assert ours.keys() <= used  # the test above varies all of them
    assert make_task(task_id).max_episode_steps == gymnasium.spec(task_id).max_episode_steps


@pytest.mark.parametrize("task_id", ["Ant-v5", "Humanoid-v5", "HumanoidStandup-v5"])
def test_parts_of_the_observation_can_be_left_out(task_id: str) -> None:
    flags = [n for n in inspect.signature(type(make_task(task_id))).parameters if n.startswith("include_")]
    for flag in flags:
        play_side_by_side(task_id, {flag: False}, steps=3)
    play_side_by_side(task_id, dict.fromkeys(flags, False), steps=3)


@pytest.mark.parametrize("task_id", IDS)
def test_components_add_up_to_gymnasiums_observation_and_name_their_parts(task_id: str) -> None:
    oracle = gymnasium.make(task_id)
    task = make_task(task_id)
    assert oracle.observation_space.shape == (sum(c.size for c in task.observation),)
    assert len({c.name for c in task.observation}) == len(task.observation)
    for component in task.observation:
        assert component.unit
        assert component.description, component.name
        assert len(component.elements) == len(set(component.elements)) == component.size, component.name
    space: Any = oracle.action_space
    scale, offset = (np.array(getattr(task.action[0], name)) for name in ("scale", "offset"))
    np.testing.assert_allclose(np.stack((offset - scale, offset + scale)), np.stack((space.low, space.high)), rtol=1e-7)
    np.testing.assert_allclose(np.stack(task.native_action_range()), np.stack((space.low, space.high)), rtol=1e-7)


def test_named_parts_lie_where_their_names_say() -> None:
    task: Any = make_task("Ant-v5", exclude_current_positions_from_observation=False)
    env = build(task, 2)
    parts = {name: env.observed.policy[:, where] for name, where in task.slices().items()}
    qpos, qvel = env.engine.data("qpos"), env.engine.data("qvel")
    assert torch.equal(parts["root_xy"], qpos[:, :2])
    assert torch.equal(parts["root_height"], qpos[:, 2:3])
    assert torch.equal(parts["root_quat"], qpos[:, 3:7])
    assert torch.equal(parts["joint_pos"], qpos[:, 7:])
    assert torch.equal(parts["root_linvel"], qvel[:, :3])
    assert torch.equal(parts["root_angvel"], qvel[:, 3:6])
    assert torch.equal(parts["joint_vel"], qvel[:, 6:])
    assert not parts["cfrc_ext"].any()  # no step yet, no forces: as Gymnasium's first observation


def test_the_rails_end_pushes_the_double_pendulums_cart_as_in_gymnasium() -> None:
    env = build(make_task("InvertedDoublePendulum-v5"), 1)
    twin = Twin("InvertedDoublePendulum-v5", {})
    env.engine.data("qpos")[0] = torch.tensor([0.97, 0.0, 0.0])
    env.engine.data("qvel")[0] = torch.tensor([0.3, 0.0, 0.0])
    twin.start(env, 0)
    forces = []
    for _ in range(4):
        result = env.step(torch.tensor([[0.1]]))
        same(result.final.policy[0], twin.env.step(np.array([0.1], dtype=np.float32))[0])
        forces.append(float(result.final.policy[0, -1]))
    assert min(forces) == -10.0  # clipped


def test_control_costs_of_float64_actions_are_gymnasiums_too() -> None:
    for task_id in ("HalfCheetah-v5", "Ant-v5", "Pusher-v5", "Humanoid-v5"):
        task = make_task(task_id)
        env, twin = build(task, 1), Twin(task_id, {})
        twin.start(env, 0)
        random = np.random.default_rng(0)
        for _ in range(10):
            action = random.uniform(-1.0, 1.0, task.action_size)
            result = env.step(torch.as_tensor(action)[None])
            same(result.reward[0], twin.env.step(action * task.action[0].scale)[1])


@pytest.mark.parametrize("size", range(1, 9))
def test_sums_of_float32_are_numpys_to_the_last_bit(size: int) -> None:
    values = np.random.default_rng(size).uniform(0.0, 1.0, (500, size)).astype(np.float32)
    np.testing.assert_array_equal(sum_like_numpy(torch.as_tensor(values)).numpy(), [row.sum() for row in values])


@pytest.mark.parametrize("task_id", IDS)
def test_episodes_start_where_gymnasiums_do(task_id: str) -> None:
    env = build(make_task(task_id), 3000)
    oracle: Any = gymnasium.make(task_id).unwrapped
    oracle.reset(seed=1)
    starts = []
    for _ in range(2000):
        oracle.reset_model()
        starts.append(np.concatenate((oracle.data.qpos, oracle.data.qvel)))
    theirs = np.stack(starts)
    ours = torch.cat((env.engine.data("qpos"), env.engine.data("qvel")), dim=1).numpy()
    fixed = theirs.std(axis=0) < 1e-12
    np.testing.assert_allclose(ours[:, fixed], np.tile(theirs[0, fixed], (3000, 1)), atol=1e-12)
    ours, theirs = ours[:, ~fixed], theirs[:, ~fixed]
    assert ours.shape[1] > 0
    assert len(np.unique(ours, axis=0)) == 3000
    noise = theirs.std(axis=0)
    # Means of 2000 and 3000 draws differ by noise * sqrt(1/2000 + 1/3000) = 0.029 noise, one standard deviation.
    assert (np.abs(ours.mean(axis=0) - theirs.mean(axis=0)) < 5 * 0.029 * noise).all()
    # Quantiles tell uniform from normal: at 5 % they are 1.56 and 1.64 standard deviations out, at 0.5 % 1.71 and 2.58.
    for q, tolerance in ((0.005, 0.65), (0.05, 0.25), (0.25, 0.25), (0.75, 0.25), (0.95, 0.25), (0.995, 0.65)):
        assert (np.abs(np.quantile(ours, q, axis=0) - np.quantile(theirs, q, axis=0)) < tolerance * noise).all(), q


def test_reachers_targets_fill_a_disc_and_pushers_objects_a_rectangle_outside_one() -> None:
    target = build(make_task("Reacher-v5"), 4000).engine.data("qpos")[:, -2:]
    radius = target.norm(dim=1)
    assert float(radius.max()) < 0.2
    # Half of the disc's area lies within 0.2 / sqrt(2); 4.5 standard deviations of a share of 4000 are 0.036.
    assert abs(float((radius < 0.2 / math.sqrt(2.0)).double().mean()) - 0.5) < 0.036
    place = build(make_task("Pusher-v5"), 4000).engine.data("qpos")[:, -4:-2]
    assert float(place.norm(dim=1).min()) > 0.17
    assert -0.3 < float(place[:, 0].min()) < -0.29
    assert float(place[:, 0].max()) < 0.0
    assert -0.2 < float(place[:, 1].min()) < -0.19
    assert 0.19 < float(place[:, 1].max()) < 0.2
    # Area 0.12 - pi 0.17^2 / 2 = 0.0746; x < -0.17 holds 0.13 * 0.4 = 0.052 of it: 0.697
    assert abs(float((place[:, 0] < -0.17).double().mean()) - 0.697) < 0.036


@pytest.mark.parametrize("task_id", IDS)
def test_a_restored_environment_goes_on_bit_for_bit(task_id: str) -> None:
    random = np.random.default_rng(3)
    first = build(make_task(task_id), 5, seed=4)
    size = first.task.action_size
    for _ in range(12):
        first.step(torch.as_tensor(random.uniform(-1.0, 1.0, (5, size))))
    saved = snapshot(first)
    second = build(make_task(task_id), 5, seed=77)
    second.load_state_dict(saved)
    assert torch.equal(second.task.observe(), first.task.observe())
    for _ in range(25):
        action = torch.as_tensor(random.uniform(-1.0, 1.0, (5, size)))
        a, b = first.step(action), second.step(action)
        assert torch.equal(a.reward, b.reward)
        assert torch.equal(a.final.policy, b.final.policy)
        assert torch.equal(a.observed.policy, b.observed.policy)
        assert torch.equal(a.done, b.done)


def test_contact_forces_do_not_depend_on_threads_or_on_how_commands_are_sent() -> None:
    def play(threads: int, delayed: bool) -> torch.Tensor:
        task: Any = make_task("Ant-v5", terminate_when_unhealthy=False)
        # A delay of zero sends a command for each physics step.
        layer = manual_layer(task, {"action_delay": {"range": [0.0, 0.0]}}) if delayed else None
        env = Environment(task, CpuEngine(task.model, 9, threads), layer, seed=5)
        env.reset()
        random = np.random.default_rng(0)
        for _ in range(40):
            env.step(torch.as_tensor(random.uniform(-0.1, 0.1, (9, 8))))
        return env.observed.policy

    expected = play(1, delayed=False)
    assert int((expected[:, 27:] != 0.0).any(dim=1).sum()) >= 5
    assert torch.equal(play(3, delayed=False), expected)
    assert torch.equal(play(2, delayed=True), expected)


def test_a_reset_environment_shows_no_forces_of_the_episode_before() -> None:
    env = build(make_task("Ant-v5", terminate_when_unhealthy=False), 3)
    for _ in range(40):
        env.step(torch.zeros(3, 8))
    forces = env.task.slices()["cfrc_ext"]
    assert env.observed.policy[:, forces].any(dim=1).all()
    observed = env.reset(only(3, 1))
    assert observed.policy[:, forces].any(dim=1).tolist() == [True, False, True]


def test_a_model_of_the_users_own_may_be_given_and_a_missing_one_is_named() -> None:
    path = str(model_path("ant.xml"))
    assert make_task("Ant-v5", xml_file=path).model.nq == 15
    with pytest.raises(FileNotFoundError, match=r"ant_with_wheels\.xml: no such file"):
        make_task("Ant-v5", xml_file="ant_with_wheels.xml")


def test_an_unknown_option_names_the_nearest() -> None:
    with pytest.raises(
        UnknownOptionError, match=r"Ant-v5: unknown option 'healthy_z' \(did you mean 'healthy_z_range'"
    ):
        make_task("Ant-v5", healthy_z=(0.0, 1.0))
