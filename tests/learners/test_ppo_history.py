"""PPO with a history: what it sees against stacks worked out from the stream, exported, mirrored, resumed."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from envs.environment import Observed, StepResult
from envs.registry import make_task
from envs.task import Mirror
from simreal import deploy
from simreal.export.bundle import export_bundle
from simreal.learners.base import LearnerSpec
from simreal.learners.history import HistoryLayout, HistoryPolicy
from simreal.learners.on_policy.actor_critic import make_policy
from simreal.learners.on_policy.ppo import PPO
from simreal.learners.on_policy.symmetry import mirrored_features
from simreal.learners.options import PPOConfig

N, NOBS, GOAL, PRIVILEGED, A = 3, 4, 1, 2, 2
SPEC = LearnerSpec(N, NOBS, A, GOAL, PRIVILEGED, None, torch.device("cpu"))


def learner(seed: int = 0, **settings: Any) -> PPO:
    small = {"actor_hidden": (8,), "critic_hidden": (8,), "horizon": 5, "minibatches": 2, "epochs": 2}
    return PPO(SPEC, PPOConfig.model_validate(small | {"observation_history": 3} | settings), seed)


def stream(seed: int) -> Iterator[StepResult]:
    """Steps of N environments that no action changes; episodes are 1 to a dozen steps long."""
    draw = torch.Generator().manual_seed(seed)

    def observed() -> Observed:
        privileged = torch.randn(N, PRIVILEGED, generator=draw)
        return Observed(torch.randn(N, NOBS, generator=draw), privileged, None, None)

    while True:
        final, begun = observed(), observed()
        terminated, truncated = (torch.rand(N, generator=draw) < 0.15 for _ in range(2))
        truncated &= ~terminated
        done, zero = terminated | truncated, torch.zeros(N, dtype=torch.int64)
        yield StepResult(
            observed=replace(begun, policy=torch.where(done[:, None], begun.policy, final.policy)), final=final,
            reward=torch.randn(N, generator=draw), terminated=terminated, truncated=truncated, success=done,
            diverged=torch.zeros_like(done), done=done, episode_return=torch.randn(N, generator=draw),
            episode_steps=zero, episode_successes=zero, terms={},
        )  # fmt: skip


class Remembering:
    """Episodes as they were, in lists: the stack of every environment from its definition."""

    def __init__(self, observations: int, actions: int) -> None:
        self.k, self.actions = observations, actions
        self.seen: list[list[Tensor]] = [[] for _ in range(N)]
        self.done: list[list[Tensor]] = [[] for _ in range(N)]

    def beside(self, present: Tensor) -> Tensor:
        rows = []
        for n in range(N):
            episode = [*self.seen[n], present[n]]
            before = [episode[max(len(episode) - 1 - j, 0)][: NOBS - GOAL] for j in range(self.k, 0, -1)]
            past = [torch.zeros(A)] * self.actions + self.done[n]
            rows.append(torch.cat([*before, *past[len(past) - self.actions :]]))
        return torch.stack(rows)

    def step(self, present: Tensor, action: Tensor, result: StepResult) -> None:
        for n in range(N):
            self.seen[n].append(present[n])
            self.done[n].append(action[n])
            if result.done[n]:
                self.seen[n], self.done[n] = [], []


@pytest.mark.parametrize(("observations", "actions", "horizon"), [(3, 0, 5), (2, 4, 4), (5, 0, 5), (0, 2, 6)])
def test_actor_and_critic_see_what_the_episode_has_shown(
    observations: int, actions: int, horizon: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"observation_history": observations, "action_history": actions, "horizon": horizon, "minibatches": 1}
    ppo = learner(normalize_observation=False, **settings)
    memory = Remembering(observations, max(observations, actions))
    shown: list[Tensor] = []
    forward = ppo.actor.forward
    monkeypatch.setattr(ppo.actor, "forward", lambda x, *rest: shown.append(x) or forward(x, *rest))
    results, observed = stream(7), next(stream(8)).final
    rollout: list[Tensor] = []
    finals: list[tuple[int, Tensor]] = []
    for step in range(6 * horizon):
        shown.clear()
        action = ppo.act(observed)
        result = next(results)
        seen = torch.cat((observed.policy, memory.beside(observed.policy)), dim=1)
        assert torch.equal(shown[0][0], seen)
        assert observed.privileged is not None
        rollout.append(torch.cat((seen, observed.privileged), dim=1))
        before = Remembering(memory.k, memory.actions)
        before.seen, before.done = [list(e) for e in memory.seen], [list(e) for e in memory.done]
        before.step(observed.policy, action, replace(result, done=torch.zeros(N, dtype=torch.bool)))
        memory.step(observed.policy, action, result)
        ppo.record(observed, action, result)
        if result.truncated.any():  # valued with the whole episode behind them
            assert result.final.privileged is not None
            x = torch.cat((result.final.policy, before.beside(result.final.policy), result.final.privileged), dim=1)
            value = ppo.critic.unscaled(ppo.critic(x[None], torch.zeros(N, 0))[0][0])
            row = ppo.rollout.final_value[step % horizon]
            torch.testing.assert_close(row[result.truncated], value[result.truncated])
            finals.append((step, value))
        observed = result.observed
        if ppo.ready():
            batch = ppo._prepare()[0].batch
            order = torch.randperm(batch.weight.shape[1])
            complete = ppo._complete(batch.shuffled(order))
            assert torch.equal(complete.observation[0], torch.cat(rollout)[order])
            rollout.clear()
            ppo.update()
    assert len(finals) > 3


def test_the_exported_policy_sees_what_the_learner_saw() -> None:
    ppo = learner()
    policy = ppo.policy
    assert isinstance(policy, HistoryPolicy)
    results, observed = stream(1), next(stream(2)).final
    state = policy.initial_state(N)
    for step in range(40):
        action = ppo.act(observed)
        result = next(results)
        t = ppo.rollout.time
        mode = ppo.actor(ppo._present(t)[None, :, : ppo._seen], torch.zeros(N, 0))[0].mode()[0]
        with torch.no_grad():
            played, _ = policy(observed.policy, state)
            normalized = policy.normalizer(observed.policy)
            state = policy.layout.after(state, normalized, action).masked_fill(result.done[:, None], 0.0)
        if step >= 10 and ppo.updates >= 2:  # in an earlier rollout the units of what is remembered changed on the way
            ages = ppo.stacks.age[t] if ppo.stacks is not None else torch.zeros(N)
            same = ages <= t  # what was remembered before the rollout has other units in this policy's state
            torch.testing.assert_close(played[same], mode[same], atol=1e-6, rtol=1e-5)
        ppo.record(observed, action, result)
        observed = result.observed
        if ppo.ready():
            ppo.update()


@pytest.mark.parametrize("settings", [{"observation_history": 3}, {"actor": "categorical", "action_history": 2}])
def test_the_bundle_remembers_as_the_policy_does(settings: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = PPOConfig.model_validate({"actor_hidden": (8,)} | settings)
    _, policy = make_policy(HistoryLayout.of(config, 4, 0, 1), 4, config, torch.device("cpu"))
    assert isinstance(policy, HistoryPolicy)
    policy.normalizer.update(torch.randn(50, 4) * 3.0 + 1.0)
    torch.nn.init.normal_(policy.network.actor.trunk.last.weight)
    loaded = deploy.Policy.load(export_bundle(policy, make_task("InvertedPendulum-v5"), tmp_path / "bundle"))
    for _ in range(2):  # two episodes
        loaded.reset()
        state = policy.initial_state(1)
        for observation in torch.randn(10, 1, 4, generator=torch.Generator().manual_seed(1)):
            with torch.no_grad():
                expected, state = policy(observation, state)
            torch.testing.assert_close(torch.from_numpy(loaded(observation.numpy())), expected, atol=1e-5, rtol=0.0)


@pytest.mark.parametrize("settings", [{}, {"objective": "trpo"}, {"actor": "categorical", "objective": "ppo_kl"}])
def test_before_the_first_gradient_step_every_ratio_is_1(settings: dict[str, Any]) -> None:
    ppo, results, observed = learner(**settings), stream(3), next(stream(4)).final
    for _ in range(3 * 5):
        action, result = ppo.act(observed), next(results)
        ppo.record(observed, action, result)
        observed = result.observed
        if ppo.ready():
            batch = ppo._prepare()[0].batch
            complete = ppo._complete(batch)
            log_prob = ppo._distribution(complete).log_prob(batch.action)
            torch.testing.assert_close(log_prob, batch.old_log_prob, atol=1e-5, rtol=1e-5)
            ppo.update()


def test_the_mirror_image_of_a_stack_mirrors_each_observation_and_action() -> None:
    spec = replace(SPEC, goal_size=0, mirror=Mirror((1, 0, 2, 3), (1.0, 1.0, -1.0, 1.0), (1, 0), (-1.0, 1.0)))
    settings = {"horizon": 4, "minibatches": 1, "observation_history": 2, "mirror_coef": 1.0}
    ppo = PPO(spec, PPOConfig.model_validate(settings), 0)
    ppo.network.normalizer.update(torch.randn(100, NOBS) * 2.0 + 1.0)
    assert ppo.stacks is not None
    assert spec.mirror is not None
    layout, normalizer = ppo.stacks.layout, ppo.network.normalizer
    observations, actions = torch.randn(3, 20, NOBS), torch.randn(2, 20, A)

    def seen(observations: Tensor, actions: Tensor) -> Tensor:
        return torch.cat((*(normalizer(o) for o in observations), *actions), dim=1)

    image = torch.stack((observations[..., 1], observations[..., 0], -observations[..., 2], observations[..., 3]), -1)
    expected = seen(image, torch.stack((-actions[..., 1], actions[..., 0]), -1))
    found = mirrored_features(seen(observations, actions), spec.mirror, normalizer, layout)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_resumed_learner_continues_bit_for_bit() -> None:
    first, results, observed = learner(), stream(5), next(stream(6)).final
    for _ in range(13):
        action, result = first.act(observed), next(results)
        first.record(observed, action, result)
        observed = result.observed
        if first.ready():
            first.update()
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = learner(seed=1)
    second.load_state_dict(torch.load(file, weights_only=True))
    for _ in range(17):
        actions, result = [ppo.act(observed) for ppo in (first, second)], next(results)
        assert torch.equal(*actions)
        for ppo, action in zip((first, second), actions, strict=True):
            ppo.record(observed, action, result)
        observed = result.observed
        if first.ready():
            assert first.update() == second.update()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"memory": "lstm", "segment": 5}, "observation_history: memory lstm remembers by itself"),
        ({"observation_history": 6}, r"observation_history: expected at most horizon \(5\), got 6"),
    ],
)
def test_what_a_history_does_not_go_with_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        learner(**settings)
