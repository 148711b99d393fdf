"""What effects in time are made from."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from envs.common.rng import EpisodeRandom
from envs.engines.base import Engine
from envs.environment import Environment
from envs.task import Task
from randomization.catalogue.quantity import QUANTITIES, Parameter
from randomization.effects.effect import Effect
from randomization.effects.parameter_index import ContiguousSlice, ParameterIndex, StepRandomNumbers
from randomization.effects.shared import ExternalForces, ModelValues
from randomization.effects.step_durations import StepDurations
from randomization.targets.names import object_places


@dataclass(frozen=True)
class EffectContext:
    """What effects are made from.

    Attributes:
        environment: that the effects act on; its task and engine are attached to each other.
        parameters: all of lambda, in order.
        random: numbers of the step; effects reserve theirs when they are made.
        durations: turn times into steps.
        changed: model fields that effects change during episodes, by name.
        changing: quantities whose values change within episodes, see `randomization.changes`.
    """

    environment: Environment
    parameters: list[Parameter]
    random: StepRandomNumbers
    durations: StepDurations
    changed: dict[str, ModelValues] = field(default_factory=dict)
    changing: frozenset[str] = frozenset()

    @cached_property
    def forces(self) -> ExternalForces:
        """What effects do to bodies."""
        return ExternalForces(self.engine)

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

    @cached_property
    def effects(self) -> dict[str, type[Effect]]:
        """The effects that lambda has a parameter of, by the quantity that is first in the catalogue."""
        asked = {QUANTITIES[p.quantity].effect for p in self.parameters}
        first: dict[type[Effect], str] = {}
        for name, quantity in QUANTITIES.items():
            if quantity.effect in asked and quantity.effect is not None:
                first.setdefault(quantity.effect, name)
        return {name: effect for effect, name in first.items()}

    def model_values(self, field: str, elements: Iterable[int]) -> ModelValues:
        """A model field of which an effect is to change these flat indices, in every control step."""
        if field not in self.changed:
            self.changed[field] = ModelValues(self.engine, field)
        self.changed[field].change(elements)
        return self.changed[field]

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
        if not any(effect.overrides("on_command") for effect in self.effects.values()):
            return 0
        return self.engine.use_commands(self.task.command_fields)
