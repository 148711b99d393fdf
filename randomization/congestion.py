"""A line that is congested at times: delays come in bursts (the two states of Gilbert's channel, 1960).

A free line becomes congested at the rate `action_burst_rate` and stays so for `action_burst_time` on average; both
times are exponential, looked at once per control step. A command sent into a congested line takes
`action_burst_delay` longer than others. Every episode starts with a free line.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from envs.rng import EpisodeRandom
from randomization.clock import Clock
from randomization.columns import StepDraws, or_nominal, whole
from randomization.parameters import Parameter

_STATE = ("extra_steps", "p_begins", "p_ends", "congested")


class Congestion:
    """Applies `action_burst_delay`, `action_burst_rate` and `action_burst_time`.

    Args:
        parameters: all of lambda, in order.
        rng: the environment's random numbers.
        draws: random numbers of the step.
        clock: turns times into steps.
    """

    def __init__(self, parameters: list[Parameter], rng: EpisodeRandom, draws: StepDraws, clock: Clock) -> None:
        self._draws, self._clock = draws, clock
        self._delay, self._rate, self._time = (
            whole(f"action_burst_{name}", parameters, rng.device) for name in ("delay", "rate", "time")
        )
        self.configured = self._delay.size > 0
        self._number = draws.reserve_uniform(self._delay.size)
        zeros = torch.zeros(rng.num_envs, 1, dtype=torch.float64, device=rng.device)
        self._extra_steps, self._p_begins, self._p_ends = zeros, zeros, zeros  # physics steps; per control step
        self._congested = torch.zeros_like(zeros, dtype=torch.bool)

    def reset(self, mask: Tensor, lam: Tensor) -> None:
        """Begin episodes in mask [N] in the worlds lam [N, d]."""
        rows, period_s = mask[:, None], self._clock.period_s
        extra = self._delay.of(lam) / (1000.0 * self._clock.timestep_s[:, None])
        rate = or_nominal(self._rate, lam, "action_burst_rate")
        time_s = or_nominal(self._time, lam, "action_burst_time")
        self._extra_steps = torch.where(rows, extra, self._extra_steps)
        self._p_begins = torch.where(rows, -torch.expm1(-rate * period_s), self._p_begins)
        self._p_ends = torch.where(rows, -torch.expm1(-period_s / time_s), self._p_ends)
        self._congested = self._congested & ~rows

    def advance(self) -> Tensor:
        """Go on by a control step; what the line adds to the delay of this step's command, [N] physics steps."""
        u = self._draws.uniform[:, self._number]
        self._congested = torch.where(self._congested, u >= self._p_ends, u < self._p_begins)
        return (self._extra_steps * self._congested)[:, 0]

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, f"_{name}") for name in _STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in _STATE:
            setattr(self, f"_{name}", state[name].clone())
