"""The visual part of the catalogue: what pictures may show differently.

The list follows the vision randomizations of OpenAI et al. 2019 (arXiv 1910.07113, table 11). A spread says how far
things may differ; where each named object lies within it is drawn once per episode.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import mujoco

from randomization.catalogue.quantity import Mode, Quantity
from randomization.targets.appearance import is_no_headlight, mirrors, shines
from randomization.visual import effects
from randomization.visual.effects import MOST_LIGHTS, Change, Look

_INF = float("inf")
_Target = Literal["camera", "light", "material", "none"]


def _visual(
    name: str, mode: Mode, target: _Target, unit: str, limits: tuple[float, float], usual: tuple[float, float],
    description: str, change: Change | None = None, draws: int = 0, **look: Any,
) -> Quantity:  # fmt: skip
    """A quantity of what pictures show; `suits` and `expected` are its own, the rest of `look` is of `Look`."""
    own = {key: look.pop(key) for key in ("suits", "expected") if key in look}
    return Quantity(
        name=name, channel="visual", mode=mode, target=target, unit=unit, limits=limits, default_range=usual,
        description=description, look=Look(change, draws, **look), **own,
    )  # fmt: skip


VISUAL: tuple[Quantity, ...] = (
    _visual("camera_position", "add", "camera", "m", (0.0, _INF), (0.0, 0.15),
        "distance by which a camera is displaced, in a direction drawn per episode", effects.camera_position, 2),
    _visual("camera_rotation", "add", "camera", "rad", (0.0, math.pi), (0.0, 0.05),
        "angle by which a camera is turned, about an axis drawn per episode", effects.camera_rotation, 2),
    _visual("camera_fov", "add", "camera", "deg", (-90.0, 90.0), (-4.0, 4.0), "added to the vertical field of view",
        effects.camera_fov, by_lens=True),
    _visual("light_number", "add", "none", "1", (-100.0, 8.0), (0.0, 3.0),
        "lights added from above, directions drawn per episode; below 0: of the model's, that many are off",
        effects.light_number, 2 * MOST_LIGHTS + int(mujoco.mjMAXLIGHT), needs="lights"),
    _visual("light_position", "add", "light", "m", (0.0, _INF), (0.0, 0.5),
        "distance by which a light is displaced, in a direction drawn per episode", effects.light_position, 2,
        suits=is_no_headlight, expected="light with a position of its own (it shines from the camera)"),
    _visual("light_direction", "add", "light", "rad", (0.0, math.pi), (0.0, 0.8),
        "angle by which a light is tilted, towards a side drawn per episode", effects.light_direction, 1,
        suits=is_no_headlight, expected="light with a direction of its own (it shines from the camera)"),
    _visual("light_color", "add", "light", "1", (0.0, 1.0), (0.0, 0.3),
        "spread: red, green and blue of each light times factors within 1 +- this", effects.light_color, 3),
    _visual("light_diffuse", "scale", "light", "1", (0.0, _INF), (0.5, 1.1),
        "intensity of what a light gives to surfaces that face it", effects.light_diffuse, suits=shines("diffuse"),
        expected="light with a diffuse part, so a factor would do nothing"),
    _visual("light_ambient", "scale", "light", "1", (0.0, _INF), (0.5, 1.5),
        "intensity of what a light gives to all surfaces alike", effects.light_ambient, suits=shines("ambient"),
        expected="light with an ambient part, so a factor would do nothing"),
    _visual("light_shadow", "absolute", "light", "1", (0.0, 1.0), (0.0, 0.5),
        "probability that a light casts a shadow where it does not in the model, and none where it does",
        effects.light_shadow, 1, suits=is_no_headlight,
        expected="light that can cast a shadow (it shines from the camera)"),
    _visual("material_hue", "add", "material", "turn", (0.0, 0.5), (0.0, 0.5),
        "spread: hue of each surface shifted within +- this", effects.material_hue, 1),
    _visual("material_saturation", "add", "material", "1", (0.0, 1.0), (0.0, 0.6),
        "spread: saturation of each surface shifted within +- this, mirrored at 0 and 1", effects.material_saturation,
        1),
    _visual("material_value", "add", "material", "1", (0.0, 1.0), (0.0, 0.5),
        "spread: brightness of each surface's colour shifted within +- this, mirrored at 0 and 1",
        effects.material_value, 1),
    _visual("material_gloss", "add", "material", "1", (0.0, 1.0), (0.0, 0.5),
        "spread: strength and sharpness of highlights shifted within +- this, mirrored at 0 and 1",
        effects.material_gloss, 2),
    _visual("material_reflectance", "add", "material", "1", (0.0, 1.0), (0.0, 0.2),
        "spread: how much planes and boxes mirror, shifted within +- this, mirrored at 0 and 1",
        effects.material_reflectance, 1, suits=mirrors,
        expected="surface of a plane or a box, and MuJoCo mirrors in nothing else", unseen="mirrors nothing"),
    _visual("material_texture", "absolute", "material", "1", (0.0, 1.0), (0.0, 0.8),
        "probability that a surface gets a procedural pattern, one of 24 drawn per episode", effects.material_texture,
        2, needs="patterns"),
    _visual("background_color", "absolute", "none", "1", (0.0, 1.0), (0.0, 1.0),
        "share of a two-coloured gradient, drawn per episode, in the background", effects.background_color, 6,
        needs="sky", by_lens=True),
    _visual("image_hue", "add", "none", "turn", (-0.5, 0.5), (-0.03, 0.03), "turns the hue of the whole picture",
        filter="hue"),
    _visual("image_saturation", "scale", "none", "1", (0.0, _INF), (0.7, 1.3),
        "distance of the picture's colours from grey", filter="saturation"),
    _visual("image_brightness", "add", "none", "1", (-1.0, 1.0), (-0.06, 0.06), "added to the picture; 1 is full scale",
        filter="brightness"),
    _visual("image_contrast", "scale", "none", "1", (0.0, _INF), (0.8, 1.2),
        "distance of the picture's values from mid-grey", filter="contrast"),
    _visual("image_blur", "absolute", "none", "1", (0.0, 0.1), (0.0, 0.004),
        "Gaussian blur; standard deviation as a share of the picture's height", filter="blur"),
    _visual("image_noise", "absolute", "none", "1", (0.0, 1.0), (0.0, 0.03),
        "standard deviation of noise on every value of every pixel, fresh at every step; 1 is full scale",
        filter="noise"),
)  # fmt: skip
