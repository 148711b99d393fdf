"""Turns lambda into worlds: physics, what happens to commands, what sensors report."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from envs.engines.histories import KeepDelays, shortened_delay
from envs.environment import Environment, StepResult, on_device
from envs.task import Task, editing_specs
from randomization.changes import Change, Changing, EpisodeChanges, refuse_together
from randomization.config import Performance
from randomization.effects.context import EffectContext
from randomization.effects.parameter_index import StepRandomNumbers
from randomization.effects.pipeline import EffectPipeline
from randomization.effects.step_durations import StepDurations
from randomization.parameters import Parameter, RandomizationError
from randomization.physics.writer import PhysicsWriter, shortest_timestep, simple_bodies
from randomization.samplers.base import Sampler
from randomization.samplers.episode_reports import EpisodeReporter

_GPU_STEPS = 16  # control steps whose episodes are reported to a sampler together


class DomainRandomizer:
    """A `Randomizer` whose worlds come from a sampler.

    Args:
        sampler: chooses lambda; is told how episodes went.
        performance: of an episode, as the sampler is told it.
        explore: False plays ordinary episodes only (no boundary episodes) and tells the sampler nothing, as
            evaluation needs.

    Attributes:
        lam: [N, d] the worlds being played.
        boundary: [N] see `Sampler.draw`.
    """

    lam: Tensor
    boundary: Tensor

    def __init__(self, sampler: Sampler, performance: Performance = "success", explore: bool = True) -> None:
        self.sampler = sampler
        self.performance: Performance = performance
        self.explore = explore

    @property
    def parameters(self) -> list[Parameter]:
        """What lambda consists of."""
        return self.sampler.parameters

    def prepare(self, task: Task) -> None:
        """Have a task compile its model as the parameters need it; before an engine takes the model."""
        bodies = simple_bodies(task, self.parameters)
        shortest_s = float(task.model.opt.timestep) * shortest_timestep(self.parameters)
        if shortened_delay(task.model, shortest_s) and task.compiles_again:
            with editing_specs(KeepDelays.of(task.model, shortest_s)):
                task.compile_full(bodies)
        elif bodies:
            task.compile_full(bodies)

    def attach(self, environment: Environment) -> None:
        """Make the writers and effects of an environment; called once, before its first reset."""
        engine, task, self._rng = environment.engine, environment.task, environment.rng
        n, parameters = engine.num_envs, self.parameters
        self._reporter = EpisodeReporter(
            self.sampler, 1 if engine.device.type == "cpu" else _GPU_STEPS, environment.share.ranks
        )
        nominal = torch.tensor([p.nominal for p in parameters], dtype=torch.float64, device=engine.device)
        self.lam = nominal.expand(n, -1).clone()
        self.boundary = torch.full((n,), -1, dtype=torch.int64, device=engine.device)
        low, high = (torch.tensor([p.limits[i] for p in parameters], dtype=torch.float64) for i in (0, 1))
        self._revealed: Tensor | None = None  # lambda as `reveal` shows it
        self._middle, self._half = ((low + high) / 2).to(engine.device), ((high - low) / 2).to(engine.device)
        self._physics = PhysicsWriter(task, engine, parameters, environment.rng)
        durations = StepDurations(self._physics.timestep_s, self._physics.shortest_timestep_s, task.decimation)
        changing = {label for change in self._happens() for label in change.values}
        context = EffectContext(
            environment, parameters, StepRandomNumbers(environment.rng), durations,
            changing=frozenset(p.quantity for p in parameters if p.name in changing),
        )  # fmt: skip
        self._effects = EffectPipeline(context)
        self._engine, self._changes = engine, None
        if isinstance(self.sampler, Changing):
            refuse_together(self._effects.effects, parameters, self.sampler.changes)
            self._changes = EpisodeChanges(self.sampler, environment, durations.period_s)

    def _happens(self) -> tuple[Change, ...]:
        """What changes in these worlds within an episode, or may change in others like them."""
        return (*self.sampler.changes, *self.sampler.others) if isinstance(self.sampler, Changing) else ()

    def reset(self, mask: Tensor) -> bool:
        """Choose new worlds for mask [N] and write them; whether model constants have to be recomputed."""
        u = self._rng.episode_uniform("lambda", len(self.parameters))
        lam, boundary = self.sampler.draw(u, self._rng.episode_uniform("boundary", 2), self.explore)
        self.lam = torch.where(mask[:, None], lam, self.lam)
        self.boundary = torch.where(mask, boundary, self.boundary)
        self._revealed = None
        self._effects.before_reset(mask)
        self._physics.write(mask, self.lam)
        self._effects.reset(mask, self.lam)
        if self._changes is not None:
            self._changes.reset(mask, self.lam)
        return self._physics.needs_set_const

    def begin_step(self) -> None:
        """Begin a control step, before the task is given the action."""
        if self._changes is not None:
            self._change(self._changes.now())
        self._effects.begin_step()

    def steer(self, lam: Tensor) -> None:
        """Go on in the worlds lam [N, d] from the next control step on, as somebody wants who looks at them.

        Only what a `Changing` sampler names, among its `changes` or `others`, may differ from the present worlds.

        Raises:
            RandomizationError: the sampler is none of those.
        """
        if self._changes is None:
            raise RandomizationError("worlds that stay as they begin cannot be steered: expected a Changing sampler")
        self._changes.steer(lam)

    def _change(self, lam: Tensor) -> None:
        """Go on in the worlds lam [N, d]."""
        mask = (lam != self.lam).any(dim=1)
        if not bool(mask.any()):  # waits for a GPU: in worlds that change only, where writing in every step costs more
            return
        before, self.lam, self._revealed = self.lam, lam, None
        self._effects.before_change()
        self._physics.change(mask, before, lam)
        self._effects.change(mask, lam)
        if self._physics.needs_set_const:
            self._engine.set_const(mask)
            self._engine.forward(mask)  # poses were those of the constants' own configuration

    def act(self, action: Tensor) -> Tensor:
        """The action [N, A] that is executed; see `EffectPipeline.act`."""
        return self._effects.act(action)

    def schedule(self, command: Tensor) -> Tensor | None:
        """What the physics gets of a command [N, C]; see `EffectPipeline.send`."""
        return self._effects.send(command)

    @property
    def within_steps(self) -> bool:
        """Whether anything acts before each physics step."""
        return self._effects.within_steps

    def before_physics(self) -> None:
        """Act before a physics step; see `EffectPipeline.before_physics`."""
        self._effects.before_physics()

    def measure(self, observation: Tensor, first: Tensor | None) -> Tensor:
        """What the policy observes of a clean observation [N, nobs]; see `EffectPipeline.measure`."""
        return self._effects.measure(observation, first)

    def look(self, first: Tensor | None) -> Tensor | None:
        """No pictures."""
        return None

    def reveal(self, privileged: Tensor | None) -> Tensor | None:
        """Appends lambda, brought to [-1, 1] over each parameter's limits (Pinto et al. 2017, arXiv 1710.06542)."""
        if not self.parameters:
            return privileged
        if self._revealed is None:
            self._revealed = (self.lam - self._middle) / self._half.clamp(min=1e-12)
        if privileged is None:
            return self._revealed
        return torch.cat((privileged, self._revealed.to(privileged.dtype)), dim=1)

    def finished(self, result: StepResult) -> None:
        """Report the episodes that ended in a step to the sampler."""
        if not self.explore:
            return
        done = result.done
        performance = {
            "success": result.success,
            "successes": result.episode_successes,
            "return": result.episode_return,
        }[self.performance]
        # What an episode gathered before its simulation was noticed to be unstable means nothing.
        failure = -torch.inf if self.performance == "return" else 0
        self._reporter.report(done, self.boundary, performance.masked_fill(result.diverged, failure), self.lam)

    def state_dict(self) -> dict[str, Any]:
        """The worlds being played and the state of the sampler and of all effects."""
        return {
            "lam": self.lam,
            "boundary": self.boundary,
            "sampler": self.sampler.state_dict(),
            "reporter": self._reporter.state_dict(),
            "effects": self._effects.state_dict(),
            **({} if self._changes is None else {"changes": self._changes.state_dict()}),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.lam, self.boundary = state["lam"].clone(), state["boundary"].clone()
        self._revealed = None
        self.sampler.load_state_dict(on_device(state["sampler"], torch.device("cpu")))
        self._reporter.load_state_dict(state["reporter"])
        self._effects.load_state_dict(state["effects"])
        if self._changes is not None:
            self._changes.load_state_dict(state["changes"])
