"""Everything that happens during an episode, in the order of a control step: to actions, to commands, to the world."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from envs.engine import Engine
from envs.environment import Environment
from randomization.action_effects import ActionLatency, ActionNoise
from randomization.adversary import Adversary
from randomization.clock import Clock
from randomization.columns import Index, StepDraws, index_of
from randomization.command_effects import CommandEffects
from randomization.disturbance import MovingBase, Pushes, RandomForces
from randomization.motor_fade import LimpActuators, MotorFade
from randomization.parameters import Parameter
from randomization.sensor_errors import SensorErrors
from randomization.sensor_timing import SensorTiming


class ActingEffects:
    """Between a policy's action and the physics; order: adversary, noise, latency, command, disturbances.

    Args:
        environment: that the effects act on.
        parameters: all of lambda, in order.
        clock: turns times into steps.
        draws: random numbers of the step.
    """

    def __init__(self, environment: Environment, parameters: list[Parameter], clock: Clock, draws: StepDraws) -> None:
        self._environment, self._draws = environment, draws
        task, engine, rng = environment.task, environment.engine, environment.rng
        masses, inertias = _inertial(engine, parameters)
        self._adversary = Adversary(task, engine, parameters, rng, masses, inertias)
        self._noise = ActionNoise(task, parameters, rng, draws)
        self._latency = ActionLatency(task, parameters, rng)
        self._commands = CommandEffects(task, engine, parameters, rng, draws, clock, environment.checks)
        self._limp = LimpActuators(task, engine, parameters, rng)
        self._fade = MotorFade(environment, parameters)
        self._forces = RandomForces(task, engine, parameters, draws, clock)
        self._pushes = Pushes(task, engine, parameters, rng, draws, clock)
        self._base = MovingBase(task, engine, parameters, rng, clock)
        self._parts = {
            "adversary": self._adversary,
            "noise": self._noise,
            "latency": self._latency,
            "commands": self._commands,
            "fade": self._fade,
            "forces": self._forces,
            "pushes": self._pushes,
            "base": self._base,
        }
        self._external: _ExternalForces | None = None
        if self._forces.bodies or self._adversary.bodies:
            self._external = _ExternalForces(engine, self._forces, self._adversary, masses)

    def before_reset(self, mask: Tensor) -> None:
        """Undo what these effects have written to model fields, before physics parameters write theirs."""
        for part in (self._limp, self._fade):
            if part.configured:
                part.before_reset(mask)
        if self._base.configured:
            self._base.before_reset(mask)

    def reset(self, mask: Tensor, lam: Tensor) -> None:
        """Begin episodes in mask [N] in the worlds lam [N, d]."""
        for part in (self._limp, *self._parts.values()):  # what fades fades from what has failed
            if part.configured:
                part.reset(mask, lam)

    def begin_step(self) -> None:
        """Before the task hears of the action."""
        if self._commands.configured:
            self._commands.begin_step()

    def act(self, action: Tensor) -> Tensor:
        """What is executed of an action [N, A]."""
        self._draws.use()
        if self._adversary.configured and self._adversary.active:
            self._adversary.read(self._environment.observed.policy)
            action = self._adversary.act(action)
        if self._noise.configured:
            action = self._noise.apply(action)
        return self._latency.apply(action) if self._latency.configured else action

    def send(self, command: Tensor) -> Tensor | None:
        """What becomes of a command [N, C]; None if nothing does. Disturbs the world for this control step."""
        if self._external is not None:
            self._external.apply()
        if self._fade.configured:
            self._fade.apply()
        if self._pushes.configured:
            self._pushes.apply()
        if self._base.configured:
            self._base.apply()
        return self._commands.send(command) if self._commands.configured else None

    def state_dict(self) -> dict[str, Any]:
        external = {} if self._external is None else {"external": self._external.state_dict()}
        return {name: part.state_dict() for name, part in self._parts.items()} | external

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._draws.forget()
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
        if self._external is not None:
            self._external.load_state_dict(state["external"])


class SensorEffects:
    """Between a clean observation and the policy: errors of the values, then when they arrive.

    Args:
        environment: that is observed.
        parameters: all of lambda, in order.
        clock: turns times into steps.
        draws: random numbers of the step.
    """

    def __init__(self, environment: Environment, parameters: list[Parameter], clock: Clock, draws: StepDraws) -> None:
        slices, rng = environment.task.slices("policy"), environment.rng
        self._draws = draws
        self._errors = SensorErrors(slices, parameters, rng, self._draws)
        self._timing = SensorTiming(slices, parameters, rng, self._draws, clock)

    def reset(self, mask: Tensor, lam: Tensor) -> None:
        """Begin episodes in mask [N] in the worlds lam [N, d]."""
        if self._errors.configured:
            self._errors.reset(mask, lam)
        if self._timing.configured:
            self._timing.reset(mask, lam)

    def measure(self, observation: Tensor, first: Tensor | None) -> Tensor:
        """Clean observation [N, nobs] -> measured, a new tensor; the same one where nothing is configured."""
        if not (self._errors.configured or self._timing.configured):
            return observation
        self._draws.draw()
        measured = observation.clone()
        if self._errors.configured:
            self._errors.apply(measured)
        if self._timing.configured:
            self._timing.apply(measured, first)
        return measured

    def state_dict(self) -> dict[str, Any]:
        return {"errors": self._errors.state_dict(), "timing": self._timing.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._errors.load_state_dict(state["errors"])
        self._timing.load_state_dict(state["timing"])


class _ExternalForces:
    """Adds random forces and the adversary's wrenches to what a task writes to MuJoCo's `xfrc_applied` itself.

    A task may write its forces at every control step, or once for many: what differs from what was left here is the
    task's, and the rest is what the task had written before.
    """

    def __init__(self, engine: Engine, forces: RandomForces, adversary: Adversary, masses: Tensor) -> None:
        self._forces, self._adversary = forces, adversary
        self._applied = engine.data("xfrc_applied")
        self._masses = masses
        bodies, device = sorted({*forces.bodies, *adversary.bodies}), engine.device
        self._all: Index = index_of(bodies, device)
        self._forced = index_of(forces.bodies, device)
        self._places_forced, self._places_attacked = (
            index_of([bodies.index(body) for body in some], device) for some in (forces.bodies, adversary.bodies)
        )
        self._own = torch.zeros_like(self._applied[:, self._all])  # [N, bodies, 6] of the task
        self._left = torch.zeros_like(self._own)  # what was written here last

    def apply(self) -> None:
        """Write this control step's forces."""
        attacks = bool(self._adversary.bodies) and self._adversary.active
        if not attacks and not self._forces.bodies:
            return
        present = self._applied[:, self._all]
        self._own = torch.where(present == self._left, self._own, present)
        added = torch.zeros_like(present)
        if attacks:
            added[:, self._places_attacked] = self._adversary.wrenches().to(added.dtype)
        if self._forces.bodies:
            added[:, self._places_forced, :3] += self._force()
        self._left = self._own + added
        self._applied[:, self._all] = self._left

    def state_dict(self) -> dict[str, Any]:
        return {"own": self._own, "left": self._left}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._own, self._left = state["own"].clone(), state["left"].clone()

    def _force(self) -> Tensor:
        force = self._masses[:, self._forced, None] * self._forces.accelerations()
        return force.to(self._applied.dtype)


def _inertial(engine: Engine, parameters: list[Parameter]) -> tuple[Tensor, Tensor]:
    """Masses [N or 1, nbody] and principal inertias [N or 1, nbody, 3] of bodies, live where worlds differ in them."""
    written = {name for p in parameters for name in p.writes}
    values = lambda name: engine.field(name) if name in written else engine.nominal(name).to(engine.device)[None]  # noqa: E731
    return values("body_mass"), values("body_inertia")
