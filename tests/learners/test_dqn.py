"""DQN on discretized actions: targets and losses worked out by hand, exploration, restarts, and what it learns."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from conftest import TinyTask, build, snapshot
from envs.environment import Observed
from off_policy import dqn, random_batch, result_of, run
from simreal.deploy import Policy
from simreal.export.bundle import export_bundle
from simreal.learners.base import LearnerSpec
from simreal.learners.off_policy.dqn import DQN, DecoupledQ, GreedyActor, dqn_target, nearest_bin, value_of
from simreal.learners.options import DQNConfig


def test_a_target_is_worked_out_by_hand() -> None:
    # One state, two actuators of two bins. Critic 1 prefers bins (0, 1), critic 2 bins (1, 1).
    next_q = torch.tensor([[[[3.0, 1.0], [0.0, 2.0]]], [[[1.0, 2.0], [4.0, 5.0]]]])
    target_q = torch.tensor([[[[10.0, 20.0], [30.0, 40.0]]], [[[14.0, 28.0], [34.0, 48.0]]]])
    # their mean: [12, 24], [32, 44];  critic 1: (12 + 44) / 2 = 28, critic 2: (24 + 44) / 2 = 34
    reward, go_on = torch.tensor([1.0]), torch.zeros(1)
    assert dqn_target(reward, 0.5, go_on, next_q, target_q, None).tolist() == [[15.0], [18.0]]
    # after three steps the discount is 0.125: 1 + 28 / 8, 1 + 34 / 8
    assert dqn_target(reward, torch.tensor([0.125]), go_on, next_q, target_q, None).tolist() == [[4.5], [5.25]]
    assert dqn_target(reward, 0.5, torch.ones(1), next_q, target_q, None).tolist() == [[1.0], [1.0]]
    assert dqn_target(reward, 0.5, go_on, next_q, target_q, (-5.0, 16.0)).tolist() == [[15.0], [16.0]]


def test_the_best_of_all_joint_actions_is_found_actuator_by_actuator() -> None:
    q = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(0))
    joint = [torch.tensor(bins).expand(5, 3) for bins in itertools.product(range(4), repeat=3)]
    best = torch.stack([value_of(q, bins) for bins in joint]).amax(0)
    torch.testing.assert_close(value_of(q, q.argmax(-1)), best)
    torch.testing.assert_close(value_of(q, joint[7])[1, 2], (q[1, 2, 0, 0] + q[1, 2, 1, 1] + q[1, 2, 2, 3]) / 3)


def test_actions_are_taken_for_the_nearest_bin() -> None:
    given = torch.tensor([-1.0, -0.6, -0.4, 0.0, 0.49, 0.51, 1.0, 3.0])
    assert nearest_bin(given, 3).tolist() == [0, 0, 1, 1, 1, 2, 2, 2]
    for bins in (2, 3, 11, 255):
        actor = GreedyActor(DecoupledQ(1, 1, bins, (4,)))
        assert nearest_bin(actor.values, bins).tolist() == list(range(bins))


def test_an_update_follows_the_gradient_of_the_loss() -> None:
    learner, other = dqn(bins=5, huber=0.5, tau=0.25), dqn(bins=5)
    batch = random_batch()
    learner.q.load_state_dict(other.q.state_dict())
    learner.target_q.load_state_dict(DecoupledQ(3, 2, 5, (16, 16)).state_dict())
    other.target_q.load_state_dict(learner.target_q.state_dict())
    log = learner._update(batch)
    optimizer = torch.optim.Adam(other.q.parameters(), lr=3e-4)
    loss = torch.zeros(())
    for i in range(2):  # critic by critic, transition by transition
        for row in range(32):
            s, a, r, t, end = (value[row : row + 1] for value in list(vars(batch).values())[:5])
            with torch.no_grad():
                best = other.q(t)[i, 0].argmax(-1)  # [A]
                later = torch.stack([other.target_q(t)[:, 0, j, best[j]].mean() for j in range(2)]).mean()
                y = r + 0.98 * (1 - end) * later
            bins = ((a[0] + 1) * 2).round().long()
            q = torch.stack([other.q(s)[i, 0, j, bins[j]] for j in range(2)]).mean()
            loss = loss + functional.smooth_l1_loss(q[None], y, beta=0.5) * 0.5 / 32
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    assert float(log["loss"].detach()) == pytest.approx(float(loss.detach()), rel=1e-5)
    before = [p.clone() for p in other.target_q.parameters()]
    for mine, theirs, target, old in zip(
        learner.q.parameters(), other.q.parameters(), learner.target_q.parameters(), before, strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(target, old + 0.25 * (mine - old))


@pytest.mark.parametrize("settings", [{}, {"observation_history": 2, "average_updates": 5, "n_steps": 1}])
def test_a_restored_learner_has_the_same_future(settings: dict[str, int]) -> None:
    one, other = dqn(**settings), dqn(seed=1, **settings)
    run(one, 12)
    run(other, 3)
    other.load_state_dict(snapshot(one))
    for learner in (one, other):
        run(learner, 6, first=12)
    states = (one.state_dict(), other.state_dict())
    for name in ("policy", "target_q", "actor"):
        for a, b in zip(states[0][name].values(), states[1][name].values(), strict=True):
            assert torch.equal(a, b), name


def test_the_share_of_exploring_actuators_falls_after_the_warm_up() -> None:
    learner = dqn(warmup_steps=40, epsilon=0.2, epsilon_steps=160, bins=5)
    observed = Observed(torch.zeros(2, 3), None, None, None)
    shares = []
    for _ in range(400):
        shares.append(learner.epsilon())
        action = learner.act(observed)
        learner.record(observed, action, result_of(observed.policy, torch.zeros(2)))
    assert shares[:21] == [1.0] * 21  # 40 steps of two environments, and the first one after them
    assert shares[60] == pytest.approx(1.0 - 0.8 * 80 / 160)
    assert shares[100:] == [0.2] * 300
    actions = torch.cat([learner.act(observed) for _ in range(1500)])
    with torch.no_grad():
        best = learner.policy(observed.policy)[0]
    # a random bin is the best one in a fifth of the cases: 0.2 * 4 / 5 of the actuators do something else
    other = (actions != best).float().mean(0)
    assert float((other - 0.16).abs().max()) < 4.5 * (0.16 * 0.84 / len(actions)) ** 0.5
    assert set(actions.unique().tolist()) == {-1.0, -0.5, 0.0, 0.5, 1.0}


def test_a_bandit_whose_best_action_is_a_pair_of_bins_is_solved() -> None:
    """Reward 1 - |a - (0.5, -1)|^2 / 4, every episode one step long: additive over actuators, as the values are."""
    learner = dqn(bins=5, lr=3e-3, batch_size=64, warmup_steps=200)
    best = torch.tensor([0.5, -1.0])
    observed, over = Observed(torch.zeros(2, 3), None, None, None), torch.tensor([True, True])
    for _ in range(400):
        action = learner.act(observed)
        reward = 1.0 - (action - best).square().sum(1) / 4
        learner.record(observed, action, result_of(torch.zeros(2, 3), reward, terminated=over))
        if learner.ready():
            learner.update()
    with torch.no_grad():
        assert learner.policy(observed.policy)[0].tolist() == [0.5, -1.0]
        value = value_of(learner.q(torch.zeros(1, 3)), nearest_bin(best[None], 5))
    assert float((value - 1.0).abs().max()) < 0.1


def test_the_exported_graph_ends_in_the_bins_values(tmp_path: Path) -> None:
    spec = LearnerSpec(2, 3, 1, 0, 0, None, torch.device("cpu"))
    config = DQNConfig.model_validate({"hidden": [8], "bins": 4, "replay_size": 1, "observation_history": 1})
    learner, task = DQN(spec, config, seed=0), TinyTask()
    learner.network.normalizer.update(torch.randn(50, 3, generator=torch.Generator().manual_seed(0)))
    build(task, 1)
    export_bundle(learner.policy, task, tmp_path / "bundle")
    robot, policy = Policy.load(tmp_path / "bundle"), learner.policy
    state, taken = torch.zeros(1, 5), []
    for observation in torch.randn(30, 1, 3, generator=torch.Generator().manual_seed(5)) * 2:
        with torch.no_grad():
            action, state = policy(observation, state)
        taken.append(robot(observation[0].numpy()).tolist())
        np.testing.assert_allclose(taken[-1], action[0].numpy(), atol=1e-6)
    values = np.linspace(-1, 1, 4)
    assert {int(np.abs(values - value).argmin()) for (value,) in taken} > {0}
    np.testing.assert_allclose([np.abs(values - v).min() for (v,) in taken], 0.0, atol=1e-6)


def test_rows_in_which_rounding_would_decide_are_known() -> None:
    actor = GreedyActor(DecoupledQ(1, 2, 3, ()))
    with torch.no_grad():
        for weight, bias in zip(actor.q.net.weights, actor.q.net.biases, strict=True):
            weight.zero_()
            bias.copy_(torch.tensor([100.0, 99.9, 0.0, 5.0, 1.0, 0.0]).expand_as(bias))
    features = torch.zeros(2, 1)
    assert actor(features).tolist() == [[-1.0, -1.0]] * 2
    assert actor.undecided(1e-4, features).tolist() == [False, False]  # 0.1 apart, 0.01 would be too near
    assert actor.undecided(1e-2, features).tolist() == [True, True]
