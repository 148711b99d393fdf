"""Tasks that break what shapes do not show are told so at their first reset or steps, in one line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from conftest import HINGE, TinyTask, build
from envs.registry import TaskError
from envs.task import Component, Outcome


class Holding(TinyTask):
    """Holds the engine's tensors, as tasks do."""

    def __init__(self) -> None:
        super().__init__(HINGE, max_episode_steps=3)

    def on_attach(self) -> None:
        self.qpos, self.qvel = self.engine.data("qpos"), self.engine.data("qvel")

    def reset(self, mask: Tensor) -> None:
        self.qpos.copy_(torch.where(mask[:, None], 0.5, self.qpos))

    def observe(self) -> Tensor:
        return torch.cat((self.qpos, self.qvel, self.engine.data("time")[:, None]), dim=1)


class RebindsInReset(Holding):
    def reset(self, mask: Tensor) -> None:
        self.qpos = torch.where(mask[:, None], 0.5, self.qpos)


class RebindsAView(Holding):
    def on_attach(self) -> None:
        super().on_attach()
        self.angle = self.qpos[:, :1]
        del self.qpos

    def reset(self, mask: Tensor) -> None: ...

    def observe(self) -> Tensor:
        return torch.cat((self.angle, self.qvel, self.engine.data("time")[:, None]), dim=1)

    def after_step(self) -> None:
        self.angle = self.angle + 0.1

    def outcome(self, action: Tensor) -> Outcome:
        no = torch.zeros(len(action), dtype=torch.bool)
        return Outcome(self.angle[:, 0], no, no)


class RebindsInASecondStep(Holding):
    def outcome(self, action: Tensor) -> Outcome:
        if float(self.engine.data("time")[0]) > 0.05:
            self.qvel = self.qvel * 0.5
        return super().outcome(action)


class HoldsACopy(Holding):
    def on_attach(self) -> None:
        super().on_attach()
        self._qpos = self.engine.data("qpos").float()


@pytest.mark.parametrize(
    ("make", "name"), [(RebindsInReset, "qpos"), (RebindsAView, "angle"), (RebindsInASecondStep, "qvel")]
)
def test_a_task_that_loses_the_engines_tensor_is_told_which(make: type[Holding], name: str) -> None:
    def play() -> None:
        env = build(make(), 2)
        for _ in range(2):
            env.step(torch.ones(2, 1))

    with pytest.raises(TaskError, match=rf"task: Tiny-v0: self\.{name} was the engine's tensor and is a new one now"):
        play()


def test_a_copy_that_does_not_follow_the_engine_is_named() -> None:
    env = build(HoldsACopy(), 2)
    with pytest.raises(TaskError, match=r"self\._qpos is a copy of the engine's qpos and does not follow it"):
        env.step(torch.ones(2, 1))


def test_memories_that_begin_as_the_engines_tensors_are_no_mistake() -> None:
    class Remembers(Holding):
        def on_attach(self) -> None:
            super().on_attach()
            self.last, self.speed = self.qpos, self.engine.data("qvel")
            self.ctrl = torch.zeros(2, 1, dtype=torch.float64)  # what was commanded, not the engine's

        def command(self, action: Tensor) -> Tensor:
            self.ctrl = action.double()
            self.last, self.speed = self.qpos.clone(), self.engine.data("qvel").clone()
            return action

    env = build(Remembers(), 2)
    for _ in range(4):
        env.step(torch.ones(2, 1))


def raised(kind: type[TinyTask]) -> str:
    with pytest.raises(TaskError) as caught:
        build(kind(), 2).step(torch.ones(2, 1))
    return str(caught.value)


def test_an_error_in_a_hook_names_the_hook_and_the_line() -> None:
    class Mixed(Holding):
        def reset(self, mask: Tensor) -> None:
            self.qpos[mask.numpy()] = torch.tensor([[0.5], [0.5]])  # float32 into float64

    class Misspelt(Holding):
        def outcome(self, action: Tensor) -> Any:
            return self.help(action)

        def help(self, action: Tensor) -> Any:
            return self.nothing * action  # pyright: ignore[reportAttributeAccessIssue]

    class Unattached(Holding):
        def on_attach(self) -> None:
            self.site = self.model.site("nowhere").id

    assert raised(Mixed).startswith("task: Tiny-v0: reset (test_first_look.py, line ")
    assert "RuntimeError: Index put requires" in raised(Mixed)
    message = raised(Misspelt)
    assert message.startswith("task: Tiny-v0: outcome (test_first_look.py, line ")
    assert "AttributeError: 'Misspelt' object has no attribute 'nothing'" in message
    assert raised(Unattached).startswith("task: Tiny-v0: on_attach (test_first_look.py, line ")
    assert "\n" not in raised(Unattached)


def test_an_error_of_the_callers_stays_what_it_is() -> None:
    env = build(Holding(), 2)
    with pytest.raises(ValueError, match="action: environment 0") as caught:
        env.step(torch.full((2, 1), float("nan")))
    assert not isinstance(caught.value, TaskError)


class Goal(Holding):
    goal_size = 1

    def __init__(self) -> None:
        super().__init__()
        self.observation = (*self.observation, Component("desired_goal", 1, "rad", measured=False))

    def observe(self) -> Tensor:
        return torch.cat((super().observe(), self.goal), dim=1)

    def achieved_goal(self) -> Tensor:
        return self.qpos

    def goal_reward(self, achieved: Tensor, desired: Tensor) -> Tensor:
        return -(achieved - desired).abs()[..., 0]

    def goal_success(self, achieved: Tensor, desired: Tensor) -> Tensor:
        return self.goal_reward(achieved, desired) > -0.1


def test_goal_functions_are_asked_for_as_many_goals_as_hindsight_asks_for() -> None:
    class Floats(Goal):
        def goal_success(self, achieved: Tensor, desired: Tensor) -> Tensor:
            return super().goal_success(achieved, desired).float()

    class Columns(Goal):
        def goal_reward(self, achieved: Tensor, desired: Tensor) -> Tensor:
            return -(achieved - desired).abs()

        def goal_success(self, achieved: Tensor, desired: Tensor) -> Tensor:
            return (achieved - desired).abs()[:, 0] < 0.1

    class Fixed(Goal):
        def goal_reward(self, achieved: Tensor, desired: Tensor) -> Tensor:
            return -(achieved - desired).abs()[..., 0] * self.qvel[:, 0]

    class Booleans(Goal):
        def goal_reward(self, achieved: Tensor, desired: Tensor) -> Any:
            return np.zeros(len(achieved))

    build(Goal(), 2).step(torch.ones(2, 1))
    assert "goal_success: expected booleans [2] for goals [2, 1], got float32 [2]" in raised(Floats)
    assert "goal_reward: expected real numbers [2] for goals [2, 1], got float64 [2, 1]" in raised(Columns)
    assert "goal_reward (test_first_look.py, line" in raised(Fixed)
    assert "goal_reward: expected real numbers [2] for goals [2, 1], got ndarray" in raised(Booleans)
