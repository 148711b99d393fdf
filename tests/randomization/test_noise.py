"""Sensor noise: an offset per episode and fresh noise per step, on the named components only."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from conftest import HINGE, TinyTask, build, fixed_worlds
from envs.environment import Environment
from envs.manipulation.fetch import FetchTask

N = 2000


def near(value: float, expected: float, standard_error: float) -> bool:
    return abs(value - expected) < 4.5 * standard_error


def tiny(entries: dict[str, Any], lam: list[float], num_envs: int = N, max_episode_steps: int = 4) -> Environment:
    task = TinyTask(HINGE, decimation=1, max_episode_steps=max_episode_steps)
    return build(task, num_envs, fixed_worlds(task, entries, [lam] * num_envs))


def errors(env: Environment, steps: int) -> Tensor:
    """measured - clean [steps, N, 3] of an arm that rests at 0: position, velocity, clock."""
    shown = []
    for _ in range(steps):
        result = env.step(torch.zeros(env.num_envs, 1))
        clock = 0.002 * result.episode_steps[:, None].double()
        error = result.final.policy - torch.cat((torch.zeros(env.num_envs, 2), clock), dim=1)
        shown.append(torch.where(error.abs() < 1e-12, 0.0, error))
    return torch.stack(shown)


def test_a_bias_is_constant_in_an_episode_and_normal_across_episodes() -> None:
    env = tiny({"observation_bias": {"of": "position", "range": [0, 1]}}, [0.3])
    first = errors(env, 4)
    assert torch.equal(first, first[:1].expand_as(first))
    second = errors(env, 4)
    assert torch.equal(second, second[:1].expand_as(second))
    for bias in (first[0, :, 0], second[0, :, 0]):
        assert near(float(bias.mean()), 0.0, 0.3 / math.sqrt(N))
        assert near(float(bias.square().mean()), 0.09, 0.09 * math.sqrt(2 / N))  # sigma^2, variance 2 sigma^4 / N
        assert near(float((bias.abs() < 0.3).double().mean()), 0.6827, 0.5 / math.sqrt(N))  # normal: 68 % within one
    both = torch.stack((first[0, :, 0], second[0, :, 0]))
    assert abs(float(torch.corrcoef(both)[0, 1])) < 4.5 / math.sqrt(N)
    assert not first[:, :, 1:].any()


def test_noise_is_fresh_at_every_step_and_normal() -> None:
    env = tiny({"observation_noise": {"of": "velocity", "range": [0, 1]}}, [0.2], max_episode_steps=6)
    noise = errors(env, 5)
    assert not noise[:, :, [0, 2]].any()
    z = noise[:, :, 1]
    n = z.numel()
    assert near(float(z.mean()), 0.0, 0.2 / math.sqrt(n))
    assert near(float(z.square().mean()), 0.04, 0.04 * math.sqrt(2 / n))
    for lag in (1, 2):
        pairs = torch.stack((z[lag:].flatten(), z[:-lag].flatten()))
        assert abs(float(torch.corrcoef(pairs)[0, 1])) < 4.5 / math.sqrt(pairs.shape[1])
    neighbours = torch.stack((z[:, 1:].flatten(), z[:, :-1].flatten()))
    assert abs(float(torch.corrcoef(neighbours)[0, 1])) < 4.5 / math.sqrt(neighbours.shape[1])


def test_bias_and_noise_add_up_and_each_environment_has_its_own_sigmas() -> None:
    task = TinyTask(HINGE, decimation=1, max_episode_steps=500)
    entries = {"observation_bias": {"of": "position"}, "observation_noise": {"of": "position"}}
    entries = {key: value | {"range": [0, 1]} for key, value in entries.items()}
    worlds = [[0.0, 0.0], [0.5, 0.0], [0.0, 0.1], [0.5, 0.1]]
    env = build(task, 4, fixed_worlds(task, entries, worlds))
    shown = errors(env, 400)[:, :, 0]
    spread, level = shown.std(dim=0).tolist(), shown.mean(dim=0).abs().tolist()
    assert spread[0] == spread[1] == level[0] == 0.0
    for i in (2, 3):
        assert near(spread[i], 0.1, 0.1 / math.sqrt(2 * 400))
    assert level[2] < 4.5 * 0.1 / math.sqrt(400) < min(level[1], level[3])


def test_first_and_last_observations_of_an_episode_are_noisy_too_each_with_noise_of_its_own() -> None:
    env = tiny({"observation_noise": {"range": [0, 1], "of": "position"}}, [0.2], num_envs=3, max_episode_steps=2)
    shown = [env.observed.policy]
    shown += [env.step(torch.zeros(3, 1)).observed.policy]
    result = env.step(torch.zeros(3, 1))
    shown += [result.final.policy, result.observed.policy]
    noise = torch.stack(shown)[:, :, 0]
    assert len(torch.unique(noise)) == 12
    assert (noise != 0.0).all()


def fetch(entries: dict[str, Any], lam: list[float]) -> tuple[Environment, Environment]:
    """FetchPush with sensor errors, and the same task without, in the same state."""
    noisy, clean = FetchTask("FetchPush"), FetchTask("FetchPush")
    return build(noisy, 8, fixed_worlds(noisy, entries, [lam] * 8)), build(clean, 8)


def test_only_the_named_components_are_disturbed_and_what_derives_from_them_follows() -> None:
    entries = {
        "observation_noise": {"of": "object_pos", "range": [0, 1]},
        "observation_bias": {"of": "object_pos", "range": [0, 1]},
    }
    noisy, clean = fetch(entries, [0.01, 0.02])
    where = noisy.task.slices()
    for step in range(3):
        action = torch.sin(torch.arange(32.0) + step).view(8, 4)
        a, b = noisy.step(action).final, clean.step(action).final
        touched = {name for name, part in where.items() if not torch.equal(a.policy[:, part], b.policy[:, part])}
        assert touched == {"object_pos", "object_rel_pos"}
        assert (a.policy[:, where["object_pos"]] != b.policy[:, where["object_pos"]]).all()
        # recomputed from what was measured, as a robot would: the same error, not another one
        measured = a.policy[:, where["object_pos"]] - a.policy[:, where["grip_pos"]]
        assert torch.equal(a.policy[:, where["object_rel_pos"]], measured)


def test_goals_and_rewards_are_of_the_true_state() -> None:
    entries = {
        "observation_noise": {"of": ["object_pos", "grip_pos"], "range": [0, 1]},
        "observation_bias": {"range": [0, 1]},
    }
    noisy, clean = fetch(entries, [0.5, 0.5])  # ten times the distance that counts as success
    where = noisy.task.slices()
    for env in (noisy, clean):
        env.task.goal[::2] = env.task.achieved_goal()[::2]  # every other environment has reached its goal
    for step in range(3):
        action = 0.1 * torch.sin(torch.arange(32.0) + step).view(8, 4)
        a, b = noisy.step(action), clean.step(action)
        assert torch.equal(a.reward, b.reward)
        assert torch.equal(a.success, b.success)
        assert a.success.tolist() == [True, False] * 4
        assert a.final.achieved_goal is not None
        assert b.final.achieved_goal is not None
        assert torch.equal(a.final.achieved_goal, b.final.achieved_goal)
        assert a.final.desired_goal is not None
        assert torch.equal(a.final.desired_goal, noisy.task.goal)
        assert torch.equal(a.final.policy[:, where["desired_goal"]], noisy.task.goal)
        # without `of`, every measured component has an error, each value its own
        for name, part in where.items():
            error = (a.final.policy - b.final.policy)[:, part]
            assert (name == "desired_goal") == (not error.any()), name
            assert name == "desired_goal" or len(torch.unique(error)) == error.numel(), name
