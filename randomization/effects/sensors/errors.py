"""Errors of a sensor's values: gain, offset, noise, resolution.

    measured = round_to_step(clean * (1 + scale) + bias + noise),
    scale, bias ~ N(0, sigma^2) per episode and value,   noise ~ N(0, sigma^2) per step

after "Learning Dexterous In-Hand Manipulation" (arXiv 1808.00177, appendix C: correlated and uncorrelated
noise). The sigmas and the step are parameters of lambda.
"""

from __future__ import annotations

import torch
from torch import Tensor

from randomization.effects.context import EffectContext
from randomization.effects.effect import Effect
from randomization.effects.parameter_index import chosen_rows


class SensorErrors(Effect):
    """Applies `observation_scale`, `_bias`, `_noise` and `_quantization` to the policy group."""

    order = 10
    _state = ("_factor", "_offset", "_sigma", "_step")

    def __init__(self, context: EffectContext) -> None:
        self._rng, self._random = context.rng, context.random
        self._factor, self._offset = context.slice("observation_scale", neutral=1.0), context.slice("observation_bias")
        self._sigma, self._step = context.slice("observation_noise"), context.slice("observation_quantization")
        self._normals = context.random.reserve_normal(self._sigma.length)

    def reset(self, mask: Tensor, lam: Tensor) -> None:
        """Take the sigmas of new worlds lam [N, d] and draw this episode's errors in mask [N]."""
        rows = chosen_rows(mask)
        lam = lam if rows is None else lam[rows]
        if self._factor.length:
            normal = self._rng.episode_normal("observation_scale", self._factor.index.size, rows)
            self._factor.put(1.0 + self._factor.index.of(lam) * normal, mask, rows)
        if self._offset.length:
            normal = self._rng.episode_normal("observation_bias", self._offset.index.size, rows)
            self._offset.put(self._offset.index.of(lam) * normal, mask, rows)
        for part in (self._sigma, self._step):
            if part.length:
                part.put(part.index.of(lam), mask, rows)

    def change(self, mask: Tensor, lam: Tensor) -> None:
        """Take other sigmas; gain and offset keep their directions, so that they drift as their sigmas do."""
        self.reset(mask, lam)

    def on_measurement(self, measured: Tensor) -> None:
        """Turn clean values [N, nobs] into measured ones, in place."""
        kind = measured.dtype
        if self._factor.length:
            measured[:, self._factor.where].mul_(self._factor.values.to(kind))
        if self._offset.length:
            measured[:, self._offset.where].add_(self._offset.values.to(kind))
        if self._sigma.length:
            normal = self._random.normal[:, self._normals]
            measured[:, self._sigma.where].addcmul_(self._sigma.values.to(kind), normal.to(kind))
        if self._step.length:
            values, step = measured[:, self._step.where], self._step.values.to(kind)
            values.copy_(torch.where(step > 0, (values / step).round_().mul_(step), values))
