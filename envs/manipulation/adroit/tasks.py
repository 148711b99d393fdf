"""Adroit's Door, Hammer, Pen and Relocate; see `adroit`.

Observation (policy group, in order):

| component           | size | meaning                                                         | unit   |
|---------------------|------|-----------------------------------------------------------------|--------|
| Door                |      |                                                                 |        |
| joint_pos           | 27   | arm (without its slide) and hand                                | rad    |
| latch_pos, door_pos | 1, 1 | latch and hinge of the door                                     | rad    |
| palm_pos            | 3    | palm, world                                                     | m      |
| handle_pos          | 3    | handle of the door, world                                       | m      |
| palm_from_handle    | 3    | palm minus handle                                               | m      |
| door_open           | 1    | 1 where the door is open by more than 1 rad, else -1            | 1      |
| Hammer              |      |                                                                 |        |
| joint_pos           | 26   | arm and hand                                                    | rad    |
| nail_depth          | 1    | how far the nail is in                                          | m      |
| object_velp, _velr  | 3, 3 | velocities of the hammer's joints, clipped to 1                 | m/s, rad/s |
| palm_pos, object_pos| 3, 3 | palm and hammer, world                                          | m      |
| object_rot          | 3    | orientation of the hammer, XYZ Euler angles                     | rad    |
| nail_pos            | 3    | head of the nail, world                                         | m      |
| nail_force          | 1    | force on the nail's head, clipped to 1                          | N      |
| Pen                 |      |                                                                 |        |
| joint_pos           | 24   | hand                                                            | rad    |
| object_pos          | 3    | pen, world                                                      | m      |
| object_velp, _velr  | 3, 3 | velocities of the pen's joints                                  | m/s, rad/s |
| object_axis         | 3    | direction of the pen, world                                     | 1      |
| target_axis         | 3    | direction that it should have                                   | 1      |
| object_from_target  | 3    | pen minus where it should be                                    | m      |
| axis_error          | 3    | object_axis minus target_axis                                   | 1      |
| Relocate            |      |                                                                 |        |
| joint_pos_slide     | 3    | slides of the arm                                               | m      |
| joint_pos           | 27   | arm and hand                                                    | rad    |
| palm_from_object    | 3    | palm minus ball                                                 | m      |
| palm_from_target    | 3    | palm minus where the ball should be                             | m      |
| object_from_target  | 3    | ball minus where it should be                                   | m      |
"""

from __future__ import annotations

from typing import ClassVar

import mujoco
import torch
from torch import Tensor

from envs.common.spatial import constant, euler_to_quat, quat_to_euler
from envs.manipulation.adroit.common import AdroitTask, ResetRange
from envs.task import XYZ, Component, id_of, vector

_PEN_LENGTH_M = 0.13  # between the sites at its ends
_PEN_TURN_RAD = (1.0, 1.0, 0.0)  # Euler angles up to which its target is turned, either way
_OBJECT = ("Object",)  # the body that is handled
_BODY, _JOINT = mujoco.mjtObj.mjOBJ_BODY, mujoco.mjtObj.mjOBJ_JOINT
_SENSOR, _SITE = mujoco.mjtObj.mjOBJ_SENSOR, mujoco.mjtObj.mjOBJ_SITE


class AdroitHandDoorTask(AdroitTask):
    """Undo the latch and open the door."""

    name, start, joints = "Door", 1, 27
    render_camera: ClassVar = {"distance": 1.5, "azimuth": 90.0, "elevation": -20.0, "lookat": (0.0, -0.1, 0.25)}

    def parts(self) -> tuple[Component, ...]:
        latch, hinge = ("latch",), ("door_hinge",)
        return (
            Component("latch_pos", 1, "rad", "joint", latch, latch, limits=(0.0, 1.8), description="latch of the door"),
            Component("door_pos", 1, "rad", "joint", hinge, hinge, limits=(0.0, 1.57), description="hinge of the door"),
            vector("palm_pos", "m", ("S_grasp",), "palm, world"),
            vector("handle_pos", "m", ("S_handle",), "handle of the door, world"),
            vector("palm_from_handle", "m", (), "palm minus handle", derived_from=("palm_pos", "handle_pos")),
            Component(
                "door_open", 1, "1", derived_from=("door_pos",), limits=(-1.0, 1.0),
                description="1 where the door is open by more than 1 rad, else -1",
            ),
        )  # fmt: skip

    def on_attach(self) -> None:
        super().on_attach()
        start = int(self.model.jnt_qposadr[id_of(self.model, _JOINT, "door_hinge")])
        self._angle, self._latch = self._qpos[:, start : start + 1], self._qpos[:, -1:]
        self._handle = self.site("S_handle")

    def reset_ranges(self) -> tuple[ResetRange, ...]:
        frame = id_of(self.model, _BODY, "frame")
        return (ResetRange(self.engine, "body_pos", frame, (-0.3, 0.25, 0.252), (-0.2, 0.35, 0.35)),)

    def observe(self) -> Tensor:
        open_ = torch.where(self._angle > 1.0, 1.0, -1.0).to(self._angle.dtype)
        parts = (self._joint_pos, self._latch, self._angle, self._palm, self._handle, self._palm - self._handle, open_)
        return torch.cat(parts, dim=1)

    def derive(self, observation: Tensor) -> Tensor:
        s = self._slices
        observation[:, s["palm_from_handle"]] = observation[:, s["palm_pos"]] - observation[:, s["handle_pos"]]
        observation[:, s["door_open"]] = torch.where(observation[:, s["door_pos"]] > 1.0, 1.0, -1.0).to(
            observation.dtype
        )
        return observation

    def reward_and_success(self) -> tuple[Tensor, Tensor]:
        angle = self._angle[:, 0]
        reward = 0.1 * _norm(self._palm - self._handle) - 0.1 * (angle - 1.57).square()
        reward = reward - 1e-5 * self._qvel.square().sum(dim=1)
        reward = reward + 2.0 * (angle > 0.2) + 8.0 * (angle > 1.0) + 10.0 * (angle > 1.35)
        return reward, angle >= 1.35


class AdroitHandHammerTask(AdroitTask):
    """Take the hammer and drive the nail in."""

    name, joints = "Hammer", 26
    render_camera: ClassVar = {"distance": 1.2, "azimuth": 45.0, "elevation": -35.0, "lookat": (0.0, -0.35, 0.1)}

    def parts(self) -> tuple[Component, ...]:
        nail = ("nail_dir",)
        return (
            Component("nail_depth", 1, "m", "joint", nail, nail, limits=(-0.01, 0.09), description="how far it is in"),
            *_object_velocities(limit=1.0),
            vector("palm_pos", "m", ("S_grasp",), "palm, world"),
            vector("object_pos", "m", _OBJECT, "hammer, world"),
            vector("object_rot", "rad", _OBJECT, "hammer, XYZ Euler angles"),
            vector("nail_pos", "m", ("S_target",), "head of the nail, world"),
            Component(
                "nail_force", 1, "N", "sensor", ("S_nail",), limits=(-1.0, 1.0),
                description="force on the nail's head, clipped",
            ),
        )  # fmt: skip

    def on_attach(self) -> None:
        super().on_attach()
        self._nail_depth = self._qpos[:, self.joints : self.joints + 1]
        self._object, self._tool = self.body("Object"), self.site("tool")
        self._object_quat = self._xquat[:, id_of(self.model, _BODY, "Object")]
        self._nail, self._nail_goal = self.site("S_target"), self.site("nail_goal")
        sensor = int(self.model.sensor_adr[id_of(self.model, _SENSOR, "S_nail")])
        self._force = self.engine.data("sensordata")[:, sensor : sensor + 1]

    def reset_ranges(self) -> tuple[ResetRange, ...]:
        board = id_of(self.model, _BODY, "nail_board")
        return (ResetRange(self.engine, "body_pos", board, (None, None, 0.1), (None, None, 0.25)),)

    def observe(self) -> Tensor:
        parts = (
            self._joint_pos, self._nail_depth, self._qvel[:, -6:].clamp(-1.0, 1.0), self._palm, self._object,
            quat_to_euler(self._object_quat), self._nail, self._force.clamp(-1.0, 1.0),
        )  # fmt: skip
        return torch.cat(parts, dim=1)

    def reward_and_success(self) -> tuple[Tensor, Tensor]:
        left = _norm(self._nail - self._nail_goal)
        reward = 0.1 * _norm(self._palm - self._object) - _norm(self._tool - self._nail) - 10.0 * left
        reward = reward - 1e-2 * _norm(self._qvel)
        lifted = (self._object[:, 2] > 0.04) & (self._tool[:, 2] > 0.04)
        return reward + 2.0 * lifted + 25.0 * (left < 0.02) + 75.0 * (left < 0.01), left < 0.01


class AdroitHandPenTask(AdroitTask):
    """Turn the pen in the hand until it points as the target does."""

    name, joints = "Pen", 24
    render_camera: ClassVar = {"distance": 0.8, "azimuth": -45.0, "elevation": -30.0, "lookat": (0.05, -0.25, 0.2)}

    def parts(self) -> tuple[Component, ...]:
        return (
            vector("object_pos", "m", _OBJECT, "pen, world"),
            *_object_velocities(),
            vector("object_axis", "1", _OBJECT, "direction of the pen"),
            vector("target_axis", "1", (), "direction that it should have", measured=False),
            vector("object_from_target", "m", _OBJECT, "pen minus where it should be", derived_from=("object_pos",)),
            vector(
                "axis_error", "1", _OBJECT, "object_axis minus target_axis", derived_from=("object_axis", "target_axis")
            ),
        )

    def on_attach(self) -> None:
        super().on_attach()
        self._object, self._target = self.body("Object"), self.site("eps_ball")
        self._ends = [self.site(name) for name in ("object_top", "object_bottom", "target_top", "target_bottom")]

    def reset_ranges(self) -> tuple[ResetRange, ...]:
        kept = (None,) * 4  # `reset` draws angles instead
        return (ResetRange(self.engine, "body_quat", id_of(self.model, _BODY, "target"), kept, kept),)

    def reset(self, mask: Tensor) -> None:
        u = self.rng.episode_uniform("target", 3).to(self.engine.dtype)
        turn = constant(_PEN_TURN_RAD, u.dtype, u.device)
        self._ranges[0].write(mask, euler_to_quat(turn * (2.0 * u - 1.0)))

    def _axes(self) -> tuple[Tensor, Tensor]:
        top, bottom, target_top, target_bottom = self._ends
        return (top - bottom) / _PEN_LENGTH_M, (target_top - target_bottom) / _PEN_LENGTH_M

    def observe(self) -> Tensor:
        axis, target = self._axes()
        missing = self._object - self._target
        return torch.cat(
            (self._joint_pos, self._object, self._qvel[:, -6:], axis, target, missing, axis - target), dim=1
        )

    def derive(self, observation: Tensor) -> Tensor:
        s = self._slices
        observation[:, s["object_from_target"]] = observation[:, s["object_pos"]] - self._target
        observation[:, s["axis_error"]] = observation[:, s["object_axis"]] - observation[:, s["target_axis"]]
        return observation

    def reward_and_success(self) -> tuple[Tensor, Tensor]:
        axis, target = self._axes()
        distance, similarity = _norm(self._object - self._target), (axis * target).sum(dim=1)
        near = distance < 0.075
        success = near & (similarity > 0.95)
        reward = similarity - distance + 10.0 * (near & (similarity > 0.9)) + 50.0 * success
        return reward - 5.0 * (self._object[:, 2] < 0.075), success


class AdroitHandRelocateTask(AdroitTask):
    """Carry the ball to the target."""

    name, joints = "Relocate", 30
    render_camera: ClassVar = {"distance": 1.3, "azimuth": 90.0, "elevation": -30.0, "lookat": (0.0, -0.25, 0.15)}

    def parts(self) -> tuple[Component, ...]:
        palm, differences = ("S_grasp",), ("palm_from_target", "palm_from_object")
        return (
            vector("palm_from_object", "m", palm + _OBJECT, "palm minus ball"),
            vector("palm_from_target", "m", palm, "palm minus target"),
            vector("object_from_target", "m", _OBJECT, "ball minus target", derived_from=differences),
        )

    def on_attach(self) -> None:
        super().on_attach()
        self._object, self._target = self.body("Object"), self.site("target")

    def reset_ranges(self) -> tuple[ResetRange, ...]:
        ball, target = id_of(self.model, _BODY, "Object"), id_of(self.model, _SITE, "target")
        return (
            ResetRange(self.engine, "body_pos", ball, (-0.15, -0.15, None), (0.15, 0.3, None)),
            ResetRange(self.engine, "site_pos", target, (-0.2, -0.2, 0.15), (0.2, 0.2, 0.35)),
        )

    def observe(self) -> Tensor:
        parts = (self._palm - self._object, self._palm - self._target, self._object - self._target)
        return torch.cat((self._joint_pos, *parts), dim=1)

    def derive(self, observation: Tensor) -> Tensor:
        s = self._slices
        measured = observation[:, s["palm_from_target"]] - observation[:, s["palm_from_object"]]
        observation[:, s["object_from_target"]] = measured
        return observation

    def reward_and_success(self) -> tuple[Tensor, Tensor]:
        missing = _norm(self._object - self._target)
        lifted = (self._object[:, 2] > 0.04) * (1.0 - 0.5 * _norm(self._palm - self._target) - 0.5 * missing)
        reward = 0.1 * _norm(self._palm - self._object) + lifted
        return reward + 10.0 * (missing < 0.1) + 20.0 * (missing < 0.05), missing < 0.1


def _norm(vector: Tensor) -> Tensor:
    return torch.linalg.vector_norm(vector, dim=-1)


def _object_velocities(limit: float | None = None) -> tuple[Component, Component]:
    limits = None if limit is None else (-limit, limit)
    slides, hinges = tuple(f"OBJT{axis}" for axis in XYZ), tuple(f"OBJR{axis}" for axis in XYZ)
    return (
        Component(
            "object_velp", 3, "m/s", "joint", slides, slides, limits=limits, description="velocity of the object"
        ),
        Component(
            "object_velr", 3, "rad/s", "joint", hinges, hinges, limits=limits,
            description="angular velocity of the object, about the axes of its joints",
        ),
    )  # fmt: skip
