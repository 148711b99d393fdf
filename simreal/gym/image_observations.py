"""Image observations: pictures of all environments as one tensor, from the renderer that goes with the engine."""

from __future__ import annotations

import importlib

import mujoco
import numpy as np
import torch
from torch import Tensor

from envs.engines.base import WarpEngine
from envs.environment import Environment
from randomization.randomizer import DomainRandomizer
from randomization.targets.appearance import VIEW
from randomization.visual.textures import PATTERNS, pattern
from randomization.visual.worlds import BatchVisualRandomizer, paint_sky, refuse_unseen
from simreal.common.errors import UserError
from simreal.vision.rendering.scene import Scene, goal_marks, view_of


class Images:
    """Pictures of all environments.

    On the CPU engine MuJoCo draws them one by one, on the GPU engine mujoco_warp draws all in one call, on the device.

    Args:
        environment: what to show.
        width, height: of pictures, pixels.
        camera: "view", the task's usual one, or one of the model's.

    Raises:
        UserError, RandomizationError, EngineError: there is no such camera, the machine cannot render, or the GPU
            engine's renderer cannot show something.
    """

    def __init__(self, environment: Environment, width: int = 480, height: int = 480, camera: str = VIEW) -> None:
        if min(width, height) < 1:
            raise UserError(f"render_size: expected at least one pixel each way, got {width} x {height}")
        self._environment, self._size, self._name = environment, (width, height), camera
        self._view = view_of(environment, camera)
        self._batched = isinstance(environment.engine, WarpEngine)
        if self._batched:
            model, layer = environment.task.model, environment.layer
            importlib.import_module("envs.engines.gpu.camera").refuse_undrawable(model, self._view)
            refuse_unseen(layer.parameters if isinstance(layer, DomainRandomizer) else [], model, camera)
        self._scene: Scene | None = None
        self._batch: _Batch | None = None

    def take(self) -> Tensor:
        """Pictures [N, height, width, 3] uint8 of the present state, on the engine's device."""
        environment = self._environment
        if self._batched:
            if self._batch is None:
                self._batch = _Batch(environment, self._view, *self._size, self._name)
            return self._batch.take()
        if self._scene is None:
            self._scene = Scene(environment, *self._size, self._name)
        pictures = np.stack([self._scene.picture(i) for i in range(environment.num_envs)])
        return torch.from_numpy(pictures).to(environment.engine.device)

    def close(self) -> None:
        """Free the renderer."""
        if self._scene is not None:
            self._scene.close()
        self._scene = self._batch = None


class _Batch:
    """Pictures by mujoco_warp; arguments as those of `Images`."""

    def __init__(self, environment: Environment, view: mujoco.MjvCamera, width: int, height: int, name: str) -> None:
        task, layer = environment.task, environment.layer
        parameters = layer.parameters if isinstance(layer, DomainRandomizer) else []
        self._layer = layer
        self._looks = BatchVisualRandomizer(task, parameters, environment.rng, name)
        self._first_pattern = task.model.ntex
        patterns = [pattern(k) for k in range(PATTERNS)] if self._looks.patterned else []
        self._camera = importlib.import_module("envs.engines.gpu.camera").Camera(
            environment.engine, task.model, view, width, height,
            hidden=goal_marks(environment), spare_lights=self._looks.spare_lights, patterns=patterns,
        )  # fmt: skip

    def take(self) -> Tensor:
        camera, looks, layer = self._camera, self._looks, self._layer
        if not isinstance(layer, DomainRandomizer) or not looks.active:
            return camera.render()
        lam = layer.lam
        pictures = camera.render(lambda state: looks.apply(state, lam, self._first_pattern))
        if looks.sky:
            pictures = paint_sky(pictures, camera.state, camera.background(), camera.rays())
        return looks.postprocess(pictures, lam)
