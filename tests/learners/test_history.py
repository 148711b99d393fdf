"""What policies remember: in training, in batches from the replay and in the exported graph."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from conftest import TinyTask, build, snapshot
from envs.environment import Observed
from off_policy import run, sac
from simreal.deploy import Policy
from simreal.export.bundle import export_bundle
from simreal.learners.base import LearnerSpec
from simreal.learners.history import History, HistoryLayout, HistoryPolicy
from simreal.learners.normalizer import Normalizer
from simreal.learners.off_policy.base import OffPolicyLearner
from simreal.learners.off_policy.hindsight import Hindsight
from simreal.learners.off_policy.replay import HerReplayBuffer
from simreal.learners.off_policy.sac import SAC
from simreal.learners.off_policy.transitions import ReplayBatch
from simreal.learners.options import SACConfig

N, GAMMA, ORIGINAL = 2, 0.5, -1.0


def near(achieved: Tensor, desired: Tensor) -> Tensor:
    return -(achieved - desired).abs().sum(dim=-1)


def reached(achieved: Tensor, desired: Tensor) -> Tensor:
    return (achieved == desired).all(dim=-1)


@dataclass
class Step:
    """One step of one environment, as it was."""

    seen: list[float]  # environment, time; without the goal
    action: list[float]
    done: bool
    terminated: bool
    achieved: float
    state: list[float]  # that `History` had before it


class Stream:
    """Random episodes that go into a replay and into lists."""

    def __init__(self, layout: HistoryLayout, slots: int, seed: int, her_k: float = 4.0) -> None:
        self.replay = HerReplayBuffer(
            slots * N, N, 3, 2, 1, her_k=her_k, hindsight=Hindsight(near, reached) if her_k else None, history=layout
        )
        self.history = History(layout, N, torch.device("cpu"))
        self.generator = torch.Generator().manual_seed(seed)
        self.told: list[list[Step]] = [[] for _ in range(N)]

    def step(self) -> None:
        time = float(len(self.told[0]))
        env = torch.arange(float(N))
        seen = torch.stack((env, torch.full((N,), time), torch.full((N,), ORIGINAL)), dim=1)
        action = torch.rand(N, 2, generator=self.generator)
        terminated, truncated = torch.rand(2, N, generator=self.generator) < torch.tensor([[0.1], [0.15]])
        done = terminated | truncated
        achieved = (torch.rand(N, 1, generator=self.generator) * 4).floor() + 10.0 * env[:, None]
        for i in range(N):
            state = torch.cat(self.history.layout.before(self.history.state, seen), 1)[i]
            self.told[i].append(
                Step(seen[i, :2].tolist(), action[i].tolist(), bool(done[i]), bool(terminated[i]), float(achieved[i]),
                     state.tolist())
            )  # fmt: skip
        reward = near(achieved, seen[:, 2:])
        after = seen + torch.tensor([0.0, 0.5, 0.0])
        self.replay.add(seen, action, reward, after, terminated, done, achieved, success=torch.zeros(N).bool())
        self.history.advance(seen, action, done)


def begin(steps: list[Step], time: int) -> int:
    """The first step of the episode that a step belongs to."""
    while time > 0 and not steps[time - 1].done:
        time -= 1
    return time


def remembered(layout: HistoryLayout, steps: list[Step], time: int) -> list[float]:
    """What a policy remembers at the observation of a step, worked out one by one."""
    first = begin(steps, time)
    values: list[float] = []
    for back in range(layout.observations, 0, -1):
        values += steps[max(time - back, first)].seen
    for back in range(layout.actions, 0, -1):
        values += steps[time - back].action if time - back >= first else [0.0, 0.0]
    return values


def after(layout: HistoryLayout, steps: list[Step], time: int) -> list[float]:
    """What it remembers at the observation that a step led to."""
    open_ended = [replace(step, done=False) if i == time else step for i, step in enumerate(steps)]
    return remembered(layout, [*open_ended[: time + 1], open_ended[time]], time + 1)


LAYOUTS = [HistoryLayout(k, j, 2, 2) for k, j in ((0, 2), (1, 1), (3, 3), (2, 5))]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize(("slots", "length"), [(40, 30), (7, 25), (3, 20)])
@pytest.mark.parametrize("steps", [1, 3])
def test_batches_hold_what_a_plain_bookkeeping_of_the_stream_says(
    layout: HistoryLayout, slots: int, length: int, steps: int
) -> None:
    stream = Stream(layout, slots, seed=slots + steps)
    for _ in range(length):
        stream.step()
    for each in stream.told:
        for time, step in enumerate(each):
            assert step.state == remembered(layout, each, time)
    saved = snapshot(stream.replay)
    restored = Stream(layout, slots, seed=0).replay
    restored.load_state_dict(saved)
    batch = stream.replay.sample(600, torch.Generator().manual_seed(1), steps, GAMMA)
    again = restored.sample(600, torch.Generator().manual_seed(1), steps, GAMMA)
    assert {int(t) for t in batch.observation[:, 1]} == set(range(max(length - slots, 0), length))
    for i in range(150):
        check(layout, stream.told, batch, i, steps)
    for name, value in vars(batch).items():
        assert value is None or torch.equal(value, vars(again)[name]), name


def check(layout: HistoryLayout, told: list[list[Step]], batch: ReplayBatch, i: int, steps: int) -> None:
    """One transition of a batch, worked out by hand from the stream."""
    env, time, goal = (batch.observation[i, c].item() for c in range(3))
    each, at = told[int(env)], int(time)
    reward, discount, last, ended = 0.0, 1.0, at, False
    for last in range(at, at + steps):
        reward += discount * -abs(each[last].achieved - goal)
        discount *= GAMMA
        ended = each[last].achieved == goal or each[last].terminated
        if ended or each[last].done or last + 1 == len(each):
            break
    assert batch.reward[i].item() == pytest.approx(reward)
    assert batch.next_observation[i].tolist() == [env, last + 0.5, goal]
    assert bool(batch.terminated[i]) == ended
    assert batch.discount is None if steps == 1 else batch.discount[i].item() == discount  # pyright: ignore
    assert batch.state is not None
    assert batch.next_state is not None
    assert batch.state[i].tolist() == remembered(layout, each, at)
    assert batch.next_state[i].tolist() == after(layout, each, last)


def test_networks_see_earlier_observations_as_they_see_the_present_one() -> None:
    layout = HistoryLayout(2, 2, 2, 1)  # of three values the last is the goal
    normalizer = Normalizer(3, clip=4.0)
    normalizer.update(torch.tensor([[0.0, 10.0, 5.0], [2.0, 14.0, 9.0]]))  # mean 1, 12, 7; deviation 1, 2, 2
    history = History(layout, 1, torch.device("cpu"))
    seen = [torch.tensor([[float(t), 12.0 + 2 * t, 7.0]]) for t in range(4)]
    first = history.features(seen[0], normalizer)
    # (0 - 1) / 1, (12 - 12) / 2, goal 0; the first observation twice more, without the goal; no actions yet
    assert first.tolist() == [[-1.0, 0.0, 0.0, -1.0, 0.0, -1.0, 0.0, 0.0, 0.0]]
    for t in range(3):
        history.advance(seen[t], torch.tensor([[0.1 * (t + 1)]]), torch.tensor([False]))
    third = history.features(seen[3], normalizer)[0]
    torch.testing.assert_close(third, torch.tensor([2.0, 3.0, 0.0, 0.0, 1.0, 1.0, 2.0, 0.2, 0.3]))
    normalizer.update(torch.full((100, 3), 50.0))  # and with the statistics of the present
    again = history.features(seen[3], normalizer)[0]
    assert torch.equal(again[3:5], normalizer(seen[1])[0, :2])
    assert torch.equal(history.after(seen[3], torch.ones(1, 1))[0, -3:], torch.tensor([0.3, 1.0, 1.0]))
    history.advance(seen[3], torch.ones(1, 1), torch.tensor([True]))
    assert torch.equal(history.features(seen[0], normalizer)[0, 3:5], normalizer(seen[0])[0, :2])


def learner(history: int, actions: int) -> OffPolicyLearner:
    made = sac(observation_history=history, action_history=actions, hidden=(8,))
    made.network.normalizer.update(torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) * 3 + 1)
    return made


@pytest.mark.parametrize(("history", "actions"), [(3, 0), (2, 4), (0, 2)])
def test_the_policy_that_leaves_decides_as_the_one_that_learns(history: int, actions: int) -> None:
    made = learner(history, actions)
    policy = made.policy
    assert isinstance(policy, HistoryPolicy)
    generator, state = torch.Generator().manual_seed(3), policy.initial_state(2)
    for time in range(7):
        observed = Observed(torch.randn(2, 3, generator=generator), None, None, None)
        with torch.no_grad():
            expected = made.network.of_features(made._features(observed))
            action, state = policy(observed.policy, state)
        torch.testing.assert_close(action, expected)
        done = torch.tensor([time == 3, False])
        made.history.advance(observed.policy, action, done)
        state = torch.where(done[:, None], policy.initial_state(2), state)


def test_the_exported_graph_remembers_and_forgets_at_a_reset(tmp_path: Path) -> None:
    spec = LearnerSpec(2, 3, 1, 0, 0, None, torch.device("cpu"))
    made = SAC(
        spec,
        SACConfig.model_validate({"hidden": [8], "observation_history": 2, "action_history": 3, "replay_size": 1}),
        seed=0,
    )
    made.network.normalizer.update(torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) * 3 + 1)
    task, policy = TinyTask(), made.policy
    assert isinstance(policy, HistoryPolicy)
    build(task, 1)
    export_bundle(policy, task, tmp_path / "bundle")
    robot = Policy.load(tmp_path / "bundle")
    generator = torch.Generator().manual_seed(5)
    for _ in range(2):
        robot.reset()
        state = policy.initial_state(1)
        for _ in range(6):
            observation = torch.randn(1, 3, generator=generator)
            with torch.no_grad():
                action, state = policy(observation, state)
            np.testing.assert_allclose(robot(observation[0].numpy()), action[0].numpy(), atol=1e-5)


def test_a_learner_with_a_history_has_the_same_future_after_a_restart() -> None:
    one, other = (sac(seed=seed, observation_history=3) for seed in (0, 1))
    run(one, 15)
    run(other, 4)
    other.load_state_dict(snapshot(one))
    for made in (one, other):
        run(made, 6, first=15)
    for a, b in zip(one.policy.state_dict().values(), other.policy.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_history_takes_no_memory_but_for_the_past_of_the_oldest_transitions() -> None:
    none, some = (HerReplayBuffer(1000, 2, 3, 2, history=HistoryLayout(k, k, 3, 2)) for k in (0, 8))
    assert some._rows.shape[2] == none._rows.shape[2] == 3 + 3 + 2 + 2
    assert len(some._rows) == len(none._rows) + 8
