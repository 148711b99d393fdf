"""What a robot's file lacks for a simulation: a floor, names, a place to start, servos."""

from __future__ import annotations

import mujoco
import numpy as np

from envs.common.names import label_of

FREE = int(mujoco.mjtJoint.mjJNT_FREE)
SINGLE = (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE))
GROUND = (int(mujoco.mjtGeom.mjGEOM_PLANE), int(mujoco.mjtGeom.mjGEOM_HFIELD))


def free_base(model: mujoco.MjModel) -> int | None:
    """The first free joint; None without one."""
    free = np.flatnonzero(model.jnt_type == FREE)
    return int(free[0]) if len(free) else None


def floating_robots(model: mujoco.MjModel) -> list[str]:
    """Names of bodies that float and carry others that move against them."""
    robots: list[str] = []
    for joint in np.flatnonzero(model.jnt_type == FREE):
        body = int(model.jnt_bodyid[joint])
        moving = [b for b in np.flatnonzero(model.body_rootid == model.body_rootid[body]) if model.body_jntnum[b]]
        if len(moving) > 1:
            robots.append(label_of(model, "body", body))
    return robots


def add_floor(spec: mujoco.MjSpec) -> bool:
    """Put a plane under a robot that is free and has no ground; returns whether it did."""
    free = any(int(joint.type) == FREE for joint in spec.joints)
    if not free or any(int(geom.type) in GROUND for geom in spec.geoms):
        return False
    spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=[0, 0, 0.05])
    return True


def name_actuators(spec: mujoco.MjSpec) -> list[str]:
    """Give actuators without a name that of the joint (or tendon, site, body) that they act on, as a policy's contract
    needs; returns the names of all, in order, or nothing where all had one."""
    taken = {actuator.name for actuator in spec.actuators}
    if "" not in taken:
        return []
    for actuator in spec.actuators:
        if not actuator.name:
            names = (actuator.target, *(f"{actuator.target}_{n}" for n in range(2, 2 + len(spec.actuators))))
            actuator.name = next(name for name in names if name not in taken)
            taken.add(actuator.name)
    return [actuator.name for actuator in spec.actuators]


def home_of(model: mujoco.MjModel) -> np.ndarray:
    """Where episodes start [nq]: the keyframe "home", the first one, or the model's own pose; feet on the ground."""
    home = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_KEY, "home")
    qpos = (model.key_qpos[max(home, 0)] if model.nkey else model.qpos0).copy()
    for joint in range(model.njnt):  # poses of files are often outside of their own limits
        if model.jnt_limited[joint] and int(model.jnt_type[joint]) in SINGLE:
            adr = model.jnt_qposadr[joint]
            qpos[adr] = np.clip(qpos[adr], *model.jnt_range[joint])
    base = free_base(model)
    if base is None:
        return qpos
    height, data = int(model.jnt_qposadr[base]) + 2, mujoco.MjData(model)
    for _ in range(20):
        data.qpos[:] = qpos
        mujoco.mj_forward(model, data)
        depth = max((-float(c.dist) - float(c.solimp[2]) for c in data.contact[: data.ncon] if _with_ground(model, c)),
                    default=0.0)  # fmt: skip
        if depth <= 0.0:
            break
        qpos[height] += depth + 1e-4
    return qpos


def _with_ground(model: mujoco.MjModel, contact: mujoco.MjContact) -> bool:
    return any(int(g) >= 0 and model.body_weldid[model.geom_bodyid[g]] == 0 for g in contact.geom)
