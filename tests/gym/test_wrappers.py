"""Gymnasium's and stable-baselines3's own wrappers and recorders around simreal's environments."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import wrappers
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.wrappers import vector

import simreal
from simreal.common.errors import UserError

MODES = list(AutoresetMode)
LIMIT = 25


def make(mode: AutoresetMode = AutoresetMode.SAME_STEP, **options: Any) -> simreal.VecEnv:
    return simreal.make_vec("Hopper-v5", 3, autoreset=mode, max_episode_steps=LIMIT, threads=1, **options)


def original(mode: AutoresetMode) -> VectorEnv[Any, Any, Any]:
    """Gymnasium's own environments behind Gymnasium's own vector environment: what ours are compared with."""
    return gymnasium.make_vec(
        "Hopper-v5", 3, "sync", vector_kwargs={"autoreset_mode": mode}, max_episode_steps=LIMIT, reset_noise_scale=0.0
    )


def play(envs: VectorEnv[Any, Any, Any], steps: int = 70) -> list[tuple[Any, ...]]:
    """What steps return, with actions that make some environments fall before the time limit and others not."""
    random, results = np.random.default_rng(0), []
    envs.reset(seed=0)
    for _ in range(steps):
        action = random.uniform(-1.0, 1.0, (3, 3)) * np.array([[0.0], [0.5], [1.0]])
        results.append(copy.deepcopy(envs.step(action.astype(np.float32))))  # the recorder changes its masks later
        ended = results[-1][2] | results[-1][3]
        if envs.metadata["autoreset_mode"] is AutoresetMode.DISABLED and ended.any():
            envs.reset(options={"reset_mask": ended})
    envs.close()
    envs.close()  # once more does no harm
    return results


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("key", ["episode", "mine"])
def test_recorded_episodes_are_those_of_gymnasiums_own_vector_environment(mode: AutoresetMode, key: str) -> None:
    ours = play(vector.RecordEpisodeStatistics(make(mode, reset_noise_scale=0.0), stats_key=key))
    theirs = play(vector.RecordEpisodeStatistics(original(mode), stats_key=key))
    lengths = set()
    for (*_, a), (*_, b) in zip(ours, theirs, strict=True):
        assert (key in a) == (key in b)
        if key in b:
            np.testing.assert_array_equal(a[f"_{key}"], b[f"_{key}"])
            np.testing.assert_array_equal(a[key]["l"], b[key]["l"])
            np.testing.assert_allclose(a[key]["r"], b[key]["r"], rtol=0, atol=1e-9)
            assert "t" in a[key]
            lengths |= set(b[key]["l"][b[f"_{key}"]].tolist())
    assert len(lengths) > 1
    assert max(lengths) == LIMIT  # and some ended earlier


@pytest.mark.parametrize("mode", MODES)
def test_without_a_recorder_the_same_returns_and_lengths_are_in_infos(mode: AutoresetMode) -> None:
    plain = play(make(mode, reset_noise_scale=0.0))
    recorded = play(vector.RecordEpisodeStatistics(make(mode, reset_noise_scale=0.0)))
    other_key = play(vector.RecordEpisodeStatistics(make(mode, reset_noise_scale=0.0), stats_key="mine"))
    for (*_, a), (*_, b), (*_, c) in zip(plain, recorded, other_key, strict=True):
        assert ("episode" in a) == ("episode" in b) == ("episode" in c)
        if "episode" in a:
            for name in "rl":
                np.testing.assert_allclose(a["episode"][name], b["episode"][name], rtol=0, atol=1e-9)
                np.testing.assert_array_equal(a["episode"][name], c["episode"][name])
            np.testing.assert_array_equal(a["_episode"], b["_episode"])


def test_a_recorder_around_one_environment_leaves_the_infos_of_another_alone() -> None:
    inner, outer = make(reset_noise_scale=0.0), make(reset_noise_scale=0.0)

    class Both(gymnasium.vector.VectorWrapper):  # pyright: ignore[reportMissingTypeArgument]
        seen: Any = None

        def step(self, actions: Any) -> Any:
            infos = inner.step(actions)[-1]
            type(self).seen = infos.get("episode", type(self).seen)
            return self.env.step(actions)

    inner.reset(seed=0)
    play(vector.RecordEpisodeStatistics(Both(outer)), LIMIT + 1)
    assert Both.seen is not None


@pytest.mark.parametrize("mode", MODES)
def test_infos_hold_what_gymnasiums_hold_where_they_say_so(mode: AutoresetMode) -> None:
    """Values and masks of a term that both have; the step that begins an episode (NEXT_STEP) has no infos of a step."""
    ended = np.zeros(3, bool)
    for (*_, term, trunc, a), (*_, b) in zip(
        play(make(mode, reset_noise_scale=0.0)), play(original(mode)), strict=True
    ):
        if mode is AutoresetMode.SAME_STEP and (term | trunc).any():
            mask = b["final_info"]["_x_velocity"]
            np.testing.assert_array_equal(a["final_info"]["_x_velocity"], mask)
            ours, theirs = a["final_info"]["x_velocity"], b["final_info"]["x_velocity"]
            np.testing.assert_allclose(ours[mask], theirs[mask], rtol=0, atol=1e-9)
        elif mode is not AutoresetMode.SAME_STEP:
            np.testing.assert_array_equal(a["_x_velocity"], b.get("_x_velocity", ~ended))
            np.testing.assert_allclose(a["x_velocity"], b.get("x_velocity", 0.0 * ended), rtol=0, atol=1e-9)
        ended = term | trunc


VECTOR_WRAPPERS: dict[str, Any] = {
    "ClipAction": vector.ClipAction,
    "ClipReward": lambda e: vector.ClipReward(e, 0.0, 1.0),
    "NormalizeReward": vector.NormalizeReward,
    "RescaleAction": lambda e: vector.RescaleAction(e, -2.0, 2.0),
    "TransformAction": lambda e: vector.TransformAction(e, lambda action: action / 2.0),  # pyright: ignore
    "TransformReward": lambda e: vector.TransformReward(e, lambda reward: 2.0 * reward),
    "TwoRecorders": lambda e: vector.RecordEpisodeStatistics(vector.RecordEpisodeStatistics(e), stats_key="outer"),
    "VectorizeTransformReward": lambda e: vector.VectorizeTransformReward(
        e, wrappers.TransformReward, func=lambda reward: 2.0 * reward
    ),
    "DtypeObservation": lambda e: vector.DtypeObservation(e, np.float32),
    "FlattenObservation": vector.FlattenObservation,
    "NormalizeObservation": vector.NormalizeObservation,
    "ReshapeObservation": lambda e: vector.ReshapeObservation(e, (11, 1)),
    "TransformObservation": lambda e: vector.TransformObservation(e, lambda observation: 2.0 * observation),
    "VectorizeTransformObservation": lambda e: vector.VectorizeTransformObservation(
        e, wrappers.TransformObservation, func=lambda observation: 2.0 * observation, observation_space=None
    ),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", VECTOR_WRAPPERS)
def test_vector_wrappers_give_what_they_give_around_gymnasiums_own(name: str, mode: AutoresetMode) -> None:
    wrap = VECTOR_WRAPPERS[name]
    try:
        theirs = play(wrap(original(mode)), 60)
    except ValueError as error:  # wrappers of observations refuse SAME_STEP, and this one DISABLED: so for ours
        with pytest.raises(ValueError, match=str(error).split(",")[0].replace("[", r"\[")):
            wrap(make(mode))
        return
    for a, b in zip(play(wrap(make(mode, reset_noise_scale=0.0)), 60), theirs, strict=True):
        for x, y in zip(a[:4], b[:4], strict=True):
            np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=1e-6, atol=1e-6)


SINGLE_WRAPPERS: dict[str, Any] = {
    "Autoreset": wrappers.Autoreset,
    "DelayObservation": lambda e: wrappers.DelayObservation(e, 2),
    "FrameStackObservation": lambda e: wrappers.FrameStackObservation(e, 3),
    "MaxAndSkipObservation": lambda e: wrappers.MaxAndSkipObservation(e, 2),
    "NormalizeObservation": wrappers.NormalizeObservation,
    "NormalizeReward": wrappers.NormalizeReward,
    "RecordEpisodeStatistics": wrappers.RecordEpisodeStatistics,
    "RepeatAction": lambda e: wrappers.RepeatAction(e, 2),
    "RescaleAction": lambda e: wrappers.RescaleAction(e, np.float32(-2.0), np.float32(2.0)),
    "TimeAwareObservation": wrappers.TimeAwareObservation,
    "TimeLimit": lambda e: wrappers.TimeLimit(e, 4),
}


def play_one(env: gymnasium.Env[Any, Any], steps: int = 60) -> list[Any]:
    random, results = np.random.default_rng(0), []
    env.reset(seed=0)
    for _ in range(steps):
        observation, reward, terminated, truncated, info = env.step(random.uniform(-1.0, 1.0, 3).astype(np.float32))
        episode = info.get("episode", {"r": 0.0, "l": 0})
        results.append((observation, reward, terminated, truncated, episode["r"], episode["l"]))
        if (terminated or truncated) and not isinstance(env, wrappers.Autoreset):
            env.reset()
    env.close()
    return results


@pytest.mark.parametrize("name", SINGLE_WRAPPERS)
def test_single_wrappers_give_what_they_give_around_gymnasiums_own(name: str) -> None:
    ours, theirs = (
        play_one(SINGLE_WRAPPERS[name](gymnasium.make(i, max_episode_steps=LIMIT, reset_noise_scale=0.0)))
        for i in ("simreal/Hopper-v5", "Hopper-v5")
    )
    for a, b in zip(ours, theirs, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6)


# Making


@pytest.mark.parametrize("steps", [20, 70])
def test_the_time_limit_given_to_gymnasium_holds_also_where_it_is_longer_than_the_tasks(steps: int) -> None:
    env = gymnasium.make("simreal/FetchReach-v4", max_episode_steps=steps)  # 50 of its own
    env.reset(seed=0)
    ends = [env.step(np.zeros(4, np.float32))[3] for _ in range(steps)]
    assert ends == [False] * (steps - 1) + [True]
    assert env.spec is not None
    assert env.spec.max_episode_steps == steps


def test_without_a_time_limit_given_it_is_the_tasks() -> None:
    env = gymnasium.make("simreal/FetchReach-v4")
    env.reset(seed=0)
    ends = [env.step(np.zeros(4, np.float32))[3] for _ in range(50)]
    assert ends == [False] * 49 + [True]


def test_a_time_limit_of_no_step_is_refused() -> None:
    with pytest.raises(UserError, match="max_episode_steps: expected at least 1, got 0"):
        simreal.make_vec("Hopper-v5", max_episode_steps=0)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_gymnasium_vectorizes_our_single_environments_in_its_wrappers(mode: str) -> None:
    envs = gymnasium.make_vec(
        "simreal/Hopper-v5", 3, mode, wrappers=[wrappers.RecordEpisodeStatistics], max_episode_steps=4
    )
    infos = [result[-1] for result in play(envs, 4)]
    assert infos[-1]["episode"]["l"].tolist() == [4, 4, 4]


def test_copied_and_pickled_environments_are_made_anew_as_gymnasiums_are() -> None:
    env: Any = gymnasium.make("simreal/FetchReach-v4", dense=True).unwrapped
    first, _ = env.reset(seed=4)
    for other in (copy.deepcopy(env), pickle.loads(pickle.dumps(env))):
        assert other.task.id == env.task.id
        again, _ = other.reset(seed=4)
        np.testing.assert_array_equal(again["desired_goal"], first["desired_goal"])
        assert other.step(np.zeros(4, np.float32))[1] != -1.0  # the option went along


def test_a_list_of_seeds_gives_every_environment_its_own() -> None:
    envs = make()
    both, _ = envs.reset(seed=[5, 6, 5])
    fives, _ = envs.reset(seed=5)
    sixes, _ = envs.reset(seed=np.int64(6))
    np.testing.assert_array_equal(both, np.stack([fives[0], sixes[1], fives[2]]))
    with pytest.raises(ValueError, match="seed: expected one, or 3, one for each environment; got 2"):
        envs.reset(seed=[1, 2])


def test_options_that_do_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="options: unknown key 'goal', expected 'reset_mask'"):
        make().reset(options={"goal": 1})


# stable-baselines3


def sb3_rows(envs: Any, steps: int = 30) -> tuple[list[Any], list[dict[str, Any]]]:
    """Returns and lengths that infos report, and all infos of the first environment."""
    envs.reset()
    episodes, infos = [], []
    for _ in range(steps):
        actions = np.array([envs.action_space.sample() for _ in range(envs.num_envs)])
        *_, rows = envs.step(actions)
        infos.append(rows[0])
        episodes += [(row["episode"]["r"], row["episode"]["l"]) for row in rows if "episode" in row]
    envs.close()
    envs.close()
    return episodes, infos


def test_stable_baselines3s_monitor_counts_what_ours_counts(tmp_path: Path) -> None:
    vec_env = pytest.importorskip("stable_baselines3.common.vec_env")
    from simreal.gym.sb3 import as_sb3

    counted: list[Any] = []

    class Ours(vec_env.VecEnvWrapper):  # between ours and the monitor, which writes its own
        def reset(self) -> Any:
            return self.venv.reset()

        def step_wait(self) -> Any:
            observation, reward, done, rows = self.venv.step_wait()
            counted.extend((row["episode"]["r"], row["episode"]["l"]) for row in rows if "episode" in row)
            return observation, reward, done, rows

    with pytest.warns(UserWarning, match="already wrapped with a `Monitor`"):
        monitor = vec_env.VecMonitor(Ours(as_sb3(make())), str(tmp_path / "log"), info_keywords=("reward_ctrl",))
    theirs, infos = sb3_rows(monitor)
    assert len(theirs) >= 3
    np.testing.assert_allclose(np.array(theirs, float), np.array(counted, float), atol=1e-5)
    assert "is_success" not in infos[0]  # a hopper knows no success: a rate of it would be logged as 0
    assert {"diverged", "reward_ctrl"} <= infos[0].keys()


@pytest.mark.parametrize("name", ["VecNormalize", "VecFrameStack", "VecCheckNan", "VecExtractDictObs"])
def test_stable_baselines3s_wrappers_keep_the_episodes(name: str) -> None:
    vec_env = pytest.importorskip("stable_baselines3.common.vec_env")
    from simreal.gym.sb3 import as_sb3

    arguments = {"VecFrameStack": (3,), "VecExtractDictObs": ("observation",)}.get(name, ())
    envs = as_sb3(simreal.make_vec("FetchReach-v4", 2, max_episode_steps=5, threads=1))
    episodes, infos = sb3_rows(getattr(vec_env, name)(envs, *arguments), 10)
    assert [length for _, length in episodes] == [5] * 4
    assert all(-5.0 <= total <= 0.0 for total, _ in episodes)  # a sum of rewards that are 0 or -1
    assert "is_success" in infos[0]


def test_stable_baselines3_reads_through_gymnasiums_wrappers() -> None:
    pytest.importorskip("stable_baselines3")
    from simreal.gym.sb3 import as_sb3

    envs = as_sb3(vector.RecordEpisodeStatistics(simreal.make_vec("FetchReach-v4", 2, max_episode_steps=5)))
    goals = np.zeros((3, 3)), np.ones((3, 3))
    assert envs.env_method("compute_reward", *goals, {})[0].tolist() == [-1.0, -1.0, -1.0]
    assert [length for _, length in sb3_rows(envs, 5)[0]] == [5, 5]
    with pytest.raises(ValueError, match=r"expected what simreal\.make_vec returns, got SyncVectorEnv"):
        as_sb3(original(AutoresetMode.SAME_STEP))


def test_stable_baselines3_evaluates_whole_episodes_before_normalization() -> None:
    sb3 = pytest.importorskip("stable_baselines3")
    from simreal.gym.sb3 import as_sb3

    vec_env = sb3.common.vec_env
    envs = vec_env.VecNormalize(as_sb3(simreal.make_vec("FetchReach-v4", 2, max_episode_steps=5, threads=1)))
    model = sb3.PPO("MultiInputPolicy", envs, n_steps=4, batch_size=8, device="cpu")
    returns, lengths = sb3.common.evaluation.evaluate_policy(model, envs, 4, return_episode_rewards=True)
    assert lengths == [5] * 4
    assert all(value == round(value) and -5.0 <= value <= 0.0 for value in returns)
