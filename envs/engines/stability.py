"""What physics steps of a given length can resolve: the damping that an integrator bears, and the speeds beyond which
a simulation counts as unstable, long before its numbers overflow.

MuJoCo ends a simulation that becomes unstable when a number passes 1e10. Until then it shows numbers that are finite
and mean nothing, sometimes for many control steps. Within one physics step no mechanism makes a whole turn of a joint,
or crosses a hundred times the extent of the model: the integrator would see nothing of what happens in between.
"""

from __future__ import annotations

import math

import mujoco
import numpy as np
from numpy.typing import NDArray

_TURNS, _EXTENTS = 1.0, 100.0  # per physics step
_TO_JOINT = (int(mujoco.mjtTrn.mjTRN_JOINT), int(mujoco.mjtTrn.mjTRN_JOINTINPARENT))
_EULER, _RK4 = int(mujoco.mjtIntegrator.mjINT_EULER), int(mujoco.mjtIntegrator.mjINT_RK4)
_AFFINE = int(mujoco.mjtBias.mjBIAS_AFFINE)
_SINGLE = (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE))
_NO_EULERDAMP = int(mujoco.mjtDisableBit.mjDSBL_EULERDAMP)
# Decay rate times timestep beyond which explicit steps grow: of Euler's method and of the classical Runge-Kutta method
# (Hairer and Wanner, Solving Ordinary Differential Equations II, IV.2).
_LIMITS = {_EULER: 2.0, _RK4: 2.785}


def speed_limits(model: mujoco.MjModel) -> NDArray[np.float64]:
    """Speeds [nv], rad/s or m/s, beyond which a simulation of `model` counts as unstable. They follow the model's own
    timestep and extent, so that no unit and no size is preferred."""
    turn = 2.0 * math.pi * _TURNS / model.opt.timestep
    length = _EXTENTS * model.stat.extent / model.opt.timestep
    limits = np.full(model.nv, turn)
    for start, kind in zip(model.jnt_dofadr.tolist(), model.jnt_type.tolist(), strict=True):
        if kind == int(mujoco.mjtJoint.mjJNT_SLIDE):
            limits[start] = length
        elif kind == int(mujoco.mjtJoint.mjJNT_FREE):
            limits[start : start + 3] = length
    return limits


def servo_damping(model: mujoco.MjModel) -> np.ndarray:
    """Damping [nv] that actuators with a velocity gain exert on the hinges and slides that they drive."""
    damping = np.zeros(model.nv)
    for i in range(model.nactuator):
        joint = int(model.actuator_trnid[i, 0])
        affine = int(model.actuator_biastype[i]) == _AFFINE and int(model.actuator_trntype[i]) in _TO_JOINT
        if affine and int(model.jnt_type[joint]) in _SINGLE:
            gear = float(model.actuator_gear[model.actuator_outadr[i], 0])
            damping[model.jnt_dofadr[joint]] -= model.actuator_biasprm[i, 2] * gear**2
    return damping


def explicit_damping(model: mujoco.MjModel) -> tuple[float, float, str]:
    """The fastest decay that the integrator treats explicitly, in the model's initial pose.

    RK4 treats all damping so, Euler that of servos (and of joints, where the flag `eulerdamp` is off), the implicit
    integrators none.

    Returns:
        its rate times the timestep; the most that is stable; the joint where it is fastest.
    """
    integrator = int(model.opt.integrator)
    if integrator not in _LIMITS or not model.nv:
        return 0.0, np.inf, ""
    of_joints = integrator == _RK4 or int(model.opt.disableflags) & _NO_EULERDAMP
    damping = servo_damping(model) + (model.dof_damping if of_joints else 0.0)
    data, inertia = mujoco.MjData(model), np.zeros((model.nv, model.nv))
    mujoco.mj_forward(model, data)
    mujoco.mj_fullM(model, data, inertia)
    root = np.sqrt(np.maximum(damping, 0.0))
    rates, modes = np.linalg.eigh(root[:, None] * np.linalg.inv(inertia) * root)
    joint = int(model.dof_jntid[int(np.abs(modes[:, -1]).argmax())])
    name = mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_JOINT, joint) or f"joint number {joint}"
    return float(rates[-1] * model.opt.timestep), _LIMITS[integrator], name
