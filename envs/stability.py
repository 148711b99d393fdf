"""Notices that a simulation has left what its physics steps resolve, long before its numbers overflow.

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
