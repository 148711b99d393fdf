"""The visual part of the catalogue: what pictures may show differently.

The list follows the vision randomizations of OpenAI et al. 2019 (arXiv 1910.07113, table 11). A spread says how far
things may differ; where each named object lies within it is drawn once per episode.
"""

from __future__ import annotations

import math
from typing import Literal

from randomization.catalogue.quantity import Mode, RandomizableQuantity

_INF = float("inf")
_Target = Literal["camera", "light", "material", "none"]


def _visual(
    name: str,
    mode: Mode,
    target: _Target,
    unit: str,
    limits: tuple[float, float],
    usual: tuple[float, float],
    description: str,
) -> RandomizableQuantity:
    return RandomizableQuantity(
        name, "visual", mode, target, unit, 1.0 if mode == "scale" else 0.0, limits, usual, (), description
    )


VISUAL: tuple[RandomizableQuantity, ...] = (
    _visual("camera_position", "add", "camera", "m", (0.0, _INF), (0.0, 0.15),
        "distance by which a camera is displaced, in a direction drawn per episode"),
    _visual("camera_rotation", "add", "camera", "rad", (0.0, math.pi), (0.0, 0.05),
        "angle by which a camera is turned, about an axis drawn per episode"),
    _visual("camera_fov", "add", "camera", "deg", (-90.0, 90.0), (-4.0, 4.0), "added to the vertical field of view"),
    _visual("light_number", "add", "none", "1", (-100.0, 8.0), (0.0, 3.0),
        "lights added from above, directions drawn per episode; below 0: of the model's, that many are off"),
    _visual("light_position", "add", "light", "m", (0.0, _INF), (0.0, 0.5),
        "distance by which a light is displaced, in a direction drawn per episode"),
    _visual("light_direction", "add", "light", "rad", (0.0, math.pi), (0.0, 0.8),
        "angle by which a light is tilted, towards a side drawn per episode"),
    _visual("light_color", "add", "light", "1", (0.0, 1.0), (0.0, 0.3),
        "spread: red, green and blue of each light times factors within 1 +- this"),
    _visual("light_diffuse", "scale", "light", "1", (0.0, _INF), (0.5, 1.1),
        "intensity of what a light gives to surfaces that face it"),
    _visual("light_ambient", "scale", "light", "1", (0.0, _INF), (0.5, 1.5),
        "intensity of what a light gives to all surfaces alike"),
    _visual("light_shadow", "absolute", "light", "1", (0.0, 1.0), (0.0, 0.5),
        "probability that a light casts a shadow where it does not in the model, and none where it does"),
    _visual("material_hue", "add", "material", "turn", (0.0, 0.5), (0.0, 0.5),
        "spread: hue of each surface shifted within +- this"),
    _visual("material_saturation", "add", "material", "1", (0.0, 1.0), (0.0, 0.6),
        "spread: saturation of each surface shifted within +- this, mirrored at 0 and 1"),
    _visual("material_value", "add", "material", "1", (0.0, 1.0), (0.0, 0.5),
        "spread: brightness of each surface's colour shifted within +- this, mirrored at 0 and 1"),
    _visual("material_gloss", "add", "material", "1", (0.0, 1.0), (0.0, 0.5),
        "spread: strength and sharpness of highlights shifted within +- this, mirrored at 0 and 1"),
    _visual("material_reflectance", "add", "material", "1", (0.0, 1.0), (0.0, 0.2),
        "spread: how much planes and boxes mirror, shifted within +- this, mirrored at 0 and 1"),
    _visual("material_texture", "absolute", "material", "1", (0.0, 1.0), (0.0, 0.8),
        "probability that a surface gets a procedural pattern, one of 24 drawn per episode"),
    _visual("background_color", "absolute", "none", "1", (0.0, 1.0), (0.0, 1.0),
        "share of a two-coloured gradient, drawn per episode, in the background"),
    _visual("image_hue", "add", "none", "turn", (-0.5, 0.5), (-0.03, 0.03), "turns the hue of the whole picture"),
    _visual("image_saturation", "scale", "none", "1", (0.0, _INF), (0.7, 1.3),
        "distance of the picture's colours from grey"),
    _visual("image_brightness", "add", "none", "1", (-1.0, 1.0), (-0.06, 0.06),
        "added to the picture; 1 is full scale"),
    _visual("image_contrast", "scale", "none", "1", (0.0, _INF), (0.8, 1.2),
        "distance of the picture's values from mid-grey"),
    _visual("image_blur", "absolute", "none", "1", (0.0, 0.1), (0.0, 0.004),
        "Gaussian blur; standard deviation as a share of the picture's height"),
    _visual("image_noise", "absolute", "none", "1", (0.0, 1.0), (0.0, 0.03),
        "standard deviation of noise on every value of every pixel, fresh at every step; 1 is full scale"),
)  # fmt: skip
