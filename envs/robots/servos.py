"""Position servos on a robot's joints: put into a specification, with gains that fit what they carry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from envs.common.errors import TaskError
from envs.common.messages import nearest
from envs.robots.ready import SINGLE
from envs.validation.drives import Drive, find_drive

_SAG_RAD, _WHOLE_AT_RAD = 0.05, 0.1  # under its weight; error at which a servo uses all of its motor
_SLOWEST_RAD_S = 2.0 * np.pi * 1.5  # natural frequency at least
_STRONG = 4.0  # times what the weight takes: motors of which nothing is known
_POSES = 64
_LIGHT = 1e-4  # kg m^2 or kg


@dataclass(frozen=True)
class Servo:
    """A joint's position controller: force = stiffness (target - position) - damping velocity, within +-effort.

    Args:
        joint: its name.
        stiffness: N m/rad or N/m.
        damping: N m s/rad or N s/m.
        effort: largest torque or force, N m or N; None for no limit.
        armature: inertia of the rotor as the joint feels it, kg m^2 or kg; None: as in the model.
    """

    joint: str
    stiffness: float
    damping: float
    effort: float | None = None
    armature: float | None = None


def put_servos(spec: mujoco.MjSpec, servos: Sequence[Servo]) -> None:
    """Make the actuators of joints position servos; joints without one get one, called as the joint.

    Raises:
        TaskError: there is no such joint, or it has several actuators.
    """
    by_joint: dict[str, list[mujoco.MjsActuator]] = {}
    for actuator in spec.actuators:
        if int(actuator.trntype) in (int(mujoco.mjtTrn.mjTRN_JOINT), int(mujoco.mjtTrn.mjTRN_JOINTINPARENT)):
            by_joint.setdefault(actuator.target, []).append(actuator)
    for servo in servos:
        joint = spec.joint(servo.joint)
        if joint is None:
            near = nearest(servo.joint, [other.name for other in spec.joints])
            raise TaskError(f"servos: no joint {servo.joint!r}{near}")
        if servo.armature is not None:
            joint.armature = servo.armature
        _serve(spec, servo, by_joint.get(servo.joint, []))


def _serve(spec: mujoco.MjSpec, servo: Servo, found: list[mujoco.MjsActuator]) -> None:
    name = servo.joint
    if len(found) > 1:
        names = ", ".join(actuator.name for actuator in found)
        raise TaskError(f"servos: joint {name!r} has several actuators ({names}); expected one")
    actuator = found[0] if found else spec.add_actuator(name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
    actuator.name = actuator.name or name
    position = int(actuator.biastype) == int(mujoco.mjtBias.mjBIAS_AFFINE) and actuator.biasprm[1] != 0.0
    if not position or actuator.gear[0] != 1.0 or int(actuator.dyntype) != int(mujoco.mjtDyn.mjDYN_NONE):
        actuator.gaintype, actuator.biastype = mujoco.mjtGain.mjGAIN_FIXED, mujoco.mjtBias.mjBIAS_AFFINE
        actuator.dyntype, actuator.gear[0] = mujoco.mjtDyn.mjDYN_NONE, 1.0
        actuator.gainprm[:], actuator.biasprm[:] = 0.0, 0.0
        actuator.ctrllimited, actuator.ctrlrange = mujoco.mjtLimited.mjLIMITED_FALSE, (0.0, 0.0)
    actuator.gainprm[0], actuator.biasprm[1], actuator.biasprm[2] = servo.stiffness, -servo.stiffness, -servo.damping
    if servo.effort is not None:
        actuator.forcerange = (-servo.effort, servo.effort)
        if int(actuator.forcelimited) == int(mujoco.mjtLimited.mjLIMITED_FALSE):
            actuator.forcelimited = mujoco.mjtLimited.mjLIMITED_TRUE


def drives_of(model: mujoco.MjModel) -> dict[int, Drive]:
    """The actuator of each joint that has one."""
    found = [drive for i in range(model.nactuator) if (drive := find_drive(model, i)) is not None]
    return {drive.joint: drive for drive in found if drive.joint is not None}


def effort_of(model: mujoco.MjModel, joint: int, drive: Drive | None) -> float | None:
    """The largest torque or force of a joint's motor; None where the file does not say."""
    found = []
    if model.jnt_actfrclimited[joint]:
        found.append(float(np.abs(model.jnt_actfrcrange[joint]).max()))
    if drive is not None and model.actuator_forcelimited[drive.actuator]:
        found.append(float(np.abs(model.actuator_forcerange[drive.actuator]).max()) * abs(drive.gear))
    if drive is not None and drive.follows == "force" and (clips := drive.clips(model)) is not None:
        found.append(
            max(abs(end) for end in clips) * abs(float(model.actuator_gainprm[drive.actuator, 0]) * drive.gear)
        )
    return min((force for force in found if force > 0.0), default=None)


def fitting_servos(model: mujoco.MjModel, home: np.ndarray, joints: Sequence[int]) -> list[Servo]:
    """Servos for joints that have none: stiff enough for their weight, damped critically, within their motors.

    The weight and the inertia that a joint carries are the largest of many poses within its limits. The rotor's inertia
    is the file's, or the least with which damping does not flip speeds at this timestep (kv h = I; docs/check.md).

    Args:
        model: of the robot.
        home: [nq] about which poses are.
        joints: indices.
    """
    weight, inertia = _loads(model, home)
    drives, servos = drives_of(model), []
    for joint in joints:
        dof = int(model.jnt_dofadr[joint])
        effort = effort_of(model, joint, drives.get(joint))
        most = effort if effort is not None else _STRONG * max(float(weight[dof]), float(inertia[dof]) * 10.0, _LIGHT)
        wanted = max(float(weight[dof]) / _SAG_RAD, float(inertia[dof]) * _SLOWEST_RAD_S**2, 10.0 * _LIGHT)
        stiffness = min(wanted, most / _WHOLE_AT_RAD)
        damping = 2.0 * float(np.sqrt(stiffness * max(float(inertia[dof]), _LIGHT)))
        armature = max(float(model.dof_armature[dof]), damping * float(model.opt.timestep))
        numbers = (float(f"{value:.4g}") for value in (stiffness, damping, most, armature))
        servos.append(Servo(model.joint(joint).name, *numbers))
    return servos


def _loads(model: mujoco.MjModel, home: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Largest weight [nv] that joints hold, and largest inertia [nv] that they move, over poses about `home`."""
    random, data = np.random.default_rng(0), mujoco.MjData(model)
    weight, inertia = np.zeros(model.nv), np.zeros(model.nv)
    single = [j for j in range(model.njnt) if int(model.jnt_type[j]) in SINGLE]
    dense = np.zeros((model.nv, model.nv))
    for k in range(_POSES):
        data.qpos[:] = home
        for joint in single if k else []:
            low, high = model.jnt_range[joint] if model.jnt_limited[joint] else (-1.5, 1.5)
            data.qpos[model.jnt_qposadr[joint]] = random.uniform(low, high)
        data.qvel[:] = 0.0
        mujoco.mj_forward(model, data)
        mujoco.mj_fullM(model, data, dense)
        weight = np.maximum(weight, np.abs(data.qfrc_bias))
        inertia = np.maximum(inertia, np.diagonal(dense))
    return weight, inertia
