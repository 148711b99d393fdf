"""The learners' arithmetic: targets, densities, and one update against plain autograd."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution
from torch.nn import functional

from off_policy import ddpg, random_batch, sac, td3
from simreal.learners.networks import LOG_STD_RANGE, EnsembleMLP, GaussianActor, QNetwork, mlp, polyak_
from simreal.learners.off_policy.ddpg import ddpg_target
from simreal.learners.off_policy.sac import sac_target
from simreal.learners.off_policy.td3 import smoothed, td3_target


def test_the_ddpg_target_stops_at_termination_and_is_clipped() -> None:
    reward, terminated = torch.tensor([1.0, 1.0, -3.0]), torch.tensor([0.0, 1.0, 0.0])
    next_q = torch.tensor([10.0, 10.0, -60.0])
    # 1 + 0.5 * 10 = 6;  1;  -3 - 0.5 * 60 = -33, clipped to -5
    assert ddpg_target(reward, terminated, next_q, 0.5, None).tolist() == [6.0, 1.0, -33.0]
    assert ddpg_target(reward, terminated, next_q, 0.5, (-5.0, 4.0)).tolist() == [4.0, 1.0, -5.0]


def test_the_sac_target_takes_the_smaller_critic_and_pays_for_log_probability() -> None:
    next_q = torch.tensor([[10.0, 4.0], [8.0, 6.0]])
    target = sac_target(
        torch.tensor([1.0, 1.0]), torch.tensor([0.0, 1.0]), next_q, torch.tensor([-2.0, 5.0]), 0.25, 0.5
    )
    # 1 + 0.5 * (min(10, 8) - 0.25 * (-2)) = 1 + 0.5 * 8.5 = 5.25;  terminated: 1
    assert target.tolist() == [5.25, 1.0]


def test_the_td3_target_takes_the_smaller_critic_and_is_clipped() -> None:
    reward, terminated = torch.tensor([1.0, 1.0, -3.0]), torch.tensor([0.0, 1.0, 0.0])
    next_q = torch.tensor([[10.0, 8.0, -60.0], [12.0, -4.0, -2.0]])
    # 1 + 0.5 * min(10, 12) = 6; terminated: 1; -3 + 0.5 * min(-60, -2) = -33
    assert td3_target(reward, terminated, next_q, 0.5, None).tolist() == [6.0, 1.0, -33.0]
    assert td3_target(reward, terminated, next_q, 0.5, (-5.0, 4.0)).tolist() == [4.0, 1.0, -5.0]


def test_the_noise_on_the_target_policys_actions_is_clipped_and_so_are_they() -> None:
    # 0.25 * 1 = 0.25; 0.25 * 4 = 1, clipped to 0.5; -0.5; 0.75 + 0.5 = 1.25, clipped to 1
    action, noise = torch.tensor([[0.0, 0.0, 0.0, 0.75]]), torch.tensor([[1.0, 4.0, -4.0, 4.0]])
    assert smoothed(action, noise, std=0.25, clip=0.5).tolist() == [[0.25, 0.5, -0.5, 1.0]]


def test_policy_and_targets_of_td3_move_at_every_second_update_only() -> None:
    learner = td3()
    watched = (learner.network.actor, learner.target_actor, learner.target_critic, learner.critic)
    moved = []
    for number in range(1, 5):
        before = [[p.detach().clone() for p in module.parameters()] for module in watched]
        learner.updates = number
        learner._update(random_batch(seed=number), torch.zeros(1, 32, 2))
        now = [list(module.parameters()) for module in watched]
        moved.append(
            [not all(torch.equal(a, b) for a, b in zip(*pair, strict=True)) for pair in zip(before, now, strict=True)]
        )
    assert moved == [[False, False, False, True], [True, True, True, True]] * 2


def test_the_density_of_a_sampled_action_is_torchs() -> None:
    torch.manual_seed(0)
    actor = GaussianActor(3, 2, (8,)).double()
    observation, noise = torch.randn(50, 3).double(), torch.randn(50, 2).double()
    action, log_prob = actor.sample(observation, noise)
    mean, log_std = actor.distribution(observation)
    squashed = TransformedDistribution(Independent(Normal(mean, log_std.exp()), 1), TanhTransform())
    torch.testing.assert_close(action, torch.tanh(mean + log_std.exp() * noise))
    torch.testing.assert_close(log_prob, squashed.log_prob(action), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(actor(observation), torch.tanh(mean))


def test_the_density_stays_finite_where_tanh_saturates_and_deviations_are_bounded() -> None:
    actor = GaussianActor(1, 1, ())
    weights = actor.net[0]
    assert isinstance(weights, torch.nn.Linear)
    with torch.no_grad():
        weights.weight.zero_()
        weights.bias.copy_(torch.tensor([30.0, 50.0]))  # mean 30, log standard deviation far beyond its bound
    assert actor.distribution(torch.zeros(1, 1))[1].item() == LOG_STD_RANGE[1]
    _, log_prob = actor.sample(torch.zeros(1, 1), torch.zeros(1, 1))
    # -log(2 pi)/2 - 2 - 2 (log 2 - 30 - softplus(-60)) = -0.9189 - 2 + 58.6137
    assert log_prob.item() == pytest.approx(55.6948, abs=1e-3)


def test_a_batched_ensemble_equals_separate_networks() -> None:
    torch.manual_seed(0)
    ensemble = EnsembleMLP(2, [4, 8, 8, 1])
    x = torch.randn(10, 4)
    for member in range(2):
        single = mlp([4, 8, 8, 1])
        layers = [layer for layer in single if isinstance(layer, torch.nn.Linear)]
        for layer, weight, bias in zip(layers, ensemble.weights, ensemble.biases, strict=True):
            layer.weight.data.copy_(weight[member].T)
            layer.bias.data.copy_(bias[member, 0])
        torch.testing.assert_close(ensemble(x)[member], single(x))
    assert not torch.allclose(ensemble(x)[0], ensemble(x)[1])
    # initialized as nn.Linear is: uniform within 1/sqrt(inputs)
    for weight, inputs in zip(ensemble.weights, (4, 8, 8), strict=True):
        assert 0.7 / math.sqrt(inputs) < float(weight.detach().abs().max()) <= 1.0 / math.sqrt(inputs)


@pytest.mark.parametrize("members", [1, 2])
def test_a_critic_has_a_row_of_values_per_member(members: int) -> None:
    critic = QNetwork(members, 3, 2, (8,))
    s, a = torch.randn(5, 3), torch.randn(5, 2)
    assert critic(s, a).shape == (members, 5)
    assert critic(s[:1], a[:1]).shape == (members, 1)
    torch.testing.assert_close(critic(s[:1], a[:1])[:, 0], critic(s, a)[:, 0])


def test_polyak_moves_targets_by_tau_of_the_way() -> None:
    target, source = [torch.tensor([0.0, 10.0])], [torch.tensor([1.0, 20.0])]
    polyak_(target, source, 0.25)
    assert target[0].tolist() == [0.25, 12.5]
    assert source[0].tolist() == [1.0, 20.0]


def adam_step(parameters: list[Tensor], gradients: tuple[Tensor, ...] | list[Tensor], lr: float) -> list[Tensor]:
    """Adam's first step: both moments are corrected to the gradient itself. Kingma & Ba 2015, algorithm 1."""
    return [p.detach() - lr * g / (g.abs() + 1e-8) for p, g in zip(parameters, gradients, strict=True)]


def leaves(module: torch.nn.Module) -> list[Tensor]:
    return [p.detach().clone().requires_grad_() for p in module.parameters()]


def plain_mlp(weights: list[Tensor], x: Tensor) -> Tensor:
    """nn.Linear weights and biases in turn, ReLU in between."""
    for i in range(0, len(weights), 2):
        x = functional.linear(x, weights[i], weights[i + 1])
        x = torch.relu(x) if i + 2 < len(weights) else x
    return x


def plain_q(weights: list[Tensor], member: int, observation: Tensor, action: Tensor) -> Tensor:
    """One critic: a plain network, or a member of an ensemble whose parameters are all weights, then all biases."""
    half = len(weights) // 2
    x = torch.cat((observation, action), dim=1)
    if weights[0].dim() == 2:
        return plain_mlp(weights, x)[:, 0]
    for i in range(half):
        x = x @ weights[i][member] + weights[half + i][member]
        x = torch.relu(x) if i + 1 < half else x
    return x[:, 0]


def agree(module: torch.nn.Module, expected: list[Tensor], lr: float) -> None:
    """Parameters are the expected ones, to a thousandth of a step for all but vanishing gradients."""
    errors = torch.cat([(p - e).detach().abs().flatten() for p, e in zip(module.parameters(), expected, strict=True)])
    assert float(errors.max()) < 0.1 * lr
    assert float((errors > 1e-3 * lr).float().mean()) < 0.01


@pytest.mark.parametrize("limits", [None, (-0.5, 0.5)])
def test_a_ddpg_update_is_the_one_of_the_equations(limits: tuple[float, float] | None) -> None:
    lr, tau = 1e-2, 0.1
    learner = ddpg(gamma=0.9, tau=tau, actor_lr=lr, critic_lr=lr, action_penalty=0.3, target_limits=limits)
    with torch.no_grad():  # targets of their own, or a mix-up would go unnoticed
        for p in (*learner.target_actor.parameters(), *learner.target_critic.parameters()):
            p.add_(0.05 * torch.randn_like(p))
    actor, critic = leaves(learner.network.actor), leaves(learner.critic)
    target_actor, target_critic = leaves(learner.target_actor), leaves(learner.target_critic)
    batch = random_batch()
    logged = learner._update(batch)

    s, a, r, s2, end = batch.observation, batch.action, batch.reward, batch.next_observation, batch.terminated
    y = r + 0.9 * (1 - end) * plain_q(target_critic, 0, s2, torch.tanh(plain_mlp(target_actor, s2)))
    y = y if limits is None else y.clamp(*limits)
    critic_loss = ((plain_q(critic, 0, s, a) - y.detach()) ** 2).mean()
    new_critic = adam_step(critic, torch.autograd.grad(critic_loss, critic), lr)
    u = plain_mlp(actor, s)
    actor_loss = -plain_q(new_critic, 0, s, torch.tanh(u)).mean() + 0.3 * (u**2).mean()
    new_actor = adam_step(actor, torch.autograd.grad(actor_loss, actor), lr)

    torch.testing.assert_close(logged["critic_loss"].detach(), critic_loss.detach())
    torch.testing.assert_close(
        logged["policy_q"].detach(), plain_q(new_critic, 0, s, torch.tanh(u)).mean().detach(), rtol=1e-4, atol=1e-5
    )
    agree(learner.critic, new_critic, lr)
    agree(learner.network.actor, new_actor, lr)
    mixed = [(1 - tau) * t.detach() + tau * n for t, n in zip(target_critic, new_critic, strict=True)]
    agree(learner.target_critic, mixed, lr)
    mixed = [(1 - tau) * t.detach() + tau * n for t, n in zip(target_actor, new_actor, strict=True)]
    agree(learner.target_actor, mixed, lr)


def plain_sample(actor: list[Tensor], s: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    mean, log_std = plain_mlp(actor, s).chunk(2, dim=1)
    squash = TanhTransform(cache_size=1)  # the cache keeps its inverse exact
    action = squash(mean + log_std.exp() * noise)
    assert isinstance(action, Tensor)
    return action, TransformedDistribution(Independent(Normal(mean, log_std.exp()), 1), squash).log_prob(action)


@pytest.mark.parametrize("limits", [None, (-0.5, 0.5)])
def test_a_sac_update_is_the_one_of_the_equations(limits: tuple[float, float] | None) -> None:
    lr, tau, alpha_lr = 1e-2, 0.1, 1e-3
    learner = sac(
        gamma=0.9, tau=tau, actor_lr=lr, critic_lr=lr, alpha_lr=alpha_lr, initial_alpha=0.4, target_limits=limits
    )
    with torch.no_grad():
        for p in learner.target_critic.parameters():
            p.add_(0.05 * torch.randn_like(p))
    actor, critic = leaves(learner.network.actor), leaves(learner.critic)
    target_critic = leaves(learner.target_critic)
    batch, noise = random_batch(), torch.randn(2, 32, 2, generator=torch.Generator().manual_seed(5))
    logged = learner._update(batch, noise)

    s, a, r, s2, end = batch.observation, batch.action, batch.reward, batch.next_observation, batch.terminated
    a2, logp2 = plain_sample(actor, s2, noise[0])
    smaller = torch.minimum(plain_q(target_critic, 0, s2, a2), plain_q(target_critic, 1, s2, a2))
    y = r + 0.9 * (1 - end) * (smaller - 0.4 * logp2)
    y = (y if limits is None else y.clamp(*limits)).detach()
    critic_loss = ((plain_q(critic, 0, s, a) - y) ** 2).mean() + ((plain_q(critic, 1, s, a) - y) ** 2).mean()
    new_critic = adam_step(critic, torch.autograd.grad(critic_loss, critic), lr)
    a1, logp1 = plain_sample(actor, s, noise[1])
    policy_q = torch.minimum(plain_q(new_critic, 0, s, a1), plain_q(new_critic, 1, s, a1))
    actor_loss = (0.4 * logp1 - policy_q).mean()
    new_actor = adam_step(actor, torch.autograd.grad(actor_loss, actor), lr)
    log_alpha = torch.tensor(0.4).log().requires_grad_()
    alpha_loss = -(log_alpha * (logp1.detach() - 2.0)).mean()  # target entropy: minus the number of actions
    (new_log_alpha,) = adam_step([log_alpha], torch.autograd.grad(alpha_loss, [log_alpha]), alpha_lr)

    torch.testing.assert_close(logged["critic_loss"].detach(), critic_loss.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logged["entropy"], -logp1.mean().detach(), rtol=1e-4, atol=1e-5)
    agree(learner.critic, new_critic, lr)
    agree(learner.network.actor, new_actor, lr)
    torch.testing.assert_close(learner.log_alpha.detach(), new_log_alpha)
    mixed = [(1 - tau) * t.detach() + tau * n for t, n in zip(target_critic, new_critic, strict=True)]
    agree(learner.target_critic, mixed, lr)


@pytest.mark.parametrize(("target_entropy", "direction"), [(50.0, 1.0), (-50.0, -1.0)])
def test_the_temperature_rises_while_entropy_is_below_its_target(target_entropy: float, direction: float) -> None:
    learner = sac(target_entropy=target_entropy)
    before = learner.log_alpha.item()
    for _ in range(3):
        learner._update(random_batch(), torch.zeros(2, 32, 2))
    assert direction * (learner.log_alpha.item() - before) > 0.0
