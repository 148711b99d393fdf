"""A command that is no number spoils its environment, and physics does not get it."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import HINGE, TinyTask, build, fixed_worlds
from envs.environment import Environment
from envs.registry import TaskError
from envs.task import ActionComponent, Component
from envs.validation.step_checks import Checks

NAN, INF = float("nan"), float("inf")
TWO = HINGE.replace(
    "</actuator>", '<position name="other" joint="hinge" kp="1"/></actuator>'
)  # of two controls, MuJoCo takes both as 0 for one that is bad
HAND = """
<mujoco>
  <option gravity="0 0 0"/>
  <worldbody>
    <body name="target" mocap="true"/>
    <body name="hand"><freejoint/><geom size="0.05" mass="1"/></body>
  </worldbody>
  <equality><weld body1="target" body2="hand"/></equality>
</mujoco>
"""


class Bad(TinyTask):
    """Commands `value` in the environments of `where`, from step `since` of the run on."""

    def __init__(self, value: float, where: list[bool], since: int = 2, xml: str = TWO) -> None:
        super().__init__(xml, max_episode_steps=100)
        self.value, self.where, self.since, self.calls = value, torch.tensor(where), since, 0

    def after_step(self) -> None:
        self.calls += 1

    def command(self, action: Tensor) -> Tensor:
        command = 0.3 * action + 0.2
        if self.calls >= self.since:
            command[self.where, 0] = self.value
        return command


class Carried(Bad):
    """The same with a mocap body."""

    command_fields = ("ctrl", "mocap_pos", "mocap_quat")

    def __init__(self, value: float, where: list[bool], since: int = 2) -> None:
        super().__init__(value, where, since, HAND)
        self.observation = (Component("place", 7, "m"), Component("velocity", 6, "m/s"), Component("clock", 1, "s"))
        self.action = (ActionComponent("move", 3, "m", (1.0,) * 3, (0.0,) * 3),)

    def command(self, action: Tensor) -> Tensor:
        still = torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(len(action), 4)
        return torch.cat((super().command(action), still), dim=1)


def driven(env: Environment, steps: int) -> list[Any]:
    size = env.task.action_size
    return [env.step(torch.full((env.num_envs, size), 0.5, dtype=torch.float64)) for _ in range(steps)]


@pytest.mark.parametrize("value", [NAN, INF, -INF, 1e11])
@pytest.mark.parametrize("delay", [None, 0.0, 40.0])
def test_a_bad_command_ends_its_episode_and_the_others_do_not_notice(
    value: float, delay: float | None, caplog: pytest.LogCaptureFixture
) -> None:
    def make(where: list[bool]) -> Environment:
        task = Bad(value, where)
        worlds = None
        if delay is not None:
            worlds = fixed_worlds(task, {"action_delay": {"range": [0, 40]}}, [[delay]] * 2)
        return build(task, 2, worlds)

    caplog.set_level(logging.WARNING, "simreal")
    broken, whole = make([True, False]), make([False, False])
    for k, (one, other) in enumerate(zip(driven(broken, 5), driven(whole, 5), strict=True)):
        assert one.diverged.tolist() == [k >= 2, False]
        assert one.terminated.tolist() == [k >= 2, False]
        assert torch.equal(one.final.policy[1], other.final.policy[1])
        assert bool(torch.isfinite(one.final.policy).all())
        assert bool(torch.isfinite(one.reward).all())
        assert bool((broken.engine.data("ctrl").abs() < 1.0).all())  # what physics got, or a reset left
    assert broken.divergences == 3
    warned = [record.getMessage() for record in caplog.records]
    assert "environment 0, step 3: command ctrl[0] is" in warned[0]
    assert len(warned) == (1 if delay is None else 2)  # and, with a delay, of what holds until a command arrives
    if delay is not None:
        assert "command ctrl[0] of an action of zero is" in warned[1]


@pytest.mark.parametrize("value", [NAN, INF])
def test_a_bad_mocap_command_is_named_and_does_not_reach_physics(
    value: float, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "simreal")
    env = build(Carried(value, [False, True]), 2)
    results = driven(env, 3)
    assert results[-1].diverged.tolist() == [False, True]
    assert bool(torch.isfinite(env.engine.data("mocap_pos")).all())
    assert "environment 1, step 3: command mocap_pos[0] is" in caplog.text


def test_bad_commands_everywhere_for_many_steps_are_the_tasks_fault() -> None:
    env = build(Bad(NAN, [True, True]), 2)
    with pytest.raises(TaskError, match=r"command ctrl\[0\] is nan, and no environment was sound for 10 steps"):
        driven(env, 30)


def test_on_a_gpu_bad_commands_are_masked_without_looking_at_them() -> None:
    task = Bad(NAN, [True, False])
    checks = Checks(task, 2, sync_allowed=False)
    checks.command(torch.zeros(2, 2), 2)
    command, unsound = checks.sound(torch.tensor([[NAN, 1.0], [2.0, -3.0]]))
    assert command.tolist() == [[0.0, 1.0], [2.0, -3.0]]
    env = build(task, 2)
    mask = checks.nonfinite_mask(env.observed, None, unsound, torch.zeros(2))
    assert mask is not None
    assert mask.tolist() == [True, False]


def test_a_control_that_a_task_writes_to_the_engine_itself_counts_as_well() -> None:
    env = build(TinyTask(HINGE), 2)
    env.engine.data("ctrl")[0] = NAN
    env.engine.step(1)
    assert env.engine.diverged().tolist() == [True, False]
