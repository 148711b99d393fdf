"""The control step: episodes end, are counted, and start anew; none of them knows of its neighbours."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

from conftest import HINGE, SLIDER, FixedWorlds, TinyTask, build, fixed_worlds, manual_layer, only
from envs.engines.base import Stage
from envs.environment import Environment, StepResult
from envs.manipulation.fetch import FetchTask

WORLDS = {
    "joint_damping": {"of": "hinge", "range": [0.5, 2]},
    "action_delay": {"range": [0, 60]},
    "observation_noise": {"of": "position", "range": [0, 0.1]},
    "observation_bias": {"of": "velocity", "range": [0, 0.1]},
}


def all_finite(result: StepResult) -> bool:
    shown = [result.reward, result.episode_return]
    for observed in (result.observed, result.final):
        shown += [value for value in vars(observed).values() if value is not None]
    return all(bool(torch.isfinite(value).all()) for value in shown)


def test_a_time_limit_truncates_a_fetch_episode_and_never_terminates_it() -> None:
    env = build(FetchTask("FetchReach"), 2)
    for step in range(1, 101):
        env.task.goal.copy_(env.task.achieved_goal())  # success at every step does not end it either
        result = env.step(torch.zeros(2, 4))
        assert not result.terminated.any()
        assert result.truncated.tolist() == [step % 50 == 0] * 2
        assert torch.equal(result.done, result.truncated)
        assert result.success.all()


def test_termination_at_the_last_step_is_no_truncation() -> None:
    # Speed 1 rad/s or so from 0 to beyond 0.01: terminates at the first step, which is also the last one.
    env = build(TinyTask(HINGE, max_episode_steps=1, terminate_above=0.01), 2)
    env.engine.data("qvel")[1] = 1.0
    result = env.step(torch.zeros(2, 1))
    assert result.terminated.tolist() == [False, True]
    assert result.truncated.tolist() == [True, False]
    assert result.done.tolist() == [True, True]


def test_final_is_where_the_step_led_and_observed_where_the_next_one_starts() -> None:
    env = build(TinyTask(HINGE, max_episode_steps=3, spread=0.2), 2)
    env.reset(only(2, 1))
    env.step(torch.ones(2, 1))
    env.reset(only(2, 1))  # so that environment 1 is one step behind
    middle = env.step(torch.ones(2, 1))
    assert middle.observed is middle.final
    last = env.step(torch.ones(2, 1))
    assert last.done.tolist() == [True, False]
    assert last.episode_steps.tolist() == [3, 2]
    # the clock is the last value: 3 and 2 control steps of 40 ms, then 0 after the reset
    torch.testing.assert_close(last.final.policy[:, -1], torch.tensor([0.12, 0.08]).double())
    torch.testing.assert_close(last.observed.policy[:, -1], torch.tensor([0.0, 0.08]).double())
    assert torch.equal(last.observed.policy[1], last.final.policy[1])
    assert float(last.observed.policy[0, 1]) == 0.0  # the new episode starts at rest
    assert torch.equal(env.observed.policy, last.observed.policy)


def test_return_steps_and_successes_of_an_episode_are_counted_and_start_at_zero() -> None:
    env = build(TinyTask(HINGE, max_episode_steps=4), 1)
    for _ in range(2):
        rewards, successes, steps = 0.0, 0, 0
        while steps < 4:
            result = env.step(torch.full((1, 1), 0.15))
            rewards, successes, steps = rewards + float(result.reward), successes + int(result.success), steps + 1
            assert float(result.episode_return) == pytest.approx(rewards)
            assert int(result.episode_successes) == successes
            assert int(result.episode_steps) == steps
            assert bool(result.done) == (steps == 4)
        assert 0 < successes < 4
        assert rewards < 0.0


def test_actions_beyond_the_limits_act_as_the_limits() -> None:
    envs = [build(TinyTask(HINGE), 1) for _ in range(2)]
    far, limit = envs[0].step(torch.tensor([[7.0]])), envs[1].step(torch.tensor([[1.0]]))
    assert torch.equal(far.observed.policy, limit.observed.policy)
    assert float(limit.observed.policy[0, 0]) > 0.0


def test_observing_before_the_first_reset_says_what_to_do() -> None:
    task = TinyTask()
    env = build(task, 1)
    fresh = Environment(TinyTask(), env.engine)
    with pytest.raises(RuntimeError, match="reset the environments"):
        _ = fresh.observed


def test_a_masked_reset_leaves_the_other_environments_alone() -> None:
    task = TinyTask(HINGE, spread=0.2)
    layer = manual_layer(task, WORLDS)
    env = build(task, 3, layer)
    before = env.step(torch.ones(3, 1))
    state, lam = env.engine.data("qpos").clone(), layer.lam.clone()
    observed = env.reset(only(3, 2))
    for i in (0, 1):
        assert torch.equal(env.engine.data("qpos")[i], state[i])
        assert torch.equal(observed.policy[i], before.observed.policy[i])
    assert not torch.equal(env.engine.data("qpos")[2], state[2])
    assert (layer.lam[2] != lam[2]).all()
    assert torch.equal(layer.lam[:2], lam[:2])
    assert env.steps.tolist() == [1, 1, 0]
    assert env.episode_return[2] == 0.0


def test_a_world_stays_as_it_is_until_its_episode_ends_whatever_the_sampler_does_meanwhile() -> None:
    task = TinyTask(HINGE)
    layer = fixed_worlds(task, {"joint_damping": {"range": [0.1, 9]}, "action_delay": {}}, [[1.0, 0.0]] * 2)
    env = build(task, 2, layer)
    assert isinstance(layer.sampler, FixedWorlds)
    layer.sampler.worlds[:] = torch.tensor([3.0, 20.0])
    env.reset(only(2, 1))
    assert layer.lam.tolist() == [[1.0, 0.0], [3.0, 20.0]]
    assert layer.boundary.tolist() == [0, 1]
    assert env.engine.field("dof_damping").tolist() == [[0.5], [1.5]]
    result = env.step(torch.ones(2, 1))
    alone = build(TinyTask(HINGE), 1).step(torch.ones(1, 1))
    assert torch.equal(result.final.policy[0], alone.final.policy[0])
    assert float(result.final.policy[1, 0]) < float(result.final.policy[0, 0])


def test_numbers_drawn_while_acting_do_not_change_those_drawn_while_observing() -> None:
    def run(draws: bool) -> Tensor:
        task = TinyTask(HINGE, max_episode_steps=3)
        layer = manual_layer(task, WORLDS)
        env = build(task, 2, layer)

        def act(action: Tensor) -> Tensor:
            env.rng.normal("something", 2)
            return action

        if draws:
            layer.act = act  # pyright: ignore[reportAttributeAccessIssue]
        return torch.stack([env.step(torch.zeros(2, 1)).observed.policy for _ in range(7)])

    assert torch.equal(run(True), run(False))


def test_a_state_written_from_outside_is_where_the_next_command_starts_from() -> None:
    env = build(FetchTask("FetchReach"), 3)
    moved = build(FetchTask("FetchReach"), 1)
    for _ in range(8):
        moved.step(torch.tensor([[0.5, -1.0, 1.0, 0.0]]))
    env.step(torch.zeros(3, 4))
    env.engine.data("qpos")[1] = moved.engine.data("qpos")[0]
    model, body = env.task.model, env.task.model.body("robot0:gripper_link").id
    there = mujoco.MjData(model)
    there.qpos[:] = moved.engine.data("qpos")[0].numpy()
    mujoco.mj_kinematics(model, there)
    lagged = env.engine.data("xpos")[:, body].clone()
    assert float(lagged[1, 2]) < there.xpos[body, 2] - 0.05  # the arm was lifted a good deal
    env.step(torch.full((3, 4), 1.0))
    target = env.engine.data("mocap_pos")[:, 0]  # 0.05 m in each direction from where the gripper is
    torch.testing.assert_close(target[1], torch.as_tensor(there.xpos[body] + 0.05), rtol=0.0, atol=1e-8)
    torch.testing.assert_close(target[::2], lagged[::2] + 0.05, rtol=0.0, atol=1e-8)


@pytest.mark.parametrize("family", ["tiny", "FetchPush"])
def test_a_diverged_simulation_ends_only_its_own_episode(
    family: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo leaves a log where it warns

    def begin() -> Environment:
        if family == "FetchPush":
            return build(FetchTask("FetchPush"), 3)
        task = TinyTask(SLIDER, spread=0.1, max_episode_steps=20)
        return build(task, 3, manual_layer(task, {"action_delay": {"range": [0, 60]}, "geom_friction": {}}))

    def action(env: Environment, step: int) -> Tensor:
        generator = torch.Generator().manual_seed(step)
        return 2.0 * torch.rand(3, env.task.action_size, generator=generator) - 1.0

    broken, whole = begin(), begin()
    for step in range(4):
        broken.step(action(broken, step))
        whole.step(action(whole, step))
    last = broken.observed.policy[1].clone()
    broken.engine.data("qvel")[1] = 1e12
    for step in range(4, 8):
        one, other = broken.step(action(broken, step)), whole.step(action(whole, step))
        assert all_finite(one)
        for i in (0, 2):
            assert not one.done[i]
            assert torch.equal(one.final.policy[i], other.final.policy[i])
            assert torch.equal(one.observed.policy[i], other.observed.policy[i])
            assert one.reward[i] == other.reward[i]
        if step == 4:
            assert one.diverged.tolist() == [False, True, False]
            assert one.terminated.tolist() == [False, True, False]
            assert not one.truncated.any()
            assert not one.success[1]
            assert torch.equal(one.final.policy[1], last)  # the last state that was sound
            assert not torch.equal(one.observed.policy[1], last)
            assert broken.steps.tolist() == [5, 0, 5]
            assert broken.divergences == 1


def test_an_unstable_simulation_that_shows_nan_shows_it_to_nobody(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    env = build(TinyTask(SLIDER, spread=0.1), 2)
    env.engine.data("qpos")[0] = float("nan")
    result = env.step(torch.ones(2, 2))
    assert all_finite(result)
    assert result.terminated.tolist() == [True, False]


def test_episode_e_is_the_same_whatever_the_number_of_environments() -> None:
    """Environment i of N plays episodes i, i + N, ...; the world, the start and the noise belong to the episode."""

    def episodes(num_envs: int, each: int) -> dict[int, list[Tensor]]:
        # Swinging up ends an episode early where the arm is quick, so that episodes have lengths of their own.
        task = TinyTask(HINGE, max_episode_steps=6, spread=0.3, terminate_above=0.4)
        layer = manual_layer(task, WORLDS)
        env = build(task, num_envs, layer, seed=3)
        shown: dict[int, list[Tensor]] = {e: [] for e in range(each * num_envs)}
        while int(env.rng.episode.min()) < each * num_envs:
            number, lam = env.rng.episode.tolist(), layer.lam
            # an action that depends on the step of the episode only
            result = env.step(torch.sin(1.0 + env.steps[:, None].float()))
            for i, e in enumerate(number):
                if e in shown:
                    shown[e] += [result.final.policy[i], result.reward[i], result.done[i], lam[i]]
        return shown

    alone, four = episodes(1, 12), episodes(4, 3)
    for e in range(12):
        assert len(alone[e]) == len(four[e])
        for a, b in zip(alone[e], four[e], strict=True):
            torch.testing.assert_close(a, b, rtol=0.0, atol=0.0)
    assert len({len(steps) for steps in alone.values()}) > 1
    starts = torch.stack([alone[e][0] for e in range(12)])
    assert len(torch.unique(starts[:, 0])) == 12  # and no two of them are alike


def test_fetch_episodes_are_the_same_whatever_the_number_of_environments() -> None:
    def run(num_envs: int) -> list[Tensor]:
        env = build(FetchTask("FetchPush"), num_envs, seed=1)
        shown: list[Tensor] = [torch.zeros(0)] * 4
        for _ in range(4 // num_envs):
            number, rows = env.rng.episode.tolist(), []
            for step in range(50):
                action = torch.sin(0.7 * step + torch.arange(4.0)).expand(num_envs, 4)
                rows.append(env.step(action).final.policy)
            for i, e in enumerate(number):
                shown[e] = torch.stack(rows)[:, i]
        return shown

    for a, b in zip(run(1), run(4), strict=True):
        assert a.shape == (50, 28)
        torch.testing.assert_close(a, b, rtol=0.0, atol=1e-12)


def test_the_same_seed_gives_the_same_run_and_another_seed_another() -> None:
    def run(seed: int, reset_seed: int | None = None) -> Tensor:
        task = TinyTask(HINGE, max_episode_steps=4, spread=0.2)
        env = build(task, 3, manual_layer(task, WORLDS), seed)
        if reset_seed is not None:
            env.step(torch.zeros(3, 1))
            env.reset(seed=reset_seed)
        return torch.stack([env.step(torch.full((3, 1), 0.5)).observed.policy for _ in range(10)])

    assert torch.equal(run(5), run(5))
    assert not torch.equal(run(5), run(6))
    assert torch.equal(run(5), run(9, reset_seed=5))  # a reset with a seed starts its episodes from the first


@pytest.mark.parametrize("performance", ["success", "successes", "return"])
def test_the_sampler_hears_of_finished_episodes_only_and_of_what_was_asked(performance: Any) -> None:
    task = TinyTask(HINGE, max_episode_steps=4)
    layer = fixed_worlds(task, {"action_delay": {"range": [0, 60]}}, [[0.0], [0.0], [0.0]])
    layer.performance = performance
    env = build(task, 3, layer)
    sampler = layer.sampler
    assert isinstance(sampler, FixedWorlds)
    for _ in range(3):
        env.step(torch.tensor([[0.0], [0.3], [0.0]]))
    assert sampler.heard == []
    env.reset(only(3, 2))  # environment 2's episode was cut off by the caller: it proves nothing
    result = env.step(torch.tensor([[0.0], [0.3], [0.0]]))
    expected = {
        "success": torch.tensor([1.0, 0.0]),  # the arm of environment 1 has gone beyond 0.05 rad
        "successes": result.episode_successes[:2].double(),
        "return": result.episode_return[:2],
    }[performance]
    (boundary, heard), *others = sampler.heard
    assert others == []
    assert boundary.tolist() == [0, 1]
    torch.testing.assert_close(heard, expected.double())
    assert float(heard[0]) > float(heard[1])


def test_without_autoreset_an_episode_ends_once_and_waits_for_its_reset() -> None:
    task = TinyTask(HINGE)
    layer = fixed_worlds(task, {"action_delay": {"range": [0, 60]}}, [[0.0], [0.0]])
    env = build(task, 2, layer)
    assert isinstance(layer.sampler, FixedWorlds)
    env.autoreset, env.max_episode_steps = False, 3
    env.step(torch.zeros(2, 1))
    env.reset(only(2, 1))
    done = []
    for _ in range(5):
        result = env.step(torch.zeros(2, 1))
        done.append(result.done.tolist())
        assert torch.equal(result.observed.policy, result.final.policy)
    assert done == [[False, False], [True, False], [False, True], [False, False], [False, False]]
    assert [boundary.tolist() for boundary, _ in layer.sampler.heard] == [[0], [1]]  # each is told once
    env.reset(only(2, 0))
    assert [env.step(torch.zeros(2, 1)).done.tolist() for _ in range(3)] == [[False, False]] * 2 + [[True, False]]


def test_a_sampler_that_must_not_explore_hears_nothing() -> None:
    task = TinyTask(HINGE, max_episode_steps=1)
    layer = fixed_worlds(task, {"action_delay": {"range": [0, 60]}}, [[0.0]])
    layer.explore = False
    env = build(task, 1, layer)
    assert bool(env.step(torch.zeros(1, 1)).done)
    assert isinstance(layer.sampler, FixedWorlds)
    assert layer.sampler.heard == []


def test_staggered_environments_end_their_first_episodes_one_by_one_and_later_ones_in_full() -> None:
    environment = build(TinyTask(max_episode_steps=8), 4)
    environment.stagger()
    ends: list[list[int]] = [[], [], [], []]
    for step in range(1, 20):
        for i in environment.step(torch.zeros(4, 1)).done.nonzero().flatten().tolist():
            ends[i].append(step)
    assert ends == [[8, 16], [6, 14], [4, 12], [2, 10, 18]]


def test_the_task_hears_the_policys_own_action_before_the_layer_changes_it() -> None:
    class Listening(TinyTask):
        heard: Tensor
        arrived: Tensor

        def decided(self, action: Tensor) -> None:
            self.heard = action.clone()

        def command(self, action: Tensor) -> Tensor:
            self.arrived = action.clone()
            return action

    task = Listening()
    environment = build(task, 2, manual_layer(task, {"action_noise": {"range": [0.2, 0.2]}}))
    environment.step(torch.tensor([[0.3], [-4.0]]))
    assert task.heard.flatten().tolist() == pytest.approx([0.3, -1.0])
    assert not torch.equal(task.heard, task.arrived)


def test_a_task_may_have_derived_fields_brought_up_to_date_after_every_step() -> None:
    class Reading(TinyTask):
        def __init__(self, stage: Stage | None) -> None:
            super().__init__(HINGE)
            self.step_stage = stage

    def lag(stage: Stage | None) -> float:
        env = build(Reading(stage), 2)
        place = env.engine.data("geom_xpos")
        env.step(torch.full((2, 1), 0.5))
        model, data = env.engine.model, mujoco.MjData(env.engine.model)
        data.qpos[:] = env.engine.data("qpos")[0].numpy()
        mujoco.mj_kinematics(model, data)
        return float(np.abs(data.geom_xpos - place[0].numpy()).max())

    assert lag("kinematics") == 0.0
    assert lag("acceleration") == 0.0
    assert lag(None) > 1e-5  # one physics step behind
