"""Visual randomization of many worlds at once: what `visual_effects` does to one scene, in torch for all of them.

The same lambda and the same random numbers give the same cameras, lights and colours as there. What mujoco_warp's
renderer has no means for is refused.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable
from typing import Any

import mujoco
import torch
from torch import Tensor

from envs.rng import EpisodeRandom
from envs.task import Task
from randomization.appearance import Surface, camera_names, surfaces
from randomization.image_batch import blur, recolour
from randomization.images import Development
from randomization.parameters import Parameter, RandomizationError
from randomization.textures import PATTERNS
from randomization.visual import Entry, visual_entries
from randomization.visual_effects import (
    ADDED_DIFFUSE,
    ADDED_SPECULAR,
    FOV_RANGE_DEG,
    LEAST_HEIGHT,
    MOST_LIGHTS,
)  # fmt: skip

UNSEEN = {"material_reflectance": "mirrors nothing"}  # what mujoco_warp's renderer does not do
_BY_FOV = ("camera_fov", "background_color")  # what goes by a camera's field of view


def refuse_unseen(parameters: list[Parameter], model: mujoco.MjModel, camera: str) -> None:
    """Raise RandomizationError for a visual parameter that pictures of the GPU engine by a camera cannot show."""
    cannot = dict(UNSEEN)
    index = camera_names(model).index(camera)
    if index < model.ncam and (model.cam_sensorsize[index].any() or model.cam_projection[index]):
        cannot |= dict.fromkeys(_BY_FOV, f"takes the lens of {camera!r} from the model")
    for parameter in parameters:
        if parameter.quantity in cannot:
            raise RandomizationError(
                f"{parameter.name}: pictures of the GPU engine cannot show {parameter.quantity}, since mujoco_warp's "
                f"renderer {cannot[parameter.quantity]}: leave it out or use the CPU engine"
            )


class Wardrobe:
    """Dresses N worlds in the visual part of lambda.

    Args:
        task: whose model is shown.
        parameters: all of lambda, in order; those of other channels are ignored.
        rng: of the environment.
        camera: name of the camera in use.
        first_pattern: texture index of the texture library's first pattern.

    Attributes:
        spare_lights: that the camera has to have beyond the model's.
        patterned: whether it has to have the library's patterns.
        sky: whether the background changes.

    Raises:
        RandomizationError: see `refuse_unseen`.
    """

    def __init__(
        self, task: Task, parameters: list[Parameter], rng: EpisodeRandom, camera: str, first_pattern: int
    ) -> None:
        refuse_unseen(parameters, task.model, camera)
        self._rng, self._first_pattern = rng, first_pattern
        self._entries = visual_entries(task, parameters)
        self._camera = camera_names(task.model).index(camera)
        self._model, self._surfaces = task.model, surfaces(task.model)
        names = {entry.parameter.quantity for entry in self._entries}
        self.spare_lights = MOST_LIGHTS if "light_number" in names else 0
        self.patterned, self.sky = "material_texture" in names, "background_color" in names

    def dress(self, looks: Any, lam: Tensor) -> None:
        """Change the nominal looks (`envs.gpu_camera.Looks`) to those of worlds lam [N, d]."""
        shot = _Shots(looks, self._model, self._camera, self._surfaces, self._first_pattern)
        for entry in self._entries:
            effect = BATCH_EFFECTS.get(entry.parameter.quantity)
            if effect is not None:
                u = self._numbers(entry)
                for row, target in enumerate(entry.objects):
                    effect(shot, lam[:, entry.column], u[:, row], target)
        shot.finish()

    def paint_sky(self, pictures: Tensor, lam: Tensor, background: Tensor, rays: Tensor) -> Tensor:
        """Mix the background of pictures [N, height, width, 3] with gradients.

        Args:
            background: where it shows, [N, height, width] bool.
            rays: of the pixels, [N, height, width, 3] in the world frame.
        """
        for entry in self._entries:
            if entry.parameter.quantity == "background_color":
                u = self._numbers(entry)[:, 0].view(-1, 2, 3)
                hsv = (u[..., 0], 0.7 * u[..., 1], 0.25 + 0.75 * u[..., 2])
                top, bottom = (255.0 * _rgb(*(part[:, k] for part in hsv))[:, None, None] for k in (0, 1))
                level = rays[..., 2] / rays[..., :2].abs().amax(dim=-1).clamp(min=1e-12)  # on a cube around the world
                share = (0.5 + 0.5 * level.clamp(-1.0, 1.0))[..., None]
                amount = lam[:, entry.column, None, None, None]
                mixed = (1.0 - amount) * pictures + amount * (bottom + share * (top - bottom))
                pictures = torch.where(background[..., None], mixed.round().to(pictures.dtype), pictures)
        return pictures

    def develop(self, pictures: Tensor, lam: Tensor) -> Tensor:
        """What the cameras make of pictures [N, height, width, 3] uint8 of worlds lam [N, d]."""
        how, most_blur = {}, 0.0
        for entry in self._entries:
            name, value = entry.parameter.quantity.removeprefix("image_"), lam[:, entry.column]
            if name != entry.parameter.quantity:  # parameters of one quantity act together
                scale = entry.parameter.mode == "scale"
                present = how.get(name, torch.full_like(value, getattr(Development(), name)))
                how[name] = present * value if scale else present + value
                most_blur += entry.parameter.limits[1] if name == "blur" else 0.0
        if not how:
            return pictures
        same = Development()
        number = lambda name: how.get(name, torch.full_like(lam[:, 0], getattr(same, name)))  # noqa: E731
        height, width = pictures.shape[1:3]
        values = pictures.float() / 255.0
        if how.keys() & {"hue", "saturation", "brightness", "contrast"}:
            values = recolour(values, *(number(name) for name in ("hue", "saturation", "brightness", "contrast")))
        if "blur" in how:
            values = blur(values, height * how["blur"], height * most_blur)
        if "noise" in how:  # fresh at every control step
            _, noise = self._rng.mixed("visual noise", 0, height * width * 3)
            values = values + how["noise"].float()[:, None, None, None] * noise.view_as(values).float()
        return (255.0 * values.clamp(0.0, 1.0)).round().to(torch.uint8)

    def _numbers(self, entry: Entry) -> Tensor:
        """Random numbers [N, objects, draws] of the episodes; those that `VisualWorlds` draws."""
        shape = (len(entry.objects), entry.draws)
        drawn = self._rng.episode_uniform(f"visual {entry.parameter.name}", shape[0] * shape[1])
        return drawn.view(self._rng.num_envs, *shape)


class _Shots:
    """Pictures about to be taken: see `visual_effects.Shot`."""

    def __init__(
        self, looks: Any, model: mujoco.MjModel, camera: int, found: list[Surface], first_pattern: int
    ) -> None:
        self.looks, self.model, self.camera = looks, model, camera
        self.surfaces, self.first_pattern = found, first_pattern
        self.spare = model.nlight + bool(model.vis.headlight.active)  # the first light beyond the model's
        self._hsv: dict[int, list[Tensor]] = {}

    def geoms(self, surface: int) -> list[int]:
        return list(self.surfaces[surface].geoms)

    def colour(self, surface: int) -> list[Tensor]:
        """Hue, saturation and value [N] of a surface, to be changed in place."""
        if surface not in self._hsv:
            like = self.looks.fov_deg.double()
            nominal = colorsys.rgb_to_hsv(*self.surfaces[surface].rgba[:3])
            self._hsv[surface] = [torch.full_like(like, part) for part in nominal]
        return self._hsv[surface]

    def finish(self) -> None:
        """Give the surfaces their colours."""
        for surface, hsv in self._hsv.items():
            self.looks.rgba[:, self.geoms(surface), :3] = _rgb(*hsv)[:, None].to(self.looks.rgba.dtype)


# Effects: (shots, value of lambda [N], u [N, k] in (0, 1) of the episodes and the object, index of the object).


def _camera_position(shot: _Shots, distance_m: Tensor, u: Tensor, camera: int) -> None:
    if camera == shot.camera:
        shot.looks.eye_pos.add_(distance_m[:, None] * _unit_vector(u))


def _camera_rotation(shot: _Shots, angle_rad: Tensor, u: Tensor, camera: int) -> None:
    if camera == shot.camera:
        axes = shot.looks.eye_axes.double().transpose(1, 2)  # rows are directions
        turned = _turned(axes, _unit_vector(u)[:, None].expand_as(axes), angle_rad[:, None])
        shot.looks.eye_axes.copy_(turned.transpose(1, 2))


def _camera_fov(shot: _Shots, add_deg: Tensor, u: Tensor, camera: int) -> None:  # noqa: ARG001
    if camera == shot.camera:
        shot.looks.fov_deg.copy_((shot.looks.fov_deg + add_deg).clamp(*FOV_RANGE_DEG))


def _light_number(shot: _Shots, add: Tensor, u: Tensor, index: int) -> None:  # noqa: ARG001
    looks, number = shot.looks, torch.round(add)
    for k in range(MOST_LIGHTS):
        towards = _unit_vector(u[:, 2 * k : 2 * k + 2])
        height = LEAST_HEIGHT + (1.0 - LEAST_HEIGHT) * towards[:, 2].abs()
        flat = towards[:, :2].square().sum(dim=1).clamp(min=1e-12)
        across = torch.sqrt((1.0 - height.square()) / flat)
        looks.light_dir[:, shot.spare + k] = -torch.cat((across[:, None] * towards[:, :2], height[:, None]), dim=1).to(
            looks.light_dir.dtype
        )
        looks.light_diffuse[:, shot.spare + k] = ADDED_DIFFUSE
        looks.light_specular[:, shot.spare + k] = ADDED_SPECULAR
        looks.light_active[:, shot.spare + k] = k < number
    own = shot.model.nlight
    rank = u[:, 2 * MOST_LIGHTS : 2 * MOST_LIGHTS + own].argsort(dim=1).argsort(dim=1)
    looks.light_active[:, :own] &= rank >= -number[:, None]


def _light_position(shot: _Shots, distance_m: Tensor, u: Tensor, index: int) -> None:
    shot.looks.light_pos[:, index] += distance_m[:, None] * _unit_vector(u)


def _light_direction(shot: _Shots, angle_rad: Tensor, u: Tensor, index: int) -> None:
    towards = torch.nn.functional.normalize(shot.looks.light_dir[:, index].double(), dim=1)
    other = torch.nn.functional.one_hot(towards.abs().argmin(dim=1), 3).to(towards)
    aside = torch.nn.functional.normalize(torch.linalg.cross(towards, other), dim=1)
    aside = _turned(aside, towards, 2.0 * math.pi * u[:, 0])
    shot.looks.light_dir[:, index] = _turned(towards, aside, angle_rad).to(shot.looks.light_dir.dtype)


def _light_color(shot: _Shots, spread: Tensor, u: Tensor, index: int) -> None:
    factors = 1.0 + spread[:, None] * (2.0 * u - 1.0)
    for part in ("light_diffuse", "light_ambient", "light_specular"):
        getattr(shot.looks, part)[:, index] *= factors


def _light_diffuse(shot: _Shots, factor: Tensor, u: Tensor, index: int) -> None:  # noqa: ARG001
    shot.looks.light_diffuse[:, index] *= factor[:, None]


def _light_ambient(shot: _Shots, factor: Tensor, u: Tensor, index: int) -> None:  # noqa: ARG001
    shot.looks.light_ambient[:, index] *= factor[:, None]


def _light_shadow(shot: _Shots, probability: Tensor, u: Tensor, index: int) -> None:
    shot.looks.light_castshadow[:, index] ^= u[:, 0] < probability


def _material_hue(shot: _Shots, spread: Tensor, u: Tensor, index: int) -> None:
    colour = shot.colour(index)
    colour[0] = (colour[0] + spread * (2.0 * u[:, 0] - 1.0)) % 1.0


def _material_saturation(shot: _Shots, spread: Tensor, u: Tensor, index: int) -> None:
    colour = shot.colour(index)
    colour[1] = _fold(colour[1] + spread * (2.0 * u[:, 0] - 1.0))


def _material_value(shot: _Shots, spread: Tensor, u: Tensor, index: int) -> None:
    colour = shot.colour(index)
    colour[2] = _fold(colour[2] + spread * (2.0 * u[:, 0] - 1.0))


def _material_gloss(shot: _Shots, spread: Tensor, u: Tensor, index: int) -> None:
    for k, part in enumerate((shot.looks.specular, shot.looks.shininess)):
        geoms = shot.geoms(index)
        changed = part[:, geoms] + (spread * (2.0 * u[:, k] - 1.0))[:, None]
        part[:, geoms] = _fold(changed).to(part.dtype)


def _material_texture(shot: _Shots, probability: Tensor, u: Tensor, index: int) -> None:
    looks, changed = shot.looks, u[:, 0] < probability
    choice = (shot.first_pattern + (u[:, 1] * PATTERNS).long()).to(looks.texture.dtype)
    for geom in shot.geoms(index):
        plane = shot.model.geom_type[geom] == int(mujoco.mjtGeom.mjGEOM_PLANE)  # one pattern per metre
        looks.texture[:, geom] = torch.where(changed, choice, looks.texture[:, geom])
        looks.texuniform[:, geom] = torch.where(changed, bool(plane), looks.texuniform[:, geom])
        looks.texrepeat[:, geom] = torch.where(changed[:, None], 2.0, looks.texrepeat[:, geom])


BATCH_EFFECTS: dict[str, Callable[[_Shots, Tensor, Tensor, int], None]] = {
    "camera_position": _camera_position,
    "camera_rotation": _camera_rotation,
    "camera_fov": _camera_fov,
    "light_number": _light_number,
    "light_position": _light_position,
    "light_direction": _light_direction,
    "light_color": _light_color,
    "light_diffuse": _light_diffuse,
    "light_ambient": _light_ambient,
    "light_shadow": _light_shadow,
    "material_hue": _material_hue,
    "material_saturation": _material_saturation,
    "material_value": _material_value,
    "material_gloss": _material_gloss,
    "material_texture": _material_texture,
}


def _unit_vector(u: Tensor) -> Tensor:
    """Uniform on the sphere [N, 3] from two uniform numbers [N, 2]: height, then azimuth."""
    z = 2.0 * u[:, 0] - 1.0
    across, azimuth = torch.sqrt((1.0 - z.square()).clamp(min=0.0)), 2.0 * math.pi * u[:, 1]
    return torch.stack((across * torch.cos(azimuth), across * torch.sin(azimuth), z), dim=1)


def _turned(vector: Tensor, axis: Tensor, angle_rad: Tensor) -> Tensor:
    """Vectors [..., 3] after right-handed turns by angles [...] about unit vectors [..., 3] (Rodrigues)."""
    cos, sin = torch.cos(angle_rad)[..., None], torch.sin(angle_rad)[..., None]
    along = (axis * vector).sum(dim=-1, keepdim=True)
    return cos * vector + sin * torch.linalg.cross(axis, vector) + (1.0 - cos) * along * axis


def _fold(value: Tensor) -> Tensor:
    """Values in [-1, 2] mirrored into [0, 1] at its ends."""
    value = value.abs()
    return torch.where(value > 1.0, 2.0 - value, value)


def _rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Red, green and blue [N, 3] of colours given as [N] each, all in [0, 1]."""
    sector = (torch.tensor([5.0, 3.0, 1.0]).to(hue) + 6.0 * hue[:, None]) % 6.0
    dip = torch.minimum(sector, 4.0 - sector).clamp(0.0, 1.0)
    return value[:, None] * (1.0 - saturation[:, None] * dip)
