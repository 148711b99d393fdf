"""Where a camera of a task is and how it sees, as contracts state it."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np

from envs.engines.cpu import CpuEngine
from envs.environment import Environment
from envs.task import Task
from randomization.targets.appearance import VIEW, camera_names
from simreal.export.source import ExportError

_CONVENTION = "looks along its -z, y is up in the picture, quat is w, x, y, z"


def camera_entry(task: Task, name: str, width: int, height: int) -> dict[str, Any]:
    """Intrinsics (pixels) and pose (m, in the frame of the body that carries it; of "view" at the beginning of an
    episode).

    Args:
        task: made with the camera; it is attached to an engine where it is not yet.
        name: "view" or one of the model's.
        width, height: of the pictures, pixels.
    """
    model = task.model
    if name != VIEW:
        index = camera_names(model).index(name)
        body = mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_BODY, int(model.cam_bodyid[index])) or "world"
        pose = {"body": body, "pos": model.cam_pos[index].tolist(), "quat": model.cam_quat[index].tolist()}
        mode = mujoco.mjtCamLight(int(model.cam_mode[index]))
        if int(mode) != int(mujoco.mjtCamLight.mjCAMLIGHT_FIXED):
            pose["follows"] = mode.name.removeprefix("mjCAMLIGHT_").lower()
        intrinsics = _of_camera(model, index, width, height)
    else:
        pose, intrinsics = _view(task), _pinhole(float(model.vis.global_.fovy), width, height)
    return {"camera": name, "intrinsics": intrinsics, "pose": pose | {"convention": _CONVENTION}}


def _pinhole(fovy: float, width: int, height: int) -> dict[str, float]:
    focal = 0.5 * height / np.tan(np.radians(fovy) / 2.0)
    return {"fovy_deg": fovy, "fx": focal, "fy": focal, "cx": width / 2.0, "cy": height / 2.0}


def _of_camera(model: mujoco.MjModel, index: int, width: int, height: int) -> dict[str, float]:
    """Of a camera with a field of view, or with a sensor of a size (m) and a focal length (m)."""
    sensor = model.cam_sensorsize[index]
    if not sensor[1] > 0.0:
        return _pinhole(float(model.cam_fovy[index]), width, height)
    fx, fy, right, up = (float(v) for v in model.cam_intrinsic[index])
    per_m = np.array([width, height]) / sensor
    return {
        "fovy_deg": float(np.degrees(2.0 * np.arctan(0.5 * sensor[1] / fy))), "fx": fx * per_m[0], "fy": fy * per_m[1],
        "cx": width / 2.0 + right * per_m[0], "cy": height / 2.0 + up * per_m[1],
    }  # fmt: skip


def _view(task: Task) -> dict[str, Any]:
    """The pose in the world of the camera that pictures of the task are taken with."""
    from simreal.vision.rendering.scene import view_of

    if task.make_engine(1, 1) is not None:
        raise ExportError(f"{task.id}: steps simulations of its own, whose camera 'view' is not known")
    environment = Environment(task, CpuEngine(task.model, 1, 1))
    environment.reset()
    model, data = environment.engine.export_to_mujoco(0)
    camera, scene = view_of(environment, VIEW), mujoco.MjvScene(model, 1)
    mujoco.mjv_updateCamera(model, data, camera, scene)
    left, right = scene.camera[0], scene.camera[1]
    forward, up = np.array(left.forward, dtype=float), np.array(left.up, dtype=float)
    quat, axes = np.zeros(4), np.stack((np.cross(forward, up), up, -forward), axis=1)
    mujoco.mju_mat2Quat(quat, axes.flatten())
    pose: dict[str, Any] = {
        "body": "world", "pos": (0.5 * (np.array(left.pos) + np.array(right.pos))).tolist(), "quat": quat.tolist(),
    }  # fmt: skip
    if int(camera.type) == int(mujoco.mjtCamera.mjCAMERA_TRACKING):
        pose["follows"] = mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_BODY, camera.trackbodyid)
    return pose
