"""Critics of SAC, TD3 and DDPG that read what no robot measures, beside policies that do not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from test_hindsight import GoesOn, Relative, hindsight
from torch import Tensor

from conftest import snapshot
from envs.environment import Observed
from off_policy import PROBLEM, SMALL, Learner, result_of
from simreal.learners.off_policy.ddpg import DDPG
from simreal.learners.off_policy.hindsight import Hindsight
from simreal.learners.off_policy.replay import HerReplayBuffer
from simreal.learners.off_policy.sac import SAC
from simreal.learners.off_policy.td3 import TD3
from simreal.learners.off_policy.transitions import States
from simreal.learners.options import DDPGConfig, SACConfig, TD3Config

_MAKES: list[tuple[type[Any], type[Any]]] = [(DDPG, DDPGConfig), (SAC, SACConfig), (TD3, TD3Config)]


def make(learner: type[Any], options: type[Any], seed: int = 0, **settings: Any) -> Learner:
    """A learner of three observations, whose critics read two values more."""
    spec = replace(PROBLEM, privileged_size=2)
    return learner(spec, options(**(SMALL | {"privileged_critic": True} | settings)), seed)


def experience(learner: Learner, steps: int, first: int = 0, hidden: float | None = None) -> None:
    """Random steps of episodes of one step, paid by how near the first action is to the first hidden value."""
    for step in range(first, first + steps):
        generator = torch.Generator().manual_seed(step)
        here, there = torch.randn(2, 2, 3, generator=generator)
        secret = torch.randn(2, 2, generator=generator).sign() if hidden is None else torch.full((2, 2), hidden)
        observed = Observed(here, secret, None, None)
        action = learner.act(observed)
        result = result_of(there, -(action[:, 0] - 0.5 * secret[:, 0]).square(), terminated=torch.ones(2).bool())
        learner.record(observed, action, replace(result, final=Observed(there, secret, None, None)))
        if learner.ready():
            learner.update()


@pytest.mark.parametrize(("learner", "options"), _MAKES)
def test_the_policy_is_that_of_observations_and_critics_tell_apart_what_it_cannot(
    learner: type[Any], options: type[Any]
) -> None:
    exploration: dict[str, Any] = {"exploration_random": 1.0} if learner is DDPG else {}
    made = make(learner, options, hidden=(32, 32), **exploration)
    assert made.policy(torch.zeros(4, 3)).shape == (4, 2)
    seen = Observed(torch.zeros(2, 3), torch.zeros(2, 2), None, None)
    before = made.generator.get_state()
    one = made.act(seen)
    made.generator.set_state(before)
    assert torch.equal(one, made.act(replace(seen, privileged=torch.full((2, 2), 9.0))))
    experience(made, 1500)
    assert made.network.normalizer.mean.shape == (3,)
    assert made.privileged_normalizer.mean.shape == (2,)
    # Q(s, a) of a step that ends is its reward, -(a - h / 2)^2.
    action = torch.tensor([[0.5, 0.0], [-0.5, 0.0], [0.5, 0.0], [-0.5, 0.0]])
    secret = made.privileged_normalizer(torch.tensor([[1.0, 1.0], [1.0, 1.0], [-1.0, 1.0], [-1.0, 1.0]]))
    with torch.no_grad():
        q = made.critic(torch.cat((torch.zeros(4, 3), secret), dim=1), action).mean(0)
    assert q.tolist() == pytest.approx([0.0, -1.0, -1.0, 0.0], abs=0.2)


@pytest.mark.parametrize(("learner", "options"), _MAKES)
def test_the_first_step_of_critics_is_autograds(learner: type[Any], options: type[Any]) -> None:
    made = make(learner, options, observation_history=1)
    ready, made.ready = made.ready, lambda: False  # pyright: ignore[reportAttributeAccessIssue]
    experience(made, 40)
    made.ready = ready  # pyright: ignore[reportAttributeAccessIssue]
    made.updates_due = 1.0
    begun = made.draw()
    before, weights = made.generator.get_state(), list(made.critic.parameters())
    made.put_back(begun)
    batch = made.held.apart(made.replay.sample(32, made.generator), made.privileged_normalizer)
    made.generator.set_state(before)
    assert batch.state is not None
    assert batch.privileged is not None
    features = made.history.layout.features(batch.observation, batch.state, made.network.normalizer)
    assert features.shape == (32, 3 + 3 + 2)  # the observation, the one before it, the action since
    # Every step ends its episode: the target is the reward.
    q = made.critic(torch.cat((features, batch.privileged), dim=1), batch.action)
    expected = torch.autograd.grad((q - batch.reward).square().sum(0).mean(), weights)
    got: list[Tensor] = []
    made.critic_optimizer.step = lambda gradients=None: got.extend(g.clone() for g in gradients or ())
    made.begin(begun)
    made.update()
    assert len(got) == len(expected)
    for found, wanted in zip(got, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("learner", "options"), _MAKES)
def test_a_restored_learner_has_the_same_future(learner: type[Any], options: type[Any]) -> None:
    one = make(learner, options)
    experience(one, 20)
    saved = snapshot(one)
    restored = make(learner, options, seed=3)
    experience(restored, 3)
    restored.load_state_dict(saved)
    for each in (one, restored):
        experience(each, 5, first=20)
    for part in ("policy", "critic", "privileged_normalizer"):
        ours, theirs = (each.state_dict()[part] for each in (one, restored))
        assert all(torch.equal(value, theirs[name]) for name, value in ours.items()), part


def test_a_relabelled_goal_leaves_the_privileged_group_as_it_is() -> None:
    rule, states = hindsight(Relative), States(3, 2, 1)
    replay = HerReplayBuffer(100, 1, states.size, 1, 1, her_k=1e9, hindsight=states.widened(rule))
    no = torch.zeros(1, dtype=torch.bool)
    for at in (0.0, 0.25, 0.5):
        here, there = (
            states.of(Observed(torch.tensor([[(2 - x) / 2, x, 2 - x, 2.0]]), torch.tensor([[7.0, x]]), None, None))
            for x in (at, at + 0.25)
        )
        replay.add(here, torch.zeros(1, 1), torch.zeros(1), there, no, no, torch.tensor([[at + 0.25]]))
    batch = replay.sample(500, torch.Generator().manual_seed(0))
    assert set(batch.observation[:, -1].tolist()) == {0.25, 0.5, 0.75}
    for seen in (batch.observation, batch.next_observation):
        observation, privileged = states.split(seen)
        half, position, way, goal = observation.T
        torch.testing.assert_close(way, goal - position)
        torch.testing.assert_close(half, way / 2)
        assert torch.equal(privileged[:, 1], position)
        assert bool(privileged[:, 0].eq(7.0).all())


class Tells(GoesOn):
    """Its privileged group has what stays, and then the way to the goal."""

    observation = (
        *GoesOn.observation,
        replace(GoesOn.observation[0], name="truth", group="privileged"),
        replace(GoesOn.observation[0], name="true_way", group="privileged"),
    )

    def observe_privileged(self) -> Tensor:
        return torch.cat((self.qpos, self.goal - self.qpos), dim=1)


def test_a_privileged_group_that_follows_the_goal_is_not_read_with_hindsight() -> None:
    found: Hindsight = hindsight(Tells)
    assert found.blocks_privileged == "true_way"
    assert hindsight(Relative).blocks_privileged is None
    spec = replace(PROBLEM, goal_size=1, privileged_size=2, hindsight=found)
    for her_k, refused in ((4.0, True), (0.0, False)):
        config = DDPGConfig(**SMALL, privileged_critic=True, her_k=her_k)
        if refused:
            with pytest.raises(ValueError, match=r"'true_way' of the privileged group follows from the goal.*her_k"):
                DDPG(spec, config, 0)
        else:
            DDPG(replace(spec, hindsight=None), config, 0)  # as training gives none then


def test_where_there_is_nothing_to_read_it_is_refused() -> None:
    with pytest.raises(ValueError, match="privileged_critic: this task has no privileged group and nothing is random"):
        DDPG(PROBLEM, DDPGConfig(**SMALL, privileged_critic=True), 0)
