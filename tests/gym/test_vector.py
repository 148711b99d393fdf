"""simreal's tasks behind Gymnasium's interfaces, and under stable-baselines3."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

import simreal
from simreal.common.errors import UserError
from simreal.gym.vector import VecEnv

RANDOMIZATION: dict[str, Any] = {
    "parameters": {"body_mass": {"of": "object0", "range": [0.5, 2.0]}, "action_delay": {"range": [0, 40]}}
}


def test_gymnasium_makes_simreal_tasks_after_import() -> None:
    envs = gymnasium.make_vec("simreal/FetchPush-v4", num_envs=3)
    assert isinstance(envs.unwrapped, VecEnv)
    observation, _ = envs.reset(seed=1)
    assert envs.observation_space.contains(observation)
    assert observation["observation"].shape == (3, 25)


def test_gymnasium_robotics_runs_again_after_import() -> None:
    env = gymnasium.make("FetchPush-v4")
    observation, _ = env.reset(seed=0)
    assert observation["observation"].shape == (25,)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_single_environments_pass_gymnasiums_checker() -> None:
    for task in ("FetchReach-v4", "FetchPickAndPlaceDense-v4"):
        check_env(gymnasium.make(f"simreal/{task}").unwrapped, skip_render_check=True)


def test_spaces_equal_gymnasium_robotics() -> None:
    ours, theirs = gymnasium.make("simreal/FetchSlide-v4"), gymnasium.make("FetchSlide-v4")
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space


def run_episode(envs: VecEnv, steps: int) -> list[tuple[Any, ...]]:
    envs.action_space.seed(0)
    envs.reset(seed=5)
    return [envs.step(envs.action_space.sample()) for _ in range(steps)]


def test_same_step_autoreset_gives_the_final_observation_in_infos() -> None:
    envs = simreal.make_vec("FetchReach-v4", num_envs=2)
    *_, (observation, _, terminated, truncated, infos) = run_episode(envs, 50)
    assert truncated.all()
    assert not terminated.any()
    final = infos["final_obs"][0]["observation"]
    assert infos["_final_obs"].all()
    assert not np.allclose(final, observation["observation"][0])  # one ended, the other begins
    assert infos["episode"]["l"].tolist() == [50, 50]
    start, _ = simreal.make_vec("FetchReach-v4", num_envs=2).reset(seed=5)
    assert np.allclose(observation["observation"], start["observation"], atol=1e-3)  # the arm is back


def test_next_step_autoreset_spends_a_step_on_the_reset() -> None:
    envs = simreal.make_vec("FetchReach-v4", num_envs=2, autoreset="NextStep")
    results = run_episode(envs, 51)
    observation, reward, terminated, truncated, infos = results[49]
    assert truncated.all()
    assert "final_obs" not in infos
    same = simreal.make_vec("FetchReach-v4", num_envs=2)
    final = run_episode(same, 50)[-1][4]["final_obs"]
    assert np.array_equal(observation["observation"][1], final[1]["observation"])
    observation, reward, terminated, truncated, _ = results[50]
    assert not (terminated | truncated).any()
    assert (reward == 0).all()
    assert observation["observation"].shape == (2, 10)


def test_disabled_autoreset_waits_for_a_reset_mask() -> None:
    envs = simreal.make_vec("FetchReach-v4", num_envs=2, autoreset=AutoresetMode.DISABLED, max_episode_steps=3)
    before = run_episode(envs, 3)[-1][0]
    with pytest.raises(ValueError, match="have ended"):
        envs.step(envs.action_space.sample())
    after, _ = envs.reset(options={"reset_mask": np.array([True, False])})
    assert np.array_equal(after["observation"][1], before["observation"][1])
    assert not np.array_equal(after["observation"][0], before["observation"][0])


def test_returned_arrays_are_copies() -> None:
    envs = simreal.make_vec("FetchPush-v4", num_envs=2)
    first, _ = envs.reset(seed=0)
    kept = {key: value.copy() for key, value in first.items()}
    for _ in range(3):
        _, reward, *_ = envs.step(envs.action_space.sample())
        kept_reward = reward.copy()
        envs.step(envs.action_space.sample())
        assert np.array_equal(reward, kept_reward)
    assert all(np.array_equal(first[key], kept[key]) for key in kept)


def test_same_seed_same_episodes_and_other_seed_others() -> None:
    a, b = (simreal.make_vec("FetchPush-v4", 4, randomization=RANDOMIZATION, seed=3) for _ in range(2))
    for x, y in zip(run_episode(a, 60), run_episode(b, 60), strict=True):
        assert np.array_equal(x[0]["observation"], y[0]["observation"])
        assert np.array_equal(x[1], y[1])
    assert not np.array_equal(a.reset(seed=6)[0]["desired_goal"], a.reset(seed=7)[0]["desired_goal"])


def test_randomization_reaches_the_simulations() -> None:
    envs = simreal.make_vec("FetchPush-v4", 8, randomization=RANDOMIZATION)
    envs.reset(seed=0)
    mass = envs.engine.field("body_mass")[:, -1]
    assert torch.allclose(mass, 2.0 * envs.layer.lam[:, 0])
    assert float(mass.std()) > 0.1


def test_states_and_goals_are_writable() -> None:
    envs = simreal.make_vec("FetchReach-v4", 2)
    envs.reset(seed=0)
    envs.task.goal[...] = torch.tensor([1.3, 0.7, 0.6])
    observation, *_ = envs.step(np.zeros((2, 4), np.float32))
    assert np.allclose(observation["desired_goal"], [1.3, 0.7, 0.6])


@pytest.mark.parametrize(
    ("actions", "message"),
    [(np.zeros((3, 4), np.float32), "shape"), (np.full((2, 4), np.nan, np.float32), "environment 0")],
)
def test_wrong_actions_are_refused_by_name(actions: Any, message: str) -> None:
    envs = simreal.make_vec("FetchReach-v4", 2)
    envs.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        envs.step(actions)


def test_a_diverged_simulation_ends_its_own_episode_only() -> None:
    envs, undisturbed = simreal.make_vec("FetchPush-v4", 3), simreal.make_vec("FetchPush-v4", 3)
    envs.reset(seed=0)
    undisturbed.reset(seed=0)
    envs.engine.data("qvel")[1] = 1e12
    actions = np.zeros((3, 4), np.float32)
    observation, reward, terminated, _, infos = envs.step(actions)
    expected, *_ = undisturbed.step(actions)
    assert terminated.tolist() == [False, True, False]
    assert infos["diverged"].tolist() == [False, True, False]
    assert np.isfinite(observation["observation"]).all()
    assert np.isfinite(reward).all()
    for i in (0, 2):
        assert np.array_equal(observation["observation"][i], expected["observation"][i])


def test_stable_baselines3_trains_on_a_vec_env_unmodified() -> None:
    stable_baselines3 = pytest.importorskip("stable_baselines3")
    from simreal.gym.sb3 import as_sb3

    envs = as_sb3(simreal.make_vec("FetchReach-v4", num_envs=4, randomization={"parameters": {"action_delay": {}}}))
    model = stable_baselines3.SAC(
        "MultiInputPolicy", envs, replay_buffer_class=stable_baselines3.HerReplayBuffer, learning_starts=220,
        batch_size=64, policy_kwargs={"net_arch": [32, 32]}, device="cpu", seed=0, train_freq=8, gradient_steps=2,
    )  # fmt: skip
    before = [p.detach().clone() for p in model.policy.actor.parameters()]
    model.learn(600)
    assert any(not torch.equal(a, b) for a, b in zip(before, model.policy.actor.parameters(), strict=True))
    assert len(model.ep_info_buffer) > 0


@pytest.mark.parametrize("threads", [0, -1])
def test_threads_below_one_are_refused(threads: int) -> None:
    with pytest.raises(UserError, match=f"threads: expected at least 1, .* got {threads}"):
        simreal.make_vec("InvertedPendulum-v5", num_envs=1, threads=threads)
