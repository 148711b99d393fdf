"""Pictures for a network to look at: many, small, of what a camera on a robot would see, as fast as they can be had.

What people are shown beside (goals, marks, smooth edges, shadows where no light is to cast any) is left out. Contexts,
scenes, models and data are made once and used again; looks of a batch of worlds are computed at once.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from envs.common.rng import EpisodeRandom
from envs.engines.cpu import CpuEngine
from envs.environment import Environment
from randomization.catalogue.table import QUANTITIES
from randomization.parameters import Parameter
from randomization.visual.mujoco_scene import SceneRandomizer, Sky
from simreal.vision.rendering.offscreen import Offscreen, Quality
from simreal.vision.rendering.scene import goal_marks, view_of

Pictures = NDArray[np.uint8]
_NOT_SHOWN = 5  # a group of geoms that pictures leave out
_SPARE_GEOMS = 100  # in a scene, beyond the model's: parts of tendons and the like


class FrameRenderer:
    """Draws environments of a batch from one to three cameras.

    Shadows are drawn where `light_shadow` is a parameter, and nowhere else: they cost more than all the rest.

    Args:
        environment: what to show, on the CPU engine; it has been reset.
        cameras: "view" or names of the model's.
        width, height: of pictures, pixels.
        parameters: of the worlds, in order.
        rng: numbers of the looks, in rows.
        patterns: the first of the texture library's patterns (`textures.UNSEEN` for others).

    Raises:
        UserError: the machine cannot render, or there is no such camera.
    """

    def __init__(
        self,
        environment: Environment,
        cameras: Sequence[str],
        width: int,
        height: int,
        parameters: list[Parameter],
        rng: EpisodeRandom,
        patterns: int = 0,
    ) -> None:
        task, self._engine = environment.task, environment.engine
        self._views = [view_of(environment, name) for name in cameras]
        self._looks = [SceneRandomizer(task, parameters, rng, name) for name in cameras]
        # A copy: its numbers become those of one environment after the other.
        self._model = copy.copy(environment.engine.model)
        hidden = goal_marks(environment)
        self._model.geom_group[hidden] = _NOT_SHOWN
        self._data = mujoco.MjData(self._model)
        self._offscreen = Offscreen(
            self._model, width, height, any(look.textured for look in self._looks), quality=Quality(), patterns=patterns
        )
        self._offscreen.option.sitegroup[:] = 0
        self._shadows = any(QUANTITIES[p.quantity].name == "light_shadow" for p in parameters)
        self._scenes: list[mujoco.MjvScene] = []  # of one environment and camera each
        self._shape = (height, width, 3)

    def take(self, rows: Tensor, lam: Tensor) -> Pictures:
        """Pictures [n, cameras, height, width, 3] of environments rows [n] in the worlds lam [n, d]."""
        count, cameras = len(rows), len(self._views)
        pictures = np.empty((count, cameras, *self._shape), np.uint8)
        while len(self._scenes) < count * cameras:
            self._scenes.append(mujoco.MjvScene(self._model, self._model.ngeom + _SPARE_GEOMS))
        for i, (model, data) in enumerate(self._poses(rows.tolist())):
            for c, view in enumerate(self._views):
                self._offscreen.scene = self._scenes[i * cameras + c]
                self._offscreen.compose(model, data, view)
                self._offscreen.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = self._shadows
        for c, looks in enumerate(self._looks):
            scenes = self._scenes[c : count * cameras : cameras]
            skies: list[Sky | None] = [None] * count
            if looks.active:
                skies = looks.apply_to(scenes, self._model, lam, rows, self._offscreen.first_pattern)
            for i, (scene, sky) in enumerate(zip(scenes, skies, strict=True)):
                self._offscreen.scene = scene
                pictures[i, c] = self._offscreen.draw(sky)
            if looks.active:
                pictures[:, c] = looks.postprocess_all(np.ascontiguousarray(pictures[:, c]), lam, rows)
        return pictures

    def _poses(self, rows: Sequence[int]) -> Iterator[tuple[mujoco.MjModel, mujoco.MjData]]:
        """The environments `rows` as MuJoCo's models and data, each until the next one is asked for."""
        if isinstance(self._engine, CpuEngine):
            yield from self._engine.poses(rows, self._model, self._data)
            return
        for row in rows:
            model, data = self._engine.export_to_mujoco(row)
            model.geom_group[:] = self._model.geom_group
            yield model, data

    def close(self) -> None:
        """Free what OpenGL holds."""
        self._offscreen.close()


def look_numbers(seed: int, first: int, count: int, step: int = 0) -> EpisodeRandom:
    """Random numbers of `count` looks: row i has those of look `first` + i of a seed, in its picture number `step`."""
    rng = EpisodeRandom(seed, count)
    restart(rng, first, step)
    return rng


def restart(rng: EpisodeRandom, first: int, step: int = 0) -> None:
    """Give the rows of an `EpisodeRandom` the looks from `first` on; see `look_numbers`."""
    everywhere = torch.ones(rng.num_envs, dtype=torch.bool)
    rng.episode = first + torch.arange(rng.num_envs) - rng.num_envs
    rng.next_episode(everywhere)
    rng.set_step(torch.full((rng.num_envs,), step))
