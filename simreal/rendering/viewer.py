"""Shows a policy: a video of episodes, or a window where there is a display."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import torch

from simreal.common.errors import UserError
from simreal.evaluation.worlds import find_world
from simreal.rendering.scene import Image, Scene, write_video
from simreal.training.run_directory import LoadedPolicy


def film(policy: LoadedPolicy, world: str, episodes: int, seed: int, size: int) -> tuple[list[Image], float]:
    """Frames of episodes played one after the other, and the frames per second of real time."""
    environment = find_world(world, policy).make_environment(policy, 1, seed)
    observed = environment.reset()
    policy.reset(torch.ones(1, dtype=torch.bool))
    read = policy.reader(environment)
    scene = Scene(environment, size, size)
    frames = [scene.picture(0)]
    played = 0
    while played < episodes:
        result = environment.step(policy.act(read(observed)))
        observed = result.observed
        frames.append(scene.picture(0))
        if bool(result.done.any()):
            played += 1
            policy.reset(result.done)
    scene.close()
    return frames, 1.0 / environment.task.control_period_s


def save_video(policy: LoadedPolicy, path: Path, world: str, episodes: int, seed: int, size: int = 480) -> int:
    """Write an MP4; returns the number of frames. Raises UserError."""
    if path.suffix.lower() != ".mp4":
        raise UserError(f"{path}: expected a file name that ends in .mp4")
    if not path.parent.is_dir():
        raise UserError(f"{path}: the folder {path.parent} does not exist")
    frames, fps = film(policy, world, episodes, seed, size)
    write_video(path, frames, fps)
    return len(frames)


def watch(policy: LoadedPolicy, world: str, seed: int) -> None:
    """Play episodes in MuJoCo's viewer, in real time, until the window is closed. Raises UserError if there is none."""
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise UserError("no display to open a window on; write a video with --video FILE.mp4")
    import mujoco.viewer

    environment = find_world(world, policy).make_environment(policy, 1, seed)
    observed = environment.reset()
    policy.reset(torch.ones(1, dtype=torch.bool))
    read = policy.reader(environment)
    model, data = environment.engine.export_to_mujoco(0)
    with mujoco.viewer.launch_passive(model, data) as viewer:
        while viewer.is_running():
            began = time.monotonic()
            result = environment.step(policy.act(read(observed)))
            observed = result.observed
            if bool(result.done.any()):
                policy.reset(result.done)
            _, present = environment.engine.export_to_mujoco(0)
            with viewer.lock():
                data.qpos[:], data.mocap_pos[:] = present.qpos, present.mocap_pos
                environment.task.draw_goal(model, data, 0)
            viewer.sync()
            time.sleep(max(0.0, environment.task.control_period_s - (time.monotonic() - began)))
