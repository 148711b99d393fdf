"""Networks that the learners share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from envs.common.deterministic_ops import Linear
from simreal.common.layers import Activation, Dense, Layer, array, layers_of, outputs

LOG_STD_RANGE = (-20.0, 2.0)  # SAC's usual bounds on log standard deviation


def mlp(
    sizes: Sequence[int], activation: Callable[[], nn.Module] = nn.ReLU, output_gain: float | None = None
) -> nn.Sequential:
    """Linear layers with activations in between.

    Args:
        sizes: [in, hidden..., out].
        activation: makes one.
        output_gain: initialize orthogonally (Andrychowicz et al. 2021, C.3), the last layer with this gain; None as
            torch does.
    """
    layers: list[nn.Module] = []
    for i in range(len(sizes) - 1):
        last = i == len(sizes) - 2
        linear = Linear(sizes[i], sizes[i + 1])
        if output_gain is not None:
            nn.init.orthogonal_(linear.weight, output_gain if last else math.sqrt(2.0))
            nn.init.zeros_(linear.bias)
        layers += [linear] if last else [linear, activation()]
    return nn.Sequential(*layers)


def tanh_log_slope(u: Tensor) -> Tensor:
    """log of d tanh(u) / du [...]: log(1 - tanh(u)^2), in the form that does not underflow."""
    return 2.0 * (math.log(2.0) - u - functional.softplus(-2.0 * u))


class EnsembleMLP(nn.Module):
    """`members` independent MLPs evaluated as one batched product; twin critics cost one pass.

    Initialized as `members` separate nn.Linear stacks would be.
    """

    def __init__(self, members: int, sizes: Sequence[int]) -> None:
        super().__init__()
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for i in range(len(sizes) - 1):
            bound = 1.0 / math.sqrt(sizes[i])
            self.weights.append(nn.Parameter(torch.empty(members, sizes[i], sizes[i + 1]).uniform_(-bound, bound)))
            self.biases.append(nn.Parameter(torch.empty(members, 1, sizes[i + 1]).uniform_(-bound, bound)))

    def forward(self, x: Tensor) -> Tensor:
        """x [B, in] -> [members, B, out]."""
        members = self.weights[0].shape[0]
        y = x.unsqueeze(0).expand(members, -1, -1)
        for i in range(len(self.weights)):
            y = torch.baddbmm(self.biases[i], y, self.weights[i])
            if i < len(self.weights) - 1:
                y = functional.relu(y)
        return y

    def mean_layers(self) -> list[Layer]:
        """The mean over the members, as layers that hold all of them side by side."""
        weights, biases = ([p.detach() for p in each] for each in (self.weights, self.biases))
        parts: list[Layer] = []
        for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            rows = [member.T for member in weight]  # [out, in] each
            if i == len(weights) - 1:
                rows = [torch.cat(rows, dim=1) if i else weight.sum(0).T]
                whole, offset = rows[0] / len(weight), bias.mean(0)[0]
            else:
                whole, offset = torch.block_diag(*rows) if i else torch.cat(rows), bias.flatten()
            parts += [Dense(array(whole), array(offset)), Activation("relu")]
        return parts[:-1]


class QNetwork(nn.Module):
    """`members` estimates of Q(observation, action).

    A single one is a plain MLP, which is faster than a batched product of one.
    """

    def __init__(self, members: int, observation_size: int, action_size: int, hidden: Sequence[int]) -> None:
        super().__init__()
        sizes = [observation_size + action_size, *hidden, 1]
        self.net = mlp(sizes) if members == 1 else EnsembleMLP(members, sizes)

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        """observation [B, nobs] normalized, action [B, A] in [-1, 1] -> [members, B]."""
        q = self.net(torch.cat((observation, action), dim=1)).squeeze(-1)
        return q if q.dim() == 2 else q.unsqueeze(0)


class DeterministicActor(nn.Module):
    """action = tanh(MLP(observation))."""

    def __init__(self, observation_size: int, action_size: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.net = mlp([observation_size, *hidden, action_size])

    def forward(self, observation: Tensor) -> Tensor:
        """Normalized observation [B, nobs] -> action [B, A] in [-1, 1]."""
        return torch.tanh(self.net(observation))

    def preactivation(self, observation: Tensor) -> Tensor:
        """What goes into the final tanh, [B, A]."""
        return self.net(observation)

    def layers(self) -> list[Layer]:
        """From a normalized observation to an action."""
        return [*layers_of(self.net), Activation("tanh")]


class GaussianActor(nn.Module):
    """A normal distribution squashed by tanh (SAC, Haarnoja et al. 2018, appendix C)."""

    def __init__(self, observation_size: int, action_size: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.net = mlp([observation_size, *hidden, 2 * action_size])

    def distribution(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation [B, A] before squashing."""
        mean, log_std = self.net(observation).chunk(2, dim=-1)
        return mean, log_std.clamp(*LOG_STD_RANGE)

    def forward(self, observation: Tensor) -> Tensor:
        """The most likely action [B, A] in [-1, 1]."""
        return torch.tanh(self.distribution(observation)[0])

    def layers(self) -> list[Layer]:
        """From a normalized observation to the most likely action."""
        return [*outputs(layers_of(self.net), share=2), Activation("tanh")]

    def sample(self, observation: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Action [B, A] for standard normal `noise` [B, A], and its log-density [B].

        log pi(a) = log N(u; mean, std) - sum log(1 - tanh(u)^2)
        """
        mean, log_std = self.distribution(observation)
        u = mean + log_std.exp() * noise
        log_prob = -0.5 * noise.square() - log_std - 0.5 * math.log(2.0 * math.pi)
        slope = tanh_log_slope(u)
        return torch.tanh(u), (log_prob - slope).sum(dim=-1)


@torch.no_grad()
def polyak_(target: list[Tensor], source: list[Tensor], tau: float) -> None:
    """target <- (1 - tau) target + tau source, in place."""
    torch._foreach_lerp_(target, source, tau)
