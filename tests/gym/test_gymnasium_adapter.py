"""Gymnasium environments behind the adapter: as they are when stepped alone, and usable as any task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
import torch

import simreal
from adapted_env import MINE, SomebodysEnv, build, flat, raw, register, seeds
from conftest import only, snapshot
from envs.gymnasium_adapter.task import AdaptedTask
from envs.registry import TaskError, UnknownOptionError, UnknownTaskError, make_task
from resuming import advance
from simreal.cli.main import main
from simreal.training.build import make_environment
from simreal.training.checkpoint import load_checkpoint
from simreal.training.run_config import parse_config
from simreal.training.trainer import Trainer
from simreal.vision.rendering.scene import Scene
from tiny import leaves, unequal

register()
ORACLES = ["HalfCheetah-v5", "Pusher-v5", "FetchPush-v4", "AdroitHandDoor-v1", "HandManipulateEgg-v1", "Somebodys-v0"]


@pytest.mark.parametrize("env_id", ORACLES)
def test_an_adapted_environment_equals_the_same_one_stepped_alone(env_id: str) -> None:
    env = make_environment(f"gymnasium:{env_id}", 3, threads=2, max_episode_steps=None, seed=3)
    observed = env.reset()
    alone = [gymnasium.make(env_id, disable_env_checker=True) for _ in range(3)]
    random = np.random.default_rng(0)
    low, high = (bound.astype(np.float32) for bound in env.task.native_action_range())
    vec = simreal.VecEnv(env)
    for steps in (env.max_episode_steps, 5):  # a whole episode, and the beginning of another
        starts = [one.reset(seed=seed)[0] for one, seed in zip(alone, seeds(env), strict=True)]
        np.testing.assert_array_equal(observed.policy.numpy(), [flat(env, start) for start in starts])
        for step in range(steps):
            action = random.uniform(low, high, (3, env.task.action_size)).astype(np.float32)
            result = env.step(torch.from_numpy((action.astype(np.float64) - vec._offset) / vec._scale))
            theirs = [one.step(a) for one, a in zip(alone, action, strict=True)]
            np.testing.assert_array_equal(result.final.policy.numpy(), [flat(env, t[0]) for t in theirs])
            np.testing.assert_array_equal(result.reward.numpy(), [np.float64(t[1]) for t in theirs])
            np.testing.assert_array_equal(result.terminated.numpy(), [t[2] for t in theirs])
            np.testing.assert_array_equal(result.truncated.numpy(), [t[3] for t in theirs])
            success = [bool(t[4].get("is_success", t[4].get("success", False))) for t in theirs]
            np.testing.assert_array_equal(result.success.numpy(), success)
            for name, values in result.terms.items():
                np.testing.assert_array_equal(values.numpy(), [np.float64(t[4][name]) for t in theirs])
            if env.task.goal_size:
                assert result.final.achieved_goal is not None
                achieved = [t[0]["achieved_goal"] for t in theirs]
                np.testing.assert_array_equal(result.final.achieved_goal.numpy(), achieved)
            assert bool(result.done.all()) == (step == env.max_episode_steps - 1)
            observed = result.observed
    assert env.task.max_episode_steps == alone[0].spec.max_episode_steps  # pyright: ignore


def test_an_episode_is_the_same_however_many_are_played_and_by_how_many_threads() -> None:
    worlds = {"parameters": {"body_mass": {"range": [0.5, 2.0]}, "observation_noise": {}, "action_latency": {}}}

    def play(num_envs: int, threads: int) -> dict[int, list[list[float]]]:
        env = make_environment(MINE, num_envs, worlds, threads=threads, seed=5)
        env.reset()
        shown: dict[int, list[list[float]]] = {}
        for _ in range(4 * env.max_episode_steps // num_envs):
            numbers = env.rng.episode.tolist()
            result = env.step(torch.full((num_envs, 1), 0.4))
            for number, row in zip(numbers, result.final.policy.tolist(), strict=True):
                shown.setdefault(number, []).append(row)
        return shown

    one, four, threaded = play(1, 1), play(4, 1), play(2, 2)
    assert sorted(one) == sorted(four) == [0, 1, 2, 3]
    assert one == four == threaded


# Goals


def test_goals_are_relabelled_by_the_environments_own_reward() -> None:
    ours, native = make_environment("gymnasium:FetchPush-v4", 1), make_task("FetchPush-v4")
    ours.reset()
    achieved = torch.rand(4, 5, 3, dtype=torch.float32)
    desired = achieved + 0.06 * torch.rand(4, 5, 3)
    rewards = ours.task.goal_reward(achieved, desired)
    assert rewards.shape == (4, 5)
    assert rewards.dtype == torch.float32
    assert 0 < int((rewards == 0).sum()) < 20
    assert torch.equal(rewards, native.goal_reward(achieved, desired))


def test_an_environment_that_takes_one_goal_at_a_time_is_asked_one_at_a_time() -> None:
    achieved, desired = torch.rand(7, 1, dtype=torch.float64), torch.rand(7, 1, dtype=torch.float64)
    rewards = []
    for many in (True, False):
        env = make_environment(MINE, 1, task_options={"many_goals": many})
        env.reset()
        rewards.append(env.task.goal_reward(achieved, desired))
    torch.testing.assert_close(rewards[0], -(achieved - desired).abs()[:, 0])
    assert torch.equal(rewards[0], rewards[1])


def test_settling_moves_the_chosen_simulations_alone() -> None:
    env, reference = (build(AdaptedTask("Hopper-v5"), 3) for _ in range(2))
    before = env.engine.data("qpos").clone()
    assert torch.equal(before, reference.engine.data("qpos"))
    env.engine.advance_some(4, only(3, 1))
    data = raw(reference, 1).data
    mujoco.mj_step(raw(reference, 1).model, data, 4)
    assert np.array_equal(env.engine.data("qpos")[1].numpy(), data.qpos)
    assert torch.equal(env.engine.data("qpos")[[0, 2]], before[[0, 2]])


def test_goals_and_states_are_writable() -> None:
    envs = simreal.make_vec("gymnasium:FetchReach-v4", 2, seed=0)
    envs.reset(seed=0)
    envs.task.goal[1] = torch.tensor([1.3, 0.7, 0.6])
    before = raw(envs.environment, 0).goal.copy()
    observation, *_ = envs.step(np.zeros((2, 4), np.float32))
    np.testing.assert_allclose(observation["desired_goal"][1], [1.3, 0.7, 0.6])
    assert np.array_equal(raw(envs.environment, 0).goal, before)
    envs.engine.data("qvel")[0, 0] = 0.7
    envs.step(np.zeros((2, 4), np.float32))
    assert raw(envs.environment, 0).data.qvel[0] != 0.7  # it was the start of the step
    torch.testing.assert_close(envs.engine.data("qvel")[0].numpy(), raw(envs.environment, 0).data.qvel)


def test_spaces_are_those_of_the_environment() -> None:
    for env_id in ("FetchSlide-v4", "HalfCheetah-v5", "Pusher-v5"):
        ours, theirs = simreal.make_vec(f"gymnasium:{env_id}", 2), gymnasium.make(env_id)
        assert ours.single_action_space == theirs.action_space
        assert ours.single_observation_space == theirs.observation_space


# Ends of episodes


def test_an_environment_may_break_off_by_itself_which_is_no_termination() -> None:
    env = make_environment(MINE, 2, task_options={"truncate_at": 3})
    env.reset()
    ends = [env.step(torch.zeros(2, 1)) for _ in range(3)]
    assert [r.truncated.tolist() for r in ends] == [[False, False], [False, False], [True, True]]
    assert not any(r.terminated.any() for r in ends)
    assert env.steps.tolist() == [0, 0]


def test_a_simulation_that_becomes_unstable_ends_its_own_episode_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    envs, undisturbed = (make_environment("gymnasium:FetchPush-v4", 3, seed=2) for _ in range(2))
    envs.reset()
    undisturbed.reset()
    envs.engine.data("qvel")[1] = 1e12
    result, expected = envs.step(torch.zeros(3, 4)), undisturbed.step(torch.zeros(3, 4))
    assert result.diverged.tolist() == result.terminated.tolist() == [False, True, False]
    assert envs.divergences == 1
    assert bool(torch.isfinite(result.final.policy).all())
    assert torch.equal(result.final.policy[[0, 2]], expected.final.policy[[0, 2]])
    assert not envs.step(torch.zeros(3, 4)).diverged.any()
    assert not list(tmp_path.iterdir())  # MuJoCo writes MUJOCO_LOG.TXT unless told not to


# Saving and resuming


def test_a_saved_state_goes_on_bit_for_bit_in_new_environments() -> None:
    worlds = {"parameters": {"body_mass": {}, "observation_noise": {}, "action_latency": {}, "action_dropout": {}}}
    for task_id, steps in ((MINE, 17), ("gymnasium:AdroitHandDoor-v1", 5), ("gymnasium:Ant-v5", 9)):
        first, second = (make_environment(task_id, 2, worlds, seed=s, threads=1) for s in (1, 2))
        first.reset()
        second.reset()
        action = torch.linspace(-1.0, 1.0, 2 * first.task.action_size).view(2, -1)
        for _ in range(steps):
            first.step(action)
        second.load_state_dict(snapshot(first))
        for _ in range(15):
            a, b = first.step(action), second.step(action)
            assert torch.equal(a.final.policy, b.final.policy)
            assert torch.equal(a.reward, b.reward)
            assert torch.equal(a.done, b.done)


@pytest.mark.parametrize(("task_id", "algorithm"), [("gymnasium:FetchPush-v4", "sac"), (MINE, "ddpg")])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path: Path, task_id: str, algorithm: str) -> None:
    learner = {"algorithm": algorithm, "hidden": [16, 16], "batch_size": 32, "warmup_steps": 20, "her_k": 2.0}
    learner["updates_per_step"] = 0.25
    entries = {"body_mass": {}, "action_latency": {}, "observation_noise": {}}
    document = {
        "task": task_id, "num_envs": 2, "learner": learner,
        "randomization": {"sampler": "adr", "adr": {"buffer_size": 2}, "parameters": entries},
    }  # fmt: skip
    config = parse_config(document, "test")
    whole, resumed = (Trainer(config, tmp_path / name) for name in ("whole", "resumed"))
    advance(whole, 41)
    resumed.load(load_checkpoint(whole.save()))
    for trainer in (whole, resumed):
        advance(trainer, 19)  # past the end of an episode
    assert unequal(*(leaves(load_checkpoint(trainer.save())) for trainer in (whole, resumed))) == []


def test_what_cannot_be_saved_is_named() -> None:
    from envs.gymnasium_adapter.python_state import unsaved_attributes

    env = gymnasium.make("PointMaze_UMaze-v3", disable_env_checker=True)
    assert unsaved_attributes(env) == []  # its Maze is looked into
    env.unwrapped.helpers = [object()]  # pyright: ignore[reportAttributeAccessIssue]
    assert unsaved_attributes(env) == ["env.env.helpers: list"]
    assert unsaved_attributes(SomebodysEnv()) == []


# What is refused


@pytest.mark.parametrize(
    ("task_id", "options", "error", "parts"),
    [
        ("gymnasium:AdroitHandDor-v1", {}, UnknownTaskError, ("AdroitHandDor-v1", "'AdroitHandDoor-v1'")),
        ("gymnasium:HalfCheetah", {}, UnknownTaskError, ("HalfCheetah-v",)),
        ("gymnasium:no_such_module:Env-v0", {}, UnknownTaskError, ("no_such_module",)),
        ("gymnasium:CartPole-v1", {}, TaskError, ("CartPoleEnv holds no mjModel and mjData",)),
        ("gymnasium:Elsewhere-v0", {}, TaskError, ("NoMuJoCo holds no mjModel",)),
        ("gymnasium:Unlimited-v0", {}, TaskError, ("without a time limit", "max_episode_steps")),
        ("gymnasium:HalfCheetah-v2", {}, TaskError, ("HalfCheetah-v2",)),
        ("gymnasium:Somebodys-v0", {"bound": float("inf")}, TaskError, ("no finite bounds",)),
        ("gymnasium:Somebodys-v0", {"truncat_at": 3}, UnknownOptionError, ("truncat_at", "truncate_at")),
        ("gymnasium:HalfCheetah-v5", {"frame_skip": 0}, TaskError, ("HalfCheetah-v5: ZeroDivisionError",)),
        ("gymnasium:HalfCheetah-v5", {"ctrl_cost_weight": "a"}, TaskError, ("HalfCheetah-v5: TypeError",)),
        ("gymnasium:HalfCheetah-v5", {"xml_file": "no.xml"}, TaskError, ("HalfCheetah-v5: OSError", "no.xml")),
        ("gymnasium:HalfCheetah-v5", {"render_mode": "human"}, UnknownOptionError, ("render_mode",)),
        ("gymnasium:HalfCheetah-v5", {"max_episode_steps": 0}, TaskError, ("max_episode_steps: expected at least 1",)),
        ("gymnasium:HalfCheetah-v5", {"max_episode_steps": 7.5}, TaskError, ("'max_episode_steps'", "integer")),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(
    task_id: str, options: dict[str, Any], error: type[Exception], parts: tuple[str, ...]
) -> None:
    with pytest.raises(error) as caught:
        make_task(task_id, **options)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_a_time_limit_can_be_given() -> None:
    assert make_task("gymnasium:Unlimited-v0", max_episode_steps=7).max_episode_steps == 7


# From a configuration to a bundle


def test_a_run_is_trained_evaluated_exported_and_described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(
        "task: gymnasium:FetchReach-v4\ntask_options: {max_episode_steps: 30, reward_type: dense}\nnum_envs: 2\n"
        "learner: {algorithm: ddpg, hidden: [16], batch_size: 16, warmup_steps: 50, updates_per_step: 0.1}\n"
        "randomization: {sampler: manual, parameters: {body_mass: {of: 'robot0:*'}, action_latency: {}}}\n"
        "train: {env_steps: 200, log_interval: 100}\nevaluate: {episodes: 2, num_envs: 2}\n"
    )
    main(["train", "c.yaml", "--run-dir", "run"])
    for path in ("run", "run/bundle"):
        capsys.readouterr()
        main(["evaluate", path, "--episodes", "2"])
        assert "gymnasium:FetchReach-v4" in capsys.readouterr().out
    main(["describe", "gymnasium:AdroitHandDoor-v1"])
    out = capsys.readouterr().out
    for part in ("gymnasium:AdroitHandDoor-v1", "0.01 s", "episodes of 200 steps", "unknown", "does not state"):
        assert part in out


def test_a_goal_is_marked_in_the_picture_and_not_in_the_environment() -> None:
    env = make_environment("gymnasium:FetchReach-v4", 1, seed=1)
    env.reset()
    own = raw(env, 0).model.site("target0").pos.copy()
    model, data = env.engine.export_to_mujoco(0)
    env.task.draw_goal(model, data, 0)
    mujoco.mj_kinematics(model, data)
    np.testing.assert_allclose(data.site("target0").xpos, env.task.goal[0].numpy(), atol=1e-12)
    assert (raw(env, 0).model.site("target0").pos == own).all()
    assert (model.site("target0").pos != own).any()


@pytest.mark.usefixtures("can_render")
def test_pictures_show_the_goal_and_leave_the_simulation_alone() -> None:
    env, undisturbed = (make_environment("gymnasium:FetchReach-v4", 1, seed=1) for _ in range(2))
    env.reset()
    undisturbed.reset()
    scene = Scene(env, 64, 64)
    first = scene.picture(0)
    env.task.goal[0, 1] += 0.3
    env.step(torch.zeros(1, 4))
    undisturbed.task.goal[0, 1] += 0.3
    undisturbed.step(torch.zeros(1, 4))
    moved = scene.picture(0)
    scene.close()
    assert (first != moved).any(axis=2).sum() > 20
    action = torch.full((1, 4), 0.3)
    assert torch.equal(env.step(action).final.policy, undisturbed.step(action).final.policy)
