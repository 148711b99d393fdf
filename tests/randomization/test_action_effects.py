"""Action noise of three kinds and latency in whole control steps."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import SLIDER, TinyTask, build, fixed_worlds
from envs.environment import Environment

N = 2000


def near(value: float, expected: float, standard_error: float) -> bool:
    return abs(value - expected) < 4.5 * standard_error


def slider(entries: dict[str, Any], worlds: list[list[float]], max_episode_steps: int = 1000) -> Environment:
    """A box and a pendulum, each with an actuator: the command is the action."""
    task = TinyTask(SLIDER, decimation=1, max_episode_steps=max_episode_steps)
    return build(task, len(worlds), fixed_worlds(task, entries, worlds))


def executed(env: Environment, actions: list[float]) -> Tensor:
    """Commands [T, N, 2] that arrive when every actuator is sent `actions`, one per control step."""
    arrived = []
    for action in actions:
        env.step(torch.full((env.num_envs, 2), action, dtype=torch.float64))
        arrived.append(env.engine.data("ctrl").clone())
    return torch.stack(arrived)


def test_additive_noise_is_normal_and_fresh_for_every_step_and_actuator() -> None:
    env = slider({"action_noise": {"range": [0, 1]}}, [[0.1]] * N)
    z = (executed(env, [0.2] * 4) - 0.2) / 0.1
    n = z.numel()
    assert near(float(z.mean()), 0.0, 1 / math.sqrt(n))
    assert near(float(z.square().mean()), 1.0, math.sqrt(2 / n))
    for a, b in ((z[1:], z[:-1]), (z[:, 1:], z[:, :-1]), (z[..., 0], z[..., 1])):
        pairs = torch.stack((a.flatten(), b.flatten()))
        assert abs(float(torch.corrcoef(pairs)[0, 1])) < 4.5 / math.sqrt(pairs.shape[1])


def test_an_action_bias_is_constant_in_an_episode_and_normal_across_episodes() -> None:
    env = slider({"action_bias": {"range": [0, 1]}}, [[0.1]] * N, max_episode_steps=4)
    first, second = executed(env, [0.0] * 4)[:3], executed(env, [0.0] * 4)[:3]  # a reset wipes out the last command
    assert torch.equal(first, first[:1].expand_as(first))
    assert torch.equal(second, second[:1].expand_as(second))
    for bias in (first[0], second[0]):
        assert near(float(bias.square().mean()), 0.01, 0.01 * math.sqrt(2 / (2 * N)))
    assert abs(float(torch.corrcoef(torch.stack((first[0].flatten(), second[0].flatten())))[0, 1])) < 0.1


def test_multiplicative_noise_grows_with_the_action() -> None:
    env = slider({"action_noise_multiplicative": {"range": [0, 1]}}, [[0.1]] * N)
    none, some = executed(env, [0.0, 0.5])
    assert not none.any()
    assert near(float((some - 0.5).square().mean()), 0.05**2, 0.05**2 * math.sqrt(2 / (2 * N)))


def test_noisy_actions_stay_between_minus_one_and_one() -> None:
    env = slider({"action_noise": {"range": [0, 5]}, "action_bias": {"range": [0, 5]}}, [[3.0, 3.0]] * 50)
    arrived = executed(env, [0.5] * 3)
    assert float(arrived.abs().max()) == 1.0
    assert 0.3 < float((arrived.abs() == 1.0).double().mean()) < 0.95


def test_each_environment_has_the_noise_of_its_own_world() -> None:
    entries = {name: {"range": [0, 1]} for name in ("action_noise", "action_bias", "action_noise_multiplicative")}
    env = slider(entries, [[0, 0, 0], [0.1, 0, 0], [0, 0.1, 0], [0, 0, 0.1]])
    arrived = executed(env, [0.5] * 3)
    assert torch.equal(arrived[:, 0], torch.full((3, 2), 0.5, dtype=torch.float64))
    changes = (arrived[1:] != arrived[:-1]).all(dim=0).all(dim=1)
    assert changes.tolist() == [False, True, False, True]
    assert (arrived[:, 2] != 0.5).all()


@pytest.mark.parametrize(("latency", "steps"), [(0.0, 0), (0.4, 0), (1.0, 1), (1.6, 2), (3.0, 3)])
def test_an_action_is_executed_whole_control_steps_later(latency: float, steps: int) -> None:
    env = slider({"action_latency": {"range": [0, 3]}}, [[latency], [0.0]])
    sent = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    arrived = executed(env, sent)[:, :, 0]
    assert arrived[:, 0].tolist() == [0.0] * steps + sent[: len(sent) - steps]
    assert arrived[:, 1].tolist() == sent


def test_a_new_episode_does_not_execute_the_actions_of_the_last_one() -> None:
    env = slider({"action_latency": {"range": [0, 2]}}, [[2.0]], max_episode_steps=4)
    arrived = executed(env, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])[:, 0, 0].tolist()
    # the last command of an episode is wiped out by the reset
    assert arrived[:3] == [0.0, 0.0, 0.1]
    assert arrived[4:] == [0.0, 0.0, 0.5]
