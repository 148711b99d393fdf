"""Shows a policy: a video of episodes, or a window where there is a display."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from envs.common.step_records import Observed
from envs.environment import Environment
from randomization.targets.appearance import VIEW
from simreal.common.errors import UserError
from simreal.evaluation.worlds import World, find_world
from simreal.training.run_directory import LoadedPolicy
from simreal.vision.rendering.offscreen import add_marks
from simreal.vision.rendering.scene import GIF_FPS, VIDEOS, Image, Scene, view_of, write_video

_LARGEST = 4096  # pixels
_MOST_FPS = 60.0  # pictures per second of real time; more are not seen
_FIRST_WORD_S, _WORD_S = 3.0, 10.0  # when to say how long it takes, and how often


def parse_size(text: str) -> tuple[int, int]:
    """Width and height from "640x480" or "480". Raises UserError."""
    found = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text.strip())
    width, height = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not (16 <= width <= _LARGEST and 16 <= height <= _LARGEST):
        expected = f"WIDTHxHEIGHT, as 640x480, or one number for both, of 16 to {_LARGEST} pixels"
        raise UserError(f"--size: expected {expected}, got {text!r}")
    return width + width % 2, height + height % 2  # H.264 has pairs of pixels only


def film(
    policy: LoadedPolicy,
    world: World,
    episodes: int,
    seed: int,
    size: tuple[int, int],
    camera: str = VIEW,
    say: Callable[[str], object] = lambda text: None,
    most_fps: float = _MOST_FPS,
) -> tuple[list[Image], float]:
    """Frames of episodes played one after the other, and the frames per second of real time; world, episode, success
    and distance from the goal are written into them.

    Args:
        policy, world, episodes, seed: what is played.
        size: of the frames, width and height in pixels.
        camera: "view" or one of the model's.
        say: told how each episode went, and how long it will take.
        most_fps: pictures per second of real time; a task with more control steps than that has one for several.
    """
    environment = world.make_environment(policy, 1, seed)
    task = environment.task
    stride = max(1, round(1.0 / (task.control_period_s * most_fps)))
    observed = environment.reset()
    policy.reset(torch.ones(1, dtype=torch.bool))
    read = policy.reader(environment)
    scene = Scene(environment, *size, camera, daylight=True)
    label = f"world {world.name}, episode 1"
    progress = Progress(say)
    frames = [scene.picture(0, label=label)]
    played = steps = 0
    while played < episodes:
        result = environment.step(policy.act(read(observed)))
        observed, done = result.observed, bool(result.done.any())
        steps += 1
        state = standing(environment, result.final, bool(result.success[0]))
        if done:  # the picture is of the next episode's start, the words of how this one ended
            played += 1
            say(f"episode {played} of {episodes}: {state or 'ended'} after {int(result.episode_steps[0])} steps")
            policy.reset(result.done)
        progress.at(steps, (episodes - played) * task.max_episode_steps - (0 if done else int(result.episode_steps[0])))
        if steps % stride == 0:
            number = min(played + 1, episodes)
            label = "\n".join(filter(None, (f"world {world.name}, episode {number}", "" if done else state)))
            frames.append(scene.picture(0, label=label))
    scene.close()
    return frames, 1.0 / (stride * task.control_period_s)


class Progress:
    """Says now and then how long a video takes still, at most: episodes may end early."""

    def __init__(self, say: Callable[[str], object]) -> None:
        self._say, self._began, self._next = say, time.monotonic(), _FIRST_WORD_S

    def at(self, done: int, left: int) -> None:
        """After so many control steps, with so many to go at most."""
        passed = time.monotonic() - self._began
        if left > 0 and passed >= self._next:
            self._say(f"{done} steps drawn in {passed:.0f} s, at most {left} to go: about {passed * left / done:.0f} s")
            self._next = passed + _WORD_S


def standing(environment: Environment, observed: Observed, success: bool) -> str:
    """How an episode stands: success, and the distance from the goal where that has a length."""
    task, parts = environment.task, []
    if task.has_success:
        parts.append("success" if success else "no success")
    goal, reached = observed.desired_goal, observed.achieved_goal
    if goal is not None and reached is not None and task.components("policy")[-1].unit == "m":
        distance = float(torch.linalg.vector_norm((goal - reached)[0]))
        parts.append(f"{distance:.3f} m from the goal")
    return ", ".join(parts)


def save_video(
    policy: LoadedPolicy,
    path: Path,
    world: str,
    episodes: int,
    seed: int,
    size: tuple[int, int] = (480, 480),
    camera: str = VIEW,
    say: Callable[[str], object] = lambda text: None,
) -> int:
    """Write an MP4 or a GIF; returns the number of frames. Arguments as of `film`. Raises UserError."""
    if path.suffix.lower() not in VIDEOS:
        raise UserError(f"{path}: expected a file name that ends in {' or '.join(VIDEOS)}")
    if not path.parent.is_dir():
        raise UserError(f"{path}: the folder {path.parent} does not exist")
    found = find_world(world, policy)
    say(f"playing {episodes} episode{'s' if episodes > 1 else ''} of {policy.task_id} in world {found.name} ...")
    most = GIF_FPS if path.suffix.lower() == ".gif" else _MOST_FPS
    frames, fps = film(policy, found, episodes, seed, size, camera, say, most)
    say(f"writing {len(frames)} frames ...")
    write_video(path, frames, fps)
    return len(frames)


def watch(policy: LoadedPolicy, world: str, seed: int, camera: str = VIEW) -> None:
    """Play episodes in MuJoCo's viewer, in real time, until the window is closed. Raises UserError if there is none."""
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise UserError("no display to open a window on; write a video with --video FILE.mp4")
    import mujoco.viewer

    environment = find_world(world, policy).make_environment(policy, 1, seed)
    observed = environment.reset()
    policy.reset(torch.ones(1, dtype=torch.bool))
    read = policy.reader(environment)
    model, data = environment.engine.export_to_mujoco(0)
    chosen = view_of(environment, camera)
    with mujoco.viewer.launch_passive(model, data) as viewer:
        for name in ("type", "fixedcamid", "distance", "azimuth", "elevation"):
            setattr(viewer.cam, name, getattr(chosen, name))
        viewer.cam.lookat[:] = chosen.lookat
        while viewer.is_running():
            began = time.monotonic()
            result = environment.step(policy.act(read(observed)))
            observed = result.observed
            if bool(result.done.any()):
                policy.reset(result.done)
            _, present = environment.engine.export_to_mujoco(0)
            with viewer.lock():
                data.qpos[:], data.mocap_pos[:] = present.qpos, present.mocap_pos
                marks = environment.task.draw_goal(model, data, 0)
                if viewer.user_scn is not None:
                    viewer.user_scn.ngeom = 0
                    add_marks(viewer.user_scn, model, marks or ())
            viewer.sync()
            time.sleep(max(0.0, environment.task.control_period_s - (time.monotonic() - began)))
