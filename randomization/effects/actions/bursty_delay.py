"""A line that is congested at times: delays come in bursts (the two states of Gilbert's channel, 1960).

A free line becomes congested at the rate `action_burst_rate` and stays so for `action_burst_time` on average; both
times are exponential, looked at once per control step. A command sent into a congested line takes
`action_burst_delay` longer than others. Every episode starts with a free line.
"""

from __future__ import annotations

import torch
from torch import Tensor

from envs.common.stateful import Stateful
from randomization.effects.context import EffectContext


class BurstyDelay(Stateful):
    """Applies `action_burst_delay`, `action_burst_rate` and `action_burst_time`.

    Attributes:
        configured: whether lambda has a parameter of it; if not, none of its methods need be called.
    """

    _state = ("_extra_steps", "_p_begins", "_p_ends", "_congested")

    def __init__(self, context: EffectContext) -> None:
        self._random, self._durations = context.random, context.durations
        self._delay, self._rate, self._time = (
            context.index(f"action_burst_{name}") for name in ("delay", "rate", "time")
        )
        self.configured = self._delay.size > 0
        self._number = context.random.reserve_uniform(self._delay.size)
        self._extra_steps = context.zeros(1)  # physics steps
        self._p_begins, self._p_ends = context.zeros(1), context.zeros(1)  # per control step
        self._congested = torch.zeros_like(self._p_ends, dtype=torch.bool)

    def reset(self, mask: Tensor, lam: Tensor) -> None:
        """Begin episodes in mask [N] in the worlds lam [N, d]."""
        self.change(mask, lam)
        self._congested = self._congested & ~mask[:, None]

    def change(self, mask: Tensor, lam: Tensor) -> None:
        """Go on in mask [N] in the worlds lam [N, d]; a line that is congested stays so for now."""
        rows, period_s = mask[:, None], self._durations.period_s
        extra = self._delay.of(lam) / (1000.0 * self._durations.timestep_s[:, None])
        rate = self._rate.or_nominal(lam)
        time_s = self._time.or_nominal(lam)
        self._extra_steps = torch.where(rows, extra, self._extra_steps)
        self._p_begins = torch.where(rows, -torch.expm1(-rate * period_s), self._p_begins)
        self._p_ends = torch.where(rows, -torch.expm1(-period_s / time_s), self._p_ends)

    def advance(self) -> Tensor:
        """Go on by a control step; what the line adds to the delay of this step's command, [N] physics steps."""
        u = self._random.uniform[:, self._number]
        self._congested = torch.where(self._congested, u >= self._p_ends, u < self._p_begins)
        return (self._extra_steps * self._congested)[:, 0]
