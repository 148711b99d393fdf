"""SAC, TD3 and DDPG over many steps: what is learnt from, schedules, averages, the same future after a restart."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import snapshot
from envs.environment import Observed, StepResult
from off_policy import Learner, ddpg, result_of, run, sac, td3
from simreal.learners.adam import Adam
from simreal.learners.off_policy.sac import SAC
from simreal.learners.off_policy.transitions import ReplayBatch, normalized


@pytest.mark.parametrize("settings", [{}, {"average_updates": 7}, {"lr_schedule": "linear", "total_steps": 60}])
@pytest.mark.parametrize("create", [ddpg, sac, td3])
def test_the_same_seed_gives_the_same_weights_and_a_restored_learner_the_same_future(
    create: Any, settings: dict[str, Any]
) -> None:
    def weights(learner: Learner) -> list[Tensor]:
        modules = (learner.policy, learner.network, learner.critic)
        return [value.clone() for module in modules for value in module.state_dict().values()]

    make = partial(create, **settings)
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


@pytest.mark.parametrize("make", [ddpg, sac, td3])
def test_linear_step_sizes_fall_to_zero_from_the_end_of_the_warm_up_to_that_of_the_run(make: Any) -> None:
    learner: Learner = make(lr_schedule="linear", total_steps=28, warmup_steps=8)
    optimizers = [value for value in vars(learner).values() if isinstance(value, Adam)]
    assert len(optimizers) == (3 if isinstance(learner, SAC) else 2)
    begun = [optimizer.lr for optimizer in optimizers]
    observed = Observed(torch.zeros(2, 3), None, None, None)
    for _ in range(3):
        learner.record(observed, learner.act(observed), result_of(torch.zeros(2, 3), torch.zeros(2)))
    for step in range(3, 14):
        run(learner, 1, first=step)
        rates = [optimizer.lr for optimizer in optimizers]
        assert rates == pytest.approx([rate * (13 - step) / 10 for rate in begun])
    before = [p.detach().clone() for p in learner.network.parameters()]
    run(learner, 2, first=14)  # beyond the end nothing moves
    assert all(torch.equal(a, b) for a, b in zip(before, learner.network.parameters(), strict=True))
    longer: Learner = make(lr_schedule="linear", total_steps=56, warmup_steps=8)
    longer.load_state_dict(snapshot(learner))  # a run that has ended goes on to another end
    run(longer, 1, first=16)
    resumed = [value for value in vars(longer).values() if isinstance(value, Adam)]
    left = (56 - longer.steps) / (56 - 8)
    assert 0 < left < 1
    assert [o.lr for o in resumed] == pytest.approx([rate * left for rate in begun])
    with pytest.raises(ValueError, match="number of steps"):
        make(lr_schedule="linear")


@pytest.mark.parametrize("history", [0, 2])
@pytest.mark.parametrize("make", [ddpg, sac, td3])
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


@pytest.mark.parametrize("make", [ddpg, sac, td3])
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
    for _ in range(2):
        learner.record(Observed(here, None, None, None), torch.zeros(2, 2), unsound)
    batch = learner.replay.sample(1000, torch.Generator().manual_seed(0))
    assert set(batch.reward.tolist()) == {0.5, 0.25}


@pytest.mark.parametrize("make", [ddpg, sac, td3])
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
    learner.replay.lag = 0  # what was recorded counts at once
    batch = learner.replay.sample(300, torch.Generator().manual_seed(0))
    assert set(batch.reward.tolist()) == set(expected)
    for row, reward in enumerate(batch.reward.tolist()):
        before, after = expected[reward]
        assert batch.state is not None
        assert batch.next_state is not None
        torch.testing.assert_close(batch.state[row], torch.tensor(before))
        torch.testing.assert_close(batch.next_state[row], torch.tensor(after))
        assert batch.observation[row].tolist() == [reward % 10] * 3
    learner.update()


@pytest.mark.parametrize("make", [ddpg, sac, td3])
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


@pytest.mark.parametrize("make", [ddpg, sac, td3])
def test_a_bandit_with_a_known_best_action_is_solved(make: Any) -> None:
    """Reward -4 |a - (0.5, -0.25)|^2, every episode one step long; it takes the critic and both signs of the policy."""
    settings: dict[str, Any] = {"actor_lr": 1e-3, "critic_lr": 3e-3, "batch_size": 64, "warmup_steps": 200}
    learner: Learner = make(**settings, **({"initial_alpha": 0.01} if make is sac else {"action_penalty": 0.0}))
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


@pytest.mark.parametrize("make", [ddpg, sac, td3])
def test_without_normalization_networks_see_si_units_and_statistics_are_kept(make: Any) -> None:
    learner = make(normalize_observation=False, observation_clip=1.0)
    run(learner, 20)
    seen = torch.tensor([[30.0, -2.0, 0.5], [-7.0, 0.1, 12.0]])
    with torch.no_grad():
        assert torch.equal(learner.policy(seen), learner.network.actor(seen))
    stored = learner.replay.sample(500, torch.Generator().manual_seed(0)).observation
    assert torch.equal(normalized(ReplayBatch(stored, *[stored] * 4), learner.network.normalizer).observation, stored)
    assert float(learner.network.normalizer.count) == 20  # of two environments' 20 steps half still wait
    assert float(learner.network.normalizer.mean.abs().min()) > 0
