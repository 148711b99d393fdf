"""Pictures and videos of environments, rendered off screen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.environment import Environment
from simreal.errors import UserError

Image = NDArray[np.uint8]


class Scene:
    """Renders single environments of a batch, as the task's default camera sees them.

    Args:
        environment: what to show.
        width, height: of pictures, pixels.

    Raises:
        UserError: the machine cannot render; says what to install.
    """

    def __init__(self, environment: Environment, width: int = 480, height: int = 480) -> None:
        self._environment = environment
        model = environment.task.model
        model.vis.global_.offwidth = max(model.vis.global_.offwidth, width)
        model.vis.global_.offheight = max(model.vis.global_.offheight, height)
        try:
            self._renderer = mujoco.Renderer(model, height, width)
        except Exception as error:  # each backend raises errors of its own
            raise UserError(
                f"cannot render here ({error}); install a software renderer, on Debian: "
                "apt-get install libegl1 libgl1-mesa-dri"
            ) from None
        self._camera = _camera(environment)

    def picture(self, index: int) -> Image:
        """Environment `index` now, [height, width, 3]."""
        model, data = self._environment.engine.materialize(index)
        self._environment.task.draw_goal(model, data, index)
        self._renderer.update_scene(data, self._camera)
        return self._renderer.render().copy()

    def close(self) -> None:
        """Free the renderer."""
        self._renderer.close()


def _camera(environment: Environment) -> Any:
    camera = mujoco.MjvCamera()
    mujoco.mjv_defaultFreeCamera(environment.task.model, camera)
    for name, value in environment.task.render_camera.items():
        setattr(camera, name, value)
    return camera


def write_video(path: Path, frames: list[Image], fps: float) -> None:
    """Write frames as MP4 (H.264). Raises UserError if the file cannot be written."""
    import imageio.v2 as imageio

    try:
        imageio.mimwrite(path, frames, format="FFMPEG", fps=fps, codec="libx264", quality=7)  # pyright: ignore
    except OSError as error:
        raise UserError(f"{path}: cannot write the video: {error}") from None
