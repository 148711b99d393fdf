"""Actions as classes: what they state of a model, and that their state is right late, lost, noisy, and resumed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
import pytest
import torch

import simreal
from conftest import build, manual_layer, only, snapshot
from envs.common.errors import TaskError
from envs.parts.actions import ActionSpec, EndEffectorDelta, JointPosition, JointTorque, JointVelocity
from envs.parts.observations import JointState, LastAction, LastTarget
from envs.task import ActionComponent
from envs.validation.contract_probe import _attributes
from envs.validation.task_contract import check_task
from simreal.evaluation.model_variants import ModelVariant
from simreal.testing import check_task as play_all
from simreal.training.build import make_environment
from small_arm import ARM, START, TORQUE, VELOCITY, SmallArm


def component(spec: ActionSpec, xml: str = ARM) -> ActionComponent:
    task = SmallArm(spec, JointState(), xml)
    check_task("SmallArm-v0", task)
    return task.action[0]


def test_joint_positions_state_what_the_model_has() -> None:
    part = component(JointPosition(smoothing=0.5))
    assert part.joints == ("yaw", "pitch", "elbow")
    assert part.actuators == ("m_yaw", "m_pitch", "m_elbow")
    assert (part.unit, part.frame, part.initial_target) == ("rad", "joint", "joint_pos")
    # The elbow's servo has a gear of 2: its ctrl is twice the angle, its stiffness at the joint 4 times kp.
    np.testing.assert_allclose(np.array(part.target_limits), [[-2.0, -1.5, -2.0], [2.0, 1.5, 2.0]])
    np.testing.assert_allclose(part.stiffness, [40.0, 60.0, 120.0])
    np.testing.assert_allclose(part.damping, [4.0, 6.0, 12.0])
    np.testing.assert_allclose(part.effort_limit, [20.0, 30.0, 20.0])
    np.testing.assert_allclose(part.scale, [2.0, 1.5, 2.0])  # half of the ranges
    np.testing.assert_allclose(part.offset, [0.0, 0.0, 0.0])


def test_speeds_and_torques_state_what_the_model_has() -> None:
    speed = component(JointVelocity(), VELOCITY)
    np.testing.assert_allclose(speed.scale, [2.0, 1.5, 2.0])
    assert (speed.unit, speed.name) == ("rad/s", "joint_velocity")
    torque = component(JointTorque(), TORQUE)
    np.testing.assert_allclose(torque.scale, [3.0, 8.0, 2.0])  # gear times the larger end of the control range
    assert torque.unit == "N m"


def test_patterns_and_lists_choose_actuators() -> None:
    assert component(JointPosition(of="[yp]*")).joints == ("yaw", "pitch")
    assert component(JointPosition(of=["elbow", "m_yaw"])).joints == ("elbow", "yaw")


@pytest.mark.parametrize(
    ("spec", "xml", "message"),
    [
        (JointPosition(of="elbo"), ARM, r"'joint_target': of: no actuator or joint 'elbo' \(did you mean 'elbow'"),
        (JointPosition(), TORQUE, r"expected actuators such as <position joint=...>, got m_yaw \(force\)"),
        (JointPosition(relative="target"), ARM, "scale: expected numbers, as relative targets have no range"),
        (JointPosition((1.0, 2.0)), ARM, r"scale: expected a finite number, or 3 of them, got \(1.0, 2.0\)"),
        (JointPosition(smoothing=0.0), ARM, "smoothing: expected a number above 0"),
        (JointPosition(0.1, relative="joints"), ARM, "relative: expected 'joint', 'target' or None"),  # pyright: ignore
        (JointPosition("fast"), ARM, "scale: expected a finite number, or 3 of them, got 'fast'"),  # pyright: ignore
        (JointPosition(of=[]), ARM, r"of: expected names or patterns, got \[\]"),
        (JointPosition(start="home"), ARM, "start: expected 'joint' or 'offset', got 'home'"),  # pyright: ignore
        (JointPosition(0.5, offset=45), ARM, "no action gets from 45 to limits of -2 to 2 with a scale of 0.5"),
        (JointPosition(name=""), ARM, "action: expected components with names, got ''"),
        (JointPosition, ARM, "actions: expected ActionSpecs, got the class JointPosition itself"),  # pyright: ignore
        ([], ARM, "actions: expected parts, or an `action` of the task's own"),  # pyright: ignore
        (EndEffectorDelta("tol"), ARM, "no body, site or geom named 'tol'"),
        (EndEffectorDelta("ball"), ARM, "got 'ball' without a position servo"),
        (EndEffectorDelta("tool", of="yaw"), ARM, "got 'pitch' without a position servo"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(spec: ActionSpec, xml: str, message: str) -> None:
    with pytest.raises(TaskError, match=message) as caught:
        component(spec, xml)
    assert "\n" not in str(caught.value)


def test_targets_relative_to_the_joint_need_an_observation_of_it() -> None:
    with pytest.raises(TaskError, match="'joint' needs an observation that shows the joints: add JointState"):
        SmallArm(JointPosition(0.1, relative="joint"), JointState(stance=START))


@pytest.mark.parametrize("relative", [None, "target", "joint"])
def test_everything_that_check_task_looks_at_is_so(relative: Any) -> None:
    spec = JointPosition(0.3, relative=relative, smoothing=0.5)
    play_all(SmallArm, actions=spec, observations=[JointState(), LastTarget()])


def ctrl(environment: Any) -> np.ndarray:
    """What the actuators hold, in rad."""
    return environment.engine.data("ctrl").numpy() / (1.0, 1.0, 2.0)


@dataclass(frozen=True)
class Late:
    """Worlds, and for each control step which of the actions so far has reached the actuators; -1: none yet."""

    worlds: dict[str, Any]
    reached: Sequence[int]


LATE = [
    Late({"action_delay": {"range": [0, 0]}}, [0, 1, 2, 3]),
    Late({"action_delay": {"range": [20, 20]}}, [-1, 0, 1, 2]),  # one control step
    Late({"action_dropout": {"range": [0, 0]}}, [0, 1, 2, 3]),
]


@pytest.mark.parametrize("late", LATE, ids=["on time", "late", "none lost"])
def test_a_chain_of_targets_is_the_same_however_late_it_arrives(late: Late) -> None:
    spec = JointPosition(0.2, relative="target", smoothing=0.5)
    task = SmallArm(spec, [JointState(), LastTarget()])
    env = build(task, 2, manual_layer(task, late.worlds))
    start = ctrl(env).copy()
    # sent = last + 0.5 * 0.2 a
    actions = np.array([[1.0, -1.0, 0.5], [1.0, 0.0, 0.0], [-1.0, 0.5, 0.0], [0.5, 0.5, 0.5]])
    chain = start + 0.1 * np.cumsum(actions, axis=0)[:, None]
    for step, action in enumerate(actions):
        result = env.step(torch.from_numpy(action).expand(2, -1))
        at = late.reached[step]
        np.testing.assert_allclose(ctrl(env), start if at < 0 else chain[at], atol=1e-6)
        # What the controller knows is what it has sent, wherever that is on its way.
        np.testing.assert_allclose(result.observed.policy[:, -3:], chain[step], atol=1e-6)


def test_a_lost_command_does_not_stop_the_chain() -> None:
    task = SmallArm(JointPosition(0.2, relative="target"), JointState())
    env = build(task, 2, manual_layer(task, {"action_dropout": {"range": [1, 1]}}))
    start = ctrl(env).copy()
    for _ in range(3):
        env.step(torch.ones(2, 3))
    np.testing.assert_allclose(ctrl(env), start, atol=1e-9)  # nothing arrived
    np.testing.assert_allclose(task.scene.targets.meant("joint_target"), start + 0.6, atol=1e-6)


def test_the_episode_of_another_environment_disturbs_no_chain() -> None:
    task = SmallArm(JointPosition(0.2, relative="target", smoothing=0.5), [JointState(), LastTarget()])
    env = build(task, 3, manual_layer(task, {"action_delay": {"range": [0, 0]}}))
    start = ctrl(env).copy()
    env.step(torch.ones(3, 3))
    env.reset(only(3, 1))
    fresh = ctrl(env)[1].copy()
    env.step(torch.ones(3, 3))
    np.testing.assert_allclose(ctrl(env)[[0, 2]], start[[0, 2]] + 0.2, atol=1e-6)
    np.testing.assert_allclose(ctrl(env)[1], fresh + 0.1, atol=1e-6)


@pytest.mark.parametrize("spec", [JointPosition(0.2, relative="joint", smoothing=0.5), EndEffectorDelta("tool", 0.05)])
def test_a_run_goes_on_bit_for_bit(spec: ActionSpec) -> None:
    worlds = {"action_noise": {"range": [0.1, 0.1]}, "observation_noise": {"of": "joint_pos", "range": [0.01, 0.01]}}

    def fresh() -> Any:
        task = SmallArm(spec, [JointState(), LastTarget()])
        return build(task, 3, manual_layer(task, worlds))

    one, other = fresh(), fresh()
    actions = 2.0 * torch.rand(16, 3, 3, generator=torch.Generator().manual_seed(0)) - 1.0
    for action in actions[:8]:
        one.step(action)
    other.load_state_dict(snapshot(one))
    for action in actions[8:]:
        a, b = one.step(action), other.step(action)
        assert torch.equal(a.observed.policy, b.observed.policy)
        assert torch.equal(one.engine.data("ctrl"), other.engine.data("ctrl"))


def test_a_tool_goes_where_it_is_sent() -> None:
    task = SmallArm(EndEffectorDelta("tool", 0.002, damping=1e-3), JointState())
    env = build(task, 1)
    model, data = mujoco.MjModel.from_xml_string(ARM), mujoco.MjData(mujoco.MjModel.from_xml_string(ARM))

    def tool() -> np.ndarray:
        data.qpos[:3] = ctrl(env)[0]
        mujoco.mj_kinematics(model, data)
        return data.site("tool").xpos.copy()

    before = tool()
    for action in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, -1.0)):
        env.step(torch.tensor([action]))
        np.testing.assert_allclose(tool() - before, 0.002 * np.array(action), atol=5e-5)
        before = tool()


def test_motors_begin_at_rest_and_servos_where_their_joints_are() -> None:
    for spec, xml, start in (
        (JointTorque(), TORQUE, 0.0),
        (JointVelocity(), VELOCITY, 0.0),
        (JointPosition(), ARM, None),
    ):
        env = build(SmallArm(spec, JointState(), xml), 2)
        expected = env.engine.data("qpos")[:, :3].numpy() if start is None else np.zeros((2, 3))
        np.testing.assert_allclose(ctrl(env), expected)


def test_a_task_may_write_its_commands_itself() -> None:
    class Own(SmallArm):
        def __init__(self) -> None:
            self.action = (ActionComponent("all", 3, "rad", (0.5, 0.5, 0.5), (0.0, 0.0, 0.0)),)
            super().__init__((), [JointState(), LastAction()])

        def command(self, action: torch.Tensor) -> torch.Tensor:
            return action * torch.tensor([0.5, 0.5, 1.0])  # the elbow's gear

    env = build(check_task("SmallArm-v0", Own()), 2)
    env.step(torch.tensor([[1.0, -1.0, 0.5]]).expand(2, -1))
    np.testing.assert_allclose(ctrl(env), [[0.5, -0.5, 0.25]] * 2)


def test_a_class_with_the_same_parts_is_rehearsed_once() -> None:
    def text() -> str | None:
        env = build(SmallArm(JointPosition(0.3), [JointState(), LastAction()]), 2)
        env.step(torch.ones(2, 3))
        return _attributes(env.task)

    first = text()
    assert first is not None
    assert "0x" not in first
    assert first == text()


def test_what_no_action_drives_keeps_what_start_wrote() -> None:
    class Half(SmallArm):
        def start(self, mask: torch.Tensor) -> None:
            super().start(mask)
            self.write(mask, ctrl=self.tensor((0.1, 0.2, 0.3)))

    env = build(Half(JointPosition(0.5, offset=0.0, of="pitch"), JointState()), 2)
    env.step(torch.ones(2, 1))
    np.testing.assert_allclose(env.engine.data("ctrl")[0], [0.1, 0.5, 0.3])


class GearedArm(SmallArm):
    """The arm, whose model worlds may edit."""

    def __init__(self) -> None:
        arm = simreal.compile_spec(mujoco.MjSpec.from_string(ARM))
        self.compose(arm, JointPosition(smoothing=0.5), (JointState(), LastTarget()))


def test_parts_act_on_the_tasks_joints_where_gears_have_play() -> None:
    play = ModelVariant.model_validate({"model": {"backlash": {"play": 0.02}}})
    plain, geared = (make_environment("test_actions:GearedArm", 2, engine="cpu", variant=v) for v in (None, play))
    for environment in (plain, geared):
        environment.reset()
        for _ in range(4):
            environment.step(torch.full((2, 3), 0.2))
    assert geared.engine.model.njnt == plain.engine.model.njnt + 3
    assert torch.equal(geared.engine.data("ctrl"), plain.engine.data("ctrl"))  # from where the joints were on
