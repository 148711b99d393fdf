"""What the on-policy learners train: a policy with its normalizer, and a critic.

Policy and critic have memories of their own. They read different inputs (the critic may see what only a
simulator knows), the policy that is exported carries nothing of the critic, and the value loss, the larger
of the two, does not decide what the policy remembers.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from simreal.common.layers import Layer, layers_of
from simreal.learners.base import GivenPolicy
from simreal.learners.history import HistoryLayout, HistoryPolicy
from simreal.learners.normalizer import Normalizer, make_normalizer
from simreal.learners.on_policy.categorical import CategoricalActor
from simreal.learners.on_policy.gaussian import GaussianActor
from simreal.learners.on_policy.trunk import Trunk
from simreal.learners.options import ActorOptions, PPOConfig


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
    """Normalizer and actor, which sees `remembered` values beside a normalized observation."""

    def __init__(self, observation_size: int, action_size: int, config: ActorOptions, remembered: int = 0) -> None:
        super().__init__()
        self.normalizer = make_normalizer(observation_size, config)
        make = CategoricalActor if config.actor == "categorical" else GaussianActor
        self.actor: GaussianActor | CategoricalActor = make(observation_size + remembered, action_size, config)

    def undecided(self, tolerance: float, observation: Tensor, state: Tensor | None = None) -> Tensor:
        """[B] where rounding may decide between two actions; see `Distribution.undecided`."""
        return self.undecided_at(tolerance, self.normalizer(observation), state)

    def undecided_at(self, tolerance: float, x: Tensor, state: Tensor | None = None) -> Tensor:
        """The same [B] of what the actor sees [B, n]."""
        distribution, _ = self.actor(x.unsqueeze(0), x[:, :0] if state is None else state)
        return distribution.undecided(tolerance).squeeze(0)


class Policy(_PolicyParts):
    """Normalizer and actor without memory, which is what is exported. Puts out the most likely action."""

    def forward(self, observation: Tensor) -> Tensor:
        """Observation [B, nobs] in SI units -> action [B, A] in [-1, 1]."""
        return self.of_features(self.normalizer(observation))

    def of_features(self, x: Tensor) -> Tensor:
        """What the actor sees [B, n] -> action [B, A] in [-1, 1]."""
        distribution, _ = self.actor(x.unsqueeze(0), x[:, :0])
        return distribution.mode().squeeze(0)

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
        distribution, state = self.actor(self.normalizer(observation).unsqueeze(0), state)
        return distribution.mode().squeeze(0), state

    def layers(self) -> list[Layer]:
        """From an observation to the most likely action."""
        return [*layers_of(self.normalizer), *layers_of(self.actor)]


def make_policy(
    layout: HistoryLayout, observation_size: int, config: ActorOptions, device: torch.device
) -> tuple[Policy | RecurrentPolicy, Policy | RecurrentPolicy | HistoryPolicy]:
    """The network that learns, and the policy that is evaluated and exported: the same, or it with a history."""
    make = RecurrentPolicy if config.memory != "none" else Policy
    network = make(observation_size, layout.action_size, config, layout.inputs).to(device)
    return network, HistoryPolicy(network, layout) if layout.size else network


def go_on_with(policy: Policy | RecurrentPolicy | HistoryPolicy, config: ActorOptions, given: GivenPolicy) -> None:
    """Take over the weights and the normalizer of another run's policy.

    Raises:
        ValueError: that one is built otherwise.
    """
    options, who = given.options, f"initial_policy: {given.run}"
    if not isinstance(options, ActorOptions):
        raise ValueError(f"{who}: its policy is one of {options.algorithm}; expected a run of ppo or distill")
    theirs = options.network()
    for name, value in config.network().items():
        if theirs.get(name, value) != value:
            raise ValueError(f"{who}: its {name} is {theirs[name]!r}, here it is {value!r}; expected the same")
    try:
        policy.load_state_dict(given.module.state_dict())
    except RuntimeError:
        module: Any = given.module
        sizes = module.normalizer.mean.numel(), policy.normalizer.mean.numel()
        raise ValueError(f"{who}: its policy reads {sizes[0]} values, here there are {sizes[1]}") from None
