"""HandManipulate Block, Egg and Pen of gymnasium-robotics (Plappert et al. 2018, arXiv 1802.09464), batched.

Equal to gymnasium-robotics' versions v1 step by step, with and without touch sensors (Melnik et al. 2021,
arXiv 2101.03923). A hand, palm up, turns what lies on it; the goal is a pose of the object.

Observation (policy group, in order):

| component    | size | meaning                                                              | unit  |
|--------------|------|----------------------------------------------------------------------|-------|
| joint_pos    | 24   | joint angles: wrist, fore, middle, ring, little finger, thumb        | rad   |
| joint_vel    | 24   | their rates                                                          | rad/s |
| object_velp  | 3    | velocity of the object, world                                        | m/s   |
| object_velr  | 3    | angular velocity of the object, in its own frame                     | rad/s |
| object_pos   | 3    | position of the object, world                                        | m     |
| object_quat  | 4    | its orientation: w, x, y, z                                          | 1     |
| touch        | 92   | only with touch sensors: force, whether there is one, or log(1 + it) | N, 1  |
| desired_goal | 7    | pose that the object should have: position, then w, x, y, z          | m, 1  |

Action: targets of the 20 servos. Control period 0.04 s. Success: position within 0.01 m (Pen 0.05 m) and orientation
within 0.1 rad; tasks that only rotate ignore the position, the Pen ignores the last of the XYZ Euler angles. As in
gymnasium-robotics the angle between two orientations is 2 arccos(w) of their quotient, up to 2 pi: a quaternion and its
negative are far apart. Reward: -1 until success, then 0; dense: -(10 * distance in m + angle in rad).

Touch readings are those of the last evaluation of the dynamics, one physics step behind the joints.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import mujoco
import torch
from torch import Tensor

from envs.common.spatial import (
    axis_angle_to_quat,
    constant,
    euler_to_quat,
    parallel_rotations,
    quat_multiply,
    quat_to_euler,
)
from envs.engines.base import write_rows
from envs.manipulation.shadow_hand.common import ShadowHandTask, robot_joints
from envs.task import XYZ, Component, id_of, vector

TargetPosition = Literal["ignore", "random"]
TargetRotation = Literal["z", "parallel", "xyz"]
Touch = Literal["boolean", "sensordata", "log"]

_WXYZ = ("w", "x", "y", "z")
_TARGET_RANGE_M = ((-0.04, 0.04), (-0.06, 0.02), (0.0, 0.06))  # of a random target position, from the object's
_START_SPREAD_M = 0.005  # standard deviation of the object's first position
_ANGLE_THRESHOLD_RAD = 0.1
_SETTLING_STEPS = 10  # control steps in which the object comes to rest before an episode begins
_ON_PALM_M = 0.04  # an object that is lower has missed the palm
_MOST_STARTS = 8  # tries at one that does not; none of 3000 episodes of nominal worlds needed a second
_DISTANCE_WEIGHT = 10.0  # per m, against 1 per rad
_ASIDE_M = 0.15  # where the goal is drawn if its position does not matter
_OBJECT_JOINT, _TOUCH_PREFIX = "object:joint", "robot0:TS_"
_JOINT, _GEOM, _SENSOR = mujoco.mjtObj.mjOBJ_JOINT, mujoco.mjtObj.mjOBJ_GEOM, mujoco.mjtObj.mjOBJ_SENSOR


@dataclass(frozen=True)
class ManipulatedObject:
    """What distinguishes the three objects."""

    xml: str
    distance_threshold_m: float
    turned_at_start: bool  # the object starts in a random orientation
    ignore_z: bool  # the last XYZ Euler angle is not compared


OBJECTS = {
    "Block": ManipulatedObject("manipulate_block", 0.01, turned_at_start=True, ignore_z=False),
    "Egg": ManipulatedObject("manipulate_egg", 0.01, turned_at_start=True, ignore_z=False),
    "Pen": ManipulatedObject("manipulate_pen", 0.05, turned_at_start=False, ignore_z=True),
}


class HandManipulateTask(ShadowHandTask):
    """One of the HandManipulate tasks, for N environments.

    Args:
        object_name: a key of `OBJECTS`.
        target_position: "random" or "ignore".
        target_rotation: goals turned about the vertical ("z"), that and onto any side ("parallel"), or about any
            axis ("xyz").
        touch: None for no touch sensors; "boolean": 1 where something is felt; "sensordata": N; "log": log(1 + N).
        dense: see above.
        name: the id.
    """

    max_episode_steps = 100
    goal_size = 7

    def __init__(
        self,
        object_name: str = "Block",
        target_position: TargetPosition = "random",
        target_rotation: TargetRotation = "xyz",
        touch: Touch | None = None,
        dense: bool = False,
        name: str = "HandManipulateBlock-v1",
    ) -> None:
        self.id, self.object = name, OBJECTS[object_name]
        self.target_position, self.target_rotation = target_position, target_rotation
        self.touch: Touch | None = touch
        self.dense = dense
        self.xml = f"{self.object.xml}{'_touch_sensors' if touch else ''}.xml"
        self.compile_full(())
        self.observation = self._components()

    def on_attach(self) -> None:
        super().on_attach()
        model, engine = self.model, self.engine
        as_tensor = lambda x: torch.as_tensor(x, dtype=engine.dtype, device=engine.device)  # noqa: E731
        joint, self._joints = id_of(model, _JOINT, _OBJECT_JOINT), len(robot_joints(model, "robot0:"))
        start = int(model.jnt_qposadr[joint])
        if int(model.jnt_dofadr[joint]) != self._joints:
            raise ValueError("the object's velocities do not follow the joints'")
        self._pose = self._qpos[:, start : start + 7]
        self._joint_pos, self._velocities = self._qpos[:, : self._joints], self._qvel[:, : self._joints + 6]
        self._ctrl, self._quat = engine.data("ctrl"), self.slices()["object_quat"]
        self._start_pos = as_tensor(model.qpos0[start : start + 3].copy())
        self._start_quat = as_tensor(model.qpos0[start + 3 : start + 7].copy())
        self._parallel = parallel_rotations().to(engine.device)
        self._target_low, self._target_high = as_tensor(_TARGET_RANGE_M).T
        if self.touch:
            sensors = _touch_sensors(model)
            self._touch = engine.data("sensordata")[:, sensors[0] : sensors[-1] + 1]

    def reset(self, mask: Tensor) -> None:
        """Lay the object down until it stays on the palm, then choose where it should go."""
        missing, lost = mask, torch.zeros_like(mask)
        for attempt in range(_MOST_STARTS):
            if not missing.any():
                break
            if attempt:
                self.engine.reset(missing)
            write_rows(self._pose, self._first_pose(attempt), missing)
            write_rows(self._ctrl, self._servo_centre, missing)
            self.engine.advance_some(_SETTLING_STEPS * self.decimation, missing)
            lost = self.engine.diverged()
            missing = missing & (lost | (self._pose[:, 2] <= _ON_PALM_M))
        else:
            self.engine.reset(missing & lost)
        write_rows(self.goal, self._sample_goal(), mask)

    def _first_pose(self, attempt: int) -> Tensor:
        spread = _START_SPREAD_M * self.rng.episode_normal(f"object_pos{attempt}", 3)
        position = self._start_pos + spread.to(self._pose.dtype)
        if not self.object.turned_at_start:
            return torch.cat((position, self._start_quat.expand(len(position), -1)), dim=1)
        return torch.cat((position, quat_multiply(self._start_quat, self._turn(f"object_quat{attempt}"))), dim=1)

    def _sample_goal(self) -> Tensor:
        position = self._pose[:, :3]
        if self.target_position == "random":
            u = self.rng.episode_uniform("goal_pos", 3).to(position.dtype)
            position = position + self._target_low + u * (self._target_high - self._target_low)
        return torch.cat((position, self._turn("goal_quat")), dim=1)

    def _turn(self, tag: str) -> Tensor:
        """Random rotations [N, 4] of the kind that `target_rotation` names."""
        u = self.rng.episode_uniform(tag, 4)
        angle = math.pi * (2.0 * u[:, 0] - 1.0)
        if self.target_rotation == "xyz":
            return axis_angle_to_quat(2.0 * u[:, 1:] - 1.0, angle).to(self._pose.dtype)
        quat = axis_angle_to_quat(constant((0.0, 0.0, 1.0), u.dtype, u.device), angle)
        if self.target_rotation == "parallel":
            quat = quat_multiply(quat, self._parallel[(u[:, 1] * len(self._parallel)).long()])
        return quat.to(self._pose.dtype)

    def observe(self) -> Tensor:
        parts = [self._joint_pos, self._velocities, self._pose]
        if self.touch == "boolean":
            parts.append((self._touch > 0.0).to(self._pose.dtype))
        elif self.touch:
            parts.append(torch.log(self._touch + 1.0) if self.touch == "log" else self._touch)
        return torch.cat((*parts, self.goal), dim=1)

    def derive(self, observation: Tensor) -> Tensor:
        """Whatever its errors, an estimate of the orientation is a quaternion of length 1."""
        quat = observation[:, self._quat]
        quat /= torch.linalg.vector_norm(quat, dim=1, keepdim=True)
        return observation

    def achieved_goal(self) -> Tensor:
        return self._pose.clone()

    def goal_distances(self, achieved: Tensor, desired: Tensor) -> tuple[Tensor | float, Tensor]:
        """Distance in m (0 where positions do not matter) and angle in rad [...] between poses [..., 7]."""
        turned, goal = achieved[..., 3:], desired[..., 3:]
        if self.object.ignore_z:
            euler = torch.cat((quat_to_euler(turned)[..., :2], quat_to_euler(goal)[..., 2:]), dim=-1)
            turned = euler_to_quat(euler)
        angle = 2.0 * torch.acos((turned * goal).sum(-1).clamp(-1.0, 1.0))
        if self.target_position == "ignore":
            return 0.0, angle
        return torch.linalg.vector_norm(achieved[..., :3] - desired[..., :3], dim=-1), angle

    def reward_and_success(self, achieved: Tensor, desired: Tensor) -> tuple[Tensor, Tensor]:
        distance, angle = self.goal_distances(achieved, desired)
        success = angle < _ANGLE_THRESHOLD_RAD
        if isinstance(distance, Tensor):
            success &= distance < self.object.distance_threshold_m
        return -(_DISTANCE_WEIGHT * distance + angle) if self.dense else success.to(angle.dtype) - 1.0, success

    def draw_goal(self, model: mujoco.MjModel, data: mujoco.MjData, index: int) -> None:
        start = int(model.jnt_qposadr[id_of(model, _JOINT, "target:joint")])
        data.qpos[start : start + 7] = self.goal[index].cpu().numpy()
        if self.target_position == "ignore":
            data.qpos[start] += _ASIDE_M
        hidden = mujoco.mj_name2id(model, _GEOM, "object_hidden")
        if hidden >= 0:
            model.geom_rgba[hidden, 3] = 1.0
        mujoco.mj_kinematics(model, data)

    def _components(self) -> tuple[Component, ...]:
        model, it = self.model, ("object",)
        touch = _touch_component(model, self.touch) if self.touch else ()
        return (
            *self.joint_state(),
            vector("object_velp", "m/s", it, "object velocity"),
            vector("object_velr", "rad/s", it, "object angular velocity", frame="object"),
            vector("object_pos", "m", it, "object position"),
            Component("object_quat", 4, "1", elements=_WXYZ, bodies=it, limits=(-1.0, 1.0), description="orientation"),
            *touch,
            Component(
                "desired_goal", 7, "m, 1", measured=False,
                elements=(*(f"pos.{axis}" for axis in XYZ), *(f"quat.{axis}" for axis in _WXYZ)),
                description="pose that the object should have: position, then quaternion",
            ),
        )  # fmt: skip


def _touch_sensors(model: mujoco.MjModel) -> range:
    """Where in the sensor data the touch sensors' readings are."""
    names = [mujoco.mj_id2name(model, _SENSOR, i) or "" for i in range(model.nsensor)]
    found = [i for i, name in enumerate(names) if name.startswith(_TOUCH_PREFIX)]
    if not found or found != list(range(found[0], found[-1] + 1)) or (model.sensor_dim[: found[-1] + 1] != 1).any():
        raise ValueError(f"the sensors named {_TOUCH_PREFIX}* do not follow each other")
    return range(found[0], found[-1] + 1)


def _touch_component(model: mujoco.MjModel, touch: Touch) -> tuple[Component]:
    names = tuple(mujoco.mj_id2name(model, _SENSOR, i) for i in _touch_sensors(model))
    unit, limits, meaning = {
        "boolean": ("1", (0.0, 1.0), "1 where a touch sensor feels a force"),
        "sensordata": ("N", None, "normal force on each touch sensor"),
        "log": ("1", None, "log(1 + normal force in N) of each touch sensor"),
    }[touch]
    return (Component("touch", len(names), unit, "sensor", names, limits=limits, description=meaning),)
