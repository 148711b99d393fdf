"""What each visual quantity changes in MuJoCo's abstract scene (`mjvScene`), one function per quantity."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import mujoco
import numpy as np
from numpy.typing import NDArray

from randomization.appearance import Surface
from randomization.textures import PATTERNS

MOST_LIGHTS = 8  # that light_number adds
ADDED_DIFFUSE, ADDED_SPECULAR = 0.15, 0.1  # of each of them
LEAST_HEIGHT = 0.35  # sine of their lowest elevation
FOV_RANGE_DEG = (1.0, 170.0)
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Sky:
    """A background: `amount` 0 is the nominal one, 1 a gradient between two colours [3]."""

    amount: float
    top: Array
    bottom: Array


@dataclass
class Shot:
    """A picture about to be taken.

    Attributes:
        scene: changed in place.
        model: what it was made from; only read.
        camera: index in `camera_names` of the camera in use.
        surfaces: of the model.
        first_pattern: texture id of the texture library's first pattern.
        hsv: colours of surfaces that were changed so far.
        sky: the background, if it differs from the nominal one.
    """

    scene: mujoco.MjvScene
    model: mujoco.MjModel
    camera: int
    surfaces: list[Surface]
    first_pattern: int
    hsv: dict[int, list[float]] = field(default_factory=dict)
    sky: Sky | None = None

    def __post_init__(self) -> None:
        kind = int(mujoco.mjtObj.mjOBJ_GEOM)
        geoms = (self.scene.geoms[k] for k in range(self.scene.ngeom))
        self._geoms = {g.objid: g for g in geoms if g.objtype == kind}
        self._lights = {
            self.model.nlight if light.headlight else light.id: light
            for light in (self.scene.lights[k] for k in range(self.scene.nlight))
        }
        eye, centre = self.scene.camera[0], self.model.stat.center
        self._focus = eye.pos + float(np.dot(centre - eye.pos, eye.forward)) * eye.forward

    def geoms(self, surface: int) -> list[mujoco.MjvGeom]:
        """What is drawn of a surface."""
        return [self._geoms[i] for i in self.surfaces[surface].geoms if i in self._geoms]

    def light(self, index: int) -> mujoco.MjvLight | None:
        """A light by its index in `light_names`; None where it is off."""
        return self._lights.get(index)

    def aim(self, light: mujoco.MjvLight) -> None:
        """Put a directional light before what the camera looks at: its place only says where its shadows are drawn."""
        if light.type == int(mujoco.mjtLightType.mjLIGHT_DIRECTIONAL) and light.castshadow:
            light.pos = self._focus - self.model.stat.extent * light.dir

    def colour(self, surface: int) -> list[float]:
        """Hue, saturation and value of a surface, to be changed in place."""
        if surface not in self.hsv:
            self.hsv[surface] = list(colorsys.rgb_to_hsv(*self.surfaces[surface].rgba[:3]))
        return self.hsv[surface]

    def finish(self) -> None:
        """Give the surfaces their colours."""
        for surface, (hue, saturation, value) in self.hsv.items():
            rgb = colorsys.hsv_to_rgb(hue, saturation, value)
            for geom in self.geoms(surface):
                geom.rgba[:3] = rgb


# Effects: (shot, value of lambda, u [k] in (0, 1) of this episode and object, index of the object).


def camera_position(shot: Shot, distance_m: float, u: Array, camera: int) -> None:
    """Move the camera by a distance, in a direction drawn per episode."""
    if camera == shot.camera:
        for eye in shot.scene.camera:
            eye.pos = eye.pos + distance_m * unit_vector(u)


def camera_rotation(shot: Shot, angle_rad: float, u: Array, camera: int) -> None:
    """Turn the camera by an angle about its own position and an axis drawn per episode."""
    if camera == shot.camera:
        turn = rotation(unit_vector(u), angle_rad)
        for eye in shot.scene.camera:
            eye.forward, eye.up = turn @ eye.forward, turn @ eye.up


def camera_fov(shot: Shot, add_deg: float, u: Array, camera: int) -> None:  # noqa: ARG001
    """Widen the vertical field of view."""
    if camera != shot.camera:
        return
    for eye in shot.scene.camera:
        half_height = (eye.frustum_top - eye.frustum_bottom) / 2.0
        present = math.degrees(2.0 * math.atan(half_height / eye.frustum_near))
        wanted = min(max(present + add_deg, FOV_RANGE_DEG[0]), FOV_RANGE_DEG[1])
        scale = math.tan(math.radians(wanted) / 2.0) * eye.frustum_near / half_height
        for name in ("frustum_top", "frustum_bottom", "frustum_center", "frustum_width"):
            setattr(eye, name, scale * getattr(eye, name))


def light_number(shot: Shot, add: float, u: Array, index: int) -> None:  # noqa: ARG001
    """Add lights from directions drawn per episode, or switch off some of the model's (rounded)."""
    number = round(add)
    for k in range(number):
        if shot.scene.nlight == len(shot.scene.lights):
            return
        x, y, z = unit_vector(u[2 * k : 2 * k + 2])
        height = LEAST_HEIGHT + (1.0 - LEAST_HEIGHT) * abs(z)
        across = math.sqrt((1.0 - height * height) / max(x * x + y * y, 1e-12))
        _add_light(shot, np.array([across * x, across * y, height]))
    order = np.argsort(u[2 * MOST_LIGHTS : 2 * MOST_LIGHTS + shot.model.nlight])
    for i in order[: max(0, -number)]:
        light = shot.light(int(i))
        if light is not None:
            light.diffuse = light.ambient = light.specular = np.zeros(3)
            light.castshadow = 0


def _add_light(shot: Shot, towards: Array) -> None:
    """A light far away in a direction [3], that casts no shadow."""
    light = shot.scene.lights[shot.scene.nlight]
    shot.scene.nlight += 1
    light.id, light.headlight, light.castshadow, light.texid = -1, 0, 0, -1
    light.type = int(mujoco.mjtLightType.mjLIGHT_DIRECTIONAL)
    light.pos = shot.model.stat.center + 3.0 * shot.model.stat.extent * towards
    light.dir = -towards
    light.attenuation, light.cutoff, light.exponent = (1.0, 0.0, 0.0), 45.0, 10.0
    light.ambient, light.diffuse, light.specular = np.zeros(3), [ADDED_DIFFUSE] * 3, [ADDED_SPECULAR] * 3


def light_position(shot: Shot, distance_m: float, u: Array, index: int) -> None:
    """Move a light by a distance, in a direction drawn per episode."""
    if light := shot.light(index):
        light.pos = light.pos + distance_m * unit_vector(u)


def light_direction(shot: Shot, angle_rad: float, u: Array, index: int) -> None:
    """Tilt a light by an angle, towards a side drawn per episode."""
    if light := shot.light(index):
        towards = light.dir.astype(np.float64)
        towards /= max(float(np.linalg.norm(towards)), 1e-12)
        aside = np.cross(towards, np.eye(3)[int(np.argmin(np.abs(towards)))])
        aside = rotation(towards, 2.0 * math.pi * float(u[0])) @ (aside / np.linalg.norm(aside))
        light.dir = rotation(aside, angle_rad) @ towards
        shot.aim(light)


def light_color(shot: Shot, spread: float, u: Array, index: int) -> None:
    """Multiply red, green and blue of a light by factors within 1 +- spread."""
    if light := shot.light(index):
        factors = 1.0 + spread * (2.0 * u - 1.0)
        light.diffuse, light.ambient = light.diffuse * factors, light.ambient * factors
        light.specular = light.specular * factors


def light_diffuse(shot: Shot, factor: float, u: Array, index: int) -> None:  # noqa: ARG001
    """Scale what a light gives to surfaces that face it."""
    if light := shot.light(index):
        light.diffuse = factor * light.diffuse


def light_ambient(shot: Shot, factor: float, u: Array, index: int) -> None:  # noqa: ARG001
    """Scale what a light gives to all surfaces alike."""
    if light := shot.light(index):
        light.ambient = factor * light.ambient


def light_shadow(shot: Shot, probability: float, u: Array, index: int) -> None:
    """With a probability, a light casts a shadow where it did not, and none where it did."""
    light = shot.light(index)
    if light is not None and u[0] < probability:
        light.castshadow = 1 - int(light.castshadow)
        shot.aim(light)


def material_hue(shot: Shot, spread: float, u: Array, index: int) -> None:
    """Shift the hue of a surface."""
    colour = shot.colour(index)
    colour[0] = (colour[0] + spread * (2.0 * u[0] - 1.0)) % 1.0


def material_saturation(shot: Shot, spread: float, u: Array, index: int) -> None:
    """Shift the saturation of a surface, mirrored into [0, 1]."""
    colour = shot.colour(index)
    colour[1] = fold(colour[1] + spread * (2.0 * u[0] - 1.0))


def material_value(shot: Shot, spread: float, u: Array, index: int) -> None:
    """Shift the value (brightness) of a surface, mirrored into [0, 1]."""
    colour = shot.colour(index)
    colour[2] = fold(colour[2] + spread * (2.0 * u[0] - 1.0))


def material_gloss(shot: Shot, spread: float, u: Array, index: int) -> None:
    """Shift how strong and how sharp the highlights of a surface are, each mirrored into [0, 1]."""
    for geom in shot.geoms(index):
        geom.specular = fold(geom.specular + spread * (2.0 * u[0] - 1.0))
        geom.shininess = fold(geom.shininess + spread * (2.0 * u[1] - 1.0))


def material_reflectance(shot: Shot, spread: float, u: Array, index: int) -> None:
    """Shift how much a surface mirrors, mirrored into [0, 1]."""
    for geom in shot.geoms(index):
        geom.reflectance = fold(geom.reflectance + spread * (2.0 * u[0] - 1.0))


def material_texture(shot: Shot, probability: float, u: Array, index: int) -> None:
    """With a probability, give a surface one of the procedural patterns in place of what it has."""
    if u[0] >= probability:
        return
    choice = shot.first_pattern + int(u[1] * PATTERNS)
    for geom in shot.geoms(index):
        plane = geom.type == int(mujoco.mjtGeom.mjGEOM_PLANE)
        geom.texid = choice if plane else choice + PATTERNS
        geom.texuniform, geom.texrepeat = int(plane), np.ones(2)  # on planes one pattern per metre
        geom.matid = max(geom.matid, 0)  # without a material MuJoCo draws no texture


def background_color(shot: Shot, amount: float, u: Array, index: int) -> None:  # noqa: ARG001
    """Mix the background with a gradient between two colours drawn per episode."""
    top, bottom = (
        np.array(colorsys.hsv_to_rgb(hue, 0.7 * saturation, 0.25 + 0.75 * value))
        for hue, saturation, value in u.reshape(2, 3)
    )
    shot.sky = Sky(amount, top, bottom)


def unit_vector(u: Array) -> Array:
    """Uniform on the sphere [3] from two uniform numbers: height, then azimuth."""
    z = 2.0 * float(u[0]) - 1.0
    across, azimuth = math.sqrt(max(0.0, 1.0 - z * z)), 2.0 * math.pi * float(u[1])
    return np.array([across * math.cos(azimuth), across * math.sin(azimuth), z])


def rotation(axis: Array, angle_rad: float) -> Array:
    """Matrix [3, 3] of a right-handed turn about a unit vector (Rodrigues)."""
    x, y, z = (float(a) for a in axis)
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + math.sin(angle_rad) * cross + (1.0 - math.cos(angle_rad)) * cross @ cross


def fold(value: float) -> float:
    """A value in [-1, 2] mirrored into [0, 1] at its ends; unlike clipping, that does not pile up black and white."""
    value = abs(value)
    return 2.0 - value if value > 1.0 else value


# Each effect with how many random numbers per object it takes.
EFFECTS: dict[str, tuple[Callable[[Shot, float, Array, int], None], int]] = {
    "camera_position": (camera_position, 2),
    "camera_rotation": (camera_rotation, 2),
    "camera_fov": (camera_fov, 0),
    "light_number": (light_number, 2 * MOST_LIGHTS + int(mujoco.mjMAXLIGHT)),
    "light_position": (light_position, 2),
    "light_direction": (light_direction, 1),
    "light_color": (light_color, 3),
    "light_diffuse": (light_diffuse, 0),
    "light_ambient": (light_ambient, 0),
    "light_shadow": (light_shadow, 1),
    "material_hue": (material_hue, 1),
    "material_saturation": (material_saturation, 1),
    "material_value": (material_value, 1),
    "material_gloss": (material_gloss, 2),
    "material_reflectance": (material_reflectance, 1),
    "material_texture": (material_texture, 2),
    "background_color": (background_color, 6),
}
