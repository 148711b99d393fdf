"""Networks of the on-policy learners: multi-layer or recurrent, a Gaussian over actions, and a critic.

Every network maps segments of L steps in B sequences, x [L, B, n], and a memory state [B, S] at their start to
outputs [L, B, m] and the state at their end. `start` [L, B] is True where a step begins an episode: what was
remembered until then is forgotten. A network without memory has S = 0 and passes the state on.

Policy and critic have memories of their own. They read different inputs (the critic may see what only a
simulator knows), the policy that is exported carries nothing of the critic, and the value loss, the larger
of the two, does not decide what the policy remembers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from envs.common.deterministic_ops import gru
from simreal.common.layers import Activation, Clip, Layer, layers_of, outputs
from simreal.learners.networks import LOG_STD_RANGE, mlp, tanh_log_slope
from simreal.learners.normalizer import Normalizer, make_normalizer
from simreal.learners.options import PPOConfig

# In place: on large batches half the time of an activation goes into new memory.
_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "elu": lambda: nn.ELU(inplace=True),
    "relu": lambda: nn.ReLU(inplace=True),
    "tanh": nn.Tanh,
}
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


class Trunk(nn.Module):
    """An optional recurrent layer that reads the input, then an MLP.

    Args:
        inputs, outputs: n, m.
        hidden: units of the MLP's hidden layers.
        config: activation and memory.
        output_gain: scale of the last layer's initial weights.
    """

    def __init__(self, inputs: int, hidden: Sequence[int], outputs: int, config: PPOConfig, output_gain: float) -> None:
        super().__init__()
        size = config.memory_size
        self.memory: nn.LSTM | nn.GRU | None = None
        self.state_size = 0
        if config.memory == "lstm":
            self.memory, self.state_size = nn.LSTM(inputs, size), 2 * size
        elif config.memory == "gru":
            self.memory, self.state_size = nn.GRU(inputs, size), size
        sizes = [inputs if self.memory is None else size, *hidden, outputs]
        self.head = mlp(sizes, _ACTIVATIONS[config.activation], output_gain)

    @property
    def last(self) -> nn.Linear:
        """The layer that puts out the result."""
        layer = self.head[-1]
        assert isinstance(layer, nn.Linear)
        return layer

    def forward(self, x: Tensor, state: Tensor, start: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x [L, B, n], state [B, S], start [L, B] (None: no step begins an episode) -> [L, B, m], [B, S]."""
        if self.memory is not None:
            x, state = self._remember(x, state, start)
        return self.head(x.flatten(0, 1)).unflatten(0, x.shape[:2]), state

    def layers(self) -> list[Layer]:
        """From input to output."""
        return [*([] if self.memory is None else layers_of(self.memory)), *layers_of(self.head)]

    def _remember(self, x: Tensor, state: Tensor, start: Tensor | None) -> tuple[Tensor, Tensor]:
        """The recurrent layer over x. It runs at once over all steps between which no sequence begins an episode."""
        if start is None:
            return self._run(x, state)
        bounds = [0, *(start[1:].any(dim=1).nonzero().flatten() + 1).tolist(), len(x)]
        outputs = []
        for first, stop in pairwise(bounds):
            state = state.masked_fill(start[first].unsqueeze(1), 0.0)
            output, state = self._run(x[first:stop], state)
            outputs.append(output)
        return torch.cat(outputs), state

    def _run(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        if isinstance(self.memory, nn.LSTM):
            h, c = state.unsqueeze(0).chunk(2, dim=2)
            output, (h, c) = self.memory(x, (h.contiguous(), c.contiguous()))
            return output, torch.cat((h, c), dim=2).squeeze(0)
        assert isinstance(self.memory, nn.GRU)
        output, h = gru(self.memory, x, state.unsqueeze(0))
        return output, h.squeeze(0)


class Actor(nn.Module):
    """A diagonal Gaussian over u [A]; the action is u clipped to [-1, 1], or tanh(u).

    Clipped: learning uses the density of u, as the environment clips what is larger. Squashed: the density of
    tanh(u) differs by a factor that depends on u only, so it cancels in every ratio and is needed for entropy only.
    """

    def __init__(self, observation_size: int, action_size: int, config: PPOConfig) -> None:
        super().__init__()
        self.squash = config.squash
        self.state_dependent = config.log_std == "state"
        initial = math.log(config.initial_std)
        outputs = 2 * action_size if self.state_dependent else action_size
        # Small last weights: all states start with the same wide distribution (Andrychowicz et al. 2021, 3.2).
        self.trunk = Trunk(observation_size, config.actor_hidden, outputs, config, output_gain=0.01)
        if self.state_dependent:
            nn.init.constant_(self.trunk.last.bias[action_size:], initial)
        else:
            self.log_std = nn.Parameter(torch.full((action_size,), initial))

    def forward(self, x: Tensor, state: Tensor, start: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Normalized x [L, B, nobs] -> mean [L, B, A], log_std ([A] if free, else [L, B, A]), state."""
        out, state = self.trunk(x, state, start)
        if not self.state_dependent:
            return out, self.log_std, state
        mean, log_std = out.chunk(2, dim=-1)
        return mean, log_std.clamp(*LOG_STD_RANGE), state

    def action(self, u: Tensor) -> Tensor:
        """The action [..., A] in [-1, 1] for u [..., A]."""
        return torch.tanh(u) if self.squash == "tanh" else u.clamp(-1.0, 1.0)

    def layers(self) -> list[Layer]:
        """From a normalized observation to the most likely action."""
        mean = outputs(layers_of(self.trunk), share=2 if self.state_dependent else 1)
        return [*mean, Activation("tanh") if self.squash == "tanh" else Clip(-1.0, 1.0)]

    def entropy(self, u: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
        """Entropy [...] of the action in nats; squashed: H(u) + E log |d tanh(u)/du|, from the samples u."""
        entropy = gaussian_entropy(log_std)
        if self.squash == "clip":
            return entropy
        # u as a function of mean and std for the noise that it was drawn with: the gradient reaches both.
        noise = ((u - mean) * torch.exp(-log_std)).detach()
        return entropy + tanh_log_slope(mean + log_std.exp() * noise).sum(-1)


class Critic(nn.Module):
    """V(s), learnt in units in which returns have zero mean and unit variance (PopArt).

    Reads the normalized policy observation followed by the normalized privileged group.
    """

    def __init__(self, observation_size: int, privileged_size: int, config: PPOConfig) -> None:
        super().__init__()
        self.normalizer = make_normalizer(privileged_size, config)
        self.returns = Normalizer(1, clip=math.inf)
        self.trunk = Trunk(observation_size + privileged_size, config.critic_hidden, 1, config, output_gain=1.0)

    def forward(self, x: Tensor, state: Tensor, start: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x [L, B, nobs + nprivileged] -> value [L, B] in normalized units, state."""
        value, state = self.trunk(x, state, start)
        return value.squeeze(-1), state

    def unit(self) -> Tensor:
        """Size [1] of the unit in which the critic states values, in units of reward; 1 until returns vary."""
        scale = self.returns.scale()
        return torch.where(scale > 0.0, scale, 1.0)

    def unscaled(self, value: Tensor) -> Tensor:
        """A value [...] in units of reward."""
        return value * self.unit().float() + self.returns.mean.float()

    def scaled(self, value: Tensor) -> Tensor:
        """The inverse of `unscaled`."""
        return (value - self.returns.mean.float()) / self.unit().float()

    @torch.no_grad()
    def adapt(self, returns: Tensor) -> None:
        """Take returns [B] into the statistics and keep every prediction (van Hasselt et al. 2016, 1602.07714)."""
        if len(returns) == 0:
            return
        # Before returns varied there was no unit, and nothing was predicted that is worth keeping.
        known = (self.returns.count > 0) & (self.returns.scale() > 0.0)
        old_mean, old_unit = self.returns.mean.clone(), self.unit()
        self.returns.update(returns.unsqueeze(1))
        mean, unit, last = self.returns.mean, self.unit(), self.trunk.last
        last.weight.mul_(torch.where(known, old_unit / unit, 1.0))
        last.bias.copy_(torch.where(known, (old_unit * last.bias + old_mean - mean) / unit, last.bias))


class _PolicyParts(nn.Module):
    """Normalizer and actor."""

    def __init__(self, observation_size: int, action_size: int, config: PPOConfig) -> None:
        super().__init__()
        self.normalizer = make_normalizer(observation_size, config)
        self.actor = Actor(observation_size, action_size, config)


class Policy(_PolicyParts):
    """Normalizer and actor without memory, which is what is exported. Puts out the most likely action."""

    def forward(self, observation: Tensor) -> Tensor:
        """Observation [B, nobs] in SI units -> action [B, A] in [-1, 1]."""
        x = self.normalizer(observation)
        mean, _, _ = self.actor(x.unsqueeze(0), x[:, :0])
        return self.actor.action(mean.squeeze(0))

    def layers(self) -> list[Layer]:
        """From an observation to the most likely action."""
        return [*layers_of(self.normalizer), *layers_of(self.actor)]


class RecurrentPolicy(_PolicyParts):
    """Normalizer and actor with memory, which is what is exported. Puts out the most likely action."""

    def initial_state(self, batch: int) -> Tensor:
        """The state [batch, S] at the start of an episode: zeros."""
        return torch.zeros(batch, self.actor.trunk.state_size, device=self.normalizer.mean.device)

    def forward(self, observation: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Observation [B, nobs] in SI units, state [B, S] -> action [B, A] in [-1, 1], the next state [B, S]."""
        mean, _, state = self.actor(self.normalizer(observation).unsqueeze(0), state)
        return self.actor.action(mean.squeeze(0)), state

    def layers(self) -> list[Layer]:
        """From an observation to the most likely action."""
        return [*layers_of(self.normalizer), *layers_of(self.actor)]
