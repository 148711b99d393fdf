"""What becomes of an action before the task sees it: three kinds of noise, and whole steps of latency.

    executed = clip(action + action * multiplicative + bias + noise, -1, 1), `action_latency` control steps later

with a bias per episode and fresh noise per step ("Learning Dexterous In-Hand Manipulation", arXiv 1808.00177,
appendix C: correlated additive, uncorrelated additive, uncorrelated multiplicative). The standard deviations are
parameters of lambda, in the action's own unit: a policy's actions span [-1, 1].
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from envs.rng import EpisodeRandom
from envs.task import Task
from randomization.columns import Columns, Span, StepDraws, chosen_rows, whole
from randomization.parameters import Parameter


def action_places(task: Task) -> dict[str, range]:
    """Where each action component lies in the action."""
    places, start = {}, 0
    for component in task.action:
        places[component.name] = range(start, start + component.size)
        start += component.size
    return places


class ActionNoise:
    """Applies `action_noise`, `action_bias` and `action_noise_multiplicative`.

    Args:
        task: names the action's components.
        parameters: all of lambda, in order.
        rng: the environment's random numbers.
        draws: random numbers of the step.
    """

    def __init__(self, task: Task, parameters: list[Parameter], rng: EpisodeRandom, draws: StepDraws) -> None:
        self._rng, self._draws = rng, draws
        where = action_places(task)
        columns = [
            Columns(name, parameters, where, rng.device)
            for name in ("action_noise", "action_noise_multiplicative", "action_bias")
        ]
        self._additive, self._relative, self._constant = columns
        self.configured = any(c.size for c in columns)
        self._noisy, self._scaled, self._shifted = spans = [Span(c, rng.device) for c in columns]
        self._additive_draws = draws.reserve_normal(self._noisy.size)
        self._relative_draws = draws.reserve_normal(self._scaled.size)
        # [N, size] of each span, 0 where nothing acts
        self._sigma, self._sigma_relative, self._bias = (
            torch.zeros(rng.num_envs, span.size, dtype=torch.float64, device=rng.device) for span in spans
        )

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
        noisy, kind, normal = action.clone(), action.dtype, self._draws.normal
        if self._relative.size:
            error = (self._sigma_relative * normal[:, self._relative_draws]).to(kind)
            noisy[:, self._scaled.where].addcmul_(action[:, self._scaled.where], error)
        if self._constant.size:
            noisy[:, self._shifted.where].add_(self._bias.to(kind))
        if self._additive.size:
            noisy[:, self._noisy.where].add_((self._sigma * normal[:, self._additive_draws]).to(kind))
        return noisy.clamp_(-1.0, 1.0)

    def state_dict(self) -> dict[str, Any]:
        names = ("sigma", "sigma_relative", "bias")
        return {name: getattr(self, f"_{name}").clone() for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._sigma, self._bias = state["sigma"].clone(), state["bias"].clone()
        self._sigma_relative = state["sigma_relative"].clone()


class ActionLatency:
    """Executes actions `action_latency` whole control steps late (rounded); until the first one, an action of zero."""

    def __init__(self, task: Task, parameters: list[Parameter], rng: EpisodeRandom) -> None:
        self._column = whole("action_latency", parameters, rng.device)
        self.configured = self._column.size > 0
        longest = max((round(p.limits[1]) for p in parameters if p.quantity == "action_latency"), default=0)
        shape = (rng.num_envs, longest + 1 if self.configured else 0, task.action_size)
        self._history = torch.zeros(shape, dtype=torch.float64, device=rng.device)
        self._steps = torch.zeros(rng.num_envs, dtype=torch.int64, device=rng.device)
        self._all = torch.arange(rng.num_envs, device=rng.device)
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

    def state_dict(self) -> dict[str, Any]:
        return {"history": self._history.clone(), "steps": self._steps, "newest": self._newest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._history.copy_(state["history"])
        self._steps, self._newest = state["steps"].clone(), state["newest"]
