"""Which actuators are motors whose inside can be described: their torque follows from command, angle and speed."""

from __future__ import annotations

import mujoco
import numpy as np

from randomization.physics.force_limits import force_limits
from randomization.targets.objects import is_motor_or_servo

_FIXED, _NO_DYNAMICS = int(mujoco.mjtGain.mjGAIN_FIXED), int(mujoco.mjtDyn.mjDYN_NONE)
_TO_JOINT = (int(mujoco.mjtTrn.mjTRN_JOINT), int(mujoco.mjtTrn.mjTRN_JOINTINPARENT))
_SINGLE = (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE))


def is_motor(model: mujoco.MjModel, actuator: int) -> bool:
    """Whether an actuator is a motor, servo or damper at a hinge or slide: force = gain * command + b0 + b1 * length +
    b2 * velocity, of the present command."""
    return (
        is_motor_or_servo(model, actuator)
        and int(model.actuator_gaintype[actuator]) == _FIXED
        and int(model.actuator_dyntype[actuator]) == _NO_DYNAMICS
        and not model.actuator_delay[actuator] > 0
        and int(model.actuator_trntype[actuator]) in _TO_JOINT
        and int(model.jnt_type[model.actuator_trnid[actuator, 0]]) in _SINGLE
        and gear_of(model, actuator) != 0.0
    )


def is_servo(model: mujoco.MjModel, actuator: int) -> bool:
    """Whether a motor's torque follows from its angle, as its encoder shows it."""
    return is_motor(model, actuator) and bool(model.actuator_biasprm[actuator, 1])


def gear_of(model: mujoco.MjModel, actuator: int) -> float:
    """Torque at the joint for a force of 1 of the actuator (MuJoCo's gear), of an actuator at a hinge or slide."""
    return float(model.actuator_gear[int(model.actuator_outadr[actuator]), 0])


def largest_torque(model: mujoco.MjModel, actuator: int) -> float:
    """The largest torque (N m, or N) of a motor at its joint: where its own limit or its joint's saturates it, or what
    the largest command leads to; infinite where nothing says."""
    gear = abs(gear_of(model, actuator))
    found = [
        float(np.abs(getattr(model, limit.field)[limit.index]).max()) * (gear if "actuator" in limit.field else 1.0)
        for limit in force_limits(model, actuator)
    ]
    control = int(model.actuator_ctrladr[actuator])
    if not model.actuator_biasprm[actuator, :3].any() and model.actuator_ctrllimited[control]:
        command = float(np.abs(model.actuator_ctrlrange[control]).max())
        found.append(gear * abs(float(model.actuator_gainprm[actuator, 0])) * command)
    return min(found, default=float("inf"))


def has_largest_torque(model: mujoco.MjModel, actuator: int) -> bool:
    """Whether an actuator is a motor with a largest torque, which limits are shares of."""
    return is_motor(model, actuator) and 0.0 < largest_torque(model, actuator) < float("inf")
