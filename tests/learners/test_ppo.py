"""PPO and its family: losses by hand, rules, masks, memory, and states that resume bit for bit."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from envs.environment import Observed, StepResult
from simreal.learners.base import LearnerSpec
from simreal.learners.on_policy.gaussian import Gaussian, gaussian_log_prob
from simreal.learners.on_policy.losses import (
    bound_loss,
    clipped_loss,
    kl_adapted_beta,
    kl_adapted_lr,
    policy_gradient_loss,
    shares,
    standardized,
    surrogate_loss,
    value_loss,
)
from simreal.learners.on_policy.ppo import PPO
from simreal.learners.on_policy.rollout import Minibatch, RolloutBatch, RolloutBuffer
from simreal.learners.on_policy.trpo import conjugate_gradient
from simreal.learners.options import PPOConfig

N, NOBS, NPRIVILEGED, A = 4, 3, 2, 2
SMALL: dict[str, Any] = {
    "actor_hidden": (16,), "critic_hidden": (16,), "horizon": 8, "segment": 4, "memory_size": 8, "epochs": 2,
    "minibatches": 2, "initial_std": 1.0,
}  # fmt: skip


def learner(seed: int = 0, total_steps: int | None = None, **settings: Any) -> PPO:
    problem = LearnerSpec(N, NOBS, A, 0, NPRIVILEGED, None, torch.device("cpu"))
    return PPO(problem, PPOConfig(**(SMALL | settings)), seed, total_steps)


def stream(seed: int = 0, ends: float = 0.15) -> Iterator[StepResult]:
    """Steps of N environments that no action changes, with random episode ends."""
    draw = torch.Generator().manual_seed(seed)

    def observed() -> Observed:
        return Observed(torch.randn(N, NOBS, generator=draw), torch.randn(N, NPRIVILEGED, generator=draw), None, None)

    while True:
        final, begun = observed(), observed()
        terminated, truncated = (torch.rand(N, generator=draw) < ends for _ in range(2))
        truncated &= ~terminated
        done = terminated | truncated
        policy = torch.where(done[:, None], begun.policy, final.policy)
        zero = torch.zeros(N, dtype=torch.int64)
        yield StepResult(
            observed=replace(begun, policy=policy), final=final, reward=torch.randn(N, generator=draw),
            terminated=terminated, truncated=truncated, success=done, diverged=torch.zeros_like(done), done=done,
            episode_return=torch.randn(N, generator=draw), episode_steps=zero, episode_successes=zero, terms={},
        )  # fmt: skip


def play(ppo: PPO, results: Iterator[StepResult], observed: Observed, steps: int) -> tuple[Observed, list[Any]]:
    """Act, record and update; the last observation and everything that was put out."""
    out: list[Any] = []
    for _ in range(steps):
        action = ppo.act(observed)
        result = next(results)
        ppo.record(observed, action, result)
        observed = result.observed
        out.append(action)
        if ppo.ready():
            out.append(ppo.update())
    return observed, out


def filled(ppo: PPO, results: list[StepResult]) -> PPO:
    """With a full rollout."""
    observed = results[0].final
    for result in results:
        ppo.record(observed, ppo.act(observed), result)
        observed = result.observed
    return ppo


def steps(count: int = 8, seed: int = 0, ends: float = 0.15) -> list[StepResult]:
    results = stream(seed, ends)
    return [next(results) for _ in range(count)]


# Three steps with rho = 1.5, 0.5, 1.1 and A = 2, -1, 1.
RATIO, ADVANTAGE = torch.tensor([1.5, 0.5, 1.1]), torch.tensor([2.0, -1.0, 1.0])
ALL, TWO = shares(torch.ones(3)), shares(torch.tensor([1.0, 0.0, 1.0]))


def test_losses_by_hand() -> None:
    # min(3, 1.2 * 2) = 2.4, min(-0.5, 0.8 * -1) = -0.8, min(1.1, 1.1) = 1.1; -(2.4 - 0.8 + 1.1) / 3
    assert clipped_loss(RATIO, ADVANTAGE, ALL, 0.2).item() == pytest.approx(-0.9)
    # -(3 - 0.5 + 1.1) / 3
    assert surrogate_loss(RATIO, ADVANTAGE, ALL).item() == pytest.approx(-1.2)
    # log pi = -1, -2, -3: -(-2 + 2 - 3) / 3
    assert policy_gradient_loss(torch.tensor([-1.0, -2.0, -3.0]), ADVANTAGE, ALL).item() == pytest.approx(1.0)


def test_means_beyond_the_limits_cost_the_square_of_what_is_beyond() -> None:
    mu = torch.tensor([[1.5, -3.0], [0.9, -1.0], [0.0, 2.0]])  # beyond: 0.5 and 2; nothing; 1
    assert bound_loss(mu, ALL).item() == pytest.approx((0.25 + 4.0 + 1.0) / 3)
    assert bound_loss(mu, TWO).item() == pytest.approx((0.25 + 4.0 + 1.0) / 2)


def test_the_bound_loss_draws_means_back() -> None:
    beyond = []
    for coef in (0.0, 1.0):
        ppo = learner(lr=0.05, bound_coef=coef)
        with torch.no_grad():
            ppo.actor.trunk.last.bias.fill_(3.0)
        filled(ppo, steps()).update()
        beyond.append(ppo.actor(torch.zeros(1, 1, NOBS), torch.zeros(1, 0))[0].mean.abs().max().item())
    assert beyond[1] < beyond[0] - 0.1


def test_steps_without_weight_do_not_count() -> None:
    # -(2.4 + 1.1) / 2 and -(3 + 1.1) / 2
    assert clipped_loss(RATIO, ADVANTAGE, TWO, 0.2).item() == pytest.approx(-1.75)
    assert surrogate_loss(RATIO, ADVANTAGE, TWO).item() == pytest.approx(-2.05)
    # mean and std of 2 and 1 are 1.5 and 0.5
    assert standardized(ADVANTAGE, TWO)[[0, 2]].tolist() == pytest.approx([1.0, -1.0])
    assert surrogate_loss(RATIO, ADVANTAGE, shares(torch.zeros(3))).item() == 0.0


def test_value_clipping_takes_the_larger_error() -> None:
    value, old, target = torch.tensor([3.0, 0.5]), torch.tensor([1.0, 0.0]), torch.tensor([3.0, 1.0])
    share = shares(torch.ones(2))
    # (0 + 0.25) / 2
    assert value_loss(value, old, target, share, None).item() == pytest.approx(0.125)
    # clipped to 1.2 and 0.2: errors 1.8 and 0.8, both larger; (3.24 + 0.64) / 2
    assert value_loss(value, old, target, share, 0.2).item() == pytest.approx(1.94)


def test_the_step_size_follows_the_kl() -> None:
    limits = (1e-5, 1e-2)
    assert kl_adapted_lr(3e-4, 0.021, 0.01, limits) == pytest.approx(2e-4)
    assert kl_adapted_lr(3e-4, 0.004, 0.01, limits) == pytest.approx(4.5e-4)
    assert kl_adapted_lr(3e-4, 0.010, 0.01, limits) == 3e-4
    assert kl_adapted_lr(3e-4, 0.0, 0.01, limits) == 3e-4  # the first minibatch: nothing has moved yet
    assert kl_adapted_lr(1.1e-5, 1.0, 0.01, limits) == 1e-5
    assert kl_adapted_lr(9e-3, 0.001, 0.01, limits) == 1e-2


def test_the_penalty_follows_the_kl() -> None:
    assert kl_adapted_beta(1.0, 0.016, 0.01) == 2.0
    assert kl_adapted_beta(1.0, 0.006, 0.01) == 0.5
    assert kl_adapted_beta(1.0, 0.012, 0.01) == 1.0


def hand_batch(ppo: PPO) -> RolloutBatch:
    """Two steps of a policy with mean 0 and std 1 at u = (0, 0) and (1, 0), collected with half of, and all of it.

    log pi = -log 2 pi - |u|^2 / 2, so rho = 2 and 1; A = 1, -1. The critic says 0 and should say 1, 3.
    """
    for linear in (ppo.actor.trunk.last, ppo.critic.trunk.last):
        torch.nn.init.zeros_(linear.weight)
    u, zero = torch.tensor([[[0.0, 0.0], [1.0, 0.0]]]), torch.zeros(1, 2, A)
    log_prob = gaussian_log_prob(u, zero, torch.zeros(A))
    return RolloutBatch(
        observation=torch.randn(1, 2, NOBS + NPRIVILEGED), action=u, old=Gaussian(zero + 0.5, zero),
        old_log_prob=log_prob - torch.tensor([[2.0, 1.0]]).log(), old_value=torch.zeros(1, 2),
        advantage=torch.tensor([[1.0, -1.0]]), target=torch.tensor([[1.0, 3.0]]), weight=torch.ones(1, 2),
        start=torch.zeros(1, 2, dtype=torch.bool), actor_state=torch.zeros(1, 2, 0), critic_state=torch.zeros(1, 2, 0),
        place=torch.zeros(1, 1, dtype=torch.int64),
    )  # fmt: skip


ONCE = {"epochs": 1, "minibatches": 1}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # -(min(2, 1.2) - 1) / 2
        ({"objective": "ppo_clip"}, -0.1),
        # -(2 - 1) / 2 + beta KL;  KL of means 0.5 apart in two dimensions: 2 * 0.25 / 2 = 0.25
        ({"objective": "ppo_kl", "kl_beta": 3.0}, -0.5 + 0.75),
        # -(log pi_0 - log pi_1) / 2 = -(1/2) / 2
        ({"objective": "a2c", **ONCE}, -0.25),
        ({"objective": "reinforce", "advantage": "monte_carlo", **ONCE}, -0.25),
    ],
)
def test_the_loss_of_every_objective_by_hand(settings: dict[str, Any], expected: float) -> None:
    ppo = learner(value_coef=0.5, entropy_coef=0.1, **settings)
    loss, log = ppo._loss(Minibatch.alone(hand_batch(ppo), False))
    assert log["policy_loss"].item() == pytest.approx(expected, abs=1e-6)
    assert log["value_loss"].item() == pytest.approx(5.0)  # (1 + 9) / 2
    entropy = 2.8378771  # 1 + log 2 pi
    assert log["entropy"].item() == pytest.approx(entropy)
    assert log["kl"].item() == pytest.approx(0.25)
    assert log["clip_fraction"].item() == 0.5
    assert loss.item() == pytest.approx(expected + 2.5 - 0.1 * entropy, abs=1e-5)


def test_the_gradient_of_a_clipped_step_vanishes() -> None:
    ppo = learner()
    batch = hand_batch(ppo)
    loss, _ = ppo._loss(Minibatch.alone(replace(batch, weight=torch.tensor([[1.0, 0.0]])), False))  # rho = 2 with A = 1
    gradient = torch.autograd.grad(loss, ppo._actor_params, allow_unused=True)
    assert all(g is None or g.abs().max() == 0.0 for g in gradient)


def test_advantages_and_targets_of_a_rollout() -> None:
    """A critic that says 2 everywhere, rewards 1, gamma 0.5, one-step targets."""
    ppo = learner(advantage="one_step", gamma=0.5, normalize_advantage="none", normalize_value=False)
    torch.nn.init.zeros_(ppo.critic.trunk.last.weight)
    torch.nn.init.constant_(ppo.critic.trunk.last.bias, 2.0)
    no = torch.zeros(N, dtype=torch.bool)
    ordinary = [replace(s, reward=torch.ones(N), terminated=no, truncated=no, done=no) for s in steps()]
    special = torch.tensor([True, False, False, False])
    ordinary[3] = replace(ordinary[3], terminated=special, done=special)
    ordinary[5] = replace(ordinary[5], truncated=special, done=special)
    ordinary[6] = replace(ordinary[6], terminated=special, done=special, diverged=special)
    batch = filled(ppo, ordinary)._prepare()[0].batch
    target = ppo.rollout.joined(batch.target)
    assert target[:, 1].tolist() == [2.0] * 8  # 1 + 0.5 * 2
    # terminated: 1; truncated: bootstrapped as if it went on; diverged: what the critic expected, with no weight
    assert target[:, 0].tolist() == [2.0, 2.0, 2.0, 1.0, 2.0, 2.0, 2.0, 2.0]
    assert ppo.rollout.joined(batch.weight)[:, 0].tolist() == [1.0] * 6 + [0.0, 1.0]
    assert ppo.rollout.joined(batch.advantage)[6, 0] == 0.0


@pytest.mark.parametrize("memory", ["none", "lstm"])
def test_truncated_episodes_are_bootstrapped_from_their_final_observation(memory: str) -> None:
    def targets(results: list[StepResult]) -> Tensor:
        ppo = filled(learner(memory=memory, advantage="one_step"), results)
        return ppo.rollout.joined(ppo.critic.unscaled(ppo._prepare()[0].batch.target))

    results = steps(ends=0.0)
    cut = torch.tensor([True, False, True, False])
    results[4] = replace(results[4], truncated=cut, done=cut)
    moved = list(results)
    final = replace(results[4].final, policy=results[4].final.policy + 1.0)
    moved[4] = replace(results[4], final=final)
    changed = (targets(moved) - targets(results)).abs() > 1e-4
    expected = torch.zeros(8, N, dtype=torch.bool)
    expected[4] = cut
    assert torch.equal(changed, expected)


def test_what_happens_on_a_diverged_step_changes_nothing() -> None:
    def parameters(reward: float, observation: float) -> list[Tensor]:
        ppo, results = learner(), steps()
        wild = torch.tensor([False, True, False, False])
        at = results[5]
        results[4].observed.policy[1] += observation  # where the diverged step starts
        results[4] = replace(results[4], terminated=wild | at.terminated, done=wild | at.done)  # its value is not used
        results[5] = replace(at, reward=at.reward + reward * wild, terminated=wild, done=wild, diverged=wild)
        filled(ppo, results).update()
        return [p.detach() for p in (*ppo.policy.parameters(), *ppo.critic.parameters())]

    for plain, wild in zip(parameters(0.0, 0.0), parameters(1e6, 3.0), strict=True):
        torch.testing.assert_close(plain, wild, atol=1e-6, rtol=1e-5)


def test_a_rollout_of_diverged_steps_only_changes_no_policy() -> None:
    ppo = learner()
    all_of_them = torch.ones(N, dtype=torch.bool)
    wild = [replace(s, terminated=all_of_them, done=all_of_them, diverged=all_of_them) for s in steps()]
    before = [p.detach().clone() for p in ppo._params]
    filled(ppo, wild).update()
    assert all(torch.equal(a, b) for a, b in zip(before, ppo._params, strict=True))


@pytest.mark.parametrize("actor", ["gaussian", "categorical"])
@pytest.mark.parametrize("memory", ["none", "lstm", "gru"])
def test_the_update_sees_the_policy_that_collected(memory: str, actor: str) -> None:
    """Stored states and masks: before the first gradient step every ratio is 1 and every value the collected one."""
    ppo = filled(learner(memory=memory, horizon=16, actor=actor), steps(16, ends=0.1))
    batch = ppo._prepare()[0].batch
    now, old = ppo._distribution(batch), batch.old
    for a, b in zip(vars(now).values(), vars(old).values(), strict=True):
        torch.testing.assert_close(a.expand_as(b), b, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(now.log_prob(batch.action), batch.old_log_prob, atol=1e-5, rtol=1e-5)
    assert hasattr(ppo.policy, "initial_state") is (memory != "none")
    if memory != "none":
        assert ppo.rollout.start().any()
        assert batch.observation.shape[:2] == (4, 16)
        without = replace(batch, actor_state=torch.zeros_like(batch.actor_state))
        assert ppo._distribution(without).kl(old).max() > 1e-6
        without = replace(batch, start=torch.zeros_like(batch.start))
        assert ppo._distribution(without).kl(old).max() > 1e-6


def test_a_batch_holds_every_step_once_per_epoch() -> None:
    ppo = filled(learner(memory="lstm"), steps())
    batch = ppo._prepare()[0].batch
    rows = torch.arange(8 * N).view(8, N)
    assert torch.equal(ppo.rollout.joined(ppo.rollout.segments(rows)), rows)
    order = torch.randperm(batch.weight.shape[1])
    parts = list(batch.shuffled(order).minibatches(3))
    assert [part.weight.shape for part in parts] == [(4, 3), (4, 3), (4, 2)]
    actions = torch.cat([part.action for part in parts], dim=1)
    assert torch.equal(actions, batch.action[:, order])


def test_the_critic_reads_the_privileged_group_and_the_policy_does_not() -> None:
    results = steps()
    moved = replace(results[0].final, privileged=torch.randn(N, NPRIVILEGED) * 9.0)
    for settings, reads in (({}, True), ({"privileged_critic": False}, False)):
        one, other = learner(**settings), learner(**settings)
        assert torch.equal(one.act(results[0].final), other.act(moved))
        x = [p.rollout.observation[:1] for p in (one, other)]
        values = [one.critic(each, torch.zeros(N, 0))[0] for each in x]
        assert torch.equal(*values) is not reads


SETTINGS: list[dict[str, Any]] = [
    {"objective": "ppo_clip", "lr_schedule": "linear", "value_clip": 0.2},
    {"objective": "ppo_clip", "memory": "lstm", "log_std": "state", "squash": "tanh", "lr_schedule": "kl_adaptive"},
    {"objective": "ppo_kl", "memory": "gru", "advantage": "n_step", "target_kl": 0.05},
    {"objective": "trpo", "normalize_advantage": "batch"},
    {"objective": "trpo", "memory": "lstm"},
    {"objective": "a2c", **ONCE},
    {"actor": "categorical", "memory": "gru", "lr_schedule": "kl_adaptive"},
    {"actor": "categorical", "objective": "trpo"},
]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("at", [13, 16])
def test_a_resumed_learner_continues_bit_for_bit(settings: dict[str, Any], at: int) -> None:
    results, observed = stream(), steps()[0].final
    first = learner(total_steps=200, entropy_coef=0.01, **settings)
    observed, _ = play(first, results, observed, at)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = learner(seed=1, total_steps=200, entropy_coef=0.01, **settings)
    second.load_state_dict(torch.load(file, weights_only=True))
    rest = [next(results) for _ in range(19)]
    _, one = play(first, iter(rest), observed, 19)
    _, two = play(second, iter(rest), observed, 19)
    for a, b in zip(one, two, strict=True):
        assert torch.equal(a, b) if isinstance(a, Tensor) else a == b
    for name, value in first.policy.state_dict().items():
        assert torch.equal(value, second.policy.state_dict()[name])


def test_a_linear_step_size_falls_to_zero() -> None:
    ppo = learner(total_steps=4 * 8 * N, lr_schedule="linear", lr=1e-3)
    _, out = play(ppo, stream(), steps()[0].final, 32)
    rates = [log["lr"] for log in out if isinstance(log, dict)]
    assert rates == pytest.approx([1e-3, 0.75e-3, 0.5e-3, 0.25e-3])


def test_an_update_ends_early_when_the_policy_has_moved_too_far() -> None:
    def moved(target_kl: float | None) -> float:
        ppo = learner(lr=0.05, epochs=20, target_kl=target_kl)
        batch = filled(ppo, steps())._prepare()[0].batch
        ppo.update()
        return ppo._divergence(batch, shares(batch.weight)).item()

    assert moved(None) > 0.2
    assert moved(0.02) < 0.1


def test_normalizers_learn_from_every_observation_once() -> None:
    ppo = learner()
    play(ppo, stream(), steps()[0].final, 24)
    assert ppo.policy.normalizer.count == 24 * N
    assert ppo.critic.normalizer.count == 24 * N
    assert ppo.critic.normalizer.mean.shape == (NPRIVILEGED,)
    raw = learner(normalize_observation=False)
    play(raw, stream(), steps()[0].final, 24)
    assert torch.equal(raw.policy.normalizer(torch.tensor([[50.0, 0.0, -3.0]])), torch.tensor([[50.0, 0.0, -3.0]]))
    assert torch.equal(raw.policy.normalizer.mean, ppo.policy.normalizer.mean)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"memory": "lstm", "segment": 3}, "divisor of horizon"),
        ({"objective": "a2c"}, "epochs and minibatches to 1"),
        ({"objective": "reinforce", **ONCE}, "monte_carlo"),
        ({"objective": "trpo", "lr_schedule": "kl_adaptive"}, "constant or linear"),
        ({"objective": "trpo", "mirror_coef": 0.5}, "mirror_coef: objective trpo has no such loss"),
        ({"objective": "trpo", "bound_coef": 0.5}, "bound_coef: objective trpo has no such loss"),
        ({"objective": "trpo", "target_kl": 0.01}, "target_kl: ends updates of several gradient steps"),
        ({"objective": "trpo", "normalize_advantage": "minibatch"}, "set it to batch"),
        # The KL before the only gradient step is 0, or what rounding leaves of it: the step size would only grow.
        ({"objective": "a2c", "lr_schedule": "kl_adaptive", **ONCE}, "several gradient steps per update"),
        ({"lr_schedule": "kl_adaptive", **ONCE}, "several gradient steps per update"),
        ({"objective": "a2c", "target_kl": 0.01, **ONCE}, "target_kl: ends updates of several gradient steps"),
        ({"lr_limits": (0.01, 0.001)}, "lr_limits: expected 0 < lowest <= highest"),
        ({"lr_limits": (-1.0, 0.001)}, "lr_limits: expected 0 < lowest <= highest"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PPOConfig(**(SMALL | settings))


def test_what_only_the_run_can_know_is_checked_at_the_start() -> None:
    with pytest.raises(ValueError, match="at most 8"):
        learner(memory="lstm", minibatches=9)
    with pytest.raises(ValueError, match="number of steps"):
        learner(lr_schedule="linear")


def test_conjugate_gradients_solve_a_linear_system() -> None:
    # [[4, 1], [1, 3]] x = [1, 2] has the solution [1/11, 7/11]
    matrix, b = torch.tensor([[4.0, 1.0], [1.0, 3.0]]), torch.tensor([1.0, 2.0])
    torch.testing.assert_close(conjugate_gradient(matrix.mv, b, 2), torch.tensor([1.0, 7.0]) / 11.0)


@pytest.mark.parametrize("memory", ["none", "lstm"])
@pytest.mark.parametrize("actor", ["gaussian", "categorical"])
def test_a_trust_region_step_improves_the_surrogate_within_its_bound(memory: str, actor: str) -> None:
    ppo = learner(objective="trpo", desired_kl=0.005, memory=memory, epochs=1, actor=actor)
    log = filled(ppo, steps()).update()
    assert 0.00125 < log["kl"] <= 0.005  # the step of the bound, or half of it
    assert log["improvement"] > 0.0
    # A line search that finds nothing leaves the policy where it was.
    before = [p.detach().clone() for p in ppo._actor_params]
    whole = filled(ppo, steps(seed=1))._prepare()[0]
    flat = replace(whole.batch, advantage=torch.zeros_like(whole.advantage))
    assert ppo._trust_region_step(replace(whole, batch=flat))["step_scale"] == 0.0
    assert all(torch.equal(a, b) for a, b in zip(before, ppo._actor_params, strict=True))


@pytest.mark.parametrize("unit", [1e-30, 1e-8, 1.0, 1e25])
def test_advantages_are_standardized_in_any_unit(unit: float) -> None:
    share = shares(torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0]))
    value = unit * torch.tensor([1.0, 2.0, 3.0, 6.0, 1e4])  # mean 3, variance (4 + 1 + 0 + 9) / 4
    expected = torch.tensor([-2.0, -1.0, 0.0, 3.0]) / 3.5**0.5
    torch.testing.assert_close(standardized(value, share)[:4], expected)
    assert standardized(torch.full((5,), unit * 0.1), share).eq(0.0).all()


def test_the_steps_of_an_episode_before_its_simulation_diverged_are_not_learnt_from() -> None:
    rollout = RolloutBuffer(6, 1, 3, 1, 1, {}, (0, 0), torch.device("cpu"))
    rollout.terminated[[1, 4], [0, 0]] = True  # environment 0: steps 0-1 sound, 2-4 diverged, 5 goes on
    rollout.diverged[4, 0] = True
    rollout.truncated[3, 1] = True  # environment 1: steps 0-3 sound, 4-5 go on
    rollout.terminated[0, 2] = rollout.diverged[0, 2] = True  # environment 2: step 0 diverged
    expected = [[1, 1, 0], [1, 1, 1], [0, 1, 1], [0, 1, 1], [0, 1, 1], [1, 1, 1]]
    assert rollout.sound().int().tolist() == expected
