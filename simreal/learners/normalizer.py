"""Running mean and standard deviation of observations, part of the policy and exported with it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from envs.common.deterministic_ops import column_sums
from envs.common.ranks import ALONE, Ranks
from simreal.common.layers import Layer, Normalize, array
from simreal.learners.options import ActorOptions, BatchOptions

# float32 cannot tell values apart that differ by less than half of 2^-23 of their size, and replay, rollouts and
# deployed graphs have float32. What varies less than that around its mean is a constant with rounding noise; what
# varies little more is rounded so coarsely that it is not brought to unit deviation.
_CONSTANT, _COARSE = 2.0**-24, 2.0**-22
_SMALLEST = 1e-30  # the inverse must be a float32


class Normalizer(nn.Module):
    """Maps values to zero mean, unit standard deviation, clipped; or lets them through and only keeps statistics.

    Statistics are exact over all values seen (Chan, Golub, LeVeque 1979, parallel update), kept in float64. No unit
    is preferred: values in metres and in micrometres come out alike. What did not vary comes out as 0 for ever, as
    nothing is known of the scale on which it would.

    Args:
        size: number of values in a vector.
        clip: largest magnitude that comes out.
        active: False changes nothing but the precision, and clips nothing.

    Attributes:
        passed: how many of the last values are let through as they are. Parameters of the world come in units of their
            limits. While ADR has a range closed such a value is a constant, and when the range opens running statistics
            would make many standard deviations of a hair's breadth.
    """

    passed: int = 0

    mean: Tensor
    var: Tensor
    count: Tensor

    def __init__(self, size: int, clip: float = 5.0, active: bool = True) -> None:
        super().__init__()
        self.active = active
        self.clip = clip if active else math.inf
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("var", torch.ones(size, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    @torch.no_grad()
    def update(self, values: Tensor, ranks: Ranks = ALONE) -> None:
        """Take values [B, size] into the statistics; of several ranks, those of each."""
        values = values.double()
        n = values.shape[0]
        batch_mean = column_sums(values) / max(n, 1)
        batch_var = column_sums((values - batch_mean).square_()) / max(n, 1)  # `var` takes several times as long
        if ranks.size == 1:
            self._merge(n, batch_mean, batch_var)
            return
        moments = ranks.rows(torch.cat((batch_mean, batch_var, self.count.new_tensor([n])))[None], as_many=True)
        for row in moments:  # in the same order on all ranks
            self._merge(int(row[-1]), *row[:-1].chunk(2))

    def _merge(self, n: int, batch_mean: Tensor, batch_var: Tensor) -> None:
        """Take in n values with a mean [size] and a variance [size]."""
        if n == 0:
            return
        total = self.count + n
        delta = batch_mean - self.mean
        m2 = self.var * self.count + batch_var * n + delta.square() * self.count * n / total
        self.mean += delta * n / total
        self.var.copy_(m2 / total)
        self.count.copy_(total)

    def forget(self) -> None:
        """Return to the state before the first values."""
        self.mean.zero_()
        self.var.fill_(1.0)
        self.count.zero_()

    def offset(self) -> Tensor:
        """What is subtracted, [size]."""
        if not self.active:
            return torch.zeros_like(self.mean)
        return functional.pad(self.mean[: -self.passed], (0, self.passed)) if self.passed else self.mean

    def scale(self) -> Tensor:
        """What is divided by, [size]; 0 where nothing varied and 0 comes out."""
        if not self.active:
            return torch.ones_like(self.var)
        deviation, size = self.deviation(), self.mean.abs()
        varies = deviation > (_CONSTANT * size).clamp(min=_SMALLEST)
        scale = torch.where(varies, torch.maximum(deviation, _COARSE * size), 0.0)
        return functional.pad(scale[: -self.passed], (0, self.passed), value=1.0) if self.passed else scale

    def inverse(self) -> Tensor:
        """What is multiplied by, [size]: 1 / scale, and 0 where nothing varied."""
        scale = self.scale()
        return torch.where(scale > 0.0, 1.0 / scale, 0.0)

    def deviation(self) -> Tensor:
        """Standard deviation of the values seen, [size]."""
        return self.var.sqrt()

    def forward(self, values: Tensor) -> Tensor:
        """Normalized values [B, size], or the first ones of a vector, as float32. Computed in the input's precision
        before rounding."""
        if not self.active:
            return values.float()
        dtype, mean, inverse = values.dtype, self.offset(), self.inverse()
        if values.shape[-1] < len(mean):
            mean, inverse = mean[: values.shape[-1]], inverse[: values.shape[-1]]
        coarse = mean.to(dtype)
        rest = (mean - coarse.double()).to(dtype)  # far from zero float32 cannot hold the mean exactly
        normalized = (values - coarse - rest) * inverse.to(dtype)
        return normalized.clamp(-self.clip, self.clip).float()

    def layers(self) -> list[Layer]:
        """As an exported policy computes it, from float32 values."""
        exact = self.offset()
        mean = exact.float()
        parts = (mean, exact - mean.double(), self.inverse())
        return [Normalize(*(array(part) for part in parts), clip=self.clip)] if self.active else []


def make_normalizer(size: int, config: BatchOptions | ActorOptions) -> Normalizer:
    """A normalizer of observations; without normalization one that only keeps statistics."""
    return Normalizer(size, config.observation_clip, active=config.normalize_observation)
