"""A contract that is not what the task does, or not what its model has, is named in one line; a true one passes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

from conftest import TinyTask, build
from envs.registry import TaskError
from envs.task import ActionComponent, Component, Task
from envs.validation.contract_probe import look
from envs.validation.task_contract import check_task

MODEL = """
<mujoco>
  <option timestep="0.005"/>
  <worldbody>
    <geom name="floor" type="plane" size="2 2 0.1" pos="0 0 -1"/>
    <body name="upper">
      <joint name="hip" type="hinge" axis="0 1 0" damping="0.5"/>
      <geom name="thigh" type="capsule" fromto="0 0 0 0.3 0 0" size="0.02"/>
      <body name="lower" pos="0.3 0 0">
        <joint name="knee" type="hinge" axis="0 1 0" damping="0.5"/>
        <geom name="shin" type="capsule" fromto="0 0 0 0.3 0 0" size="0.02"/>
        <body name="hand" pos="0.3 0 0">
          <joint name="wrist" type="hinge" axis="1 0 0" damping="0.5"/>
          <geom name="palm" type="capsule" fromto="0 0 0 0 0.1 0" size="0.02"/>
          <site name="tip"/>
        </body>
      </body>
    </body>
    <body name="sled" pos="0 1 0">
      <joint name="rail" type="slide" axis="1 0 0" damping="1"/>
      <geom name="box" type="box" size="0.05 0.05 0.05"/>
    </body>
  </worldbody>
  <actuator>
    <position name="a_hip" joint="hip" kp="30" kv="2" ctrlrange="-2 2" forcerange="-9 9"/>
    <position name="a_knee" joint="knee" kp="20" kv="2" ctrlrange="-2 2" forcerange="-8 8"/>
    <position name="a_wrist" joint="wrist" kp="10" kv="1" gear="2" ctrlrange="-6 6" forcerange="-2 2"/>
    <motor name="a_rail" joint="rail" gear="5" ctrlrange="-1 1"/>
  </actuator>
</mujoco>
"""
JOINTS, ACTUATORS = ("hip", "knee", "wrist"), ("a_hip", "a_knee", "a_wrist")
SCALE, OFFSET = (1.0, 0.8, 0.6), (0.1, -0.2, 0.3)
TARGETS = ActionComponent(
    "targets", 3, "rad", SCALE, OFFSET, elements=JOINTS, joints=JOINTS, actuators=ACTUATORS,
    stiffness=(30.0, 20.0, 40.0), damping=(2.0, 2.5, 0.5), effort_limit=(9.0, 8.0, 4.0),
)  # fmt: skip
PUSH = ActionComponent("push", 1, "N", (5.0,), (0.0,), joints=("rail",))
ANGLES = Component("angles", 3, "rad", "joint", JOINTS, JOINTS)
SPEEDS = Component("speeds", 3, "rad/s", "joint", JOINTS, JOINTS)
Sends = Callable[["Robot", Tensor], Tensor]


def targets_of(_: Robot, action: Tensor, scale: tuple[float, ...] = SCALE) -> Tensor:
    """Targets [N, 3], rad, and the push [N, 1], N."""
    return torch.cat((torch.tensor(OFFSET) + torch.tensor(scale) * action[:, :3], 5.0 * action[:, 3:]), dim=1)


WIDE = replace(TARGETS, scale=(3.0, 0.8, 0.6))


def send_wide(robot: Robot, action: Tensor) -> Tensor:
    """For `WIDE`, whose targets reach beyond the actuators' range."""
    return targets_of(robot, action, WIDE.scale)


class Robot(Task):
    """Three joints on servos, one with a gear, and a sled on a motor.

    Args:
        sends: what is told to joints (rad) and sled (N) for an action; the truth where left out.
        shows: what is observed of angles and speeds [N, 6]; the truth where left out.
        action, observation: of the contract.
    """

    id, decimation, max_episode_steps = "Robot-v0", 4, 50

    def __init__(
        self,
        sends: Sends = targets_of,
        shows: Callable[[Tensor], Tensor] = lambda seen: seen,
        action: tuple[ActionComponent, ...] = (TARGETS, PUSH),
        observation: tuple[Component, ...] = (ANGLES, SPEEDS),
    ) -> None:
        self.sends, self.shows = sends, shows
        self.model = mujoco.MjModel.from_xml_string(MODEL)
        self.action, self.observation = action, observation

    def on_attach(self) -> None:
        self.qpos, self.qvel, self.ctrl = (self.engine.data(name) for name in ("qpos", "qvel", "ctrl"))
        self.state = torch.zeros(self.engine.num_envs, 4, dtype=torch.float64)

    def reset(self, mask: Tensor) -> None:
        u = self.rng.episode_uniform("start", 4) - 0.5
        self.qpos.copy_(torch.where(mask[:, None], u, self.qpos))
        self.state = self.state.masked_fill(mask[:, None], 0.0)

    def command(self, action: Tensor) -> Tensor:
        return self.sends(self, action) * torch.tensor([1.0, 1.0, 2.0, 0.2])

    def observe(self) -> Tensor:
        return self.shows(torch.cat((self.qpos[:, :3], self.qvel[:, :3]), dim=1))

    outcome = TinyTask.outcome
    terminate_above = float("inf")


def refused(task: Task) -> str:
    """The one line with which a task is refused, when it is made or at its first reset."""
    with pytest.raises(TaskError) as caught:
        build(check_task(task.id, task), 2)
    message = str(caught.value)
    assert message.startswith("task: Robot-v0: ")
    assert "\n" not in message
    return message


def passes(task: Task, caplog: pytest.LogCaptureFixture) -> list[str]:
    """The warnings with which a task is let pass."""
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        build(check_task(task.id, task), 2).step(torch.zeros(2, task.action_size))
    return [record.getMessage() for record in caplog.records]


def smoothed(share: float) -> Sends:
    def send(robot: Robot, action: Tensor) -> Tensor:
        robot.state = robot.state + share * (targets_of(robot, action) - robot.state)
        return robot.state

    return send


# What is sent


@pytest.mark.parametrize(
    ("sends", "message"),
    [
        (lambda r, a: targets_of(r, a)[:, [2, 1, 0, 3]],
         "element 'hip' (actuator 'a_hip'): the contract says 1 * a[hip] + 0.1, the task sends 0.6 * a[wrist] + 0.3: "
         "another order, another scale, another offset"),
        (lambda r, a: targets_of(r, 2.0 * a), "sends 2 * a[hip] + 0.1: another scale (2 times)"),
        (lambda r, a: targets_of(r, -a), "sends -1 * a[hip] + 0.1: another scale (-1 times)"),
        (lambda r, a: targets_of(r, a) + torch.tensor([0.0, 0.5, 0.0, 0.0]),
         "'knee' (actuator 'a_knee'): the contract says 0.8 * a[knee] - 0.2, the task sends 0.8 * a[knee] + 0.3: "
         "another offset"),
        (smoothed(0.4), "sends 1 * a[hip] + 0.1, smoothed by 0.4: another smoothing"),
        (lambda r, a: targets_of(r, a).clamp(-0.85, 0.85), "other limits"),
        (lambda r, a: targets_of(r, a**3), "for a = "),
        (lambda r, a: r.qpos + 0.4 * (targets_of(r, a) - r.qpos),
         "sends what goes 0.4 of the way from the joint's present position, not from the command before"),
        (lambda r, a: targets_of(r, a) * torch.tensor([1.0, 1.0, 1.0, 3.0]),
         "action 'push': element '0' (actuator 'a_rail'): the contract says 5 * a[0], the task sends 15 * a[0]: "
         "another scale (3 times)"),
    ],
)  # fmt: skip
def test_a_task_that_sends_something_else_is_named_with_what_it_looks_like(sends: Sends, message: str) -> None:
    assert message in refused(Robot(sends))


def test_what_depends_on_the_state_is_only_warned_of_and_can_be_stated(caplog: pytest.LogCaptureFixture) -> None:
    def added(robot: Robot, action: Tensor) -> Tensor:
        return targets_of(robot, action) + robot.qpos

    def moved(robot: Robot, action: Tensor) -> Tensor:
        robot.state = robot.state + 0.1 * action
        return robot.state

    def slow(robot: Robot, action: Tensor) -> Tensor:
        robot.state = robot.state + (targets_of(robot, action) - robot.state).clamp(-0.05, 0.05)
        return robot.state

    for sends, said in ((added, "added to the joint's present position"), (moved, "moves on from the command before"),
                        (slow, "depends on more than the action")):  # fmt: skip
        warning = passes(Robot(sends, action=(TARGETS, replace(PUSH, unit="unknown"))), caplog)
        assert len(warning) == 1
        assert said in warning[0]
        stated = (replace(TARGETS, afterwards="something else"), replace(PUSH, afterwards="too"))
        assert passes(Robot(sends, action=stated), caplog) == []


def test_true_contracts_are_let_pass_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    limits = ((-0.5, -0.6, -0.2), (0.7, 0.4, 0.5))

    def limited(robot: Robot, action: Tensor) -> Tensor:
        low, high = torch.tensor([*limits[0], -9.0]), torch.tensor([*limits[1], 9.0])
        return targets_of(robot, action).clamp(low, high)

    both = replace(TARGETS, smoothing=0.4), replace(PUSH, smoothing=0.4)
    by_joint = replace(TARGETS, actuators=()), replace(PUSH, joints=(), actuators=("a_rail",))
    for task in (
        Robot(),
        Robot(action=by_joint),
        Robot(smoothed(0.4), action=both),
        Robot(limited, action=(replace(TARGETS, target_limits=limits), PUSH)),
        Robot(send_wide, action=(WIDE, PUSH)),  # MuJoCo limits what is sent to the actuators' range,
        Robot(lambda r, a: send_wide(r, a).clamp(torch.tensor([-2.0] * 3 + [-9.0]), torch.tensor([2.0] * 3 + [9.0])),
              action=(WIDE, PUSH)),  # as the task may do itself
    ):  # fmt: skip
        assert passes(task, caplog) == []


def test_torques_computed_from_targets_are_not_compared_but_their_order_is(caplog: pytest.LogCaptureFixture) -> None:
    gains = {"<position": "<motor"} | dict.fromkeys(
        (' kv="2"', ' kv="1"', ' kp="30"', ' kp="20"', ' kp="10"', ' ctrlrange="-2 2"', ' ctrlrange="-6 6"'), ""
    )
    text = MODEL
    for old, new in gains.items():
        text = text.replace(old, new)
    motors = mujoco.MjModel.from_xml_string(text)

    def controller(order: list[int]) -> Sends:
        def send(robot: Robot, action: Tensor) -> Tensor:
            target = targets_of(robot, action)
            torque = 0.5 * (target[:, order] - robot.qpos[:, :3]) - 0.02 * robot.qvel[:, :3]
            return torch.cat((torque, target[:, 3:]), dim=1)

        return send

    plain = replace(TARGETS, stiffness=(), damping=(), effort_limit=())
    for order in ([0, 1, 2], [1, 0, 2]):
        task = Robot(controller(order), action=(plain, PUSH))
        task.model = motors
        if order == [0, 1, 2]:
            assert passes(task, caplog) == []
        else:
            assert "'hip' (actuator 'a_hip'): expected it to follow a[hip], got a[knee]" in refused(task)


def test_another_option_of_a_task_that_has_passed_is_looked_at_again() -> None:
    class Chosen(Robot):
        def __init__(self, twice: bool) -> None:
            super().__init__()
            self.twice = twice
            del self.sends, self.shows

        def command(self, action: Tensor) -> Tensor:
            return targets_of(self, 2.0 * action if self.twice else action) * torch.tensor([1.0, 1.0, 2.0, 0.2])

        def observe(self) -> Tensor:
            return torch.cat((self.qpos[:, :3], self.qvel[:, :3]), dim=1)

    for _ in range(2):
        build(Chosen(False), 2)
        assert "another scale (2 times)" in refused(Chosen(True))


def test_the_rehearsal_leaves_the_task_at_work_and_all_random_numbers_alone() -> None:
    def draw() -> tuple[Tensor, np.ndarray]:
        return torch.rand(3), np.random.rand(3)  # noqa: NPY002

    class Drawing(Robot):
        def on_attach(self) -> None:
            super().on_attach()
            self.calls = {"command": 0, "observe": 0}

        def command(self, action: Tensor) -> Tensor:
            self.calls["command"] += 1
            draw()
            return super().command(action)

        def observe(self) -> Tensor:
            self.calls["observe"] += 1
            return super().observe()

    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    task = Drawing()
    assert look(task)["targets"].start is None  # not attached to anything; it was rehearsed
    assert not hasattr(task, "engine")
    environment = build(task, 2)
    assert task.calls == {"command": 0, "observe": 1}
    environment.step(torch.zeros(2, 4))
    assert task.calls == {"command": 1, "observe": 2}
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    draw()
    expected = torch.rand(1), np.random.rand()  # noqa: NPY002
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    build(Drawing(), 2).step(torch.zeros(2, 4))
    assert (torch.rand(1), np.random.rand()) == expected  # noqa: NPY002


# What is shown


@pytest.mark.parametrize(
    ("shows", "message"),
    [
        (lambda s: s[:, [1, 0, 2, 3, 4, 5]],
         "'angles': expected joint 'hip' as number 0, as the contract says, got 'knee': another order"),
        (lambda s: s[:, [0, 1, 2, 4, 5, 3]], "'speeds': expected joint 'hip' as number 0"),
        (lambda s: s * 180.0 / np.pi,
         "'angles': shows 57.3 times the position of joint 'hip', where the contract says rad"),
        (lambda s: s * torch.tensor([1.0, 1, 1, 1, 1, 0.05]),
         "'speeds': shows 0.05 times the velocity of joint 'wrist'"),
        (lambda s: 0.5 * (s - 0.2), "'angles': shows 0.5 times"),
    ],
)  # fmt: skip
def test_joints_that_are_shown_otherwise_are_named(shows: Callable[[Tensor], Tensor], message: str) -> None:
    assert f"observation {message}" in refused(Robot(shows=shows))


def test_what_else_may_be_shown_of_joints_is_not_judged(caplog: pytest.LogCaptureFixture) -> None:
    def late(seen: Tensor) -> Tensor:
        return 0.9 * seen + 0.1 * torch.sin(seen)

    goal = replace(ANGLES, name="goal", measured=False)
    history = (
        replace(ANGLES, size=6, elements=tuple("abcdef"), joints=JOINTS * 2),
        replace(SPEEDS, size=6, elements=tuple("abcdef"), unit="1"),
    )
    for task in (
        Robot(shows=lambda s: s - 0.3),  # from another zero
        Robot(shows=lambda s: 0.4 - s),  # the way to a posture
        Robot(shows=lambda s: s + 0.01 * torch.rand(s.shape)),
        Robot(shows=late),
        Robot(shows=lambda s: torch.cat((s, s[:, [2, 1, 0]]), dim=1), observation=(ANGLES, SPEEDS, goal)),
        Robot(shows=lambda s: s.repeat(1, 2), observation=history),
    ):
        assert passes(task, caplog) == []


# What the model has


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"joints": ("joint_hip", "knee", "wrist")},
         "joints: the model has no joint 'joint_hip' (did you mean 'hip'?)"),
        ({"joints": ("hip", "hip", "knee"), "elements": ()}, "joints: expected different ones, or `elements`"),
        ({"joints": ("hip", "knee")}, "joints: expected one joint for each of 3 values, got 2"),
        ({"joints": ("knee", "hip", "wrist")}, "expected elements and joints in the same order"),
        ({"elements": ("x", "y", "x")}, "elements: expected different names, got 'x' twice"),
        ({"unit": "m"}, "unit: expected 'rad' as 'hip' is a hinge, got 'm'"),
        ({"joints": ("hip", "knee", "rail"), "elements": ()}, "unit: expected 'm' as 'rail' is a slide, got 'rad'"),
        ({"bodies": ("uper",)}, "bodies: the model has no body, site or geom 'uper' (did you mean 'upper'?)"),
        ({"limits": (1.0, -1.0)}, "limits: expected the lowest before the highest value"),
    ],
)  # fmt: skip
def test_observed_parts_that_the_model_does_not_have_are_named(change: dict[str, Any], message: str) -> None:
    assert f"observation 'angles': {message}" in refused(Robot(observation=(replace(ANGLES, **change), SPEEDS)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"actuators": ("a_hip", "a_knee", "a_wrst")},
         "actuators: the model has no actuator 'a_wrst' (did you mean 'a_wrist'?)"),
        ({"actuators": ("a_hip", "a_knee")}, "actuators: expected one actuator for each of 3 values, got 2"),
        ({"actuators": ("a_hip", "a_wrist", "a_knee")},
         "expected joint 'wrist' beside actuator 'a_wrist', which drives it, got 'knee'"),
        ({"stiffness": (30.0, 20.0, 10.0)},
         "stiffness: of 'wrist' the contract says 10, but the model's actuator 'a_wrist' has 40"),
        ({"damping": (2.0, 7.0, 4.5)},
         "damping: of 'knee' the contract says 7, but the model's actuator 'a_knee' has 2"),
        ({"effort_limit": (9.0, 80.0, 4.0)},
         "effort_limit: of 'knee' the contract says 80, but the model's actuator 'a_knee' has 8"),
        ({"stiffness": (30.0,)}, "stiffness: expected 3 values, got 1"),
        ({"target_limits": ((-3.0,) * 3, (2.0,) * 3)},
         "of 'hip' the contract says -3 to 2, but the model's actuator 'a_hip' has a control range of -2 to 2"),
        ({"target_limits": ((-1.0,) * 2, (1.0,) * 3)}, "target_limits[0]: expected 3 values, got 2"),
        ({"target_limits": ((1.0,) * 3, (-1.0,) * 3)},
         "target_limits: expected the lowest before the highest targets, got 1 to -1"),
        ({"smoothing": 0.0}, "smoothing: expected a number above 0 and up to 1, got 0.0"),
        ({"initial_target": "angle"},
         "initial_target: expected a component of the observation, got 'angle' (did you mean 'angles'?)"),
        ({"scale": (1.0, float("nan"), 1.0)}, "scale: expected finite numbers"),
    ],
)  # fmt: skip
def test_driven_parts_that_are_otherwise_in_the_model_are_named(change: dict[str, Any], message: str) -> None:
    said = refused(Robot(action=(replace(TARGETS, **change), PUSH)))
    assert said.startswith("task: Robot-v0: action 'targets': ")
    assert message in said


def test_sites_geoms_and_unnamed_joints_may_be_named(caplog: pytest.LogCaptureFixture) -> None:
    parts = replace(ANGLES, bodies=("tip", "shin", "hand")), SPEEDS
    assert passes(Robot(observation=parts), caplog) == []
    task = Robot(observation=(replace(ANGLES, joints=("hip", "knee", "joint2"), elements=()), SPEEDS))
    assert "no joint 'joint2'" in refused(task)
    task = Robot(observation=task.observation, action=(replace(TARGETS, joints=(), elements=()), PUSH))
    task.model = mujoco.MjModel.from_xml_string(
        MODEL.replace('name="wrist" ', "").replace('joint="wrist"', 'site="tip"')
    )
    task.observation = (task.observation[0], replace(SPEEDS, joints=()))
    check_task(task.id, task)  # the third joint has no name


def test_a_control_period_that_is_not_that_of_the_physics_is_named() -> None:
    class Hasty(Robot):
        control_period_s = 0.01  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]

    message = refused(Hasty())
    assert "control_period_s: expected decimation * timestep = 4 * 0.005 s = 0.02, got 0.01" in message


def test_targets_that_only_the_model_limits_are_limited_in_the_contract() -> None:
    found = look(Robot(send_wide, action=(WIDE, PUSH)))
    assert found["targets"].limits == ((-2.0, -2.0, -3.0), (2.0, 2.0, 3.0))  # rad: the wrist's gear is 2
    assert found["push"].limits is None
