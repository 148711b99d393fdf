"""Running mean and standard deviation of observations, part of the policy and exported with it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from simreal.config import OffPolicyConfig, PPOConfig
from simreal.learn.sums import columns


class Normalizer(nn.Module):
    """Maps values to zero mean, unit standard deviation, clipped; or lets them through and only keeps statistics.

    Statistics are exact over all values seen (Chan, Golub, LeVeque 1979, parallel update), kept in float64.

    Args:
        size: number of values in a vector.
        clip: largest magnitude that comes out.
        epsilon: smallest standard deviation; constant inputs come out as 0.
        active: False changes nothing but the precision, and clips nothing.
    """

    mean: Tensor
    var: Tensor
    count: Tensor

    def __init__(self, size: int, clip: float = 5.0, epsilon: float = 1e-2, active: bool = True) -> None:
        super().__init__()
        self.active = active
        self.clip = clip if active else math.inf
        self.epsilon = epsilon
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("var", torch.ones(size, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    @torch.no_grad()
    def update(self, values: Tensor) -> None:
        """Take values [B, size] into the statistics."""
        values = values.double()
        n = values.shape[0]
        batch_mean = columns(values) / n
        batch_var = columns((values - batch_mean).square_()) / n  # `var` takes several times as long
        total = self.count + n
        delta = batch_mean - self.mean
        m2 = self.var * self.count + batch_var * n + delta.square() * self.count * n / total
        self.mean += delta * n / total
        self.var.copy_(m2 / total)
        self.count.copy_(total)

    def offset(self) -> Tensor:
        """What is subtracted, [size]."""
        return self.mean if self.active else torch.zeros_like(self.mean)

    def scale(self) -> Tensor:
        """What is divided by, [size]."""
        return self.deviation() if self.active else torch.ones_like(self.var)

    def deviation(self) -> Tensor:
        """Standard deviation of the values seen, at least epsilon, [size]."""
        return self.var.sqrt().clamp(min=self.epsilon)

    def forward(self, values: Tensor) -> Tensor:
        """Normalized values [B, size] as float32. Computed in the input's precision before rounding."""
        if not self.active:
            return values.float()
        normalized = (values - self.mean.to(values.dtype)) / self.scale().to(values.dtype)
        return normalized.clamp(-self.clip, self.clip).float()


def make_normalizer(size: int, config: OffPolicyConfig | PPOConfig) -> Normalizer:
    """A normalizer of observations; without normalization one that only keeps statistics."""
    return Normalizer(size, config.observation_clip, active=config.normalize_observation)
