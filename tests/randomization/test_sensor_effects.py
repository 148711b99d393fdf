"""Sensors: gain, resolution, delay, hold, freezing; what an episode's first reading shows."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import HINGE, SLIDER, TinyTask, build, fixed_worlds, only
from envs.environment import Environment
from envs.manipulation.fetch import FetchTask

N = 1000
PERIOD_MS = 20.0


def arm(entries: dict[str, Any], worlds: list[list[float]], episode: int = 1000, spread: float = 0.0) -> Environment:
    """An arm with a control period of 20 ms."""
    task = TinyTask(HINGE, decimation=10, max_episode_steps=episode, spread=spread)
    return build(task, len(worlds), fixed_worlds(task, entries, worlds))


def shown_and_true(env: Environment, steps: int) -> tuple[Tensor, Tensor]:
    """What the sensors show and what is true, [T, N, 2]: position and velocity; the first is the present."""
    shown, true = [env.observed.policy[:, :2]], [env.task.observe()[:, :2]]
    for t in range(steps):
        shown.append(env.step(torch.full((env.num_envs, 1), math.sin(t + 1.0))).final.policy[:, :2])
        true.append(env.task.observe()[:, :2])
    return torch.stack(shown), torch.stack(true)


def test_a_gain_error_is_constant_in_an_episode_and_normal_across_episodes() -> None:
    env = arm({"observation_scale": {"of": "position", "range": [0, 1]}}, [[0.2]] * N, episode=5, spread=1.0)
    factors = []
    for _ in range(2):
        shown, true = shown_and_true(env, 4)
        factor = shown[:, :, 0] / true[:, :, 0]
        torch.testing.assert_close(factor, factor[:1].expand_as(factor))
        assert torch.equal(shown[:, :, 1], true[:, :, 1])
        error = factor[0] - 1.0
        assert abs(float(error.mean())) < 4.5 * 0.2 / math.sqrt(N)
        assert abs(float(error.square().mean()) - 0.04) < 4.5 * 0.04 * math.sqrt(2 / N)
        factors.append(error)
        env.step(torch.zeros(N, 1))
    assert abs(float(torch.corrcoef(torch.stack(factors))[0, 1])) < 4.5 / math.sqrt(N)


def test_a_quantized_sensor_reports_multiples_of_its_step_the_nearest_ones() -> None:
    env = arm({"observation_quantization": {"of": "position", "range": [0, 1]}}, [[0.25], [0.0]], spread=1.0)
    shown, true = shown_and_true(env, 30)
    assert torch.equal(shown[:, 1], true[:, 1])
    steps = shown[:, 0, 0] / 0.25
    assert torch.equal(steps, steps.round())
    assert float((shown[:, 0, 0] - true[:, 0, 0]).abs().max()) <= 0.125
    assert len(torch.unique(steps)) > 1


def test_errors_come_in_order_gain_offset_noise_resolution() -> None:
    names = ("scale", "bias", "noise", "quantization")
    entries = {f"observation_{name}": {"of": "position", "range": [0, 1]} for name in names}
    without = arm(entries, [[0.3, 0.2, 0.1, 0.0]], spread=1.0)
    rounded = arm(entries, [[0.3, 0.2, 0.1, 0.05]], spread=1.0)
    a, b = shown_and_true(without, 10)[0], shown_and_true(rounded, 10)[0]
    torch.testing.assert_close(b[:, :, 0], (a[:, :, 0] / 0.05).round() * 0.05)
    still = arm(entries, [[0.3, 0.2, 0.0, 0.0]], spread=1.0)
    layer: Any = still.layer
    errors = layer._effects.effects["observation_scale"]
    shown, true = shown_and_true(still, 3)
    torch.testing.assert_close(
        shown[:, 0, 0], true[:, 0, 0] * errors._factor.values[0, 0] + errors._offset.values[0, 0]
    )


@pytest.mark.parametrize(("delay_ms", "steps"), [(0.0, 0), (9.0, 0), (20.0, 1), (31.0, 2), (60.0, 3)])
def test_a_late_sensor_shows_what_was_true_whole_control_steps_ago(delay_ms: float, steps: int) -> None:
    env = arm({"observation_delay": {"of": "position", "range": [0, 60]}}, [[delay_ms], [0.0]])
    shown, true = shown_and_true(env, 12)
    first = true[:1].expand(steps, -1, -1)
    assert torch.equal(shown[:, 0, 0], torch.cat((first, true[: len(true) - steps]))[:, 0, 0])
    assert torch.equal(shown[:, 0, 1], true[:, 0, 1])
    assert torch.equal(shown[:, 1], true[:, 1])


def test_with_jitter_a_sensor_never_shows_something_older_than_before() -> None:
    entries = {
        name: {"of": "position", "range": [0, 200]} for name in ("observation_delay", "observation_delay_jitter")
    }
    env = arm(entries, [[60.0, 15.0]] * 200)
    layer: Any = env.layer
    ages = []
    for t in range(60):
        shown = env.step(torch.full((200, 1), math.sin(0.3 * t))).final.policy[:, 0]
        age = layer._effects.effects["observation_delay"]._age[:, 0]
        ages.append(age.clone())
        assert len(torch.unique(shown)) > 1 or t < 3
    age = torch.stack(ages)[10:]
    assert (age[1:] <= age[:-1] + 1).all()
    # Without the rule an age would be 3 +- 0.75; waiting for newer readings only makes them younger.
    assert 2.0 < float(age.double().mean()) <= 3.05
    assert len(torch.unique(age)) > 3


def test_a_sensor_that_drops_out_keeps_what_it_showed_last() -> None:
    env = arm({"observation_dropout": {"of": "velocity", "range": [0, 1]}}, [[0.3]] * N)
    shown, true = shown_and_true(env, 8)
    assert torch.equal(shown[0], true[0])  # the first reading always arrives
    assert torch.equal(shown[:, :, 0], true[:, :, 0])
    through, held = shown[1:, :, 1] == true[1:, :, 1], shown[1:, :, 1] == shown[:-1, :, 1]
    assert (through | held).all()
    assert abs(float(held.double().mean()) - 0.3) < 4.5 * math.sqrt(0.21 / held.numel())
    assert held.all(dim=0).sum() < N * 0.01


def test_a_frozen_sensor_keeps_its_value_for_a_second_and_freezes_at_its_rate() -> None:
    env = arm({"observation_freeze": {"of": "position", "range": [0, 1]}}, [[0.2]] * N)
    shown, true = shown_and_true(env, 100)
    frozen = (shown[1:, :, 0] != true[1:, :, 0]).T  # [N, 100], 50 steps are a second
    begins = frozen[:, 1:] & ~frozen[:, :-1]
    early = begins[:, :40]
    lengths = torch.stack([frozen[i, j + 1 : j + 52].sum() for i, j in early.nonzero()])
    # A sensor may freeze again at once: a whole number of seconds, nearly always one.
    assert (lengths >= 50).all()
    assert float((lengths == 50).double().mean()) > 0.9
    free = float((~frozen[:, :-1]).sum())
    rate = float(begins.sum()) / (free * 0.02)
    assert abs(rate - 0.2) < 4.5 * 0.2 / math.sqrt(float(begins.sum()))


def test_a_frozen_sensor_is_free_again_in_the_next_episode() -> None:
    env = arm({"observation_freeze": {"of": "position", "range": [0, 1000]}}, [[1000.0]] * 3)
    layer: Any = env.layer
    shown, true = shown_and_true(env, 3)
    assert (shown[1:, :, 0] != true[1:, :, 0]).all()
    layer.sampler.worlds[:] = 0.0
    env.reset()
    shown, true = shown_and_true(env, 3)
    assert torch.equal(shown, true)


def test_all_values_of_a_sensor_are_late_or_lost_together_and_sensors_are_independent() -> None:
    task = TinyTask(SLIDER, decimation=5, max_episode_steps=1000, spread=0.02)
    env = build(task, 200, fixed_worlds(task, {"observation_dropout": {"range": [0, 1]}}, [[0.5]] * 200))
    for _ in range(3):
        env.step(torch.full((200, 2), 1.0))
    lost = env.observed.policy != env.task.observe()
    position, velocity = lost[:, [0, 2]], lost[:, [3, 5]]  # x and swing; z rests on the floor
    assert torch.equal(position[:, 0], position[:, 1])
    assert torch.equal(velocity[:, 0], velocity[:, 1])
    assert 50 < int((position[:, 0] != velocity[:, 0]).sum()) < 150


ALL = {
    "observation_delay": {"range": [0, 100]},
    "observation_delay_jitter": {"range": [0, 100]},
    "observation_dropout": {"range": [0, 1]},
    "observation_freeze": {"range": [0, 5]},
}


def test_a_new_episode_shows_nothing_of_the_last_one_and_others_do_not_notice_the_reset() -> None:
    worlds = [[60.0, 10.0, 0.3, 1.0]] * 3
    env, other = arm(ALL, worlds, spread=1.0), arm(ALL, worlds, spread=1.0)
    for t in range(5):
        action = torch.full((3, 1), math.sin(t))
        env.step(action)
        other.step(action)
    before = env.observed.policy.clone()
    after = env.reset(only(3, 1)).policy
    assert torch.equal(after[1, :2], env.task.observe()[1, :2])  # the first reading is there at once
    assert torch.equal(after[[0, 2]], before[[0, 2]])
    first = after[1, 0]
    for t in range(20):
        action = torch.full((3, 1), math.cos(t))
        a, b = env.step(action).final.policy, other.step(action).final.policy
        assert torch.equal(a[[0, 2]], b[[0, 2]])
        if t == 0:
            assert float(a[1, 0]) in (float(first), float(env.task.observe()[1, 0]))


def test_components_that_are_computed_follow_from_what_sensors_show() -> None:
    task = FetchTask("FetchPush")
    env = build(task, 8, fixed_worlds(task, {"observation_delay": {"of": "grip_pos", "range": [0, 80]}}, [[80.0]] * 8))
    where, grips = task.slices(), []
    for t in range(4):
        clean = task.observe()
        grips.append(clean[:, where["grip_pos"]])
        shown = env.step(torch.sin(torch.arange(32.0) + t).view(8, 4)).final.policy
        if t:
            assert torch.equal(shown[:, where["grip_pos"]], grips[t - 1])  # two steps of 40 ms ago
        relative = shown[:, where["object_pos"]] - shown[:, where["grip_pos"]]
        assert torch.equal(shown[:, where["object_rel_pos"]], relative)
        assert torch.equal(shown[:, where["object_pos"]], task.observe()[:, where["object_pos"]])
