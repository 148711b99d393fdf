"""Twelve kinds of lies in contracts of an arm and of a walking robot are named; in true contracts there is none."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import HINGE, TinyTask, build
from envs.common.errors import TaskError
from envs.locomotion.go1.velocity import Go1VelocityTask
from envs.parts.actions import ActionSpec, EndEffectorDelta, JointPosition, JointTorque, JointVelocity
from envs.parts.observations import BodyPose, Goal, Imu, JointState, LastTarget
from envs.task import ActionComponent, Component, Task
from envs.validation.task_contract import check_task
from robots import GO1, needs
from small_arm import ARM, TORQUE, VELOCITY, SmallArm

Lie = Callable[[Task], None]


class ToldArm(SmallArm):
    """An arm that does what its parts say, whatever is stated of it afterwards."""

    def __init__(self) -> None:
        parts = [JointState(), BodyPose("tool"), Imu("imu"), BodyPose("ball", rotation="quat")]
        super().__init__(JointPosition(0.8, offset=(0.1, 0.2, 0.3), smoothing=0.5), parts)
        self.truth = self.action, self.observation

    def on_attach(self) -> None:
        said = self.action, self.observation
        self.action, self.observation = self.truth
        super().on_attach()
        self.action, self.observation = said


def changed(part: Any, changes: dict[str, Any]) -> dict[str, Any]:
    return {key: value(part) if callable(value) else value for key, value in changes.items()}


def action(**changes: Any) -> Lie:
    """A lie about the action: values, or functions of the true component."""

    def lie(task: Task) -> None:
        part = task.action[0]
        task.action = (replace(part, **changed(part, changes)),)

    return lie


def shown(name: str, **changes: Any) -> Lie:
    """A lie about a component of the observation."""

    def lie(task: Task) -> None:
        assert name in [part.name for part in task.observation]
        task.observation = tuple(
            replace(part, **{k: v(part) if callable(v) else v for k, v in changes.items()})
            if part.name == name
            else part
            for part in task.observation
        )

    return lie


def faster(task: Task) -> None:
    """Its control period is said to be another one."""
    task.__class__ = type("Faster", (type(task),), {"control_period_s": property(lambda self: 0.01)})


def reversed_names(part: ActionComponent) -> dict[str, Any]:
    names = ("joints", "actuators", "elements", "scale", "offset", "stiffness", "damping", "effort_limit")
    return {name: getattr(part, name)[::-1] for name in names}


def other_order(task: Task) -> None:
    part = task.action[0]
    task.action = (replace(part, **reversed_names(part)),)


# What is said, and words of the line that names it.
LIES: dict[str, tuple[Lie, str]] = {
    "scale": (action(scale=lambda p: tuple(2.0 * s for s in p.scale)), r"the task sends .*another scale \(0.5 times\)"),
    "order of the action": (other_order, "another order"),
    "order of the observation": (
        shown("joint_vel", joints=lambda c: c.joints[::-1], elements=lambda c: c.elements[::-1]),
        "'joint_vel': .*another order",
    ),
    "sign": (action(scale=lambda p: (-p.scale[0], *p.scale[1:])), r"another scale \(-1 times\)"),
    "unit of the action, degrees": (action(unit="deg", initial_target=None), "the numbers are not in deg"),
    "unit of the action, a torque": (action(unit="N m", initial_target=None), "unit: expected 'rad', as actuator"),
    "unit of the observation": (shown("joint_vel", unit="rad"), "'joint_vel': unit: expected 'rad/s', .* the velocity"),
    "unit of the gyro": (shown("gyro", unit="deg/s"), "'gyro': unit: expected 'rad/s', .*, got 'deg/s'"),
    "frame of the gyro": (shown("gyro", frame="world"), "'gyro': frame: expected '(imu|trunk)', as it shows"),
    "frame of gravity": (shown("projected_gravity", frame="world"), "gravity': frame: expected '(imu|trunk)'"),
    "frame of joints": (shown("joint_pos", frame="base"), "'joint_pos': frame: expected 'joint' for angles of"),
    "frame of joints, the world": (
        shown("joint_vel", frame="world"), "'joint_vel': frame: expected 'joint' as .* turns with the joints before it"
    ),
    "order of axes": (
        shown("gyro", elements=("z", "y", "x")), "'gyro': element 'z' shows .* velocity of .* along x: another order",
    ),
    "smoothing": (action(smoothing=0.3, initial_target=None), "smoothed by 0.3, the task sends .*another smoothing"),
    "limits that are none": (
        action(target_limits=lambda p: tuple(tuple(o + e * abs(s) for o, s in zip(p.offset, p.scale, strict=True))
                                             for e in (-0.3, 0.3))), "within .*the task sends|the task sends",
    ),
    "limits beyond the actuator's": (
        action(target_limits=lambda p: ((-20.0,) * p.size, (20.0,) * p.size)), "target_limits: .* says -20 to 20, but",
    ),
    "name of a joint": (action(joints=lambda p: ("knea", *p.joints[1:])), "joints: the model has no joint 'knea'"),
    "name of an actuator": (action(actuators=lambda p: ("m", *p.actuators[1:])), "the model has no actuator 'm'"),
    "name of a body": (shown("gyro", bodies=("chest",)), "'gyro': bodies: the model has no body, site or geom 'chest'"),
    "size of the action": (action(size=lambda p: p.size - 1, elements=()), r"scale: expected \d+ values, got \d+"),
    "size of the observation": (shown("gyro", size=4, elements=()), r"observe: expected shape .*gyro 4"),
    "offset": (action(offset=lambda p: (p.offset[0] + 0.1, *p.offset[1:])), "another offset"),
    "stiffness": (action(stiffness=lambda p: tuple(2.0 * k for k in p.stiffness)), "stiffness: .* but the model's"),
    "damping": (action(damping=lambda p: tuple(0.5 * k for k in p.damping)), "damping: .* the model's"),
    "effort": (
        action(effort_limit=lambda p: tuple(2.0 * k for k in p.effort_limit)), "effort_limit: .* the model's",
    ),
    "what targets are added to": (action(relative="target"), "added to target, the task|are said to be added to"),
    "period": (faster, "control_period_s: expected decimation . timestep = 4 . 0.005 s = 0.02, got 0.01"),
}  # fmt: skip
OF_ARM: dict[str, tuple[Lie, str]] = {
    "no smoothing": (action(smoothing=1.0, initial_target=None), "the task sends .*smoothed by 0.5: another smoothing"),
    "where smoothing starts": (
        action(initial_target=(0.1, 0.2, 0.3)),
        "initial_target: .*expected what the task starts",
    ),
    "frame of a position": (
        shown("tool_pos", frame="upper"),
        "'tool_pos': frame: expected 'world', .* the position of 'tool'",
    ),
    "unit of a position": (shown("tool_pos", unit="mm"), "'tool_pos': unit: expected 'm', as it shows the position"),
    "frame of an orientation": (
        shown("ball_quat", frame="upper"),
        "'ball_quat': frame: expected 'world', .* is turned",
    ),
    "order of a quaternion": (
        shown("ball_quat", elements=("x", "y", "z", "w")),
        "'ball_quat': elements: expected the order w, x, y, z, .*, got x, y, z, w",
    ),
    "name of another body": (
        shown("tool_pos", bodies=("upper",)), "'tool_pos': bodies: expected 'tool', whose position it shows",
    ),
}  # fmt: skip


def refused(task: Task, lie: Lie, message: str) -> None:
    lie(task)
    with pytest.raises(TaskError, match=message) as caught:
        build(check_task(task.id, task), 2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("lie", LIES | OF_ARM)
def test_a_lie_about_an_arm_is_one_line(lie: str) -> None:
    refused(ToldArm(), *(LIES | OF_ARM)[lie])


@needs(GO1)
@pytest.mark.parametrize("lie", LIES)
def test_a_lie_about_a_walking_robot_is_one_line(lie: str) -> None:
    refused(Go1VelocityTask(), *LIES[lie])


@pytest.mark.parametrize(("factors", "message"), [
    ((1.1, 1.1, 1.1), "element 'x' shows 1.1 times the position of 'tool' along x: another scale"),
    ((1.0, 1.0, -1.0), "element 'z' shows -1 times the position of 'tool' along z: another scale"),
])  # fmt: skip
def test_a_position_in_another_scale_is_one_line(factors: tuple[float, ...], message: str) -> None:
    class Louder(SmallArm):
        def observe(self) -> Tensor:
            seen = super().observe().clone()
            seen[:, self.slices()["tool_pos"]] *= torch.tensor(factors)
            return seen

    task = Louder(JointPosition(0.5), [JointState(), BodyPose("tool")])
    refused(task, lambda task: None, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frame": "upper"}, "tool_step': frame: expected 'world', along whose axes steps are"),
        ({"relative": None}, "relative: expected what steps of joints are added to"),
        ({"scale": (0.06, 0.03, 0.03)}, r"for a = .* the contract says .* rad, the task sends"),
        ({"relative": "joint_pos"}, "targets are said to be added to what 'joint_pos' shows"),
    ],
)
def test_a_lie_about_steps_of_a_tool_is_one_line(change: dict[str, Any], message: str) -> None:
    class Told(ToldArm):
        def __init__(self) -> None:
            SmallArm.__init__(self, EndEffectorDelta("tool", 0.03), JointState())
            self.truth = self.action, self.observation

    refused(Told(), action(**change), message)


def test_a_tool_that_hangs_elsewhere_is_one_line() -> None:
    task = SmallArm(EndEffectorDelta("tool", 0.03), JointState())
    task.model.body("lower").pos[0] += 0.01
    with pytest.raises(TaskError, match="inverse: expected 'elbow' to lie where the model has it, got another place"):
        check_task(task.id, task)


# Contracts that are true


class Written(TinyTask):
    """A task of one hinge, by hand: what it sends for an action, angle and command [N, 1], and what it shows."""

    def __init__(
        self, part: ActionComponent, sends: Callable[[Tensor, Tensor, Tensor], Tensor],
        observation: tuple[Component, ...], shows: Callable[[Tensor, Tensor], Tensor],
    ) -> None:  # fmt: skip
        super().__init__(HINGE, spread=0.5)
        self.action, self.sends, self.observation, self.shows = (part,), sends, observation, shows

    def on_attach(self) -> None:
        self.ctrl = self.engine.data("ctrl")

    def command(self, action: Tensor) -> Tensor:
        return self.sends(action, self.engine.data("qpos"), self.ctrl)

    def observe(self) -> Tensor:
        return self.shows(self.engine.data("qpos"), self.engine.data("qvel"))


ANGLE = Component("angle", 1, "rad", "joint", joints=("hinge",))
TARGET = ActionComponent("target", 1, "rad", (0.5,), (0.0,), joints=("hinge",))


def written(
    part: ActionComponent, sends: Callable[[Tensor, Tensor, Tensor], Tensor], observed: Component = ANGLE,
    shows: Callable[[Tensor, Tensor], Tensor] = lambda q, v: q,
) -> Task:  # fmt: skip
    return Written(part, sends, (observed,), shows)


def composed(spec: ActionSpec, *parts: Any, xml: str = ARM) -> Task:
    return SmallArm(spec, [JointState(), *parts], xml)


TRUE: dict[str, Callable[[], Task]] = {
    "degrees in and out": lambda: written(
        replace(TARGET, unit="deg", scale=(30.0,)), lambda a, q, c: math.pi / 6.0 * a,
        replace(ANGLE, unit="deg"), lambda q, v: 180.0 / math.pi * q,
    ),
    "from the stance": lambda: written(TARGET, lambda a, q, c: 0.5 * a, ANGLE, lambda q, v: q - 0.3),
    "a wrapped angle": lambda: written(TARGET, lambda a, q, c: 0.5 * a, ANGLE, lambda q, v: torch.remainder(q, 0.2)),
    "added to the joint by hand": lambda: written(replace(TARGET, relative="angle"), lambda a, q, c: q + 0.5 * a),
    "added to the command by hand": lambda: written(replace(TARGET, relative="target"), lambda a, q, c: c + 0.5 * a),
    "from a stance that is said": lambda: written(
        TARGET, lambda a, q, c: 0.5 * a, replace(ANGLE, relative_to=(0.3,)), lambda q, v: q - 0.3
    ),
    "in words": lambda: written(replace(TARGET, afterwards="squared"), lambda a, q, c: 0.25 * a * a),
    "a cube seen from the tool": lambda: composed(JointPosition(), BodyPose("ball", frame="tool", rotation="quat")),
    "relative to the joint": lambda: composed(JointPosition(0.2, relative="joint", smoothing=0.5), LastTarget()),
    "speeds": lambda: composed(JointVelocity(smoothing=0.5), Imu("imu", acceleration=True), xml=VELOCITY),
    "torques": lambda: composed(JointTorque(), BodyPose("tool", rotation="6d", frame="shoulder"), xml=TORQUE),
    "steps of a tool": lambda: composed(EndEffectorDelta("tool", 0.03, turn_scale=0.1), Goal("tool", frame="upper")),
    "a floating body": lambda: composed(JointPosition(), Imu("ball"), BodyPose("ball", group="privileged")),
}  # fmt: skip


def test_another_stance_than_what_is_subtracted_is_one_line() -> None:
    of_stance = replace(ANGLE, relative_to=(0.5,))
    task = written(TARGET, lambda a, q, c: 0.5 * a, of_stance, lambda q, v: q - 0.3)
    refused(task, lambda task: None, "'angle': relative_to: expected 0.3, which is subtracted .*, got 0.5")


@pytest.mark.parametrize("name", TRUE)
def test_a_true_contract_passes_without_a_word(name: str, caplog: pytest.LogCaptureFixture) -> None:
    task = TRUE[name]()
    with caplog.at_level(logging.WARNING):
        build(check_task(task.id, task), 2).step(torch.zeros(2, task.action_size))
    assert [record.getMessage() for record in caplog.records] == []
