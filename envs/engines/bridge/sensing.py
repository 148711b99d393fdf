"""What MuJoCo's sensors show of a motion that another simulator has made."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.engines.bridge.forces import Forces
from envs.engines.bridge.mechanism import cross
from envs.engines.bridge.simulator import Touch

Array = NDArray[np.float64]

# Fields of mjData that follow from accelerations and contact forces, which are the other simulator's.
SEEN = ("qacc", "cacc", "cfrc_int", "cfrc_ext", "qfrc_constraint", "sensordata")
_ACCELERATION = int(mujoco.mjtStage.mjSTAGE_ACC)
_CONTACT = int(mujoco.mjtSensor.mjSENS_CONTACT)
_FOUND, _FORCE = int(mujoco.mjtConDataField.mjCONDATA_FOUND), int(mujoco.mjtConDataField.mjCONDATA_FORCE)
_OBJECTS = mujoco.mjtObj


def acceleration_sensors(model: mujoco.MjModel) -> NDArray[np.bool_]:
    """Which values of sensordata [nsensordata] (bool) follow from accelerations or contact forces."""
    found = np.zeros(model.nsensordata, dtype=bool)
    for s in np.flatnonzero(model.sensor_needstage == _ACCELERATION):
        found[model.sensor_adr[s] : model.sensor_adr[s] + model.sensor_dim[s]] = True
    return found


def observe(forces: Forces, qpos: Array, qvel: Array, acceleration: Array, touches: Sequence[Touch]) -> mujoco.MjData:
    """MuJoCo's data with the fields of `SEEN`, for a physics step of another simulator.

    Args:
        forces: of the simulation; its `data` is what is returned.
        qpos, qvel: the state at the beginning of the step, as that is what MuJoCo's own steps leave behind.
        acceleration: of the step [nv], a difference of velocities.
        touches: what pressed on what in it.
    """
    model, data = forces.model, forces.data
    forces.evaluate(qpos, qvel)
    push, pushes = forces.push(), data.xfrc_applied.copy()
    data.qacc[:] = acceleration
    needed = np.zeros(model.nv)
    mujoco.mj_rne(model, data, 1, needed)
    needed += model.dof_armature * acceleration
    data.qfrc_constraint[:] = needed - data.qfrc_passive - data.qfrc_actuator - data.qfrc_applied - push
    for touch in touches:
        for geom, sign in zip(touch.geoms, (-1.0, 1.0), strict=True):
            body = int(model.geom_bodyid[geom])
            force = sign * touch.force
            data.xfrc_applied[body, :3] += force
            data.xfrc_applied[body, 3:] += cross(touch.pos - data.xipos[body], force)
    data.xfrc_applied[0] = 0.0
    mujoco.mj_rnePostConstraint(model, data)
    mujoco.mj_sensorAcc(model, data)
    for s in np.flatnonzero(model.sensor_type == _CONTACT):
        start, size = int(model.sensor_adr[s]), int(model.sensor_dim[s])
        data.sensordata[start : start + size] = _contacts(model, int(s), touches)
    data.xfrc_applied[:] = pushes
    return data


def _contacts(model: mujoco.MjModel, sensor: int, touches: Sequence[Touch]) -> Array:
    """Values of a contact sensor: how many contacts, and their net force in the world's axes, each where it shows them.

    The force is that on the second of the two objects that the sensor names, as MuJoCo has it.
    """
    count, net = 0, np.zeros(3)
    first = (int(model.sensor_objtype[sensor]), int(model.sensor_objid[sensor]))
    second = (int(model.sensor_reftype[sensor]), int(model.sensor_refid[sensor]))
    for touch in touches:
        a, b = touch.geoms
        if _of(model, a, *first) and _of(model, b, *second):
            sign = 1.0
        elif _of(model, b, *first) and _of(model, a, *second):
            sign = -1.0
        else:
            continue
        count, net = count + 1, net + sign * touch.force
    fields = int(model.sensor_intprm[sensor, 0])
    shown = [np.array([float(count)])] if fields & (1 << _FOUND) else []
    shown += [net] if fields & (1 << _FORCE) else []
    values = np.concatenate(shown)
    return np.pad(values, (0, int(model.sensor_dim[sensor]) - len(values)))


def _of(model: mujoco.MjModel, geom: int, kind: int, index: int) -> bool:
    """Whether a geom is what a contact sensor names: a geom, a body, all that hangs on a body, or anything."""
    body = int(model.geom_bodyid[geom])
    if kind == int(_OBJECTS.mjOBJ_GEOM):
        return geom == index
    if kind == int(_OBJECTS.mjOBJ_BODY):
        return body == index
    if kind == int(_OBJECTS.mjOBJ_XBODY):
        while body > index:
            body = int(model.body_parentid[body])
        return body == index
    return True
