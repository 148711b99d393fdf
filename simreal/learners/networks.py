"""Networks that the learners share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from envs.common.deterministic_ops import Linear
from simreal.common.layers import Activation, Dense, Layer, array, layers_of, outputs

tanh_backward, softplus_backward = torch.ops.aten.tanh_backward, torch.ops.aten.softplus_backward
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
        drawn = Squashed(self.net(observation), noise)
        return drawn.action, drawn.log_prob()


class Squashed:
    """Draws of normal distributions, squashed by tanh.

    Args:
        outputs: [B, 2 A] of an actor's network: means and log standard deviations, before they are clipped.
        noise: [B, A], standard normal.

    Attributes:
        action: [B, A] in [-1, 1].
    """

    def __init__(self, outputs: Tensor, noise: Tensor) -> None:
        mean, self._log_std = outputs.chunk(2, dim=-1)
        self._clipped, self._noise = self._log_std.clamp(*LOG_STD_RANGE), noise
        self._std = self._clipped.exp()
        self._u = mean + self._std * noise
        self.action = torch.tanh(self._u)

    def log_prob(self) -> Tensor:
        """log-density [B] of the actions: log N(u; mean, std) - sum log(1 - tanh(u)^2)."""
        normal = -0.5 * self._noise.square() - self._clipped - 0.5 * math.log(2.0 * math.pi)
        return (normal - tanh_log_slope(self._u)).sum(dim=-1)

    def gradient(self, by_action: Tensor, by_log_prob: Tensor) -> Tensor:
        """Gradient [B, 2 A] by the outputs, of one by the actions [B, A] and by every log-density []."""
        # That of the log-density by u is 2 tanh(u); in autograd's parts, and their order, for its bits.
        twice = 2.0 * by_log_prob
        by_u = tanh_backward(by_action, self.action)
        by_u += softplus_backward(twice.expand_as(by_u), -2.0 * self._u, 1.0, 20.0) * -2.0
        by_u += twice
        within = (self._log_std >= LOG_STD_RANGE[0]) & (self._log_std <= LOG_STD_RANGE[1])
        by_log_std = by_u * self._noise * self._std - by_log_prob
        return torch.cat((by_u, by_log_std * within), dim=-1)


@torch.no_grad()
def polyak_(target: list[Tensor], source: list[Tensor], tau: float) -> None:
    """target <- (1 - tau) target + tau source, in place."""
    torch._foreach_lerp_(target, source, tau)
