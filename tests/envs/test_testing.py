"""`simreal.testing.check_task`: true tasks pass; tasks that are broken in one way are named with that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

import simreal
from conftest import HINGE, TinyTask
from envs.platform.menagerie import ModelUnavailableError, UnknownRobotError
from envs.registry import make_task, task_ids
from envs.task import ActionComponent, Component, Mirror, Outcome, Task
from envs.validation.contract_probe import look
from simreal.testing import BrokenTaskError, check_task


class Good(Task):
    """An arm that is to be held at an angle; what it is told is smoothed, which it remembers.

    Args:
        near: distance from the goal that is success, rad.
    """

    id, decimation, max_episode_steps, goal_size = "Good-v0", 5, 12, 1

    def __init__(self, near: float = 0.1) -> None:
        self.near = near
        self.model = mujoco.MjModel.from_xml_string(HINGE)
        self.observation = (
            Component("angle", 1, "rad", "joint", joints=("hinge",)),
            Component("speed", 1, "rad/s", "joint", joints=("hinge",)),
            Component("error", 1, "rad", derived_from=("angle", "desired_goal")),
            Component("desired_goal", 1, "rad", measured=False),
        )
        self.action = (ActionComponent("servo", 1, "rad", (0.5,), (0.0,), joints=("hinge",), smoothing=0.5),)
        self.mirror = Mirror((0, 1, 2, 3), (-1.0,) * 4, (0,), (-1.0,))

    def on_attach(self) -> None:
        self.qpos, self.qvel = self.engine.data("qpos"), self.engine.data("qvel")
        self.told = torch.zeros(self.engine.num_envs, 1, dtype=torch.float64)

    def reset(self, mask: Tensor) -> None:
        u = self.rng.episode_uniform("start", 2) - 0.5
        self.qpos[mask] = 0.4 * u[mask, :1]
        self.goal[mask] = u[mask, 1:]
        self.told[mask] = 0.0

    def command(self, action: Tensor) -> Tensor:
        self.told = 0.5 * self.told + 0.5 * 0.5 * action.double()
        return self.told

    def observe(self) -> Tensor:
        return torch.cat((self.qpos, self.qvel, self.goal - self.qpos, self.goal), dim=1)

    def derive(self, observation: Tensor) -> Tensor:
        observation[:, 2] = observation[:, 3] - observation[:, 0]
        return observation

    def outcome(self, action: Tensor) -> Outcome:
        reward = self.goal_reward(self.qpos, self.goal) - 0.01 * action[:, 0].square()
        return Outcome(reward, self.qpos[:, 0].abs() > 0.6, self.goal_success(self.qpos, self.goal))

    def achieved_goal(self) -> Tensor:
        return self.qpos

    def goal_reward(self, achieved: Tensor, desired: Tensor) -> Tensor:
        return -(achieved - desired).abs()[..., 0]

    def goal_success(self, achieved: Tensor, desired: Tensor) -> Tensor:
        return (achieved - desired).abs()[..., 0] < self.near

    def goal_terminated(self, achieved: Tensor, desired: Tensor) -> Tensor | None:
        return torch.zeros(achieved.shape[:-1], dtype=torch.bool)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"told": self.told.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.told = state["told"].clone()


class Dice(Good):
    def reset(self, mask: Tensor) -> None:
        super().reset(mask)
        self.qpos[mask] += 0.1 * torch.rand(int(mask.sum()), 1, dtype=torch.float64)


class Placed(Good):
    """Begins where its row says, not its episode."""

    def reset(self, mask: Tensor) -> None:
        super().reset(mask)
        self.qpos[mask] += 0.01 * torch.arange(len(mask), dtype=torch.float64)[mask, None]


class Average(Good):
    def outcome(self, action: Tensor) -> Outcome:
        right = super().outcome(action)
        return replace(right, reward=right.reward - self.qvel.square().mean())


class Maskless(Good):
    """Writes the start of all environments."""

    def reset(self, mask: Tensor) -> None:
        super().reset(mask)
        self.qvel.copy_(self.rng.episode_uniform("speed", 1))


class MasklessFilter(Good):
    """Nothing that is shown at once: what the servo was told."""

    def reset(self, mask: Tensor) -> None:
        super().reset(mask)
        self.told = torch.zeros_like(self.told)


class Lasting(Good):
    """Forgets to set its filter anew."""

    def reset(self, mask: Tensor) -> None:
        told = self.told.clone()
        super().reset(mask)
        self.told = told


class Forgetful(Good):
    def state_dict(self) -> dict[str, Any]:
        return Task.state_dict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        Task.load_state_dict(self, state)


class Objects(Good):
    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"more": [np.random.default_rng(0)]}


class NotANumber(Good):
    def outcome(self, action: Tensor) -> Outcome:
        right = super().outcome(action)
        return replace(right, reward=torch.where(self.engine.data("time").view(-1) > 0.05, torch.nan, right.reward))


class Clock(Good):
    """Takes the end of its time for termination."""

    def outcome(self, action: Tensor) -> Outcome:
        over = self.engine.data("time").view(-1) > (self.max_episode_steps - 0.5) * self.control_period_s
        return replace(super().outcome(action), terminated=over)


class Limp(Good):
    """Sends nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.action = (replace(self.action[0], joints=(), afterwards="lost"),)
        self.mirror = None

    def command(self, action: Tensor) -> Tensor:
        return torch.zeros_like(self.told)

    def outcome(self, action: Tensor) -> Outcome:
        return super().outcome(torch.zeros_like(action))


class Wide(Good):
    def command(self, action: Tensor) -> Tensor:
        return 3.0 * super().command(action)


class Square(Good):
    def outcome(self, action: Tensor) -> Outcome:
        right = super().outcome(action)
        return replace(right, reward=right.reward[:, None])


class Underived(Good):
    def derive(self, observation: Tensor) -> Tensor:
        observation[:, 2] = observation[:, 0] - observation[:, 3]
        return observation


class Crooked(Good):
    def __init__(self) -> None:
        super().__init__()
        self.mirror = Mirror((1, 2, 0, 3), (1.0,) * 4, (0,), (-1.0,))


class Elsewhere(Good):
    """Shows half of the goal."""

    def observe(self) -> Tensor:
        return torch.cat((self.qpos, self.qvel, 0.5 * self.goal - self.qpos, 0.5 * self.goal), dim=1)


class Generous(Good):
    def goal_success(self, achieved: Tensor, desired: Tensor) -> Tensor:
        return (achieved - desired).abs()[..., 0] < 0.3

    def outcome(self, action: Tensor) -> Outcome:
        return replace(super().outcome(action), success=(self.qpos - self.goal).abs()[:, 0] < self.near)


class Narrow(Good):
    """Asks for goals [n, G]."""

    def goal_reward(self, achieved: Tensor, desired: Tensor) -> Tensor:
        return -(achieved - desired).abs()[:, 0].reshape(len(achieved), -1).sum(dim=1)


class Doubled(Good):
    """Another reward than that of `goal_reward`."""

    def outcome(self, action: Tensor) -> Outcome:
        right = super().outcome(action)
        return replace(right, reward=2.0 * self.goal_reward(self.qpos, self.goal))


class Unending(Good):
    def goal_terminated(self, achieved: Tensor, desired: Tensor) -> Tensor | None:
        return torch.ones(achieved.shape[:-1], dtype=torch.bool)


class Hookless(Good):
    goal_success = Task.goal_success

    def outcome(self, action: Tensor) -> Outcome:
        angle = self.qpos[:, 0]
        return Outcome(-angle.abs(), angle > 9.0, angle < 0.0)


def test_a_task_that_keeps_its_promises_passes_with_any_options() -> None:
    check_task(Good)
    check_task(Good, num_envs=5, steps=6, near=0.2)
    check_task(TinyTask, spread=0.3, terminate_above=0.2)
    check_task(f"{__name__}:Good", near=0.3)
    check_task("gymnasium:Hopper-v5")


@pytest.mark.parametrize(
    ("task", "parts"),
    [
        (Dice, ("reset: two environments of one seed begin differently: component 'angle'", "self.rng")),
        (Placed, ("episode 1 is another with 3 environments than with 1: step 1: component 'angle'",)),
        (Average, ("is another with 3 environments than with 1", "reward differs by")),
        (Maskless, ("reset(mask) changes an environment outside its mask: data.qvel differs by",)),
        (MasklessFilter, ("reset(mask) changes an environment outside its mask: 1 steps later, component 'angle'",)),
        (Lasting, ("after reset, a seed's episodes are not what they were: step 1: component 'angle'", "reset")),
        (Forgetful, ("after load_state_dict, episodes go on differently: step 1: component 'angle'", "state_dict")),
        (Objects, ("state_dict['more'][0]: expected tensors, numbers", "got Generator")),
        (NotANumber, ("reward", "nan")),
        (Clock, ("terminated at step 12, the time limit",)),
        (Limp, ("actions have no effect in 12 steps",)),
        (Wide, ("action 'servo'", "the contract says 0.5")),
        (Square, ("outcome: reward: expected shape [3], got [3, 1]",)),
        (Underived, ("derive: component 'error'",)),
        (Crooked, ("mirror: observation: mirrored twice",)),
        (Elsewhere, ("observe: component 'desired_goal' is not self.goal",)),
        (Generous, ("goal_success: not what outcome says",)),
        (Narrow, ("goal_reward: expected [2, 3] for goals [2, 3, 1]",)),
        (Doubled, ("goals: ", "goal_reward")),
        (Unending, ("goal_terminated: True where outcome does not terminate",)),
        (Hookless, ("goal_success: not defined",)),
    ],
)
def test_what_is_broken_is_named_in_one_line(task: type[Task], parts: tuple[str, ...]) -> None:
    with pytest.raises(BrokenTaskError) as caught:
        check_task(task)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("task: Good-v0: ")
    for part in parts:
        assert part in message


def test_what_is_no_task_and_unknown_options_are_named() -> None:
    with pytest.raises(AssertionError, match=r"expected a subclass of simreal\.Task, got class int"):
        check_task(int)  # pyright: ignore[reportArgumentType]
    with pytest.raises(AssertionError, match=r"'nearr' \(did you mean 'near'\?\)"):
        check_task(Good, nearr=0.1)
    with pytest.raises(AssertionError, match="did you mean 'FetchReach-v4'"):
        check_task("FetchRech-v4")
    with pytest.raises(ValueError, match="num_envs of at least 2"):
        check_task(Good, num_envs=1)
    assert simreal.testing.check_task is check_task


def tasks(alike: Callable[[Task], Any]) -> list[str]:
    """The first id of those that are alike in something, of tasks whose models are here."""
    found: dict[Any, str] = {}
    for task_id in task_ids():
        try:
            task = make_task(task_id)
        except UnknownRobotError:
            raise
        except ModelUnavailableError:
            continue
        found.setdefault(alike(task), task_id)
    return list(found.values())


def family(task: Task) -> str:
    """The folder of the task's module."""
    return type(task).__module__.rpartition(".")[0]


def test_a_task_of_every_family_that_comes_along_keeps_its_promises(caplog: pytest.LogCaptureFixture) -> None:
    for task_id in tasks(family):
        check_task(task_id, steps=6)
    assert [record.getMessage() for record in caplog.records] == []


@pytest.mark.slow
def test_every_class_of_tasks_that_comes_along_keeps_its_promises(caplog: pytest.LogCaptureFixture) -> None:
    classes = tasks(type)
    assert len(classes) > 15
    for task_id in classes:
        check_task(task_id)
    assert [record.getMessage() for record in caplog.records] == []


def test_every_contract_that_comes_along_is_true(caplog: pytest.LogCaptureFixture) -> None:
    for task_id in tasks(lambda task: (type(task), task.observation, task.action)):
        look(make_task(task_id))
    assert [record.getMessage() for record in caplog.records] == []


@pytest.mark.slow
def test_every_task_that_comes_along_keeps_its_promises() -> None:
    for task_id in tasks(lambda task: task.id):
        check_task(task_id, steps=60)


def test_a_goal_task_is_told_which_method_it_lacks() -> None:
    task = TinyTask()
    with pytest.raises(TypeError, match=r"^Tiny-v0 is not a goal task$"):
        task.goal_success(torch.zeros(1), torch.zeros(1))
    task.goal_size = 1
    for method in ("goal_reward", "goal_success"):
        with pytest.raises(TypeError, match=rf"^Tiny-v0: {method} is not implemented, and goal tasks need it$"):
            getattr(task, method)(torch.zeros(1), torch.zeros(1))
    with pytest.raises(TypeError, match=r"^Tiny-v0: achieved_goal is not implemented"):
        task.achieved_goal()
