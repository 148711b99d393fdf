"""Keyframes that their robot cannot be in."""

from __future__ import annotations

from collections.abc import Iterator

import mujoco
import numpy as np

from envs.common.names import label_of
from envs.robots.doctor.symptom import Symptom, several
from envs.validation.drives import find_drive

_BEYOND = 0.05  # rad or m beyond a limit
_PULL = 0.5  # rad or m between a keyframe's joint and its servo's command
_LENGTH = 0.02  # of a quaternion, from 1
_SUNK, _HIGH = 0.03, 0.5  # m below the ground; share of the robot's height above it
_FREE, _BALL = int(mujoco.mjtJoint.mjJNT_FREE), int(mujoco.mjtJoint.mjJNT_BALL)
_HINGE, _SLIDE = int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE)
_PLANE = int(mujoco.mjtGeom.mjGEOM_PLANE)


def examine_keyframes(model: mujoco.MjModel) -> Iterator[Symptom]:
    """What does not fit of every keyframe."""
    for key in range(model.nkey):
        name = mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_KEY, key) or f"number {key}"
        of, qpos = f"keyframe {name!r}", model.key_qpos[key]
        yield from _beyond(model, of, qpos)
        yield from _turned(model, of, qpos)
        yield from _pulled(model, of, qpos, model.key_ctrl[key])
        yield from _height(model, of, qpos)


def _beyond(model: mujoco.MjModel, of: str, qpos: np.ndarray) -> Iterator[Symptom]:
    names, worst = list[str](), 0.0
    for joint in range(model.njnt):
        if int(model.jnt_type[joint]) not in (_HINGE, _SLIDE) or not model.jnt_limited[joint]:
            continue
        value, (low, high) = float(qpos[model.jnt_qposadr[joint]]), model.jnt_range[joint].tolist()
        beyond = max(low - value, value - high)
        if beyond > _BEYOND:
            names.append(label_of(model, "joint", joint))
            worst = max(worst, beyond)
    if names:
        yield Symptom("warning", "keyframe", of, f"{several('joint', names)} beyond the limits, by up to {worst:.3g}",
                      "give values within the joints' ranges, in the order of qpos")  # fmt: skip


def _turned(model: mujoco.MjModel, of: str, qpos: np.ndarray) -> Iterator[Symptom]:
    for joint in range(model.njnt):
        kind, at = int(model.jnt_type[joint]), int(model.jnt_qposadr[joint])
        if kind in (_FREE, _BALL):
            quat = qpos[at + 3 : at + 7] if kind == _FREE else qpos[at : at + 4]
            length = float(np.linalg.norm(quat))
            if abs(length - 1.0) > _LENGTH:
                told = f"the quaternion of joint {label_of(model, 'joint', joint)!r} has a length of {length:.3g}"
                remedy = "w x y z of a unit quaternion: is qpos in order?"
                yield Symptom("warning", "keyframe", of, told, remedy)


def _pulled(model: mujoco.MjModel, of: str, qpos: np.ndarray, ctrl: np.ndarray) -> Iterator[Symptom]:
    """Commands beyond their ranges, and commands that pull servos out of the pose."""
    beyond, pulled = list[str](), list[str]()
    for i in range(model.nactuator):
        drive = find_drive(model, i)
        if drive is None:
            continue
        value, clips = float(ctrl[drive.column]), drive.clips(model)
        slack = 0.0 if clips is None else 0.01 * (clips[1] - clips[0])
        if clips is not None and value and not clips[0] - slack <= value <= clips[1] + slack:
            beyond.append(drive.name)
        elif drive.follows == "position" and drive.joint is not None and drive.gear and ctrl.any():
            away = abs(value / drive.gear - float(qpos[model.jnt_qposadr[drive.joint]]))
            pulled += [drive.name] if away > _PULL else []
    if beyond:
        yield Symptom("warning", "keyframe", of, f"commands of {several('actuator', beyond)} beyond their ranges",
                      "give values within ctrlrange, in the order of ctrl")  # fmt: skip
    if pulled:
        told = f"{several('actuator', pulled)} pulled away from its pose, by more than {_PULL:g}"
        remedy = "let ctrl be the positions of the servos' joints, in the order of ctrl"
        yield Symptom("warning", "keyframe", of, told, remedy)


def _height(model: mujoco.MjModel, of: str, qpos: np.ndarray) -> Iterator[Symptom]:
    """A free robot that stands in the ground, or far above it."""
    free = [j for j in range(model.njnt) if int(model.jnt_type[j]) == _FREE]
    planes = [g for g in range(model.ngeom) if int(model.geom_type[g]) == _PLANE and model.geom_bodyid[g] == 0]
    if len(free) != 1:
        return
    data = mujoco.MjData(model)
    data.qpos[:] = qpos
    mujoco.mj_normalizeQuat(model, data.qpos)
    mujoco.mj_kinematics(model, data)
    ground = float(data.geom_xpos[planes[0], 2]) if planes else 0.0
    low, high = span(model, data)
    if not np.isfinite(low):
        return
    if low - ground < -_SUNK:
        yield Symptom("warning", "keyframe", of, f"stands {ground - low:.3g} m deep in the ground",
                      "raise the base")  # fmt: skip
    elif low - ground > _HIGH * (high - low):
        yield Symptom("warning", "keyframe", of, f"hangs {low - ground:.3g} m above the ground", "lower the base")


def span(model: mujoco.MjModel, data: mujoco.MjData) -> tuple[float, float]:
    """Lowest and highest point of the robot's shapes that collide, m; infinite without any."""
    low, high = np.inf, -np.inf
    for geom in range(model.ngeom):
        if not model.body_weldid[model.geom_bodyid[geom]] or not (
            model.geom_contype[geom] or model.geom_conaffinity[geom]
        ):
            continue
        rot = data.geom_xmat[geom].reshape(3, 3)
        middle = float(data.geom_xpos[geom, 2] + rot[2] @ model.geom_aabb[geom, :3])
        reach = float(np.abs(rot[2]) @ model.geom_aabb[geom, 3:])
        low, high = min(low, middle - reach), max(high, middle + reach)
    return float(low), float(high)
