"""What cameras do to the pictures of N worlds: colour, contrast, blur and noise, as pure functions in torch.

Pictures are float tensors [N, height, width, 3] in [0, 1]; results are too. Numbers are [N], one for each picture.
`postprocess` wraps all of them for bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # brightness of red, green and blue, ITU-R BT.601


@dataclass(frozen=True)
class ImageFilter:
    """What happens to N pictures, in this order; each number is [N], or None where it changes nothing.

    Attributes:
        hue: turns. saturation, contrast: factors. brightness: added, 1 is full scale.
        blur: standard deviation as a share of the picture's height.
        noise: standard deviation, 1 is full scale.
        most_blur: no `blur` is above it.
    """

    hue: Tensor | None = None
    saturation: Tensor | None = None
    brightness: Tensor | None = None
    contrast: Tensor | None = None
    blur: Tensor | None = None
    noise: Tensor | None = None
    most_blur: float = 0.0


NEUTRAL = {"hue": 0.0, "saturation": 1.0, "brightness": 0.0, "contrast": 1.0, "blur": 0.0, "noise": 0.0}
_COLOURS = ("hue", "saturation", "brightness", "contrast")


def postprocess(pictures: Tensor, how: ImageFilter, normal: Tensor | None = None) -> Tensor:
    """Bytes [N, height, width, 3] as cameras would deliver them.

    Args:
        pictures: bytes [N, height, width, 3].
        how: the numbers of each picture.
        normal: standard normal numbers [N, height * width * 3], where there is noise.
    """
    colours = [getattr(how, name) for name in _COLOURS]
    if all(part is None for part in (*colours, how.blur, how.noise)):
        return pictures
    height, values = pictures.shape[1], pictures.float() / 255.0
    if any(colour is not None for colour in colours):
        full = [
            values.new_full((len(values),), NEUTRAL[name]) if colour is None else colour
            for name, colour in zip(_COLOURS, colours, strict=True)
        ]
        values = recolour(values, *full)
    if how.blur is not None:
        values = blur(values, height * how.blur, height * how.most_blur)
    if how.noise is not None and normal is not None:
        values = add_noise(values, how.noise, normal)
    return (255.0 * values).round().to(torch.uint8)


def colour_matrix(hue: Tensor, saturation: Tensor) -> Tensor:
    """[N, 3, 3] that turn the hue by `hue` turns and scale the distance from grey by `saturation`.

    The turn is a rotation about the axis of greys (1, 1, 1); a third of a turn takes red to green to blue. Greys
    stay as they are. Saturation interpolates between the grey of the same luma (0) and the colour (1).
    """
    angle, share = (2.0 * math.pi * hue)[:, None, None], saturation[:, None, None]
    cross = hue.new_tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3.0)
    same = torch.eye(3, dtype=hue.dtype, device=hue.device)
    turn = torch.cos(angle) * same + (1.0 - torch.cos(angle)) / 3.0 + torch.sin(angle) * cross
    return (share * same + (1.0 - share) * hue.new_tensor(LUMA)) @ turn


def recolour(picture: Tensor, hue: Tensor, saturation: Tensor, brightness: Tensor, contrast: Tensor) -> Tensor:
    """clip(contrast * (M rgb - 1/2) + 1/2 + brightness), with M of `colour_matrix`."""
    hue, saturation, brightness, contrast = (value.to(picture) for value in (hue, saturation, brightness, contrast))
    scale, add = contrast[:, None, None, None], brightness[:, None, None, None]
    turned = torch.einsum("nij,nhwj->nhwi", colour_matrix(hue, saturation), picture)
    return (scale * turned + 0.5 * (1.0 - scale) + add).clamp(0.0, 1.0)


def gaussian(sigma_px: Tensor, radius: int) -> Tensor:
    """Weights [N, 2 radius + 1] of Gaussians, cut off at ceil(3 sigma), sum 1; float64."""
    offset = torch.arange(-radius, radius + 1, device=sigma_px.device, dtype=torch.float64)
    sigma = sigma_px.double().clamp(min=1e-6)[:, None]
    weights = torch.exp(-0.5 * (offset / sigma).square()) * (offset.abs() <= torch.ceil(3.0 * sigma))
    return weights / weights.sum(dim=1, keepdim=True)


def blur(picture: Tensor, sigma_px: Tensor, most_px: float) -> Tensor:
    """Gaussian blur; beyond the border, the border's pixels go on.

    Args:
        picture: [N, height, width, 3].
        sigma_px: standard deviations [N].
        most_px: no standard deviation is above it.
    """
    radius = math.ceil(3.0 * most_px)
    weights = gaussian(sigma_px, radius).to(picture.dtype)
    for axis in (1, 2):
        size = picture.shape[axis]
        blurred = torch.zeros_like(picture)
        for k in range(2 * radius + 1):
            where = (torch.arange(size, device=picture.device) + (k - radius)).clamp(0, size - 1)
            blurred += weights[:, k, None, None, None] * picture.index_select(axis, where)
        picture = blurred
    return picture


def add_noise(picture: Tensor, deviation: Tensor, normal: Tensor) -> Tensor:
    """Independent normal noise on every value of every pixel, clipped; normal [N, height * width * 3]."""
    scaled = deviation.to(picture)[:, None, None, None] * normal.view_as(picture).to(picture.dtype)
    return (picture + scaled).clamp(0.0, 1.0)
