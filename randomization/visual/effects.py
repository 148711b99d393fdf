"""What each visual quantity changes of what pictures show, one function per quantity, for N worlds at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import mujoco
import torch
from torch import Tensor

from envs.engines.visual_state import VisualState
from randomization.targets.appearance import Surface
from randomization.visual.textures import PATTERNS

MOST_LIGHTS = 8  # that light_number adds
ADDED_DIFFUSE, ADDED_SPECULAR = 0.15, 0.1  # of each of them
LEAST_HEIGHT = 0.35  # sine of their lowest elevation
FOV_RANGE_DEG = (1.0, 170.0)


@dataclass(frozen=True)
class Targets:
    """The objects that a visual parameter names.

    Attributes:
        index: [k] of cameras, lights or surfaces.
        geoms: [g] those of the surfaces, in the model.
        row: [g] which of the k surfaces each of these geoms belongs to.
        planes: [g] bool, which of these geoms are planes.
    """

    index: Tensor
    geoms: Tensor
    row: Tensor
    planes: Tensor

    @classmethod
    def of(cls, index: Sequence[int], surfaces: list[Surface], model: mujoco.MjModel, device: torch.device) -> Targets:
        """The objects of these indices; the model's surfaces where they are surfaces, otherwise none."""
        pairs = [(geom, row) for row, i in enumerate(index if surfaces else ()) for geom in surfaces[i].geoms]
        whole = lambda numbers: torch.tensor(list(numbers), dtype=torch.int64, device=device)  # noqa: E731
        geoms = whole(geom for geom, _ in pairs)
        kinds = torch.as_tensor(model.geom_type).to(device)[geoms]
        return cls(whole(index), geoms, whole(row for _, row in pairs), kinds == int(mujoco.mjtGeom.mjGEOM_PLANE))


class SceneView:
    """What effects work on: the state of N worlds, of which they change their part.

    Args:
        state: changed in place.
        model: what it was made from.
        surfaces: of the model.
        first_pattern: texture index of the texture library's first pattern.

    Attributes:
        hsv: [N, surfaces, 3] hue, saturation and value of the surfaces as the worlds have them (tasks may paint).
        own_lights: lights of the model; then come the headlight, if it shines, and from `spare` on the added ones.
    """

    def __init__(self, state: VisualState, model: mujoco.MjModel, surfaces: list[Surface], first_pattern: int) -> None:
        self.state, self.first_pattern = state, first_pattern
        self.own_lights, self.spare = model.nlight, model.nlight + bool(model.vis.headlight.active)
        shown = torch.tensor([s.geoms[0] for s in surfaces], dtype=torch.int64, device=state.rgba.device)
        self.hsv = hsv_of(state.rgba[:, shown, :3].double())

    def recolour(self, targets: Targets, part: int, changed: Tensor) -> None:
        """Give surfaces another hue, saturation or value (part 0, 1, 2) [N, k], and their geoms the colour."""
        self.hsv[:, targets.index, part] = changed
        rgb = rgb_of(self.hsv[:, targets.index])
        self.state.rgba[:, targets.geoms, :3] = rgb[:, targets.row].to(self.state.rgba.dtype)


# (view, value of lambda [N, 1], u [N, k, draws] in (0, 1) of the episodes and objects, the k objects).
Change = Callable[[SceneView, Tensor, Tensor, Targets], None]


@dataclass(frozen=True)
class Look:
    """What a visual quantity does, on every renderer alike.

    Attributes:
        change: of what the scene shows.
        draws: random numbers per object that it takes.
        filter: the number of `ImageFilter` that it is, where it acts on the picture as a whole.
        needs: what a renderer has to have for it: "lights" beyond the model's, "patterns" of textures, a "sky".
        unseen: why pictures of the GPU engine cannot show it, after "mujoco_warp's renderer".
        by_lens: whether it goes by a camera's field of view.
    """

    change: Change | None = None
    draws: int = 0
    filter: str = ""
    needs: Literal["", "lights", "patterns", "sky"] = ""
    unseen: str = ""
    by_lens: bool = False


def camera_position(view: SceneView, distance_m: Tensor, u: Tensor, targets: Targets) -> None:  # noqa: ARG001
    """Move the camera by a distance, in a direction drawn per episode."""
    view.state.eye_pos.add_(distance_m * unit_vector(u[:, 0]))


def camera_rotation(view: SceneView, angle_rad: Tensor, u: Tensor, targets: Targets) -> None:  # noqa: ARG001
    """Turn the camera by an angle about its own position and an axis drawn per episode."""
    axes = view.state.eye_axes.double().transpose(1, 2)  # rows are directions
    turned = rotated(axes, unit_vector(u).expand_as(axes), angle_rad)
    view.state.eye_axes.copy_(turned.transpose(1, 2))


def camera_fov(view: SceneView, add_deg: Tensor, u: Tensor, targets: Targets) -> None:  # noqa: ARG001
    """Widen the vertical field of view."""
    view.state.fov_deg.copy_((view.state.fov_deg + add_deg[:, 0]).clamp(*FOV_RANGE_DEG))


def light_number(view: SceneView, add: Tensor, u: Tensor, targets: Targets) -> None:  # noqa: ARG001
    """Add lights from directions drawn per episode, or switch off some of the model's (rounded)."""
    state, number, u = view.state, torch.round(add), u[:, 0]
    added = slice(view.spare, view.spare + MOST_LIGHTS)
    towards = unit_vector(u[:, : 2 * MOST_LIGHTS].view(-1, MOST_LIGHTS, 2))
    height = LEAST_HEIGHT + (1.0 - LEAST_HEIGHT) * towards[..., 2:].abs()
    flat = towards[..., :2].square().sum(dim=-1, keepdim=True).clamp(min=1e-12)
    across = torch.sqrt((1.0 - height.square()) / flat)
    state.light_dir[:, added] = -torch.cat((across * towards[..., :2], height), dim=-1).to(state.light_dir.dtype)
    state.light_diffuse[:, added] = ADDED_DIFFUSE
    state.light_specular[:, added] = ADDED_SPECULAR
    state.light_active[:, added] = torch.arange(MOST_LIGHTS, device=add.device) < number
    rank = u[:, 2 * MOST_LIGHTS : 2 * MOST_LIGHTS + view.own_lights].argsort(dim=1).argsort(dim=1)
    state.light_active[:, : view.own_lights] &= rank >= -number


def light_position(view: SceneView, distance_m: Tensor, u: Tensor, targets: Targets) -> None:
    """Move lights by a distance, in directions drawn per episode."""
    view.state.light_pos[:, targets.index] += distance_m[..., None] * unit_vector(u)


def light_direction(view: SceneView, angle_rad: Tensor, u: Tensor, targets: Targets) -> None:
    """Tilt lights by an angle, towards sides drawn per episode."""
    towards = torch.nn.functional.normalize(view.state.light_dir[:, targets.index].double(), dim=-1)
    other = torch.nn.functional.one_hot(towards.abs().argmin(dim=-1), 3).to(towards)
    aside = torch.nn.functional.normalize(torch.linalg.cross(towards, other), dim=-1)
    aside = rotated(aside, towards, 2.0 * math.pi * u[..., 0])
    view.state.light_dir[:, targets.index] = rotated(towards, aside, angle_rad).to(view.state.light_dir.dtype)


def light_color(view: SceneView, spread: Tensor, u: Tensor, targets: Targets) -> None:
    """Multiply red, green and blue of lights by factors within 1 +- spread."""
    factors = 1.0 + spread[..., None] * (2.0 * u - 1.0)
    for part in (view.state.light_diffuse, view.state.light_ambient, view.state.light_specular):
        part[:, targets.index] *= factors


def light_diffuse(view: SceneView, factor: Tensor, u: Tensor, targets: Targets) -> None:  # noqa: ARG001
    """Scale what lights give to surfaces that face them."""
    view.state.light_diffuse[:, targets.index] *= factor[..., None]


def light_ambient(view: SceneView, factor: Tensor, u: Tensor, targets: Targets) -> None:  # noqa: ARG001
    """Scale what lights give to all surfaces alike."""
    view.state.light_ambient[:, targets.index] *= factor[..., None]


def light_shadow(view: SceneView, probability: Tensor, u: Tensor, targets: Targets) -> None:
    """With a probability, a light casts a shadow where it did not, and none where it did."""
    view.state.light_castshadow[:, targets.index] ^= u[..., 0] < probability


def material_hue(view: SceneView, spread: Tensor, u: Tensor, targets: Targets) -> None:
    """Shift the hue of surfaces."""
    view.recolour(targets, 0, (view.hsv[:, targets.index, 0] + spread * (2.0 * u[..., 0] - 1.0)) % 1.0)


def material_saturation(view: SceneView, spread: Tensor, u: Tensor, targets: Targets) -> None:
    """Shift the saturation of surfaces, mirrored into [0, 1]."""
    view.recolour(targets, 1, fold(view.hsv[:, targets.index, 1] + spread * (2.0 * u[..., 0] - 1.0)))


def material_value(view: SceneView, spread: Tensor, u: Tensor, targets: Targets) -> None:
    """Shift the value (brightness) of surfaces, mirrored into [0, 1]."""
    view.recolour(targets, 2, fold(view.hsv[:, targets.index, 2] + spread * (2.0 * u[..., 0] - 1.0)))


def material_gloss(view: SceneView, spread: Tensor, u: Tensor, targets: Targets) -> None:
    """Shift how strong and how sharp the highlights of surfaces are, each mirrored into [0, 1]."""
    _shift(view.state.specular, spread, u[..., 0], targets)
    _shift(view.state.shininess, spread, u[..., 1], targets)


def material_reflectance(view: SceneView, spread: Tensor, u: Tensor, targets: Targets) -> None:
    """Shift how much surfaces mirror, mirrored into [0, 1]."""
    _shift(view.state.reflectance, spread, u[..., 0], targets)


def _shift(part: Tensor, spread: Tensor, u: Tensor, targets: Targets) -> None:
    """Shift a number of surfaces [N, G] by up to spread [N, 1] as u [N, k] says, mirrored into [0, 1]."""
    shift = spread * (2.0 * u - 1.0)
    part[:, targets.geoms] = fold(part[:, targets.geoms] + shift[:, targets.row]).to(part.dtype)


def material_texture(view: SceneView, probability: Tensor, u: Tensor, targets: Targets) -> None:
    """With a probability, give surfaces one of the procedural patterns in place of what they have."""
    state, geoms = view.state, targets.geoms
    choice = (view.first_pattern + (u[..., 1] * PATTERNS).long()).to(state.texture.dtype)[:, targets.row]
    changed = (u[..., 0] < probability)[:, targets.row]
    state.texture[:, geoms] = torch.where(changed, choice, state.texture[:, geoms])
    state.texuniform[:, geoms] = torch.where(changed, targets.planes, state.texuniform[:, geoms])
    # On planes one pattern per metre: MuJoCo counts repeats over half of a plane's size.
    state.texrepeat[:, geoms] = torch.where(changed[..., None], 2.0, state.texrepeat[:, geoms])


def background_color(view: SceneView, amount: Tensor, u: Tensor, targets: Targets) -> None:  # noqa: ARG001
    """Mix the background with a gradient between two colours drawn per episode."""
    drawn = u[:, 0].view(-1, 2, 3)
    hsv = torch.stack((drawn[..., 0], 0.7 * drawn[..., 1], 0.25 + 0.75 * drawn[..., 2]), dim=-1)
    top, bottom = rgb_of(hsv).unbind(dim=1)
    view.state.sky_amount.copy_(amount[:, 0])
    view.state.sky_top.copy_(top)
    view.state.sky_bottom.copy_(bottom)


def unit_vector(u: Tensor) -> Tensor:
    """Uniform on the sphere [..., 3] from two uniform numbers [..., 2]: height, then azimuth."""
    z = 2.0 * u[..., 0] - 1.0
    across, azimuth = torch.sqrt((1.0 - z.square()).clamp(min=0.0)), 2.0 * math.pi * u[..., 1]
    return torch.stack((across * torch.cos(azimuth), across * torch.sin(azimuth), z), dim=-1)


def rotated(vector: Tensor, axis: Tensor, angle_rad: Tensor) -> Tensor:
    """Vectors [..., 3] after right-handed turns by angles [...] about unit vectors [..., 3] (Rodrigues)."""
    cos, sin = torch.cos(angle_rad)[..., None], torch.sin(angle_rad)[..., None]
    along = (axis * vector).sum(dim=-1, keepdim=True)
    return cos * vector + sin * torch.linalg.cross(axis, vector) + (1.0 - cos) * along * axis


def fold(value: Tensor) -> Tensor:
    """Values in [-1, 2] mirrored into [0, 1] at its ends; unlike clipping, that does not pile up black and white."""
    value = value.abs()
    return torch.where(value > 1.0, 2.0 - value, value)


def hsv_of(rgb: Tensor) -> Tensor:
    """Hue, saturation and value [..., 3] of colours given by red, green and blue [..., 3], all in [0, 1]; of grey,
    which has no hue, 0."""
    value, lowest = rgb.amax(dim=-1), rgb.amin(dim=-1)
    span = value - lowest
    red, green, blue = rgb.unbind(dim=-1)
    some = torch.where(span > 0.0, span, torch.ones_like(span))
    sector = torch.where(
        red == value, (green - blue) / some,
        torch.where(green == value, 2.0 + (blue - red) / some, 4.0 + (red - green) / some),
    )  # fmt: skip
    saturation = span / torch.where(value > 0.0, value, torch.ones_like(value))
    return torch.stack(((sector / 6.0) % 1.0, saturation, value), dim=-1)


def rgb_of(hsv: Tensor) -> Tensor:
    """Red, green and blue [..., 3] of colours given by hue, saturation and value [..., 3], all in [0, 1]."""
    hue, saturation, value = (part[..., None] for part in hsv.unbind(dim=-1))
    sector = (torch.tensor([5.0, 3.0, 1.0]).to(hue) + 6.0 * hue) % 6.0
    dip = torch.minimum(sector, 4.0 - sector).clamp(0.0, 1.0)
    return value * (1.0 - saturation * dip)
