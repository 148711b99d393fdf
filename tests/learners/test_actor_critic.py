"""Networks of the on-policy learners: densities, memory, value units."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution, kl_divergence

from simreal.learners.networks import tanh_log_slope
from simreal.learners.on_policy.actor_critic import Critic, Policy, RecurrentPolicy
from simreal.learners.on_policy.gaussian import (
    Gaussian,
    GaussianActor,
    SquashedGaussian,
    gaussian_entropy,
    gaussian_kl,
    gaussian_log_prob,
)
from simreal.learners.on_policy.trunk import Trunk
from simreal.learners.options import PPOConfig


def config(**settings: Any) -> PPOConfig:
    small = {"actor_hidden": (16,), "critic_hidden": (16,), "memory_size": 8, "segment": 4, "horizon": 8}
    return PPOConfig(**(small | settings))


def test_densities_are_torchs() -> None:
    draw = torch.Generator().manual_seed(0)
    mean, new_mean, u = (torch.randn(20, 3, generator=draw).double() for _ in range(3))
    log_std, new_log_std = (0.3 * torch.randn(20, 3, generator=draw).double() for _ in range(2))
    old, new = (Independent(Normal(m, s.exp()), 1) for m, s in ((mean, log_std), (new_mean, new_log_std)))
    torch.testing.assert_close(gaussian_log_prob(u, mean, log_std), old.log_prob(u))
    torch.testing.assert_close(gaussian_entropy(log_std), old.entropy())
    torch.testing.assert_close(gaussian_kl(mean, log_std, new_mean, new_log_std), kl_divergence(old, new))
    squashed = TransformedDistribution(Normal(mean, log_std.exp()), [TanhTransform()])
    ours = gaussian_log_prob(u, mean, log_std) - tanh_log_slope(u).sum(-1)
    torch.testing.assert_close(ours, squashed.log_prob(torch.tanh(u)).sum(-1))


def test_the_kl_of_two_gaussians_by_hand() -> None:
    # mean 0 -> 2, std 1 -> 2:  log 2 + (1 + 4) / (2 * 4) - 1/2 = 0.6931 + 0.625 - 0.5 = 0.8181
    zero, two = torch.zeros(1), torch.tensor([2.0])
    assert gaussian_kl(zero, zero, two, two.log()).item() == pytest.approx(0.818147, abs=1e-6)
    assert gaussian_kl(two, zero, two, zero).item() == 0.0


def test_the_entropy_of_a_squashed_policy_is_that_of_its_actions() -> None:
    # A wide Gaussian through tanh piles up at -1 and 1: its entropy falls below that of uniform actions, log 2.
    draw = torch.Generator().manual_seed(0)
    mean, log_std = torch.zeros(100_000, 1), torch.full((1,), 4.0).log()
    u = mean + 4.0 * torch.randn(mean.shape, generator=draw)
    entropy = SquashedGaussian(mean, log_std).entropy(u).mean()
    expected = -(gaussian_log_prob(u, mean, log_std) - tanh_log_slope(u).sum(-1)).mean()
    assert entropy.item() == pytest.approx(expected.item(), abs=0.02)
    assert entropy < 0.0 < gaussian_entropy(log_std)


@pytest.mark.parametrize(("squash", "expected"), [("clip", [-1.0, 0.5, 1.0]), ("tanh", [-0.9640, 0.4621, 0.9951])])
def test_actions_stay_within_their_range(squash: str, expected: list[float]) -> None:
    distribution, _ = GaussianActor(2, 3, config(squash=squash))(torch.zeros(1, 1, 2), torch.zeros(1, 0))
    action = distribution.action(torch.tensor([-2.0, 0.5, 3.0]))
    torch.testing.assert_close(action, torch.tensor(expected), atol=1e-4, rtol=0.0)


@pytest.mark.parametrize("log_std", ["free", "state"])
def test_every_state_starts_with_the_configured_std(log_std: str) -> None:
    actor = GaussianActor(3, 2, config(log_std=log_std, initial_std=0.5))
    found, _ = actor(torch.randn(1, 50, 3), torch.zeros(50, 0))
    torch.testing.assert_close(found.std().expand_as(found.mean), torch.full((1, 50, 2), 0.5), atol=0.03, rtol=0.0)
    assert found.mean.abs().max() < 0.1


@pytest.mark.parametrize("memory", ["lstm", "gru"])
def test_a_segment_with_an_episode_end_inside_equals_two_separate_sequences(memory: str) -> None:
    trunk = Trunk(3, (16,), 2, config(memory=memory), 1.0)
    x, state = torch.randn(5, 2, 3), torch.randn(2, trunk.state_size)
    start = torch.zeros(5, 2, dtype=torch.bool)
    start[3, 0] = True  # a new episode begins at step 3 of sequence 0; sequence 1 goes on
    out, after = trunk(x, state, start)
    old, _ = trunk(x[:3, :1], state[:1])
    new, fresh = trunk(x[3:, :1], torch.zeros_like(state[:1]))
    whole, kept = trunk(x[:, 1:], state[1:])
    torch.testing.assert_close(out[:, :1], torch.cat((old, new)))
    torch.testing.assert_close(out[:, 1:], whole)
    torch.testing.assert_close(after, torch.cat((fresh, kept)))
    # And no gradient crosses the end of the episode.
    x.requires_grad_()
    trunk(x, state, start)[0][3:, 0].sum().backward()
    assert x.grad is not None
    assert x.grad[:3].eq(0.0).all()
    assert x.grad[3:, 0].ne(0.0).any()


@pytest.mark.parametrize("memory", ["lstm", "gru"])
def test_stepping_a_memory_equals_unrolling_it(memory: str) -> None:
    trunk = Trunk(3, (16,), 2, config(memory=memory), 1.0)
    x, state = torch.randn(6, 4, 3), torch.zeros(4, trunk.state_size)
    whole, end = trunk(x, state)
    steps = []
    for row in x:
        out, state = trunk(row[None], state)
        steps.append(out)
    torch.testing.assert_close(torch.cat(steps), whole)
    torch.testing.assert_close(state, end)


def test_the_critic_keeps_its_predictions_when_its_units_change() -> None:
    critic = Critic(3, 2, config())
    critic.adapt(torch.tensor([0.0, 10.0]))
    x = torch.randn(1, 20, 5)
    before = critic.unscaled(critic(x, torch.zeros(20, 0))[0])
    critic.adapt(torch.randn(500) * 300.0 - 50.0)
    assert critic.returns.scale() > 200.0
    after = critic.unscaled(critic(x, torch.zeros(20, 0))[0])
    torch.testing.assert_close(before, after, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(critic.scaled(critic.unscaled(after)), after, atol=1e-3, rtol=1e-4)


def test_policies_put_out_the_most_likely_action() -> None:
    observation = torch.randn(7, 3, dtype=torch.float64)
    plain = Policy(3, 2, config())
    found, _ = plain.actor(plain.normalizer(observation)[None], torch.zeros(7, 0))
    assert isinstance(found, Gaussian)
    assert torch.equal(plain(observation), found.mean[0].clamp(-1.0, 1.0))
    recurrent = RecurrentPolicy(3, 2, config(memory="lstm"))
    state = recurrent.initial_state(7)
    assert state.shape == (7, 16)
    assert state.eq(0.0).all()
    action, following = recurrent(observation, state)
    assert action.shape == (7, 2)
    assert following.shape == state.shape
    assert not torch.equal(recurrent(observation, following)[0], action)


@pytest.mark.parametrize("unit", [1e-7, 1.0, 1e6])
def test_the_critic_learns_in_the_unit_of_the_returns_whatever_it_is(unit: float) -> None:
    critic = Critic(3, 2, config())
    x = torch.randn(1, 20, 5)
    critic.adapt(torch.zeros(30))  # no reward yet: nothing is known of the unit
    critic.adapt(unit * torch.tensor([4.0, 6.0]).repeat(15))  # mean 2.5, variance (16 + 36) / 4 - 2.5^2 = 6.75
    assert float(critic.unit()) == pytest.approx(unit * 6.75**0.5)
    raw = critic(x, torch.zeros(20, 0))[0]
    torch.testing.assert_close(critic.unscaled(raw) / unit, raw * 6.75**0.5 + 2.5)
