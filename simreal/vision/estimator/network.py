"""The estimator's network: pictures of all cameras -> estimates and how unsure they are.

Convolutions, the same for all cameras; for each feature its place in the picture (spatial softmax: Levine et al. 2016,
arXiv 1504.00702) and how strongly it shows, and, with a grid, its mean in every cell; a network on those of all
cameras, side by side. Places find a thing wherever it is. Cells say what is at a place, as of things that are always
about there and look alike: which of nine coloured squares is in the middle.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from simreal.vision.estimator.config import NetworkConfig
from simreal.vision.estimator.targets import Target

_SHARPNESS = 12.0  # to begin with: at 1 all places are near the middle, and it takes thousands of pictures to get away


class SpatialSoftmax(nn.Module):
    """Where each feature is: the mean place under a softmax over the picture, in [-1, 1], and its largest value."""

    def __init__(self) -> None:
        super().__init__()
        self.log_sharpness = nn.Parameter(torch.tensor(math.log(_SHARPNESS)))

    def forward(self, maps: Tensor) -> Tensor:
        """Maps [B, features, h, w] -> [B, 3 features]: x, y, strength."""
        b, k, h, w = maps.shape
        weights = functional.softmax(maps.flatten(2) * self.log_sharpness.exp(), dim=2).view(b, k, h, w)
        x, y = (torch.linspace(-1.0, 1.0, n, dtype=maps.dtype, device=maps.device) for n in (w, h))
        places = ((weights.sum(2) * x).sum(2), (weights.sum(3) * y).sum(2))
        return torch.cat((*places, torch.tanh(maps.flatten(2).amax(2))), dim=1)


class EstimatorNetwork(nn.Module):
    """See above.

    Args:
        targets: what is read.
        cameras: how many.
        config: sizes.
    """

    def __init__(self, targets: list[Target], cameras: int, config: NetworkConfig) -> None:
        super().__init__()
        self.targets = targets
        layers: list[nn.Module] = []
        before = 3
        for i, channels in enumerate(config.channels):
            size, stride = (5 if i == 0 else 3), (2 if i < config.halvings else 1)
            layers += [
                nn.Conv2d(before, channels, size, stride, size // 2),
                nn.GroupNorm(_groups(channels), channels),
                nn.ReLU(),
            ]
            before = channels
        self.features = nn.Sequential(*layers, nn.Conv2d(before, config.features, 1))
        self.places = SpatialSoftmax()
        self.grid = config.grid
        widths = [(3 + self.grid**2) * config.features * cameras, *config.hidden]
        hidden = [layer for i, n in enumerate(widths[:-1]) for layer in (nn.Linear(n, widths[i + 1]), nn.ReLU())]
        self.head = nn.Sequential(*hidden, nn.Linear(widths[-1], sum(t.outputs for t in targets)))
        for i, target in enumerate(targets):  # of positions: a place and a length that fit the pictures' own
            if target.kind == "position":
                self.register_buffer(f"middle{i}", torch.zeros(target.size))
                self.register_buffer(f"scale{i}", torch.ones(()))

    def fit_scales(self, truths: Mapping[str, Tensor]) -> None:
        """Take the middle and the spread of positions from some [n, size]."""
        for i, target in enumerate(self.targets):
            if target.kind == "position":
                values = truths[target.name]
                getattr(self, f"middle{i}").copy_(values.mean(0))
                getattr(self, f"scale{i}").copy_(values.std(0).amax().clamp(min=1e-6))

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """Bytes [B, cameras, height, width, 3] -> outputs [B, outputs] of each target, as `Target` takes them."""
        b, cameras = pictures.shape[:2]
        values = pictures.flatten(0, 1).permute(0, 3, 1, 2).float() / 127.5 - 1.0
        maps = self.features(values.contiguous(memory_format=torch.channels_last))
        seen = self.places(maps)
        if self.grid:
            cells = functional.avg_pool2d(maps, (maps.shape[2] // self.grid, maps.shape[3] // self.grid))
            seen = torch.cat((seen, cells.flatten(1)), dim=1)
        outputs = self.head(seen.reshape(b, cameras * seen.shape[1]))
        found = {}
        for i, (target, output) in enumerate(
            zip(self.targets, outputs.split([t.outputs for t in self.targets], 1), strict=True)
        ):
            found[target.name] = output
            if target.kind == "position":
                middle, scale = getattr(self, f"middle{i}"), getattr(self, f"scale{i}")
                places, log_std = output[:, : target.size], output[:, target.size :]
                found[target.name] = torch.cat((middle + scale * places, log_std + scale.log()), dim=1)
        return found

    def loss(self, outputs: Mapping[str, Tensor], truths: Mapping[str, Tensor]) -> Tensor:
        """Mean over pictures of the sum over targets; positions count in their own length, so that a metre is no more
        than a radian."""
        total = torch.zeros((), device=next(iter(outputs.values())).device)
        for i, target in enumerate(self.targets):
            output, truth = outputs[target.name], truths[target.name]
            if target.kind == "position":
                scale = getattr(self, f"scale{i}")
                output = torch.cat((output[:, : target.size] / scale, output[:, target.size :] - scale.log()), dim=1)
                truth = truth / scale
            total = total + target.loss(output, truth).mean()
        return total


def _groups(channels: int) -> int:
    """Groups of a normalization: eight channels each where that comes out even."""
    return channels // 8 if channels % 8 == 0 else 1
