"""What happens to an action before the task gets it: three kinds of noise, and whole steps of latency.

    executed = clip(action + action * multiplicative + bias + noise, -1, 1), `action_latency` control steps later

with a bias per episode and fresh noise per step ("Learning Dexterous In-Hand Manipulation", arXiv 1808.00177,
appendix C: correlated additive, uncorrelated additive, uncorrelated multiplicative). The standard deviations are
parameters of lambda, in the action's own unit: a policy's actions span [-1, 1].
"""

from __future__ import annotations

import torch
from torch import Tensor

from randomization.effects.context import EffectContext
from randomization.effects.effect import Effect
from randomization.effects.parameter_index import chosen_rows


class ActionNoise(Effect):
    """Applies `action_noise`, `action_bias` and `action_noise_multiplicative`."""

    order = 20
    _state = ("_additive", "_relative", "_bias")

    def __init__(self, context: EffectContext) -> None:
        self._rng, self._random = context.rng, context.random
        # standard deviations of the noise; the episode's offsets
        self._additive, self._relative = context.slice("action_noise"), context.slice("action_noise_multiplicative")
        self._bias = context.slice("action_bias")
        self._additive_draws = context.random.reserve_normal(self._additive.length)
        self._relative_draws = context.random.reserve_normal(self._relative.length)

    def reset(self, mask: Tensor, lam: Tensor) -> None:
        """Take the standard deviations of new worlds lam [N, d] and draw this episode's offsets in mask [N]."""
        rows = chosen_rows(mask)
        lam = lam if rows is None else lam[rows]
        for noise in (self._additive, self._relative):
            if noise.length:
                noise.put(noise.index.of(lam), mask, rows)
        if self._bias.length:
            normal = self._rng.episode_normal("action_bias", self._bias.index.size, rows)
            self._bias.put(self._bias.index.of(lam) * normal, mask, rows)

    def change(self, mask: Tensor, lam: Tensor) -> None:
        """Take other standard deviations; an offset keeps its direction."""
        self.reset(mask, lam)

    def on_action(self, action: Tensor) -> Tensor:
        """Action [N, A] in [-1, 1] -> with noise, in [-1, 1]."""
        noisy, kind, normal = action.clone(), action.dtype, self._random.normal
        if self._relative.length:
            error = (self._relative.values * normal[:, self._relative_draws]).to(kind)
            noisy[:, self._relative.where].addcmul_(action[:, self._relative.where], error)
        if self._bias.length:
            noisy[:, self._bias.where].add_(self._bias.values.to(kind))
        if self._additive.length:
            noisy[:, self._additive.where].add_((self._additive.values * normal[:, self._additive_draws]).to(kind))
        return noisy.clamp_(-1.0, 1.0)


class ActionLatency(Effect):
    """Executes actions `action_latency` whole control steps late (rounded); until the first one, an action of zero."""

    order = 30
    _state = ("_history", "_steps", "_newest")

    def __init__(self, context: EffectContext) -> None:
        self._column = context.index("action_latency")
        slots = round(context.longest("action_latency")) + 1
        self._history, self._steps = context.zeros(slots, context.task.action_size), context.zeros().long()
        self._all = torch.arange(len(self._steps), device=self._steps.device)
        self._newest = 0

    def reset(self, mask: Tensor, lam: Tensor) -> None:
        """Empty the lines of mask [N] and take the latency of new worlds lam [N, d]."""
        self._steps = torch.where(mask, self._late(lam), self._steps)
        self._history.masked_fill_(mask[:, None, None], 0.0)

    def _late(self, lam: Tensor) -> Tensor:
        return self._column.of(lam)[:, 0].round().long().clamp(0, self._history.shape[1] - 1)

    def change(self, mask: Tensor, lam: Tensor) -> None:
        """Take another latency: a longer one holds what is executed now until the next action arrives."""
        slots = self._history.shape[1]
        age = (self._newest - torch.arange(slots, device=self._steps.device)) % slots  # of each slot, control steps
        now = self._history[self._all, (self._newest - self._steps) % slots]
        past = mask[:, None] & (age >= self._steps[:, None])  # executed, or passed over
        self._history = torch.where(past[:, :, None], now[:, None], self._history)
        self._steps = torch.where(mask, self._late(lam), self._steps)

    def on_action(self, action: Tensor) -> Tensor:
        """Take this step's action [N, A]; returns the one to execute now."""
        slots = self._history.shape[1]
        self._newest = (self._newest + 1) % slots
        self._history[:, self._newest] = action
        return self._history[self._all, (self._newest - self._steps) % slots].to(action.dtype)
