"""What pictures become before networks read them: numbers [B, features].

Bytes to [-0.5, 0.5], convolutions as those of DQN (Mnih et al. 2015: 8 x 8 with a stride of 4, then 4 x 4 with one of
2), a layer, its normalization and a tanh as in DrQ (Kostrikov, Yarats and Fergus 2020, arXiv 2004.13649, appendix B). A
first stride of 2, as DrQ has it, takes four times as long on a CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from simreal.learners.pixels.layout import PixelLayout

HALF, BYTE = 0.5, 1.0 / 255.0


class Encoder(nn.Module):
    """See above.

    Attributes:
        layout: of what is looked at.
        convolutions: with ReLU after each.
        last, norm: the layer, and the normalization of its outputs.
    """

    def __init__(self, layout: PixelLayout) -> None:
        super().__init__()
        self.layout = layout
        before = 3 * layout.stack
        height, width = (edge // layout.shrink for edge in layout.seen)
        self.convolutions = nn.ModuleList()
        for i, channels in enumerate(layout.channels):
            stride = 2 if i else 4
            convolution = nn.Conv2d(before, channels, 2 * stride, stride, stride // 2)
            nn.init.orthogonal_(convolution.weight, nn.init.calculate_gain("relu"))
            nn.init.zeros_(convolution.bias)  # pyright: ignore[reportArgumentType]
            self.convolutions.append(convolution)
            before, height, width = channels, height // stride, width // stride
        self.last = nn.Linear(before * height * width, layout.features)
        self.norm = nn.LayerNorm(layout.features)

    def forward(self, pictures: Tensor) -> Tensor:
        """What is looked at [B, K, h, w, 3] uint8, oldest first -> [B, features]."""
        x = pictures.permute(0, 1, 4, 2, 3).flatten(1, 2).float() * BYTE - HALF
        if self.layout.shrink > 1:
            x = functional.avg_pool2d(x, self.layout.shrink)
        for convolution in self.convolutions:
            x = functional.relu(convolution(x))
        return torch.tanh(self.norm(self.last(x.flatten(1))))


def shifted(pictures: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Pictures [B, K, h, w, 3], those of each row moved by the same whole number of pixels, up to `most` each way:
    padded with their edges, and cropped (DrQ, arXiv 2004.13649, section 3.1)."""
    if not most:
        return pictures
    shape = (2, len(pictures))
    rows, columns = torch.randint(0, 2 * most + 1, shape, generator=generator, device=generator.device).cpu()
    height, width = pictures.shape[2:4]
    down = (torch.arange(height) + rows[:, None] - most).clamp(0, height - 1)  # [B, h]
    right = (torch.arange(width) + columns[:, None] - most).clamp(0, width - 1)  # [B, w]
    moved = torch.empty_like(pictures)
    for picture, y, x, out in zip(pictures, down, right, moved, strict=True):
        torch.index_select(picture.index_select(1, y), 2, x, out=out)
    return moved
