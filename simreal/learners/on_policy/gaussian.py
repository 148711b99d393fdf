"""Policies with a diagonal Gaussian over u [A]; the action is u clipped to [-1, 1], or tanh(u).

Clipped: learning uses the density of u, as the environment clips what is larger. Squashed: the density of tanh(u)
differs by a factor that depends on u only, so it cancels in every ratio and is needed for entropy only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from envs.common.deterministic_ops import expand_rows
from envs.common.ranks import Share
from simreal.common.layers import Activation, Clip, Layer, layers_of, outputs
from simreal.learners.networks import LOG_STD_RANGE, tanh_log_slope
from simreal.learners.on_policy.distribution import Distribution, drawn
from simreal.learners.on_policy.trunk import Trunk
from simreal.learners.options import ActorOptions

_LOG_2PI = math.log(2.0 * math.pi)


def gaussian_log_prob(value: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """log N(value; mean, std) [...] summed over the last dimension; log_std [A] or [..., A]."""
    z = (value - mean) * torch.exp(-log_std)
    return -0.5 * z.square().sum(-1) - (log_std.sum(-1) + 0.5 * _LOG_2PI * value.shape[-1])


def gaussian_entropy(log_std: Tensor) -> Tensor:
    """Entropy [...] in nats of a diagonal Gaussian: sum log std + A/2 (1 + log 2 pi)."""
    return log_std.sum(-1) + 0.5 * (1.0 + _LOG_2PI) * log_std.shape[-1]


def gaussian_kl(mean: Tensor, log_std: Tensor, new_mean: Tensor, new_log_std: Tensor) -> Tensor:
    """KL(old || new) [...] of diagonal Gaussians. Squashing both leaves it as it is: a bijection changes no KL.

    sum log(std'/std) + (std^2 + (mean - mean')^2) / (2 std'^2) - 1/2
    """
    ratio = torch.exp(2.0 * (log_std - new_log_std))
    shift = ((mean - new_mean) * torch.exp(-new_log_std)).square()
    return (new_log_std - log_std + 0.5 * (ratio + shift - 1.0)).sum(-1)


@dataclass(frozen=True)
class Gaussian(Distribution):
    """A diagonal Gaussian whose samples are clipped to [-1, 1]."""

    mean: Tensor  # [..., A]
    log_std: Tensor  # [..., A], or [A] where it is the same in all states

    def rowwise(self) -> Self:
        return self if self.log_std.dim() > 1 else type(self)(self.mean, expand_rows(self.log_std, self.mean))

    def sample(self, generator: torch.Generator, share: Share | None = None) -> Tensor:
        noise = drawn(torch.randn, self.mean.shape, generator, self.mean.device, share)
        return self.mean + self.log_std.exp() * noise

    def action(self, u: Tensor) -> Tensor:
        return u.clamp(-1.0, 1.0)

    def mode(self) -> Tensor:
        return self.action(self.mean)

    def std(self) -> Tensor:
        return self.log_std.exp()

    def log_prob(self, u: Tensor) -> Tensor:
        return gaussian_log_prob(u, self.mean, self.log_std)

    def entropy(self, u: Tensor) -> Tensor:
        return gaussian_entropy(self.log_std)

    def kl(self, new: Any) -> Tensor:
        return gaussian_kl(self.mean, self.log_std, new.mean, new.log_std)

    def imitation_loss(self, action: Tensor) -> Tensor:
        """Squared difference of the mean."""
        return (self.mean - action).square().mean(-1)

    def asymmetry(self, image: Any, index: Tensor, sign: Tensor) -> Tensor:
        return (self.mean - sign * image.mean[..., index]).square().sum(dim=-1)


class SquashedGaussian(Gaussian):
    """A diagonal Gaussian whose samples pass through tanh."""

    def action(self, u: Tensor) -> Tensor:
        return torch.tanh(u)

    def imitation_loss(self, action: Tensor) -> Tensor:
        """Squared difference of the most likely action."""
        return (self.mode() - action).square().mean(-1)

    def entropy(self, u: Tensor) -> Tensor:
        """H(u) + E log |d tanh(u)/du|, from the samples u."""
        # u as a function of mean and std for the noise that it was drawn with: the gradient reaches both.
        noise = ((u - self.mean) * torch.exp(-self.log_std)).detach()
        return super().entropy(u) + tanh_log_slope(self.mean + self.log_std.exp() * noise).sum(-1)


class GaussianActor(nn.Module):
    """A trunk that puts out the mean, and the log standard deviation where that depends on the state."""

    def __init__(self, observation_size: int, action_size: int, config: ActorOptions) -> None:
        super().__init__()
        self.distribution = SquashedGaussian if config.squash == "tanh" else Gaussian
        self.state_dependent = config.log_std == "state"
        self.shapes = {"mean": (action_size,), "log_std": (action_size,)}
        self.shared = () if self.state_dependent else ("log_std",)
        initial = math.log(config.initial_std)
        outputs = 2 * action_size if self.state_dependent else action_size
        # Small last weights: all states start with the same wide distribution (Andrychowicz et al. 2021, 3.2).
        self.trunk = Trunk(observation_size, config.actor_hidden, outputs, config, output_gain=0.01)
        if self.state_dependent:
            nn.init.constant_(self.trunk.last.bias[action_size:], initial)
        else:
            self.log_std = nn.Parameter(torch.full((action_size,), initial))

    def forward(self, x: Tensor, state: Tensor, start: Tensor | None = None) -> tuple[Gaussian, Tensor]:
        """Normalized x [L, B, nobs] -> distribution over [L, B, A], state."""
        out, state = self.trunk(x, state, start)
        return self.of_output(out), state

    def of_output(self, out: Tensor) -> Gaussian:
        """The distribution for an output of the trunk [..., m]."""
        if not self.state_dependent:
            return self.distribution(out, self.log_std)
        mean, log_std = out.chunk(2, dim=-1)
        return self.distribution(mean, log_std.clamp(*LOG_STD_RANGE))

    def layers(self) -> list[Layer]:
        """From a normalized observation to the most likely action."""
        mean = outputs(layers_of(self.trunk), share=2 if self.state_dependent else 1)
        return [*mean, Activation("tanh") if self.distribution is SquashedGaussian else Clip(-1.0, 1.0)]
