"""What effects in time have in common: what they are made from, and what they do at a reset."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from envs.common.rng import EpisodeRandom
from envs.common.stateful import Stateful
from envs.engines.base import Engine
from envs.environment import Environment
from envs.task import Task
from randomization.catalogue.table import QUANTITIES
from randomization.effects.parameter_index import ContiguousSlice, ParameterIndex, StepRandomNumbers
from randomization.effects.step_durations import StepDurations
from randomization.parameters import Parameter
from randomization.targets.names import object_places

_ON_COMMANDS = (
    "action_delay", "action_delay_jitter", "action_burst_delay", "action_dropout", "actuator_stuck",
    "actuator_backlash",
)  # fmt: skip


@dataclass(frozen=True)
class EffectContext:
    """What effects are made from.

    Attributes:
        environment: that the effects act on; its task and engine are attached to each other.
        parameters: all of lambda, in order.
        random: numbers of the step; effects reserve theirs when they are made.
        durations: turn times into steps.
    """

    environment: Environment
    parameters: list[Parameter]
    random: StepRandomNumbers
    durations: StepDurations

    @property
    def task(self) -> Task:
        """The environment's task."""
        return self.environment.task

    @property
    def engine(self) -> Engine:
        """The environment's engine."""
        return self.environment.engine

    @property
    def rng(self) -> EpisodeRandom:
        """The environment's random numbers."""
        return self.environment.rng

    def index(self, quantity: str) -> ParameterIndex:
        """Where a quantity acts: on values of the action or observation, on objects, or on the task as a whole."""
        target = QUANTITIES[quantity].target
        if target == "none":
            places = {"": [0]}
        elif target == "component":
            places = {name: range(part.start, part.stop) for name, part in self.task.slices("policy").items()}
        elif target == "action":
            ends = itertools.accumulate(component.size for component in self.task.action)
            places = {c.name: range(end - c.size, end) for c, end in zip(self.task.action, ends, strict=True)}
        else:
            places = {name: [place] for name, place in object_places(self.task, target).items()}
        return ParameterIndex(quantity, self.parameters, places, self.engine.device)

    def slice(self, quantity: str, neutral: float = 0.0) -> ContiguousSlice:
        """Numbers of a quantity for the values that it acts on; `neutral` does nothing."""
        return ContiguousSlice(self.index(quantity), self.engine.num_envs, neutral, self.engine.device)

    def zeros(self, *shape: int) -> Tensor:
        """[N, *shape] float64."""
        return torch.zeros(self.engine.num_envs, *shape, dtype=torch.float64, device=self.engine.device)

    def longest(self, quantity: str) -> float:
        """The largest value that any world may have of a quantity; 0 where it is not a parameter."""
        return max((p.limits[1] for p in self.parameters if p.quantity == quantity), default=0.0)

    def body_values(self, name: str) -> Tensor:
        """A model field of bodies [N or 1, nbody, ...]: live where worlds differ in it."""
        if any(name in p.writes for p in self.parameters):
            return self.engine.field(name)
        return self.engine.nominal(name).to(self.engine.device)[None]

    @cached_property
    def command_size(self) -> int:
        """C, the number of values in a command; 0 where nothing acts on commands, which then need not be kept."""
        if not any(p.quantity in _ON_COMMANDS for p in self.parameters):
            return 0
        return self.engine.use_commands(self.task.command_fields)


class Effect(Stateful):
    """Something that happens during an episode, as strongly as lambda says.

    Attributes:
        configured: whether lambda has a parameter of it; if not, none of its methods need be called.
    """

    configured: bool

    def before_reset(self, mask: Tensor) -> None:
        """Undo in mask [N] what it has written to model fields, before physics parameters write theirs."""

    def reset(self, mask: Tensor, lam: Tensor) -> None:
        """Begin episodes in mask [N] in the worlds lam [N, d], whose own model fields have been written."""


class CommandEffect(Effect):
    """An effect on commands on their way to the physics."""

    def hold(self, command: Tensor, fresh: Tensor) -> None:
        """Take a command [N, C] as the one before the first, in the episodes of fresh [N] that begin."""

    def apply(self, command: Tensor) -> Tensor:
        """Command [N, C] -> what goes on of it: [N, C], or [N, decimation, C] where it may change within the step."""
        raise NotImplementedError
