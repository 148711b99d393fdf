"""Sensor noise per observation component: an offset per episode and independent noise per step.

    measured = clean + bias + noise,   bias ~ N(0, sigma_bias^2) per episode,   noise ~ N(0, sigma^2) per step

after "Learning Dexterous In-Hand Manipulation" (arXiv 1808.00177, appendix C: correlated and uncorrelated
noise). Both sigmas are parameters of lambda.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from envs.rng import EpisodeRandom
from envs.task import Task
from randomization.parameters import Parameter


class SensorNoise:
    """Applies `observation_noise` and `observation_bias` to the policy group.

    Args:
        task: names the components.
        parameters: all of lambda, in order.
        rng: the environment's random numbers.
    """

    def __init__(self, task: Task, parameters: list[Parameter], rng: EpisodeRandom) -> None:
        self._rng = rng
        slices = task.slices("policy")
        self._noise = _Columns.of("observation_noise", parameters, slices, rng.device)
        self._bias = _Columns.of("observation_bias", parameters, slices, rng.device)
        self._sigma = torch.zeros(rng.num_envs, self._noise.size, dtype=torch.float64, device=rng.device)
        self._offset = torch.zeros(rng.num_envs, self._bias.size, dtype=torch.float64, device=rng.device)

    def reset(self, mask: Tensor, lam: Tensor) -> None:
        """Take the sigmas of new worlds lam [N, d] and draw this episode's offsets in mask [N]."""
        rows = mask[:, None]
        if self._noise.size:
            self._sigma = torch.where(rows, lam[:, self._noise.parameter], self._sigma)
        if self._bias.size:
            offset = lam[:, self._bias.parameter] * self._rng.episode_normal("observation_bias", self._bias.size)
            self._offset = torch.where(rows, offset, self._offset)

    def apply(self, observation: Tensor) -> Tensor:
        """Clean observation [N, nobs] -> measured, a new tensor; the same one if there is no noise."""
        if not (self._noise.size or self._bias.size):
            return observation
        measured = observation.clone()
        if self._bias.size:
            measured[:, self._bias.observation] += self._offset.to(observation.dtype)
        if self._noise.size:
            noise = self._sigma * self._rng.normal("observation_noise", self._noise.size)
            measured[:, self._noise.observation] += noise.to(observation.dtype)
        return measured

    def state_dict(self) -> dict[str, Any]:
        return {"sigma": self._sigma, "offset": self._offset}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._sigma, self._offset = state["sigma"].clone(), state["offset"].clone()


class _Columns:
    """Which observation values a quantity acts on, and which column of lambda holds its sigma."""

    def __init__(self, observation: list[int], parameter: list[int], device: torch.device) -> None:
        self.size = len(observation)
        self.observation = torch.tensor(observation, dtype=torch.int64, device=device)
        self.parameter = torch.tensor(parameter, dtype=torch.int64, device=device)

    @classmethod
    def of(cls, quantity: str, parameters: list[Parameter], slices: dict[str, slice], device: torch.device) -> _Columns:
        pairs = [
            (value, column)
            for column, parameter in enumerate(parameters)
            if parameter.quantity == quantity
            for name in parameter.targets
            for value in range(slices[name].start, slices[name].stop)
        ]
        return cls([p[0] for p in pairs], [p[1] for p in pairs], device)
