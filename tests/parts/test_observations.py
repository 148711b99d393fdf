"""Observations as classes: their values against MuJoCo's own, and how sensors' errors reach what follows from them."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

from conftest import build, manual_layer, only, snapshot
from envs.common.errors import TaskError
from envs.parts.actions import EndEffectorDelta, JointPosition
from envs.parts.observations import BodyPose, Command, Goal, Imu, JointState, LastAction, LastTarget, ObservationSpec
from envs.validation.task_contract import check_task
from simreal.testing import check_task as play_all
from small_arm import ARM, START, SmallArm

FLOATING = ARM.replace(
    '<joint name="yaw" axis="0 0 1" damping="0.5" range="-120 120"/>', '<freejoint name="float"/>'
).replace('    <position name="m_yaw" joint="yaw" kp="40" kv="4" ctrlrange="-2 2" forcerange="-20 20"/>\n', "")


class Thrown(SmallArm):
    """The arm without a mount, thrown into the air."""

    def __init__(self, observations: Any) -> None:
        super().__init__(JointPosition(0.5), observations, FLOATING)

    def start(self, mask: Tensor) -> None:
        u = 2.0 * self.rng.episode_uniform("start", 9 + 8) - 1.0
        quat = u[:, 3:7] / torch.linalg.vector_norm(u[:, 3:7], dim=1, keepdim=True)
        qpos = self.engine.data("qpos").clone()
        qpos[:, :9] = torch.cat((u[:, :2], u[:, 2:3] + 2.0, quat, u[:, 7:9]), dim=1)
        qvel = self.engine.data("qvel").clone()
        qvel[:, :8] = u[:, 9:]
        self.write(mask, qpos=qpos, qvel=qvel)


def seen(task: SmallArm, result: Tensor) -> dict[str, np.ndarray]:
    """Components [N, size] of an observation."""
    return {name: result[:, where].numpy() for name, where in task.slices().items()}


def state_of(environment: Any, row: int) -> mujoco.MjData:
    """MuJoCo's own view of a simulation, up to velocities and accelerations."""
    model, data = environment.task.model, mujoco.MjData(environment.task.model)
    data.qpos[:], data.qvel[:] = (environment.engine.data(name)[row].numpy() for name in ("qpos", "qvel"))
    data.ctrl[:] = environment.engine.data("ctrl")[row].numpy()
    mujoco.mj_forward(model, data)
    return data


def in_frame(pos: np.ndarray, frame: Any) -> np.ndarray:
    return frame.xmat.reshape(3, 3).T @ (pos - frame.xpos)


def test_poses_are_those_of_mujoco_whether_joints_lead_there_or_not() -> None:
    parts = [
        JointState(),
        BodyPose("tool", rotation="6d"),  # follows from the joints
        BodyPose("forearm", name="in_hub", rotation="quat", frame="shoulder"),
        BodyPose("ball", rotation="quat"),  # is seen
        BodyPose("ball", name="ball_from_tool", frame="tool"),
    ]
    task = SmallArm(JointPosition(), parts)
    env = build(task, 3)
    derived = {c.name: c.derived_from for c in task.observation}
    assert derived["tool_pos"] == derived["tool_rot"] == derived["in_hub_pos"] == ("joint_pos",)
    assert derived["ball_pos"] == derived["ball_from_tool_pos"] == ()
    for _ in range(4):
        result = env.step(2.0 * torch.rand(3, 3) - 1.0)
        values = seen(task, result.observed.policy)
        for row in range(3):
            data = state_of(env, row)
            tool, geom, hub = data.site("tool"), data.geom("forearm"), data.body("shoulder")
            np.testing.assert_allclose(values["tool_pos"][row], tool.xpos, atol=1e-9)
            matrix = tool.xmat.reshape(3, 3)
            np.testing.assert_allclose(values["tool_rot"][row], np.concatenate((matrix[:, 0], matrix[:, 1])), atol=1e-9)
            np.testing.assert_allclose(values["in_hub_pos"][row], in_frame(geom.xpos, hub), atol=1e-9)
            quat = np.zeros(4)
            mujoco.mju_mat2Quat(quat, (hub.xmat.reshape(3, 3).T @ geom.xmat.reshape(3, 3)).ravel())
            np.testing.assert_allclose(values["in_hub_quat"][row], quat * np.sign(quat[0]), atol=1e-9)
            np.testing.assert_allclose(values["ball_pos"][row], data.body("ball").xpos, atol=1e-9)
            np.testing.assert_allclose(
                values["ball_from_tool_pos"][row], in_frame(data.body("ball").xpos, tool), atol=1e-9
            )


@pytest.mark.parametrize("of", ["imu", "shoulder"])
def test_inertial_sensors_are_those_of_mujoco(of: str) -> None:
    task = Thrown([Imu(of, acceleration=of == "imu")])
    assert task.step_stage == ("acceleration" if of == "imu" else None)
    env = build(task, 3)
    for _ in range(3):
        values = seen(task, env.step(torch.zeros(3, 2)).observed.policy)
        for row in range(3):
            data = state_of(env, row)
            kind = mujoco.mjtObj.mjOBJ_SITE if of == "imu" else mujoco.mjtObj.mjOBJ_XBODY
            thing, velocity = data.site(of) if of == "imu" else data.body(of), np.zeros(6)
            mujoco.mj_objectVelocity(task.model, data, kind, thing.id, velocity, 1)
            np.testing.assert_allclose(values["gyro"][row], velocity[:3], atol=1e-8)
            np.testing.assert_allclose(values["projected_gravity"][row], -thing.xmat.reshape(3, 3)[2], atol=1e-8)
            if of == "imu":
                np.testing.assert_allclose(values["acceleration"][row], data.sensor("acc").data, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("stance", [None, START])
def test_noise_of_the_joints_reaches_the_tool(stance: tuple[float, ...] | None) -> None:
    parts = [JointState(stance=stance), BodyPose("tool", rotation="quat")]
    task = SmallArm(JointPosition(), parts)
    env = build(task, 3, manual_layer(task, {"observation_noise": {"of": "joint_pos", "range": [0.1, 0.1]}}))
    data = mujoco.MjData(task.model)
    off = 0.0
    for _ in range(4):
        policy = env.step(torch.zeros(3, 3)).observed.policy
        values = seen(task, policy)
        for row in range(3):
            data.qpos[:3] = values["joint_pos"][row] + np.array(stance or 0.0)
            mujoco.mj_kinematics(task.model, data)
            np.testing.assert_allclose(values["tool_pos"][row], data.site("tool").xpos, atol=1e-9)
            off = max(off, float(np.abs(data.site("tool").xpos - state_of(env, row).site("tool").xpos).max()))
    assert off > 0.01


def test_a_rotation_that_is_measured_with_noise_is_still_one() -> None:
    parts = [BodyPose("ball", rotation="quat"), BodyPose("ball", name="turned", rotation="6d")]
    task = SmallArm(JointPosition(), parts)
    names = ["ball_quat", "turned_rot"]
    env = build(task, 3, manual_layer(task, {"observation_noise": {"of": names, "range": [0.3, 0.3]}}))
    values = seen(task, env.step(torch.zeros(3, 3)).observed.policy)
    np.testing.assert_allclose(np.linalg.norm(values["ball_quat"], axis=1), 1.0)
    a, b = values["turned_rot"][:, :3], values["turned_rot"][:, 3:]
    np.testing.assert_allclose([np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)], 1.0)
    np.testing.assert_allclose((a * b).sum(axis=1), 0.0, atol=1e-12)
    assert np.abs(a[:, 0]).max() < 0.999


COMMAND = Command("wanted", (-1.0, 0.0), (1.0, 2.0), "m/s", ("forward", "left"), every_s=0.06, still=0.3)


def test_commands_change_when_their_time_is_over_and_stand_still_now_and_then() -> None:
    task = SmallArm(JointPosition(), [JointState(), COMMAND])
    task.max_episode_steps = 12
    env = build(task, 200)
    drawn = [env.observed.policy[:, -2:].clone()]
    for _ in range(11):
        drawn.append(env.step(torch.zeros(200, 3)).observed.policy[:, -2:].clone())
    changes = [bool((a != b).any()) for a, b in pairwise(drawn)]
    assert changes == [False, False, True] * 3 + [False, False]  # every 3 control steps of 0.02 s
    first = drawn[0]
    assert 0.15 < float((first == 0.0).all(dim=1).float().mean()) < 0.45
    assert (first[:, 0].abs() <= 1.0).all()
    assert (first[:, 1] >= 0.0).all()
    assert first[:, 1].max() > 1.5


def test_the_last_action_is_the_policys_own_and_zero_at_first() -> None:
    task = SmallArm(JointPosition(), [JointState(), LastAction()])
    env = build(task, 2, manual_layer(task, {"action_noise": {"range": [0.5, 0.5]}}))
    assert (env.observed.policy[:, -3:] == 0.0).all()
    action = torch.tensor([[0.5, -0.25, 1.0], [0.0, 0.125, -1.0]])
    np.testing.assert_array_equal(env.step(action).observed.policy[:, -3:], action)
    np.testing.assert_array_equal(env.reset(only(2, 0)).policy[:, -3:], [[0.0, 0.0, 0.0], [0.0, 0.125, -1.0]])


ALL = [
    JointState(stance=START), Imu("imu"), BodyPose("tool", rotation="6d"), LastAction(), LastTarget(), COMMAND,
    JointState(prefix="true", group="privileged"), BodyPose("ball", group="privileged"), Goal("tool", frame="shoulder"),
]  # fmt: skip


@pytest.mark.parametrize(
    "spec", [JointPosition(0.3, smoothing=0.5), pytest.param(EndEffectorDelta("tool", 0.03), marks=pytest.mark.slow)]
)
def test_everything_that_check_task_looks_at_is_so(spec: Any) -> None:
    play_all(SmallArm, actions=spec, observations=ALL)


def test_a_run_goes_on_bit_for_bit() -> None:
    def fresh() -> Any:
        task = SmallArm(JointPosition(0.3, smoothing=0.5), ALL)
        return build(task, 3, manual_layer(task, {"observation_noise": {"of": "joint_pos", "range": [0.1, 0.1]}}))

    one, other = fresh(), fresh()
    actions = 2.0 * torch.rand(16, 3, 3, generator=torch.Generator().manual_seed(0)) - 1.0
    for action in actions[:8]:
        one.step(action)
    other.load_state_dict(snapshot(one))
    for action in actions[8:]:
        a, b = one.step(action), other.step(action)
        assert torch.equal(a.observed.policy, b.observed.policy)


def test_what_is_achieved_is_the_truth_in_the_frame_of_the_goal() -> None:
    task = SmallArm(JointPosition(), [JointState(), Goal("tool", frame="shoulder")])
    env = build(task, 2)
    achieved = env.step(torch.ones(2, 3)).observed.achieved_goal
    assert achieved is not None
    for row in range(2):
        data = state_of(env, row)
        np.testing.assert_allclose(achieved[row], in_frame(data.site("tool").xpos, data.body("shoulder")), atol=1e-9)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (JointState(of="elbo"), r"of: no hinge or slide 'elbo' \(did you mean 'elbow'\?\)"),
        (JointState(stance=(1.0, 2.0)), "stance: expected a finite number, or 3 of them"),
        (BodyPose("hand"), "no body, site or geom named 'hand'"),
        (BodyPose("tool", derived=True), "derived: no JointState before it shows the hinges and slides"),
        (BodyPose("tool", rotation="euler"), "rotation: expected '6d', 'quat' or None, got 'euler'"),  # pyright: ignore
        (Imu("floor"), "expected a body or site that joints move"),
        (Imu("tool", acceleration=True), "the model has no accelerometer there"),
        (LastTarget(of="joints"), "no action 'joints'; there are: joint_target"),
    ],
)
def test_what_does_not_fit_is_one_line(part: ObservationSpec, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        check_task("SmallArm-v0", SmallArm(JointPosition(), part))


@pytest.mark.parametrize("frame", ["world", "upper", "imu"])
def test_a_goal_is_drawn_where_it_is_also_in_a_frame_that_moves(frame: str) -> None:
    env = build(SmallArm(observations=[JointState(), Goal("tool", frame)]), 2, seed=4)
    env.step(torch.rand(2, 3) - 0.5)
    task = env.task
    task.goal.copy_(task.achieved_goal())  # in `frame`, so it is where the tool is
    for index in range(2):
        model, data = env.engine.export_to_mujoco(index)
        mujoco.mj_forward(model, data)
        marks = task.draw_goal(model, data, index)
        assert marks is not None
        np.testing.assert_allclose(marks[0].pos, data.site("tool").xpos, atol=1e-9)
        assert marks[0].quat is None


def test_a_pose_is_drawn_with_axes_and_the_models_own_target_goes_there() -> None:
    target = '<body name="target" mocap="true"><geom size="0.01" contype="0" conaffinity="0"/></body>'
    task = SmallArm(xml=ARM.replace("<worldbody>", f"<worldbody>{target}"))
    task.goal_size, task.goal = 7, torch.tensor([[0.1, 0.2, 0.3, 0.6, 0.0, 0.8, 0.0]])
    data = mujoco.MjData(task.model)
    mujoco.mj_forward(task.model, data)
    marks = task.draw_goal(task.model, data, 0)
    assert marks is not None
    assert marks[0].quat is not None
    np.testing.assert_allclose(np.append(marks[0].pos, marks[0].quat), task.goal[0], atol=1e-7)
    body = data.body("target")
    np.testing.assert_allclose(np.append(body.xpos, body.xquat), task.goal[0], atol=1e-7)


def test_values_of_some_joints_are_written_by_their_names() -> None:
    class Started(SmallArm):
        def start(self, mask: Tensor) -> None:
            self.write(mask, qpos=self.tensor((0.1, -0.2)), qvel=self.tensor((0.3, 0.4)), of=["elbow", "yaw"])

    env = build(Started(JointPosition(0.1), [JointState()]), 2)
    env.reset()
    model = env.task.model
    for field, address, values in (("qpos", "jnt_qposadr", (0.1, -0.2)), ("qvel", "jnt_dofadr", (0.3, 0.4))):
        places = [int(getattr(model, address)[model.joint(name).id]) for name in ("elbow", "yaw", "pitch")]
        assert env.engine.data(field)[1, places].tolist() == [*values, 0.0]


@pytest.mark.parametrize(("written", "message"), [
    ({"qpos": (0.1, 0.2)}, r"write: qpos: expected \[2, 10\], got \[2\]; `of` says to which joints"),
    ({"qpos": (0.1,) * 3, "of": "elbow"}, r"write: qpos: expected \[2, 1\], got \[3\]$"),
    ({"ctrl": (0.1,), "of": "elbow"}, "write: of: expected qpos or qvel beside it, got 'ctrl'"),
    ({"qpos": (0.1,), "of": "elbo"}, "write: of: no hinge or slide 'elbo' .did you mean 'elbow'"),
])  # fmt: skip
def test_what_cannot_be_written_is_one_line(written: dict[str, Any], message: str) -> None:
    class Started(SmallArm):
        def start(self, mask: Tensor) -> None:
            values: dict[str, Any] = {k: v if k == "of" else self.tensor(v) for k, v in written.items()}
            self.write(mask, **values)

    with pytest.raises(TaskError, match=message):
        build(Started(JointPosition(0.1), [JointState()]), 2).reset()


def test_joints_that_turn_and_slide_stand_in_one_component_and_are_compared() -> None:
    hinge = '<joint name="elbow" axis="0 1 0" damping="0.5" range="-120 120"/>'
    xml = ARM.replace(hinge, '<joint name="elbow" type="slide" axis="1 0 0" damping="5" range="-1 1"/>')
    assert xml != ARM
    actions = [JointPosition(0.3, of="m_[yp]*", name="turn"), JointPosition(0.1, of="m_elbow", name="slide")]
    task = SmallArm(actions, JointState(), xml)
    assert [part.unit for part in task.observation] == ["rad, m", "rad/s, m/s"]
    build(task, 2)
    for unit in ("rad/s, m/s", "1"):
        lying = SmallArm(actions, JointState(), xml)
        lying.observation = (replace(lying.observation[0], unit=unit), *lying.observation[1:])
        with pytest.raises(TaskError, match="unit: expected 'rad, m', as it shows the position of joint 'yaw'"):
            build(lying, 2)
    lying = SmallArm(actions, JointState(), xml)
    lying.observation = (replace(lying.observation[0], joints=("elbow", "pitch", "yaw")), *lying.observation[1:])
    with pytest.raises(TaskError, match=r"'joint_pos': expected joint 'elbow' as number 0.*'yaw': another order"):
        build(lying, 2)
