"""What tasks with a hand on servos share: the model, the action, and how joints are named to a policy.

The Shadow Dexterous Hand has 24 joints and 20 position servos: the outermost joint of each finger but the thumb is
coupled to the one before it by a tendon. Actions -1 and 1 are the ends of each servo's control range.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cache
from itertools import groupby
from typing import ClassVar

import mujoco
import torch
from torch import Tensor

from envs.platform.gymnasium_robotics_patch import robotics_asset
from envs.task import ActionComponent, Component, Outcome, SpecEdit, Task, compile_spec, spec_edits

_JOINT, _ACTUATOR = mujoco.mjtObj.mjOBJ_JOINT, mujoco.mjtObj.mjOBJ_ACTUATOR
_SLIDE = int(mujoco.mjtJoint.mjJNT_SLIDE)


@cache
def _load(xml: str, full: tuple[int, ...], _edits: tuple[SpecEdit, ...]) -> mujoco.MjModel:
    """One of gymnasium-robotics' models of the Shadow hand. `full`: see `compile_spec`, which makes the `_edits`."""
    return compile_spec(mujoco.MjSpec.from_file(str(robotics_asset("hand", xml))), full)


class HandTask(Task):
    """A task in which every actuator is a servo on one joint; subclasses set `model`, `observation` and the rest."""

    def use_servos(self, model: mujoco.MjModel) -> None:
        """Take the model and make actions of its actuators."""
        self.model = model
        self.action = servo_components(model)

    def on_attach(self) -> None:
        engine = self.engine
        low, high = engine.nominal("actuator_ctrlrange").to(engine.device, engine.dtype).T
        self._servo_centre, self._servo_half_range = (low + high) / 2.0, (high - low) / 2.0
        self._qpos, self._qvel = engine.data("qpos"), engine.data("qvel")

    def command(self, action: Tensor) -> Tensor:
        # gymnasium-robotics scales its float32 actions in float64.
        return self._servo_centre + action.to(self.engine.dtype) * self._servo_half_range


class ShadowHandTask(HandTask):
    """A goal task of the Shadow hand; subclasses name the model and say what reaches a goal."""

    decimation = 20  # physics steps of 2 ms: the hand is controlled at 25 Hz
    render_camera: ClassVar = {"distance": 0.5, "azimuth": 55.0, "elevation": -25.0, "lookat": (1.0, 0.96, 0.14)}
    xml: str  # one of gymnasium-robotics' models

    def compile_full(self, bodies: Sequence[int]) -> None:
        self.use_servos(_load(self.xml, tuple(bodies), spec_edits()))

    def joint_state(self) -> tuple[Component, ...]:
        """Positions and velocities of the hand's joints."""
        joints = robot_joints(self.model, "robot0:")
        return (
            *joint_components(self.model, "joint_pos", joints, "position"),
            *joint_components(self.model, "joint_vel", joints, "velocity"),
        )

    @abstractmethod
    def reward_and_success(self, achieved: Tensor, desired: Tensor) -> tuple[Tensor, Tensor]:
        """Reward [...] and success [...] (bool) for goals [..., G]."""

    def goal_reward(self, achieved: Tensor, desired: Tensor) -> Tensor:
        return self.reward_and_success(achieved, desired)[0]

    def goal_success(self, achieved: Tensor, desired: Tensor) -> Tensor:
        return self.reward_and_success(achieved, desired)[1]

    def outcome(self, action: Tensor) -> Outcome:
        reward, success = self.reward_and_success(self.achieved_goal(), self.goal)
        return Outcome(reward, torch.zeros_like(success), success)


def joint_name(model: mujoco.MjModel, index: int) -> str:
    """Name of a joint."""
    return mujoco.mj_id2name(model, _JOINT, index)


def robot_joints(model: mujoco.MjModel, prefix: str) -> range:
    """Indices of the joints whose names start with `prefix`; they come first and have one coordinate each."""
    count = sum(joint_name(model, i).startswith(prefix) for i in range(model.njnt))
    if not all(joint_name(model, i).startswith(prefix) and model.jnt_qposadr[i] == i for i in range(count)):
        raise ValueError(f"the joints named {prefix}* are not the model's first")
    return range(count)


def joint_components(model: mujoco.MjModel, name: str, joints: Sequence[int], what: str) -> tuple[Component, ...]:
    """Positions or velocities (`what`) of hinges and slides, in order; one component for each run of equal units."""
    rate = "/s" if what == "velocity" else ""
    parts = []
    for slides, run in groupby(joints, lambda i: int(model.jnt_type[i]) == _SLIDE):
        indices = list(run)
        names = tuple(joint_name(model, i) for i in indices)
        limited = what == "position" and bool(model.jnt_limited[indices].all())
        low, high = (float(model.jnt_range[indices, 0].min()), float(model.jnt_range[indices, 1].max()))
        parts.append(
            Component(
                f"{name}_slide" if slides else name, len(names), ("m" if slides else "rad") + rate, "joint",
                elements=names, joints=names, limits=(low, high) if limited else None,
                description=f"{what} of {'sliding' if slides else 'turning'} joints",
            )
        )  # fmt: skip
    return tuple(parts)


def servo_components(model: mujoco.MjModel) -> tuple[ActionComponent, ...]:
    """The servos in the model's order; one component for each run of equal units."""
    if not (model.actuator_trntype == int(mujoco.mjtTrn.mjTRN_JOINT)).all():
        raise ValueError("every actuator of the model must act on a joint")
    joints = model.actuator_trnid[:, 0].tolist()
    low, high = model.actuator_ctrlrange.T
    parts = []
    for slides, run in groupby(range(model.nu), lambda i: int(model.jnt_type[joints[i]]) == _SLIDE):
        indices = list(run)
        names = tuple(joint_name(model, joints[i]) for i in indices)
        parts.append(
            ActionComponent(
                "slide_target" if slides else "joint_target", len(indices), "m" if slides else "rad",
                tuple(((high - low) / 2.0)[indices].tolist()), tuple(((low + high) / 2.0)[indices].tolist()),
                elements=names, joints=names,
                actuators=tuple(mujoco.mj_id2name(model, _ACTUATOR, i) for i in indices), frame="joint",
                description="targets of the joints' servos",
            )
        )  # fmt: skip
    return tuple(parts)
