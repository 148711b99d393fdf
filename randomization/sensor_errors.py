"""Errors of a sensor's values: gain, offset, noise, resolution.

    measured = round_to_step(clean * (1 + scale) + bias + noise),
    scale, bias ~ N(0, sigma^2) per episode and value,   noise ~ N(0, sigma^2) per step

after "Learning Dexterous In-Hand Manipulation" (arXiv 1808.00177, appendix C: correlated and uncorrelated
noise). The sigmas and the step are parameters of lambda.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from envs.rng import EpisodeRandom
from randomization.columns import Columns, StepDraws
from randomization.parameters import Parameter

_STATE = ("factor", "offset", "sigma", "step")


class SensorErrors:
    """Applies `observation_scale`, `_bias`, `_noise` and `_quantization` to the policy group.

    Args:
        slices: where each component lies.
        parameters: all of lambda, in order.
        rng: the environment's random numbers.
        draws: random numbers of the step.
    """

    def __init__(
        self, slices: Mapping[str, slice], parameters: list[Parameter], rng: EpisodeRandom, draws: StepDraws
    ) -> None:
        self._rng, self._draws = rng, draws
        where = {name: range(part.start, part.stop) for name, part in slices.items()}
        self._scales, self._biases, self._noises, self._steps = columns = [
            Columns(f"observation_{name}", parameters, where, rng.device)
            for name in ("scale", "bias", "noise", "quantization")
        ]
        self.configured = any(c.size for c in columns)
        self._normals = draws.reserve_normal(self._noises.size)
        self._factor, self._offset, self._sigma, self._step = (
            torch.full((rng.num_envs, c.size), start, dtype=torch.float64, device=rng.device)
            for c, start in zip(columns, (1.0, 0.0, 0.0, 0.0), strict=True)
        )

    def reset(self, mask: Tensor, lam: Tensor) -> None:
        """Take the sigmas of new worlds lam [N, d] and draw this episode's errors in mask [N]."""
        rows = mask[:, None]
        if self._scales.size:
            factor = 1.0 + self._scales.of(lam) * self._rng.episode_normal("observation_scale", self._scales.size)
            self._factor = torch.where(rows, factor, self._factor)
        if self._biases.size:
            offset = self._biases.of(lam) * self._rng.episode_normal("observation_bias", self._biases.size)
            self._offset = torch.where(rows, offset, self._offset)
        if self._noises.size:
            self._sigma = torch.where(rows, self._noises.of(lam), self._sigma)
        if self._steps.size:
            self._step = torch.where(rows, self._steps.of(lam), self._step)

    def apply(self, measured: Tensor) -> None:
        """Turn clean values [N, nobs] into measured ones, in place."""
        kind = measured.dtype
        if self._scales.size:
            measured[:, self._scales.index] *= self._factor.to(kind)
        if self._biases.size:
            measured[:, self._biases.index] += self._offset.to(kind)
        if self._noises.size:
            measured[:, self._noises.index] += (self._sigma * self._draws.normal[:, self._normals]).to(kind)
        if self._steps.size:
            values, step = measured[:, self._steps.index], self._step.to(kind)
            rounded = (values / step).round() * step
            measured[:, self._steps.index] = torch.where(step > 0, rounded, values)

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, f"_{name}") for name in _STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in _STATE:
            setattr(self, f"_{name}", state[name].clone())
