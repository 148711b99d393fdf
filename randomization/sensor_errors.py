"""Errors of a sensor's values: gain, offset, noise, resolution.

    measured = round_to_step(clean * (1 + scale) + bias + noise),
    scale, bias ~ N(0, sigma^2) per episode and value,   noise ~ N(0, sigma^2) per step

after "Learning Dexterous In-Hand Manipulation" (arXiv 1808.00177, appendix C: correlated and uncorrelated
noise). The sigmas and the step are parameters of lambda.
"""

from __future__ import annotations

import torch
from torch import Tensor

from randomization.columns import ContiguousSlice, chosen_rows
from randomization.effect import Effect, EffectContext


class SensorErrors(Effect):
    """Applies `observation_scale`, `_bias`, `_noise` and `_quantization` to the policy group."""

    _state = ("_factor", "_offset", "_sigma", "_step")

    def __init__(self, context: EffectContext) -> None:
        self._rng, self._random = context.rng, context.random
        self._scales, self._biases, self._noises, self._steps = columns = [
            context.index(f"observation_{name}") for name in ("scale", "bias", "noise", "quantization")
        ]
        self.configured = any(c.size for c in columns)
        self._scaled, self._shifted, self._noisy, self._rounded = spans = [
            ContiguousSlice(c, self._rng.device) for c in columns
        ]
        self._normals = context.random.reserve_normal(self._noisy.size)
        # [N, size] of each span, neutral where nothing acts
        self._factor, self._offset, self._sigma, self._step = (
            context.zeros(span.size) + neutral for span, neutral in zip(spans, (1.0, 0.0, 0.0, 0.0), strict=True)
        )

    def reset(self, mask: Tensor, lam: Tensor) -> None:
        """Take the sigmas of new worlds lam [N, d] and draw this episode's errors in mask [N]."""
        rows, rng = chosen_rows(mask), self._rng
        lam = lam if rows is None else lam[rows]
        if self._scales.size:
            factor = 1.0 + self._scales.of(lam) * rng.episode_normal("observation_scale", self._scales.size, rows)
            self._scaled.put(self._factor, mask, rows, factor)
        if self._biases.size:
            offset = self._biases.of(lam) * rng.episode_normal("observation_bias", self._biases.size, rows)
            self._shifted.put(self._offset, mask, rows, offset)
        if self._noises.size:
            self._noisy.put(self._sigma, mask, rows, self._noises.of(lam))
        if self._steps.size:
            self._rounded.put(self._step, mask, rows, self._steps.of(lam))

    def apply(self, measured: Tensor) -> None:
        """Turn clean values [N, nobs] into measured ones, in place."""
        kind = measured.dtype
        if self._scales.size:
            measured[:, self._scaled.where].mul_(self._factor.to(kind))
        if self._biases.size:
            measured[:, self._shifted.where].add_(self._offset.to(kind))
        if self._noises.size:
            normal = self._random.normal[:, self._normals]
            measured[:, self._noisy.where].addcmul_(self._sigma.to(kind), normal.to(kind))
        if self._steps.size:
            values, step = measured[:, self._rounded.where], self._step.to(kind)
            values.copy_(torch.where(step > 0, (values / step).round_().mul_(step), values))
