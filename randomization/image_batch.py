"""What cameras do to the pictures of many worlds at once: `randomization.images` in torch.

Pictures are float tensors [N, height, width, 3] in [0, 1]; results are too. Numbers are [N], one for each
picture.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from randomization.images import LUMA


def recolour(picture: Tensor, hue: Tensor, saturation: Tensor, brightness: Tensor, contrast: Tensor) -> Tensor:
    """clip(contrast * (M rgb - 1/2) + 1/2 + brightness), with M of `randomization.images.colour_matrix`."""
    like = {"dtype": picture.dtype, "device": picture.device}
    angle = (2.0 * math.pi * hue).to(picture.dtype)[:, None, None]
    cross = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]], **like) / math.sqrt(3.0)
    turn = torch.cos(angle) * torch.eye(3, **like) + (1.0 - torch.cos(angle)) / 3.0 + torch.sin(angle) * cross
    share = saturation.to(picture.dtype)[:, None, None]
    matrix = (share * torch.eye(3, **like) + (1.0 - share) * torch.tensor(LUMA, **like)) @ turn
    scale, add = (value.to(picture.dtype)[:, None, None, None] for value in (contrast, brightness))
    return (scale * torch.einsum("nij,nhwj->nhwi", matrix, picture) + 0.5 * (1.0 - scale) + add).clamp(0.0, 1.0)


def blur(picture: Tensor, sigma_px: Tensor, most_px: float) -> Tensor:
    """Gaussian blur, cut off at three standard deviations; beyond the border, the border's pixels go on.

    Args:
        most_px: no standard deviation is above it.
    """
    radius = math.ceil(3.0 * most_px)
    offset = torch.arange(-radius, radius + 1, device=picture.device, dtype=torch.float64)
    sigma = sigma_px.double().clamp(min=1e-6)[:, None]
    weights = torch.exp(-0.5 * (offset / sigma).square()) * (offset.abs() <= torch.ceil(3.0 * sigma))
    weights = (weights / weights.sum(dim=1, keepdim=True)).to(picture.dtype)  # [N, 2 radius + 1]
    for axis in (1, 2):
        size = picture.shape[axis]
        blurred = torch.zeros_like(picture)
        for k in range(2 * radius + 1):
            where = (torch.arange(size, device=picture.device) + (k - radius)).clamp(0, size - 1)
            blurred += weights[:, k, None, None, None] * picture.index_select(axis, where)
        picture = blurred
    return picture
