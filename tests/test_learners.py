"""The learners' arithmetic: targets, densities, and one update against plain autograd."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution
from torch.nn import functional

from conftest import snapshot
from envs.environment import Observed, StepResult
from simreal.config import DDPGConfig, SACConfig
from simreal.learn.ddpg import DDPG, ddpg_target
from simreal.learn.networks import LOG_STD_RANGE, EnsembleMLP, GaussianActor, QNetwork, mlp, polyak_
from simreal.learn.problem import Problem
from simreal.learn.replay import Batch, normalized
from simreal.learn.sac import SAC, sac_target

PROBLEM = Problem(2, 3, 2, 0, 0, None, torch.device("cpu"))
SMALL: dict[str, Any] = {"hidden": (16, 16), "batch_size": 32, "warmup_steps": 0, "replay_size": 1000}
Learner = DDPG | SAC


def ddpg(seed: int = 0, **settings: Any) -> DDPG:
    return DDPG(PROBLEM, DDPGConfig(**(SMALL | settings)), seed)


def sac(seed: int = 0, **settings: Any) -> SAC:
    return SAC(PROBLEM, SACConfig(**(SMALL | settings)), seed)


def random_batch(size: int = 32, seed: int = 0) -> Batch:
    g = torch.Generator().manual_seed(seed)
    terminated = (torch.rand(size, generator=g) < 0.3).float()
    return Batch(
        torch.randn(size, 3, generator=g), torch.rand(size, 2, generator=g) * 2 - 1, torch.randn(size, generator=g),
        torch.randn(size, 3, generator=g), terminated,
    )  # fmt: skip


def result_of(final: Tensor, reward: Tensor, **flags: Tensor) -> StepResult:
    """A step of two environments that nothing special happened to, but for `flags`."""
    no = torch.zeros(len(reward), dtype=torch.bool)
    terminated, truncated = flags.get("terminated", no), flags.get("truncated", no)
    observed = Observed(final, None, None, None)
    return StepResult(
        observed=observed, final=observed, reward=reward, terminated=terminated, truncated=truncated, success=no,
        diverged=flags.get("diverged", no), done=terminated | truncated, episode_return=reward,
        episode_steps=no.long(), episode_successes=no.long(), terms={},
    )  # fmt: skip


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


@pytest.mark.parametrize("make", [ddpg, sac])
def test_without_normalization_networks_see_si_units_and_statistics_are_kept(make: Any) -> None:
    learner = make(normalize_observation=False, observation_clip=1.0)
    run(learner, 20)
    seen = torch.tensor([[30.0, -2.0, 0.5], [-7.0, 0.1, 12.0]])
    with torch.no_grad():
        assert torch.equal(learner.policy(seen), learner.network.actor(seen))
    stored = learner.replay.sample(500, torch.Generator().manual_seed(0)).observation
    assert torch.equal(normalized(Batch(stored, *[stored] * 4), learner.network.normalizer).observation, stored)
    assert float(learner.network.normalizer.count) == 40
    assert float(learner.network.normalizer.mean.abs().min()) > 0


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


def run(learner: Learner, updates: int, first: int = 0) -> None:
    """Steps of random experience with an update after each."""
    for step in range(first, first + updates):
        generator = torch.Generator().manual_seed(step)
        here, there = torch.randn(2, 2, 3, generator=generator)
        observed = Observed(here, None, None, None)
        action = learner.act(observed)
        done = torch.tensor([step % 5 == 4, False])
        learner.record(observed, action, result_of(there, -action.square().sum(1), truncated=done))
        assert learner.ready()
        learner.update()


@pytest.mark.parametrize("average", [0, 7])
@pytest.mark.parametrize("create", [ddpg, sac])
def test_the_same_seed_gives_the_same_weights_and_a_restored_learner_the_same_future(create: Any, average: int) -> None:
    def weights(learner: Learner) -> list[Tensor]:
        modules = (learner.policy, learner.network, learner.critic)
        return [value.clone() for module in modules for value in module.state_dict().values()]

    make = partial(create, average_updates=average)
    one, two, other = make(), make(), make(seed=1)
    run(one, 20)
    torch.manual_seed(1234)  # what the rest of the process draws is of no importance
    run(two, 20)
    run(other, 20)
    assert one.updates == 40  # an update per environment step, of which every call made two
    assert all(torch.equal(a, b) for a, b in zip(weights(one), weights(two), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))
    saved = snapshot(one)
    run(one, 5, first=20)
    restored = make(seed=2)
    run(restored, 3)
    restored.load_state_dict(saved)
    run(restored, 5, first=20)
    assert restored.updates == one.updates == 50
    assert all(torch.equal(a, b) for a, b in zip(weights(one), weights(restored), strict=True))


@pytest.mark.parametrize("history", [0, 2])
@pytest.mark.parametrize("make", [ddpg, sac])
def test_the_policy_that_leaves_can_be_an_average_of_weights_which_learning_does_not_see(
    make: Any, history: int
) -> None:
    plain, learner = make(action_history=history), make(action_history=history, average_updates=4)
    names = [name for name, _ in learner.network.actor.named_parameters()]
    mean, count = [torch.zeros_like(p) for p in learner.network.actor.parameters()], 0
    update = learner._update

    def recorded(*args: Any) -> Any:
        nonlocal mean, count
        log = update(*args)
        count += 1
        share = 1 / count if count <= 4 else 1 / 4  # the first four count alike
        mean = [m + share * (p.detach() - m) for m, p in zip(mean, learner.network.actor.parameters(), strict=True)]
        return log

    learner._update = recorded
    policy = learner.policy.network if history else learner.policy
    for step in range(6):
        run(plain, 1, first=step)
        run(learner, 1, first=step)
        for name, expected in zip(names, mean, strict=True):
            torch.testing.assert_close(policy.actor.state_dict()[name], expected)
    assert count == learner.updates == 12
    for a, b in zip(plain.network.state_dict().values(), learner.network.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(policy.actor.state_dict()[names[0]], learner.network.actor.state_dict()[names[0]])
    assert policy.normalizer is learner.network.normalizer


@pytest.mark.parametrize("make", [ddpg, sac])
def test_a_truncated_step_bootstraps_from_its_final_observation_and_a_diverged_one_is_not_learnt(make: Any) -> None:
    learner: Learner = make()
    here, there, begun = (torch.full((2, 3), value) for value in (1.0, 2.0, 9.0))
    flags = {
        "truncated": torch.tensor([True, False]),
        "terminated": torch.tensor([False, True]),
        "diverged": torch.tensor([False, False]),
    }
    result = result_of(there, torch.tensor([0.5, 0.25]), **flags)
    result = StepResult(**{**vars(result), "observed": Observed(begun, None, None, None)})
    learner.record(Observed(here, None, None, None), torch.zeros(2, 2), result)
    batch = learner.replay.sample(100, torch.Generator().manual_seed(0))
    assert torch.equal(batch.next_observation, torch.full((100, 3), 2.0))  # not that of the new episode
    assert torch.equal(batch.terminated, (batch.reward == 0.25).float())
    assert 0.0 < float(batch.terminated.mean()) < 1.0

    unsound = result_of(
        there, torch.tensor([7.0, 0.25]), terminated=torch.tensor([True, False]), diverged=torch.tensor([True, False])
    )
    learner.record(Observed(here, None, None, None), torch.zeros(2, 2), unsound)
    batch = learner.replay.sample(1000, torch.Generator().manual_seed(0))
    assert set(batch.reward.tolist()) == {0.5, 0.25}


@pytest.mark.parametrize("make", [ddpg, sac])
def test_a_policy_with_a_memory_is_trained_on_the_actions_before_each_observation(make: Any) -> None:
    learner: Learner = make(action_history=2)
    actions = torch.arange(1.0, 13.0).view(3, 2, 2) / 20  # [step, environment, A]
    over = torch.tensor([True, False])
    for step, action in enumerate(actions):
        here = torch.full((2, 3), float(step))
        flags = {"truncated": over} if step == 1 else {}
        reward = torch.tensor([10.0, 20.0]) + step
        learner.record(Observed(here, None, None, None), action, result_of(here + 0.5, reward, **flags))
    a, b, none = actions[:, 0].tolist(), actions[:, 1].tolist(), [0.0, 0.0]
    expected = {  # by reward: the two actions before the observation, and those before the next one
        10.0: (none + none, none + a[0]),
        11.0: (none + a[0], a[0] + a[1]),  # truncated: its final observation follows both ...
        12.0: (none + none, none + a[2]),  # ... and the next episode begins with none
        20.0: (none + none, none + b[0]),
        21.0: (none + b[0], b[0] + b[1]),
        22.0: (b[0] + b[1], b[1] + b[2]),
    }
    batch = learner.replay.sample(300, torch.Generator().manual_seed(0))
    assert set(batch.reward.tolist()) == set(expected)
    for row, reward in enumerate(batch.reward.tolist()):
        before, after = expected[reward]
        torch.testing.assert_close(batch.observation[row, :4], torch.tensor(before))
        torch.testing.assert_close(batch.next_observation[row, :4], torch.tensor(after))
        assert batch.observation[row, 4:].tolist() == [reward % 10] * 3
    learner.update()


@pytest.mark.parametrize("make", [ddpg, sac])
def test_exploration_is_uniform_at_first_and_then_follows_the_policy(make: Any) -> None:
    learner: Learner = make(warmup_steps=400)
    observed = Observed(torch.zeros(2, 3), None, None, None)
    actions = []
    for _ in range(200):
        actions.append(learner.act(observed))
        assert not learner.ready()
        learner.record(observed, actions[-1], result_of(observed.policy, torch.zeros(2)))
    early = torch.cat(actions).flatten()
    assert float(early.abs().max()) <= 1.0
    assert abs(float(early.mean())) < 4.5 / math.sqrt(3 * len(early))  # variance 1/3
    assert abs(float(early.square().mean()) - 1 / 3) < 4.5 * math.sqrt(4 / 45 / len(early))
    assert learner.ready()
    late = torch.cat([learner.act(observed) for _ in range(400)])
    assert float(late.abs().max()) <= 1.0
    with torch.no_grad():
        aim = learner.policy(observed.policy[:1])[0]
    # symmetric noise around it, but for DDPG's 30 % of uniform actions, which only pull the mean inwards
    median = late.median(dim=0).values
    assert float((median - aim).abs().max()) < 0.15


@pytest.mark.parametrize("make", [ddpg, sac])
def test_a_bandit_with_a_known_best_action_is_solved(make: Any) -> None:
    """Reward -4 |a - (0.5, -0.25)|^2, every episode one step long; it takes the critic and both signs of the policy."""
    settings: dict[str, Any] = {"actor_lr": 1e-3, "critic_lr": 3e-3, "batch_size": 64, "warmup_steps": 200}
    learner: Learner = make(**settings, **({"action_penalty": 0.0} if make is ddpg else {"initial_alpha": 0.01}))
    best = torch.tensor([0.5, -0.25])
    observed = Observed(torch.zeros(2, 3), None, None, None)
    over = torch.tensor([True, True])
    for _ in range(500):
        action = learner.act(observed)
        reward = -4.0 * (action - best).square().sum(dim=1)
        learner.record(observed, action, result_of(torch.zeros(2, 3), reward, terminated=over))
        if learner.ready():
            learner.update()
    with torch.no_grad():
        assert float((learner.policy(observed.policy)[0] - best).abs().max()) < 0.1
        value = learner.critic(torch.zeros(1, 3), best[None])
    assert float(value.abs().max()) < 0.6  # the best reward is 0, and nothing follows it (the worst is -17)
