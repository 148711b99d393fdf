"""What happens to an action before the task gets it: three kinds of noise, and whole steps of latency.

    executed = clip(action + action * multiplicative + bias + noise, -1, 1), `action_latency` control steps later

with a bias per episode and fresh noise per step ("Learning Dexterous In-Hand Manipulation", arXiv 1808.00177,
appendix C: correlated additive, uncorrelated additive, uncorrelated multiplicative). The standard deviations are
parameters of lambda, in the action's own unit: a policy's actions span [-1, 1].
"""

from __future__ import annotations

import torch
from torch import Tensor

from randomization.columns import ContiguousSlice, chosen_rows
from randomization.effect import Effect, EffectContext


class ActionNoise(Effect):
    """Applies `action_noise`, `action_bias` and `action_noise_multiplicative`."""

    _state = ("_sigma", "_sigma_relative", "_bias")

    def __init__(self, context: EffectContext) -> None:
        self._rng, self._random = context.rng, context.random
        columns = [context.index(name) for name in ("action_noise", "action_noise_multiplicative", "action_bias")]
        self._additive, self._relative, self._constant = columns
        self.configured = any(c.size for c in columns)
        self._noisy, self._scaled, self._shifted = spans = [ContiguousSlice(c, self._rng.device) for c in columns]
        self._additive_draws = context.random.reserve_normal(self._noisy.size)
        self._relative_draws = context.random.reserve_normal(self._scaled.size)
        # [N, size] of each span, 0 where nothing acts
        self._sigma, self._sigma_relative, self._bias = (context.zeros(span.size) for span in spans)

    def reset(self, mask: Tensor, lam: Tensor) -> None:
        """Take the standard deviations of new worlds lam [N, d] and draw this episode's offsets in mask [N]."""
        rows = chosen_rows(mask)
        lam = lam if rows is None else lam[rows]
        if self._additive.size:
            self._noisy.put(self._sigma, mask, rows, self._additive.of(lam))
        if self._relative.size:
            self._scaled.put(self._sigma_relative, mask, rows, self._relative.of(lam))
        if self._constant.size:
            bias = self._constant.of(lam) * self._rng.episode_normal("action_bias", self._constant.size, rows)
            self._shifted.put(self._bias, mask, rows, bias)

    def apply(self, action: Tensor) -> Tensor:
        """Action [N, A] in [-1, 1] -> with noise, in [-1, 1]."""
        noisy, kind, normal = action.clone(), action.dtype, self._random.normal
        if self._relative.size:
            error = (self._sigma_relative * normal[:, self._relative_draws]).to(kind)
            noisy[:, self._scaled.where].addcmul_(action[:, self._scaled.where], error)
        if self._constant.size:
            noisy[:, self._shifted.where].add_(self._bias.to(kind))
        if self._additive.size:
            noisy[:, self._noisy.where].add_((self._sigma * normal[:, self._additive_draws]).to(kind))
        return noisy.clamp_(-1.0, 1.0)


class ActionLatency(Effect):
    """Executes actions `action_latency` whole control steps late (rounded); until the first one, an action of zero."""

    _state = ("_history", "_steps", "_newest")

    def __init__(self, context: EffectContext) -> None:
        self._column = context.index("action_latency")
        self.configured = self._column.size > 0
        slots = round(context.longest("action_latency")) + 1 if self.configured else 0
        self._history, self._steps = context.zeros(slots, context.task.action_size), context.zeros().long()
        self._all = torch.arange(len(self._steps), device=self._steps.device)
        self._newest = 0

    def reset(self, mask: Tensor, lam: Tensor) -> None:
        """Empty the lines of mask [N] and take the latency of new worlds lam [N, d]."""
        steps = self._column.of(lam)[:, 0].round().long().clamp(0, self._history.shape[1] - 1)
        self._steps = torch.where(mask, steps, self._steps)
        self._history.masked_fill_(mask[:, None, None], 0.0)

    def apply(self, action: Tensor) -> Tensor:
        """Take this step's action [N, A]; returns the one to execute now."""
        slots = self._history.shape[1]
        self._newest = (self._newest + 1) % slots
        self._history[:, self._newest] = action
        return self._history[self._all, (self._newest - self._steps) % slots].to(action.dtype)
