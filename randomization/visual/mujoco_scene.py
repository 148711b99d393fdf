"""Gives MuJoCo's abstract scene (`mjvScene`) the looks of a world; the scene is built anew for every picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from envs.common.rng import EpisodeRandom
from envs.engines.visual_state import VisualState
from envs.task import Task
from randomization.parameters import Parameter
from randomization.visual.textures import PATTERNS
from randomization.visual.worlds import BatchVisualRandomizer

_DIRECTIONAL = int(mujoco.mjtLightType.mjLIGHT_DIRECTIONAL)
_PLANE = int(mujoco.mjtGeom.mjGEOM_PLANE)
_GEOM_OBJECT = int(mujoco.mjtObj.mjOBJ_GEOM)
_LIGHT = ("pos", "dir", "diffuse", "ambient", "specular", "castshadow")
_GEOM = ("rgba", "specular", "shininess", "reflectance", "texrepeat", "texuniform")
Array = NDArray[np.float32]
_State = dict[str, NDArray[Any]]  # the fields of one world's `VisualState`


class Sky(NamedTuple):
    """A background: `amount` 0 is the nominal one, 1 a gradient between two colours [3]."""

    amount: float
    top: Array
    bottom: Array


class SceneRandomizer:
    """The visual part of lambda in MuJoCo's scenes, of one environment at a time.

    Args:
        task, parameters, rng, camera: see `BatchVisualRandomizer`.

    Attributes:
        active: whether there is any visual parameter.
        textured: whether pictures need the texture library.
    """

    def __init__(self, task: Task, parameters: list[Parameter], rng: EpisodeRandom, camera: str) -> None:
        self._batch = BatchVisualRandomizer(task, parameters, rng, camera, device="cpu")
        self._nominal = VisualState.nominal(task.model, None, spare_lights=self._batch.spare_lights)
        self.active, self.textured = self._batch.active, self._batch.patterned or self._batch.sky

    def apply(
        self, scene: mujoco.MjvScene, model: mujoco.MjModel, lam: Tensor, index: int, first_pattern: int
    ) -> Sky | None:
        """Change environment `index`'s scene, freshly built from `model`, to its world lam [d].

        Args:
            first_pattern: texture id of the texture library's first pattern.

        Returns:
            The background, where it differs from the nominal one.
        """
        row = torch.tensor([index], device=lam.device)
        return self.apply_to([scene], model, lam[None], row, first_pattern)[0]

    def apply_to(
        self, scenes: Sequence[mujoco.MjvScene], model: mujoco.MjModel, lam: Tensor, rows: Tensor, first_pattern: int
    ) -> list[Sky | None]:
        """`apply` to n scenes at once, of environments rows [n] in their worlds lam [n, d]; a background for each."""
        before = self._nominal.expanded(len(scenes))
        for i, scene in enumerate(scenes):
            one = VisualState(**{name: value[i : i + 1] for name, value in vars(before).items()})
            place(one, scene, model)
            paint(one, scene)
        after = VisualState(**{name: value.clone() for name, value in vars(before).items()})
        self._batch.apply(after, lam.cpu(), first_pattern, rows)
        skies: list[Sky | None] = []
        for i, scene in enumerate(scenes):
            old, new = ({name: value[i].numpy() for name, value in vars(state).items()} for state in (before, after))
            _write_lights(scene, model, old, new)
            _write_eyes(scene, old, new)
            _write_geoms(scene, old, new)
            shown = Sky(float(new["sky_amount"]), new["sky_top"], new["sky_bottom"]) if new["sky_amount"] else None
            skies.append(shown)
        return skies

    def postprocess(self, picture: NDArray[np.uint8], lam: Tensor, index: int) -> NDArray[np.uint8]:
        """What the camera of environment `index` makes of a picture [height, width, 3] in its world lam [d]."""
        row = torch.tensor([index], device=lam.device)
        return self.postprocess_all(picture[None], lam[None], row)[0]

    def postprocess_all(self, pictures: NDArray[np.uint8], lam: Tensor, rows: Tensor) -> NDArray[np.uint8]:
        """`postprocess` of n pictures [n, height, width, 3] at once, of environments rows [n] in worlds lam [n, d]."""
        return self._batch.postprocess(torch.from_numpy(pictures), lam.cpu(), rows).numpy()


def place(state: VisualState, scene: mujoco.MjvScene, model: mujoco.MjModel) -> None:
    """Put the eye and the lights of one world where a scene has them; lights that it lacks are off."""
    eye = scene.camera[0]
    axes = np.stack((np.cross(eye.forward, eye.up), eye.up, -eye.forward), axis=1)
    half_height = (eye.frustum_top - eye.frustum_bottom) / 2.0
    state.eye_pos[0], state.eye_axes[0] = torch.tensor(eye.pos), torch.tensor(axes)
    state.fov_deg[0] = math.degrees(2.0 * math.atan(half_height / eye.frustum_near))
    state.light_active[:] = False
    for index, light in _lights(scene, model).items():
        state.light_pos[0, index], state.light_dir[0, index] = torch.tensor(light.pos), torch.tensor(light.dir)
        state.light_active[0, index] = True


def paint(state: VisualState, scene: mujoco.MjvScene) -> None:
    """Give the geoms of one world the colours that a scene has them in: a task may have painted them."""
    shown = [geom for geom in (scene.geoms[k] for k in range(scene.ngeom)) if geom.objtype == _GEOM_OBJECT]
    if shown:
        colours = np.array([geom.rgba[:3] for geom in shown])
        state.rgba[0, [geom.objid for geom in shown], :3] = torch.from_numpy(colours)


def _lights(scene: mujoco.MjvScene, model: mujoco.MjModel) -> dict[int, mujoco.MjvLight]:
    """The lights of a scene by their index in `VisualState`."""
    lights = (scene.lights[k] for k in range(scene.nlight))
    return {model.nlight if light.headlight else light.id: light for light in lights}


def _write_lights(scene: mujoco.MjvScene, model: mujoco.MjModel, old: _State, new: _State) -> None:
    """Lights that differ between two states of one world; those that are new far away, those that are off dark."""
    eye, centre, extent = scene.camera[0], model.stat.center, model.stat.extent
    focus = eye.pos + float(np.dot(centre - eye.pos, eye.forward)) * eye.forward
    for index, light in _lights(scene, model).items():
        differs = {name for name in _LIGHT if (new[f"light_{name}"][index] != old[f"light_{name}"][index]).any()}
        for name in differs:
            setattr(light, name, new[f"light_{name}"][index])
        if not new["light_active"][index]:
            light.diffuse = light.ambient = light.specular = np.zeros(3)
            light.castshadow = 0
        if differs & {"dir", "castshadow"} and light.type == _DIRECTIONAL and light.castshadow:
            light.pos = focus - extent * light.dir  # its place only says where its shadows are drawn
    for index in np.flatnonzero(new["light_active"] & ~old["light_active"]):
        if scene.nlight < len(scene.lights):
            light = scene.lights[scene.nlight]
            scene.nlight += 1
            light.id, light.headlight, light.texid, light.type = -1, 0, -1, _DIRECTIONAL
            light.attenuation, light.cutoff, light.exponent = (1.0, 0.0, 0.0), 45.0, 10.0
            for name in _LIGHT:
                setattr(light, name, new[f"light_{name}"][index])
            light.pos = centre - 3.0 * extent * light.dir


def _write_eyes(scene: mujoco.MjvScene, old: _State, new: _State) -> None:
    """The camera, where it differs between two states of one world; both of its eyes alike."""
    moved, turned = new["eye_pos"] - old["eye_pos"], (new["eye_axes"] != old["eye_axes"]).any()
    old_size, new_size = (math.tan(math.radians(float(state["fov_deg"])) / 2.0) for state in (old, new))
    for eye in scene.camera:
        eye.pos = eye.pos + moved
        if turned:
            eye.up, eye.forward = new["eye_axes"][:, 1], -new["eye_axes"][:, 2]
        if old_size != new_size:
            for name in ("frustum_top", "frustum_bottom", "frustum_center", "frustum_width"):
                setattr(eye, name, new_size / old_size * getattr(eye, name))


def _write_geoms(scene: mujoco.MjvScene, old: _State, new: _State) -> None:
    """Geoms that differ between two states of one world; only the colour: how opaque they are is the scene's."""
    differing = {name: (new[name] != old[name]).reshape(len(new[name]), -1).any(axis=1) for name in (*_GEOM, "texture")}
    for geom in (scene.geoms[k] for k in range(scene.ngeom)):
        if geom.objtype != _GEOM_OBJECT:
            continue
        index = geom.objid
        for name in _GEOM:
            if differing[name][index]:
                setattr(geom, name, (*new["rgba"][index, :3], geom.rgba[3]) if name == "rgba" else new[name][index])
        if differing["texture"][index]:
            # The library has each pattern twice: for planes, then for solids.
            geom.texid = new["texture"][index] + (0 if geom.type == _PLANE else PATTERNS)
            geom.matid = max(geom.matid, 0)  # without a material MuJoCo draws no texture
