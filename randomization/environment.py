"""The layer that turns lambda into worlds: physics, what happens to commands, what sensors report."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from envs.environment import Environment, StepResult
from randomization.latency import CommandLine
from randomization.noise import SensorNoise
from randomization.parameters import Parameter
from randomization.physics import PhysicsWriter
from randomization.samplers import Sampler
from randomization.spec import Performance


class Randomization:
    """A `Layer` whose worlds come from a sampler.

    Args:
        sampler: chooses lambda; hears how episodes went.
        performance: what it hears.
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

    def attach(self, environment: Environment) -> None:
        engine, task, self._rng = environment.engine, environment.task, environment.rng
        self._task = task
        n, parameters = engine.num_envs, self.parameters
        nominal = torch.tensor([p.nominal for p in parameters], dtype=torch.float64, device=engine.device)
        self.lam = nominal.expand(n, -1).clone()
        self.boundary = torch.full((n,), -1, dtype=torch.int64, device=engine.device)
        self._physics = PhysicsWriter(task, engine, parameters)
        self._noise = SensorNoise(task, parameters, environment.rng)
        self._delay = [i for i, p in enumerate(parameters) if p.quantity == "action_delay"]
        self._line: CommandLine | None = None
        if self._delay:
            self._period_ms = 1000.0 * float(task.model.opt.timestep)
            longest = round(parameters[self._delay[0]].limits[1] / self._period_ms)
            size = engine.use_commands(task.command_fields)
            self._line = CommandLine(n, size, task.decimation, longest, engine.device, engine.dtype)
            self._hold = torch.zeros(n, task.action_size, device=engine.device)

    def reset(self, mask: Tensor) -> bool:
        u = self._rng.episode_uniform("lambda", len(self.parameters))
        lam, boundary = self.sampler.draw(u, self._rng.episode_uniform("boundary", 2), self.explore)
        self.lam = torch.where(mask[:, None], lam, self.lam)
        self.boundary = torch.where(mask, boundary, self.boundary)
        self._physics.write(mask, self.lam)
        self._noise.reset(mask, self.lam)
        if self._line is not None:
            delay = (self.lam[:, self._delay[0]] / self._period_ms).round().long()
            self._line.reset(mask, delay)
        return self._physics.needs_set_const

    def act(self, action: Tensor) -> Tensor:
        return action

    def schedule(self, command: Tensor) -> Tensor | None:
        if self._line is None:
            return None
        if bool(self._line.fresh.any()):
            # Until the first command arrives, the robot does what it does for an action of zero: it stays.
            self._line.fill(self._task.command(self._hold))
        return self._line.send(command)

    def measure(self, observation: Tensor, first: Tensor | None) -> Tensor:
        return self._noise.apply(observation)

    def finished(self, result: StepResult) -> None:
        if not self.explore:
            return
        done = result.done
        performance = {
            "success": result.success,
            "successes": result.episode_successes,
            "return": result.episode_return,
        }[self.performance]
        self.sampler.record(self.boundary[done], performance[done].double(), self.lam[done])

    def state_dict(self) -> dict[str, Any]:
        line = {} if self._line is None else self._line.state_dict()
        return {
            "lam": self.lam,
            "boundary": self.boundary,
            "sampler": self.sampler.state_dict(),
            "noise": self._noise.state_dict(),
            "line": line,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.lam, self.boundary = state["lam"].clone(), state["boundary"].clone()
        self.sampler.load_state_dict(state["sampler"])
        self._noise.load_state_dict(state["noise"])
        if self._line is not None:
            self._line.load_state_dict(state["line"])
