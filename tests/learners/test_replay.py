"""HerReplayBuffer with hindsight: what may be sampled, which goals it may be relabelled with, and how often."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from conftest import snapshot
from simreal.learners.normalizer import Normalizer
from simreal.learners.off_policy.hindsight import Hindsight
from simreal.learners.off_policy.replay import HerReplayBuffer
from simreal.learners.off_policy.transitions import ReplayBatch, normalized

ORIGINAL = -1.0  # the goal that every episode is played for; no achieved goal has this value


def reward_of(achieved: Tensor, desired: Tensor) -> Tensor:
    """0 where the goal is reached, else minus the distance: it says which goal it was computed for."""
    return -(achieved - desired).abs().sum(dim=-1)


def code(env: Tensor, time: Tensor) -> Tensor:
    """A number that says which step of which environment it came from; it is the goal achieved by that step."""
    return 1000.0 * env + time


class Story:
    """Feeds a replay with transitions that can be told apart.

    Observation [env, time, goal], next observation [env, time + 0.5, goal], action [env + time], achieved goal `code`.
    """

    def __init__(self, replay: HerReplayBuffer) -> None:
        self.replay, self.time = replay, 0

    def step(self, ended: str = "", diverged: str = "") -> None:
        """One step; `ended` and `diverged` name environments: "t0" or "x1" is truncated 0, terminated 1."""
        n = self.replay.num_envs
        env, time = torch.arange(float(n)), torch.full((n,), float(self.time))
        goal = torch.full((n,), ORIGINAL)
        marks = ended.split()
        truncated = torch.tensor([f"t{i}" in marks for i in range(n)])
        terminated = torch.tensor([f"x{i}" in marks for i in range(n)])
        achieved = code(env, time)[:, None]
        self.replay.add(
            observation=torch.stack((env, time, goal), dim=1),
            action=(env + time)[:, None],
            reward=reward_of(achieved, goal[:, None]),
            next_observation=torch.stack((env, time + 0.5, goal), dim=1),
            terminated=terminated,
            done=truncated | terminated,
            achieved_goal=achieved,
            diverged=torch.tensor([str(i) in diverged.split() for i in range(n)]),
        )
        self.time += 1


def new_replay(capacity: int, num_envs: int, her_k: float = 4.0) -> HerReplayBuffer:
    return HerReplayBuffer(capacity, num_envs, 3, 1, goal_size=1, her_k=her_k, hindsight=Hindsight(reward_of))


def draw(replay: HerReplayBuffer, size: int = 20_000, seed: int = 0) -> ReplayBatch:
    return replay.sample(size, torch.Generator().manual_seed(seed))


def origins(batch: ReplayBatch) -> set[tuple[int, int]]:
    """(environment, time) of the transitions in a batch."""
    return {(int(e), int(t)) for e, t in batch.observation[:, :2].tolist()}


def relabellings(batch: ReplayBatch) -> set[tuple[int, int, int]]:
    """(environment, time, time at which the new goal was achieved) of the relabelled transitions."""
    chosen = batch.observation[:, 2] != ORIGINAL
    rows = batch.observation[chosen]
    assert torch.equal(rows[:, 2] // 1000, rows[:, 0]), "a goal of another environment"
    return {(int(e), int(t), int(g % 1000)) for e, t, g in rows.tolist()}


def test_goals_come_from_the_rest_of_the_same_episode_the_present_step_included() -> None:
    # env 0: steps 0-2 (truncated), 3-5 (terminated), 6 goes on;  env 1: steps 0-3 (truncated), 4-6 go on
    story = Story(new_replay(100, 2))
    for mark in ("", "", "t0", "t1", "", "x0", ""):
        story.step(mark)
    ends = {0: [2, 2, 2, 5, 5, 5, 6], 1: [3, 3, 3, 3, 6, 6, 6]}
    allowed = {(e, t, f) for e in (0, 1) for t in range(7) for f in range(t, ends[e][t] + 1)}
    batch = draw(story.replay)
    assert relabellings(batch) == allowed  # each of them occurs, and no other
    assert origins(batch) == {(e, t) for e in (0, 1) for t in range(7)}


def test_a_relabelled_transition_has_its_new_goal_in_both_observations_and_the_reward_of_that_goal() -> None:
    story = Story(new_replay(100, 2))
    for mark in ("", "", "", "t0 t1"):
        story.step(mark)
    batch = draw(story.replay, 2000)
    env, time, goal = batch.observation.T
    assert torch.equal(batch.next_observation, torch.stack((env, time + 0.5, goal), dim=1))
    assert torch.equal(batch.action[:, 0], env + time)
    # e.g. env 1, time 1, relabelled with step 3: achieved 1001, goal 1003, reward -2; not relabelled: -(1001 + 1)
    assert torch.equal(batch.reward, -(code(env, time) - goal).abs())
    example = (env == 1) & (time == 1)
    assert set(batch.reward[example].tolist()) == {0.0, -1.0, -2.0, -1002.0}


@pytest.mark.parametrize("her_k", [0.0, 1.0, 4.0])
def test_a_share_of_k_in_k_plus_one_is_relabelled_evenly_over_the_future(her_k: float) -> None:
    story = Story(new_replay(100, 2, her_k))
    for mark in ("", "", "", "", "t0 t1"):
        story.step(mark)
    n = 40_000
    batch = draw(story.replay, n)
    chosen = batch.observation[:, 2] != ORIGINAL
    share = her_k / (her_k + 1.0)
    assert abs(float(chosen.float().mean()) - share) <= 4.5 * (share * (1 - share) / n) ** 0.5
    if her_k == 0.0:
        return
    # of the first step's five futures (0 to 4) each is as likely
    goals = batch.observation[chosen & (batch.observation[:, 1] == 0), 2] % 1000
    count = torch.bincount(goals.long(), minlength=5) / len(goals)
    assert float((count - 0.2).abs().max()) < 4.5 * (0.2 * 0.8 / len(goals)) ** 0.5
    # and every transition is as likely: 10 of them
    picked = torch.bincount((5 * batch.observation[:, 0] + batch.observation[:, 1]).long()) / n
    assert float((picked - 0.1).abs().max()) < 4.5 * (0.1 * 0.9 / n) ** 0.5


def test_the_ring_forgets_the_oldest_steps_and_keeps_futures_right() -> None:
    # 4 slots of 2 environments, 10 steps: only 6 to 9 are held. Env 0's episode 5-7 began before; env 1's never ends.
    story = Story(new_replay(8, 2))
    for step in range(10):
        story.step({4: "t0", 7: "t0"}.get(step, ""))
    assert len(story.replay) == 8
    batch = draw(story.replay)
    assert origins(batch) == {(e, t) for e in (0, 1) for t in (6, 7, 8, 9)}
    ends = {0: {6: 7, 7: 7, 8: 9, 9: 9}, 1: dict.fromkeys((6, 7, 8, 9), 9)}
    assert relabellings(batch) == {(e, t, f) for e in (0, 1) for t in (6, 7, 8, 9) for f in range(t, ends[e][t] + 1)}


def test_an_episode_longer_than_the_ring_is_closed_within_it() -> None:
    story = Story(new_replay(3, 1))
    for step in range(8):
        story.step("t0" if step == 6 else "")
    # held: 5, 6 (the end of an episode that began at 0) and 7 (a new one)
    assert relabellings(draw(story.replay)) == {(0, 5, 5), (0, 5, 6), (0, 6, 6), (0, 7, 7)}


@pytest.mark.parametrize("seed", range(4))
def test_random_histories_agree_with_a_plain_bookkeeping_of_episodes(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    n, slots, steps = 3, 7, 12 + seed
    replay = new_replay(slots * n, n)
    story = Story(replay)
    end = [[steps - 1] * steps for _ in range(n)]
    start = [0] * n
    for t in range(steps):
        done = [i for i in range(n) if float(torch.rand(1, generator=generator)) < 0.3]
        story.step(" ".join(f"t{i}" for i in done))
        for i in done:
            for s in range(start[i], t + 1):
                end[i][s] = t
            start[i] = t + 1
    held = range(steps - slots, steps)
    assert relabellings(draw(replay)) == {(i, t, f) for i in range(n) for t in held for f in range(t, end[i][t] + 1)}


def test_episodes_that_diverged_are_never_sampled() -> None:
    story = Story(new_replay(100, 2))
    story.step("x1")
    story.step()
    story.step("x1", diverged="1")
    story.step()
    batch = draw(story.replay, 5000)
    assert len(batch.reward) == 5000
    # the step before the simulation was noticed to be unstable goes with it; the episode before stays
    assert origins(batch) == {(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 3)}
    # a slot that is overwritten by a sound transition may be sampled again
    small = Story(new_replay(2, 1))
    small.step("x0", diverged="0")
    small.step()
    assert origins(draw(small.replay, 500)) == {(0, 1)}
    small.step()
    assert origins(draw(small.replay, 500)) == {(0, 1), (0, 2)}


def test_a_replay_without_a_sound_transition_says_so() -> None:
    story = Story(new_replay(10, 1))
    story.step("x0", diverged="0")
    assert not story.replay.sound()
    with pytest.raises(RuntimeError, match="no valid transition"):
        draw(story.replay, 4)


def test_experience_counts_when_its_simulation_stayed_sound_for_a_while() -> None:
    replay = HerReplayBuffer(100, 1, 3, 1, goal_size=1, lag=4)
    story, counted = Story(replay), []
    for _ in range(12):
        story.step()
        counted += replay.ripened()[:, 1].tolist()
    assert {time for _, time in origins(draw(replay, 2000))} == set(range(8))  # of 12, the last four wait
    assert counted == list(range(8))  # each once, in order
    story.step("x0", diverged="0")
    for _ in range(5):
        story.step()
        counted += replay.ripened()[:, 1].tolist()
    assert counted == [*range(8), 13]  # what had waited is not counted any more; 14 to 17 wait now
    assert {time for _, time in origins(draw(replay, 2000))} == {13}


def test_the_first_experience_counts_at_once() -> None:
    replay = HerReplayBuffer(100, 1, 3, 1, goal_size=1, lag=4)
    story = Story(replay)
    for ripe in (1, 1, 2, 2, 3, 3, 4, 4, 5):
        story.step()
        assert {time for _, time in origins(draw(replay, 500))} == set(range(ripe))


def test_a_truncated_episode_is_not_a_terminated_one() -> None:
    story = Story(new_replay(100, 3))
    for mark in ("", "t0 x1", ""):
        story.step(mark)
    batch = draw(story.replay)
    env, time = batch.observation[:, 0], batch.observation[:, 1]
    assert torch.equal(batch.terminated, ((env == 1) & (time == 1)).float())


def test_a_task_without_goals_is_replayed_as_it_was() -> None:
    replay = HerReplayBuffer(10, 1, 2, 1)
    replay.add(
        torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5]]), torch.tensor([3.0]), torch.tensor([[4.0, 5.0]]),
        torch.tensor([True]), torch.tensor([True]),
    )  # fmt: skip
    batch = draw(replay, 2)
    assert batch.observation.tolist() == [[1.0, 2.0]] * 2
    assert batch.next_observation.tolist() == [[4.0, 5.0]] * 2
    assert (batch.action.tolist(), batch.reward.tolist(), batch.terminated.tolist()) == (
        [[0.5]] * 2,
        [3.0] * 2,
        [1.0] * 2,
    )
    with pytest.raises(ValueError, match="needs a goal task"):
        HerReplayBuffer(10, 1, 2, 1, her_k=4.0)


def test_a_restored_replay_gives_the_same_batches_now_and_later() -> None:
    marks = ["", "t0", "x1", "", "", "t0", "", "", "t0 t1"]
    story = Story(new_replay(12, 2))
    for mark in marks[:8]:
        story.step(mark, diverged="1" if "x1" in mark else "")
    generator = torch.Generator().manual_seed(3)
    story.replay.sample(10, generator)
    saved, random = snapshot(story.replay), generator.get_state()
    expected = [story.replay.sample(200, generator)]
    story.step(marks[8])
    expected.append(story.replay.sample(200, generator))

    other = Story(new_replay(12, 2))
    other.time = story.time - 1
    other.replay.load_state_dict(saved)
    generator = torch.Generator()
    generator.set_state(random)
    got = [other.replay.sample(200, generator)]
    other.step(marks[8])
    got.append(other.replay.sample(200, generator))
    for a, b in zip(expected, got, strict=True):
        for name, value in vars(a).items():
            assert value is None or torch.equal(value, vars(b)[name]), name


def test_observations_reach_the_networks_normalized_and_nothing_else_changes() -> None:
    normalizer = Normalizer(1, clip=2.0)
    normalizer.update(torch.tensor([[1.0], [3.0]]))  # mean 2, standard deviation 1
    column = torch.tensor([[2.5], [9.0]])
    batch = ReplayBatch(column, column, column[:, 0], column - 2.0, torch.zeros(2))
    seen = normalized(batch, normalizer)
    assert seen.observation.tolist() == [[0.5], [2.0]]
    assert seen.next_observation.tolist() == [[-1.5], [2.0]]
    assert torch.equal(seen.action, column)
    assert torch.equal(seen.reward, column[:, 0])
