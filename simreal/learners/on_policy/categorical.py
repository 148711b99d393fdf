"""Policies that choose one of K values for every actuator: categorical distributions over evenly spaced bins.

What the published in-hand policies used (OpenAI 2018, arXiv 1808.00177, section 5.2 and table 2, 11 bins; 1910.07113);
Tang and Agrawal 2020 (arXiv 1901.10500) compare it with a Gaussian. A distribution over bins may have two modes, and
needs no standard deviation that somebody chooses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from envs.common.ranks import Share
from simreal.common.layers import Bins, Layer, array, layers_of
from simreal.learners.on_policy.distribution import Distribution, drawn
from simreal.learners.on_policy.trunk import Trunk
from simreal.learners.options import ActorOptions


@dataclass(frozen=True)
class Categorical(Distribution):
    """One categorical distribution per actuator; u [..., A] are numbers of bins, 0 to K - 1, as float32."""

    logits: Tensor  # [..., A, K]

    def values(self) -> Tensor:
        """The bins' actions [K]."""
        return torch.linspace(-1.0, 1.0, self.logits.shape[-1], device=self.logits.device)

    def probabilities(self) -> Tensor:
        """[..., A, K]."""
        return self.logits.softmax(-1)

    def sample(self, generator: torch.Generator, share: Share | None = None) -> Tensor:
        below = self.probabilities().cumsum(-1)
        chosen = drawn(torch.rand, self.logits.shape[:-1], generator, self.logits.device, share)
        return (below <= (chosen * below[..., -1]).unsqueeze(-1)).sum(-1).clamp(max=self.logits.shape[-1] - 1).float()

    def action(self, u: Tensor) -> Tensor:
        return self.values()[u.long()]

    def mode(self) -> Tensor:
        """Of equally likely bins the first."""
        return self.values()[self.logits.argmax(-1)]

    def undecided(self, tolerance: float) -> Tensor:
        first, second = self.logits.topk(2, dim=-1).values.unbind(-1)
        gap = first - second
        return ((gap > 0.0) & (gap <= tolerance * first.abs().clamp(min=1.0))).any(-1)

    def std(self) -> Tensor:
        p, values = self.probabilities(), self.values()
        mean = (p * values).sum(-1)
        return ((p * values.square()).sum(-1) - mean.square()).clamp(min=0.0).sqrt()

    def log_prob(self, u: Tensor) -> Tensor:
        return self.logits.log_softmax(-1).gather(-1, u.long().unsqueeze(-1)).squeeze(-1).sum(-1)

    def entropy(self, u: Tensor) -> Tensor:
        log_p = self.logits.log_softmax(-1)
        return -(log_p.exp() * log_p).sum((-2, -1))

    def kl(self, new: Any) -> Tensor:
        log_p = self.logits.log_softmax(-1)
        return (log_p.exp() * (log_p - new.logits.log_softmax(-1))).sum((-2, -1))

    def imitation_loss(self, action: Tensor) -> Tensor:
        """Cross-entropy of the nearest bins."""
        bins = self.logits.shape[-1]
        nearest = ((action + 1.0) / 2.0 * (bins - 1)).round()
        return -self.logits.log_softmax(-1).gather(-1, nearest.long().unsqueeze(-1)).squeeze(-1).mean(-1)

    def asymmetry(self, image: Any, index: Tensor, sign: Tensor) -> Tensor:
        """Of the bins' probabilities; where the sign is -1 the image's bins are in reverse order."""
        mirrored = image.probabilities()[..., index, :]
        mirrored = torch.where(sign[:, None] < 0.0, mirrored.flip(-1), mirrored)
        return (self.probabilities() - mirrored).square().sum((-2, -1))


class CategoricalActor(nn.Module):
    """A trunk that puts out logits."""

    distribution = Categorical
    shared = ()

    def __init__(self, observation_size: int, action_size: int, config: ActorOptions) -> None:
        super().__init__()
        self.shapes = {"logits": (action_size, config.bins)}
        outputs = action_size * config.bins
        # Small last weights: all bins are about equally likely at first, in all states.
        self.trunk = Trunk(observation_size, config.actor_hidden, outputs, config, output_gain=0.01)

    def forward(self, x: Tensor, state: Tensor, start: Tensor | None = None) -> tuple[Categorical, Tensor]:
        """Normalized x [L, B, nobs] -> distribution over [L, B, A], state."""
        out, state = self.trunk(x, state, start)
        return self.of_output(out), state

    def of_output(self, out: Tensor) -> Categorical:
        """The distribution for an output of the trunk [..., A * K]."""
        return Categorical(out.unflatten(-1, self.shapes["logits"]))

    def layers(self) -> list[Layer]:
        """From a normalized observation to the most likely action."""
        values = torch.linspace(-1.0, 1.0, self.shapes["logits"][1])  # `Categorical.values`
        return [*layers_of(self.trunk), Bins(array(values))]
