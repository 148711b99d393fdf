"""Pictures and videos of environments, rendered off screen."""

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np

from envs.common.messages import nearest
from envs.environment import Environment
from randomization.randomizer import DomainRandomizer
from randomization.targets.appearance import VIEW, camera_names
from randomization.visual.mujoco_scene import SceneRandomizer
from simreal.common.errors import UserError
from simreal.vision.rendering.offscreen import Image, Offscreen, add_marks


class Scene:
    """Renders single environments of a batch, each as its world looks.

    Args:
        environment: what to show.
        width, height: of pictures, pixels.
        camera: "view", the task's usual one, or one of the model's.
        daylight: see `Offscreen`.

    Raises:
        UserError: the machine cannot render, or there is no such camera.
    """

    def __init__(
        self, environment: Environment, width: int = 480, height: int = 480, camera: str = VIEW, daylight: bool = False
    ) -> None:
        self._environment, self._daylight = environment, daylight
        task, layer = environment.task, environment.layer
        self._camera = view_of(environment, camera)
        parameters = layer.parameters if isinstance(layer, DomainRandomizer) else []
        self._visual = SceneRandomizer(task, parameters, environment.rng, camera)
        self._offscreen = Offscreen(task.model, width, height, self._visual.textured, daylight)

    def picture(self, index: int, nominal: bool = False, label: str = "") -> Image:
        """Environment `index` now, [height, width, 3].

        Args:
            index: of the environment.
            nominal: leave visual randomization out.
            label: a word to write in the upper left corner.
        """
        model, data = self._environment.engine.export_to_mujoco(index)
        marks = self._environment.task.draw_goal(model, data, index)
        screen, layer = self._offscreen, self._environment.layer
        screen.compose(model, data, self._camera)
        if self._daylight:  # a policy that sees gets pictures without marks
            add_marks(screen.scene, model, marks or ())
        if nominal or not self._visual.active or not isinstance(layer, DomainRandomizer):
            return screen.draw(None, label)
        lam = layer.lam[index]
        sky = self._visual.apply(screen.scene, model, lam, index, screen.first_pattern)
        return self._visual.postprocess(screen.draw(sky, label), lam, index)

    def close(self) -> None:
        """Free the renderer."""
        self._offscreen.close()


def view_of(environment: Environment, name: str) -> mujoco.MjvCamera:
    """The camera of that name; see `Scene`. Raises UserError if there is none."""
    model, camera = environment.task.model, mujoco.MjvCamera()
    names = camera_names(model)
    if name not in names:
        raise UserError(f"camera: no camera {name!r}{nearest(name, names)}; there are: {', '.join(names)}")
    if name == VIEW:
        mujoco.mjv_defaultFreeCamera(model, camera)
        for key, value in environment.task.render_camera.items():
            setattr(camera, key, value)
    else:
        camera.type = int(mujoco.mjtCamera.mjCAMERA_FIXED)
        camera.fixedcamid = names.index(name)
    return camera


def goal_marks(environment: Environment) -> list[int]:
    """Geoms that a picture for people moves or hides to show the goal: a camera on a robot sees none of them."""
    model, data = environment.engine.export_to_mujoco(0)
    before = data.geom_xpos.copy(), data.geom_xmat.copy()
    environment.task.draw_goal(model, data, 0)
    moved = (data.geom_xpos != before[0]).any(axis=1) | (data.geom_xmat != before[1]).any(axis=1)
    hidden = (model.geom_rgba[:, 3] == 0.0) & (environment.task.model.geom_rgba[:, 3] != 0.0)
    return np.flatnonzero(moved | hidden).tolist()


VIDEOS = (".mp4", ".gif")
GIF_FPS = 25.0  # at most; viewers show others at a speed of their own


def write_video(path: Path, frames: list[Image], fps: float) -> None:
    """Write frames as MP4 (H.264) or GIF. Raises UserError if the file cannot be written."""
    import imageio.v2 as imageio

    try:
        if path.suffix.lower() == ".gif":
            stride = max(1, round(fps / GIF_FPS))
            imageio.mimwrite(path, frames[::stride], format="GIF", duration=1000.0 * stride / fps, loop=0)  # pyright: ignore
            return
        imageio.mimwrite(path, frames, format="FFMPEG", fps=fps, codec="libx264", quality=7)  # pyright: ignore
    except OSError as error:
        raise UserError(f"{path}: cannot write the video: {error}") from None
