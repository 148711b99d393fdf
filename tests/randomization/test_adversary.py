"""The random network adversary: another network in every episode, its share of the action, its hand on objects."""

from __future__ import annotations

import math
from typing import Any

import torch
from test_disturbance import FREE

from conftest import TinyTask, build, fixed_worlds, snapshot
from envs.common.rng import EpisodeRandom
from envs.environment import Environment
from randomization.effects.disturbances.adversary import RandomNetwork

ENTRIES = {"adversary_action": {"range": [0, 1]}, "adversary_wrench": {"of": "box", "range": [0, 10]}}


def world(worlds: list[list[float]], entries: dict[str, Any] | None = None, episode: int = 1000) -> Environment:
    task = TinyTask(FREE, max_episode_steps=episode)
    return build(task, len(worlds), fixed_worlds(task, entries or ENTRIES, worlds))


def network(num_envs: int = 200, inputs: int = 10, outputs: int = 4) -> tuple[EpisodeRandom, RandomNetwork]:
    rng = EpisodeRandom(0, num_envs)
    everyone = torch.ones(num_envs, dtype=torch.bool)
    rng.next_episode(everyone)
    made = RandomNetwork(inputs, outputs, rng)
    made.reset(everyone)
    return rng, made


def test_networks_put_out_31_levels_that_differ_between_episodes_and_change_with_the_observation() -> None:
    rng, net = network()
    x = torch.linspace(-1.0, 1.0, 10).expand(200, -1)
    y = net(x)
    assert y.shape == (200, 4)
    bins = (y + 1.0) * 15.0
    torch.testing.assert_close(bins, bins.round())
    assert len(torch.unique(bins.round())) == 31
    assert abs(float(y.mean())) < 0.1
    assert abs(float(torch.corrcoef(y.T)[0, 1])) < 4.5 / 200**0.5
    assert torch.equal(net(x), y)
    assert float((net(0.5 * x.roll(1, 1)) != y).double().mean()) > 0.2
    some = torch.arange(200) < 50
    rng.next_episode(some)
    net.reset(some)
    again = net(x)
    assert torch.equal(again[50:], y[50:])
    assert float((again[:50] != y[:50]).double().mean()) > 0.8


def test_an_episode_has_its_network_whatever_the_number_of_environments() -> None:
    x = torch.linspace(-1.0, 1.0, 10).expand(200, -1)
    many, few = network()[1](x), network(num_envs=3)[1](x[:3])
    assert torch.equal(many[:3], few)


def test_the_adversary_takes_over_its_share_of_the_action() -> None:
    env = world([[0.0, 0.0], [0.25, 0.0], [1.0, 0.0]])
    layer: Any = env.layer
    for action in (0.4, -0.8):
        env.step(torch.full((3, 1), action, dtype=torch.float64))
        other = layer._effects.effects["adversary_action"]._values[:, 0]
        expected = torch.stack((torch.tensor(action).double(), 0.75 * action + 0.25 * other[1], other[2]))
        torch.testing.assert_close(env.engine.data("ctrl")[:, 0], expected)


def test_the_adversary_accelerates_objects_by_at_most_beta_along_each_axis() -> None:
    env = world([[0.0, 0.0], [0.0, 3.0]] * 100)
    shown = env.step(torch.zeros(200, 1)).final.policy
    wrench = env.engine.data("xfrc_applied")
    assert not wrench[::2].any()
    assert not wrench[:, [0, 2, 3]].any()
    inertia = torch.as_tensor(env.task.model.body_inertia[1].copy())
    torch.testing.assert_close(shown[1::2, 8:11], wrench[1::2, 1, :3] / 2.0 * 0.04)
    size = torch.cat((wrench[1::2, 1, :3] / 2.0, wrench[1::2, 1, 3:] / inertia), dim=1) / 3.0
    bins = (size + 1.0) * 15.0
    torch.testing.assert_close(bins, bins.round())
    assert len(torch.unique(bins.round())) > 25
    assert float(shown[1::2, 11:14].abs().max()) > 0.01  # it spins


def test_torques_scale_with_the_inertia_along_the_body_axes() -> None:
    xml = FREE.replace('size="0.1 0.1 0.1"', 'size="0.3 0.1 0.02"')
    task = TinyTask(xml)
    env = build(task, 50, fixed_worlds(task, ENTRIES, [[0.0, 3.0]] * 50))
    layer: Any = env.layer
    turn = torch.tensor([0.5, 0.5, 0.5, 0.5], dtype=torch.float64)  # x to y to z to x
    env.engine.data("qpos")[:, 3:7] = turn
    env.engine.forward()
    frame = env.engine.data("ximat")[0, 1].reshape(3, 3).clone()
    torch.testing.assert_close(frame[:, 0].abs(), torch.tensor([0.0, 1.0, 0.0]).double())
    env.step(torch.zeros(50, 1))
    value = layer._effects.effects["adversary_action"]._values[:, 4:7]
    torque = env.engine.data("xfrc_applied")[:, 1, 3:]
    inertia = torch.as_tensor(env.task.model.body_inertia[1].copy())
    torch.testing.assert_close(torque @ frame, 3.0 * value * inertia)


def test_while_alpha_and_beta_are_zero_everywhere_the_network_is_not_asked() -> None:
    env = world([[0.0, 0.0]] * 2, episode=2)
    layer: Any = env.layer
    adversary = layer._effects.effects["adversary_action"]
    asked = []
    network = adversary._network

    def spy(x: torch.Tensor) -> torch.Tensor:
        asked.append(1)
        return network(x)

    spy.reset = network.reset  # pyright: ignore[reportFunctionMemberAccess]
    adversary._network = spy
    env.step(torch.zeros(2, 1))
    assert not asked
    layer.sampler.worlds[:] = torch.tensor([0.5, 0.0])
    env.step(torch.zeros(2, 1))
    env.step(torch.zeros(2, 1))
    assert asked == [1]
    layer.sampler.worlds[:] = 0.0
    env.reset()
    env.step(torch.zeros(2, 1))
    assert asked == [1]
    assert not env.engine.data("xfrc_applied").any()


def test_it_decides_every_80_ms_and_holds_what_it_has_decided() -> None:
    env = world([[1.0, 0.0]] * 20)  # control steps of 40 ms
    layer: Any = env.layer
    adversary = layer._effects.effects["adversary_action"]
    held = []
    for step in range(12):
        env.step(torch.full((20, 1), math.sin(step)))
        held.append(adversary._values.clone())
    for first, second in zip(held[::2], held[1::2], strict=True):
        assert torch.equal(first, second)
    assert sum(not torch.equal(a, b) for a, b in zip(held[1::2], held[2::2], strict=False)) >= 3


def test_it_decides_in_every_episode_as_if_that_were_alone() -> None:
    alone, other = world([[0.7, 2.0]], episode=9), world([[0.7, 2.0]] * 3, episode=9)
    other.stagger()  # the others begin their next episodes at other steps
    for step in range(9):
        action = math.cos(step)
        a = alone.step(torch.full((1, 1), action)).final.policy[0]
        b = other.step(torch.full((3, 1), action)).final.policy[0]
        torch.testing.assert_close(a, b)


def test_random_forces_and_the_adversary_add_up() -> None:
    entries = {**ENTRIES, "force_size": {"range": [0, 1]}, "force_probability": {"range": [0, 1]}}
    env = world([[0.0, 3.0, 1.0, 0.5]] * 20, entries)
    layer: Any = env.layer
    forces, adversary = layer._effects.effects["force_size"], layer._effects.effects["adversary_action"]
    applied = env.engine.data("xfrc_applied")
    for _ in range(4):
        env.step(torch.zeros(20, 1))
        random = forces._acceleration * torch.tensor([2.0, 3.0]).double()[:, None]
        torch.testing.assert_close(applied[:, 3, :3], random[:, 1])
        assert not applied[:, 3, 3:].any()
        wrench = 3.0 * 2.0 * adversary._values[:, 1:4]
        torch.testing.assert_close(applied[:, 1, :3], wrench + random[:, 0])


def test_a_resumed_adversary_does_what_it_would_have_done() -> None:
    env, other = world([[0.3, 2.0]] * 3, episode=5), world([[0.3, 2.0]] * 3, episode=5)
    for _ in range(3):
        env.step(torch.full((3, 1), 0.1))
    saved = snapshot(env)
    expected = [env.step(torch.full((3, 1), 0.1)).observed.policy for _ in range(5)]
    other.load_state_dict(saved)
    for policy in expected:
        assert torch.equal(other.step(torch.full((3, 1), 0.1)).observed.policy, policy)
