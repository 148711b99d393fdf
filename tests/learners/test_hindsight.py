"""What follows from the goal is found out by experiment, and refused where it does not show."""

from __future__ import annotations

from typing import Any

import mujoco
import pytest
import torch
from torch import Tensor

from conftest import build
from envs.environment import Environment
from envs.registry import TaskError
from envs.task import ActionComponent, Component, Outcome, Task
from simreal.learners.history import HistoryLayout
from simreal.learners.off_policy.hindsight import Hindsight, find_out
from simreal.learners.off_policy.replay import HerReplayBuffer
from simreal.training.build import make_environment, make_learner
from simreal.training.run_config import RunConfig

MODEL = """<mujoco><option timestep="0.02" gravity="0 0 0"/><worldbody><body>
<joint name="x" type="slide" axis="1 0 0" damping="5"/><geom size="0.05" mass="1" contype="0" conaffinity="0"/>
</body></worldbody><actuator><motor joint="x" gear="10"/></actuator></mujoco>"""


class Reach(Task):
    """A mass on a rail goes to where the goal says, +-0.1 m; subclasses differ in what follows from it."""

    id = "Reach-v0"
    decimation, max_episode_steps, goal_size = 2, 25, 1
    observation = (Component("position", 1, "m"), Component("desired_goal", 1, "m", measured=False))
    action = (ActionComponent("force", 1, "N", (10.0,), (0.0,)),)

    def __init__(self) -> None:
        self.model = mujoco.MjModel.from_xml_string(MODEL)

    def on_attach(self) -> None:
        self.qpos = self.engine.data("qpos")
        self.held = torch.zeros(self.engine.num_envs)

    def reset(self, mask: Tensor) -> None:
        self.held = self.held.masked_fill(mask, 0.0)
        self.goal.copy_(torch.where(mask[:, None], 2.0 * self.rng.episode_uniform("goal", 1) - 1.0, self.goal))

    def command(self, action: Tensor) -> Tensor:
        return action

    def observe(self) -> Tensor:
        return torch.cat((self.qpos, self.goal), 1)

    def achieved_goal(self) -> Tensor:
        return self.qpos.clone()

    def goal_success(self, achieved: Tensor, desired: Tensor) -> Tensor:
        return (achieved - desired).abs()[..., 0] < 0.1

    def goal_reward(self, achieved: Tensor, desired: Tensor) -> Tensor:
        return self.goal_success(achieved, desired).double()

    def reached(self) -> Tensor:
        return self.goal_success(self.qpos, self.goal)

    def ends(self) -> Tensor:
        return self.reached()

    def outcome(self, action: Tensor) -> Outcome:
        return Outcome(self.reached().double(), self.ends(), self.reached())


class GoesOn(Reach):
    def ends(self) -> Tensor:
        return torch.zeros_like(self.reached())


class Falls(Reach):
    """Episodes end at the goal and, wherever that is, beyond 0.02 m."""

    def ends(self) -> Tensor:
        return self.reached() | (self.qpos[:, 0].abs() > 0.02)


class Sticky(Reach):
    """Once reached, for ever reached."""

    def ends(self) -> Tensor:
        self.held = torch.maximum(self.held, self.reached().float())
        return self.held > 0


class Holds(Reach):
    """Ends when the goal was held for five steps: that does not follow from one step."""

    def ends(self) -> Tensor:
        self.held = (self.held + 1) * self.reached()
        return self.held >= 5


class Nearer(Reach):
    """Ends within 0.01 m, where success asks for 0.1 m."""

    def ends(self) -> Tensor:
        return (self.qpos - self.goal).abs()[:, 0] < 0.01


class Stated(Nearer):
    def goal_terminated(self, achieved: Tensor, desired: Tensor) -> Tensor:
        return (achieved - desired).abs()[..., 0] < 0.01


class Misstated(Nearer):
    def goal_terminated(self, achieved: Tensor, desired: Tensor) -> Tensor:
        return (achieved - desired).abs()[..., 0] < 0.2


class Tired(GoesOn):
    """The action costs; that does not follow from the goal."""

    def outcome(self, action: Tensor) -> Outcome:
        return Outcome(self.reached().double() - 0.25 * action[:, 0].abs(), self.ends(), self.reached())


class Bonus(Tired):
    """Pays more for the goal than goal_reward says."""

    def outcome(self, action: Tensor) -> Outcome:
        return Outcome(3.0 * self.reached(), self.ends(), self.reached())


class Relative(GoesOn):
    """Shows the way to the goal, and its half, which is computed from that."""

    observation = (
        Component("half", 1, "m", derived_from=("way",)), Component("position", 1, "m"),
        Component("way", 1, "m", derived_from=("position", "desired_goal")),
        Component("desired_goal", 1, "m", measured=False),
    )  # fmt: skip

    def observe(self) -> Tensor:
        way = self.goal - self.qpos
        return torch.cat((way / 2, self.qpos, way, self.goal), 1)

    def derive(self, observation: Tensor) -> Tensor:
        observation[:, 2] = observation[:, 3] - observation[:, 1]
        observation[:, 0] = observation[:, 2] / 2
        return observation


class Silent(Relative):
    observation = (Relative.observation[0], *Reach.observation[:1], Component("way", 1, "m"), Reach.observation[1])


class Underived(Relative):
    def derive(self, observation: Tensor) -> Tensor:
        return observation


class Narrow(Relative):
    """Derives for its own environments only."""

    def derive(self, observation: Tensor) -> Tensor:
        observation[:, 2] = (self.goal - self.qpos)[:, 0]
        return observation


def hindsight(task: type[Task], **options: Any) -> Hindsight:
    def make() -> Environment:
        return build(task(**options), 4)

    return find_out(make().task, make(), make())


@pytest.mark.parametrize(
    ("task", "ends"),
    [(Reach, [True, False]), (Falls, [True, False]), (Sticky, [True, False]), (GoesOn, [False] * 2)],
)
def test_which_goals_end_episodes_shows_when_they_are_tried(task: type[Task], ends: list[bool]) -> None:
    assert hindsight(task).terminated(torch.tensor([[0.3], [0.3]]), torch.tensor([[0.35], [0.9]])).tolist() == ends


def test_a_task_may_state_which_goals_end_episodes() -> None:
    rule = hindsight(Stated).terminated
    assert rule(torch.tensor([[0.3], [0.3]]), torch.tensor([[0.305], [0.35]])).tolist() == [True, False]


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (Holds, "implement goal_terminated"),
        (Nearer, "implement goal_terminated"),
        (Misstated, "goal_terminated says otherwise than its outcome"),
        (Bonus, "with another goal its reward is 3 where goal_reward says"),
        (Silent, "component 'half' follows the goal and does not say so"),
        (Underived, "component 'half' follows the goal otherwise than derive says"),
        (Narrow, "its derive does not take"),
    ],
)
def test_what_does_not_show_or_contradicts_itself_is_refused_in_one_line(task: type[Task], said: str) -> None:
    with pytest.raises(ValueError, match=said) as error:
        hindsight(task)
    assert "\n" not in str(error.value)
    assert "her_k" in str(error.value)


def replay_of(rule: Hindsight, observation_size: int, history: HistoryLayout | None = None) -> HerReplayBuffer:
    """One that relabels nearly always, for one environment."""
    return HerReplayBuffer(100, 1, observation_size, 1, 1, her_k=1e9, hindsight=rule, history=history)


def test_a_relabelled_transition_ends_where_its_new_goal_is_reached_or_for_other_reasons() -> None:
    replay = replay_of(hindsight(Falls), 2)
    #        position, goal -> position; ended, reward
    for at, to, ended in ((0.0, 0.4, False), (0.4, 0.7, False), (0.7, 1.0, True)):
        observed = torch.tensor([[at, 5.0]]), torch.tensor([[to, 5.0]])
        over = torch.tensor([ended])
        replay.add(observed[0], torch.zeros(1, 1), torch.zeros(1), observed[1], over, over, torch.tensor([[to]]))
    batch = replay.sample(2000, torch.Generator().manual_seed(0))
    rows = torch.stack((batch.next_observation[:, 0], batch.observation[:, 1], batch.reward, batch.terminated), 1)
    # reached, goal, reward, terminated: the fall at 1.0 ends the episode whatever the goal, and is its own goal here
    expected = {(0.4, 0.4, 1, 1), (0.4, 0.7, 0, 0), (0.4, 1.0, 0, 0), (0.7, 0.7, 1, 1), (0.7, 1.0, 0, 0), (1, 1, 1, 1)}
    assert {tuple(round(v, 3) for v in row) for row in rows.tolist()} == expected


def test_an_end_at_the_old_goal_is_none_at_another() -> None:
    replay = replay_of(hindsight(Reach), 2)
    one = torch.ones(1, dtype=torch.bool)
    # The old goal was reached at 0.4; as if the simulation had gone on to 0.9.
    replay.add(torch.tensor([[0.0, 0.4]]), torch.zeros(1, 1), torch.ones(1), torch.tensor([[0.4, 0.4]]), one, ~one, torch.tensor([[0.4]]))  # fmt: skip # noqa: E501
    replay.add(torch.tensor([[0.4, 0.4]]), torch.zeros(1, 1), torch.zeros(1), torch.tensor([[0.9, 0.4]]), ~one, ~one, torch.tensor([[0.9]]))  # fmt: skip # noqa: E501
    batch = replay.sample(1000, torch.Generator().manual_seed(0))
    other = (batch.observation[:, 0] == 0) & (batch.observation[:, 1] > 0.8)
    assert bool(other.any())
    assert not batch.terminated[other].any()
    assert not batch.reward[other].any()


def test_what_an_action_costs_stays_when_the_goal_changes() -> None:
    replay = replay_of(hindsight(Tired), 2)
    no = torch.zeros(1, dtype=torch.bool)
    replay.add(torch.tensor([[0.0, 5.0]]), torch.ones(1, 1), torch.tensor([-0.25]), torch.tensor([[0.4, 5.0]]), no, no, torch.tensor([[0.4]]))  # fmt: skip # noqa: E501
    batch = replay.sample(100, torch.Generator().manual_seed(0))
    assert batch.reward.tolist() == [0.75] * 100  # 1 for the goal, less 0.25


@pytest.mark.parametrize("earlier", [0, 2])
def test_components_that_follow_the_goal_follow_a_relabelled_one(earlier: int) -> None:
    replay = replay_of(hindsight(Relative), 4, HistoryLayout(earlier, earlier, 3, 1))
    no = torch.zeros(1, dtype=torch.bool)
    for at in (0.0, 0.25, 0.5):
        here, there = (torch.tensor([[(2 - x) / 2, x, 2 - x, 2.0]]) for x in (at, at + 0.25))
        replay.add(here, torch.zeros(1, 1), torch.zeros(1), there, no, no, torch.tensor([[at + 0.25]]))
    batch = replay.sample(500, torch.Generator().manual_seed(0))
    for rows in (batch.observation, batch.next_observation):
        half, position, way, goal = rows.unbind(1)
        assert set(goal.tolist()) == {0.25, 0.5, 0.75}
        assert torch.equal(way, goal - position)
        assert torch.equal(half, way / 2)
    if earlier:  # what is remembered is seen for the new goal as well
        assert batch.state is not None
        half, position, way = batch.state[:, :6].view(-1, 2, 3).unbind(2)
        assert torch.equal(way, batch.observation[:, 3:] - position)
        assert torch.equal(half, way / 2)


def test_statistics_know_the_goals_that_experience_is_relabelled_with() -> None:
    replay = replay_of(hindsight(Relative), 4)
    no, here = torch.zeros(1, dtype=torch.bool), torch.tensor([[1.0, 0.0, 2.0, 2.0]])  # half, position, way, goal
    replay.add(here, torch.zeros(1, 1), torch.zeros(1), here, no, no, torch.tensor([[0.5]]))
    assert replay.ripened().tolist() == [[1.0, 0.0, 2.0, 2.0], [0.25, 0.0, 0.5, 0.5]]


class TooShort(Reach):
    def command(self, action: Tensor) -> Tensor:
        return action[:, :0]


def test_a_fault_of_the_task_that_the_experiment_meets_is_the_tasks() -> None:
    name = f"{__name__}:TooShort"
    environment = make_environment(name, 2, threads=1)
    environment.reset()
    learner = {"algorithm": "sac", "hidden": [8], "her_k": 4}
    config = RunConfig.model_validate({"task": name, "num_envs": 2, "learner": learner})
    with pytest.raises(TaskError, match=r"^task: Reach-v0: command: expected shape"):
        make_learner(config, environment)
