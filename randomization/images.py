"""What a camera does to a picture: colour, contrast, blur and noise, as pure functions.

Pictures are float arrays [..., height, width, 3] in [0, 1]; results are too. `process` wraps all of them for
bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[Any]  # [..., height, width, 3]
LUMA = np.array([0.299, 0.587, 0.114])  # brightness of red, green and blue, ITU-R BT.601


def colour_matrix(hue: float, saturation: float) -> NDArray[np.float64]:
    """[3, 3] that turns the hue by `hue` turns and scales the distance from grey by `saturation`.

    The turn is a rotation about the axis of greys (1, 1, 1); a third of a turn takes red to green to blue. Greys
    stay as they are. Saturation interpolates between the grey of the same luma (0) and the colour (1).
    """
    angle = 2.0 * math.pi * hue
    cross = np.array([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3.0)
    turn = math.cos(angle) * np.eye(3) + (1.0 - math.cos(angle)) / 3.0 + math.sin(angle) * cross
    return (saturation * np.eye(3) + (1.0 - saturation) * LUMA) @ turn


def recolour(
    picture: Picture, hue: float = 0.0, saturation: float = 1.0, brightness: float = 0.0, contrast: float = 1.0
) -> Picture:
    """clip(contrast * (M rgb - 1/2) + 1/2 + brightness), with M of `colour_matrix`."""
    matrix = (contrast * colour_matrix(hue, saturation)).astype(picture.dtype)
    offset = 0.5 * (1.0 - contrast) + brightness
    return np.clip(picture @ matrix.T + picture.dtype.type(offset), 0.0, 1.0)


def gaussian(sigma_px: float) -> NDArray[np.float64]:
    """Weights [2r + 1] of a Gaussian with r = ceil(3 sigma), sum 1."""
    radius = math.ceil(3.0 * sigma_px)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma_px) ** 2)
    return weights / weights.sum()


def blur(picture: Picture, sigma_px: float) -> Picture:
    """Gaussian blur; beyond the border, the border's pixels go on."""
    if sigma_px <= 0.0:
        return picture
    weights = gaussian(sigma_px).astype(picture.dtype)
    radius = len(weights) // 2
    for axis in (-3, -2):
        size = picture.shape[axis]
        padding = [(0, 0)] * picture.ndim
        padding[axis] = (radius, radius)
        padded = np.pad(picture, padding, mode="edge")
        picture = np.zeros_like(picture)
        for start, weight in enumerate(weights):
            window = [slice(None)] * picture.ndim
            window[axis] = slice(start, start + size)
            picture += weight * padded[tuple(window)]
    return picture


def add_noise(picture: Picture, deviation: float, seed: int) -> Picture:
    """Independent normal noise on every value of every pixel, clipped."""
    if deviation <= 0.0:
        return picture
    noise = np.random.default_rng(seed).standard_normal(picture.shape, dtype=np.float32)
    return np.clip(picture + picture.dtype.type(deviation) * noise, 0.0, 1.0)


@dataclass(frozen=True)
class Development:
    """What happens to a picture, in this order; the defaults change nothing.

    Attributes:
        hue: turns. saturation, contrast: factors. brightness: added, 1 is full scale.
        blur: standard deviation as a share of the picture's height.
        noise: standard deviation, 1 is full scale.
        seed: of the noise.
    """

    hue: float = 0.0
    saturation: float = 1.0
    brightness: float = 0.0
    contrast: float = 1.0
    blur: float = 0.0
    noise: float = 0.0
    seed: int = 0


def process(picture: NDArray[np.uint8], how: Development) -> NDArray[np.uint8]:
    """Bytes [..., height, width, 3] as a camera would deliver them."""
    same = Development(seed=how.seed)
    if how == same:
        return picture
    values = picture.astype(np.float32) / 255.0
    colours = (how.hue, how.saturation, how.brightness, how.contrast)
    if colours != (same.hue, same.saturation, same.brightness, same.contrast):
        values = recolour(values, *colours)
    values = blur(values, how.blur * picture.shape[-3])
    values = add_noise(values, how.noise, how.seed)
    return np.rint(values * 255.0).astype(np.uint8)
