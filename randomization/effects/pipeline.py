"""Everything that happens during an episode, in the order of a control step: to actions, to commands, to the world."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from envs.common.stateful import Stateful
from randomization.effects.actions.backlash import Backlash
from randomization.effects.actions.commands import CommandDelay, CommandDropout, FirstCommand, StuckActuators
from randomization.effects.actions.motor_fade import LimpActuators, MotorFade
from randomization.effects.actions.noise import ActionLatency, ActionNoise
from randomization.effects.context import Effect, EffectContext
from randomization.effects.disturbances.adversary import Adversary
from randomization.effects.disturbances.forces import MovingBase, Pushes, RandomForces
from randomization.effects.parameter_index import Index, index_of
from randomization.effects.sensors.errors import SensorErrors
from randomization.effects.sensors.timing import SensorTiming


class ActingEffects:
    """What happens between a policy's action and the physics, as three lists in order.

    Attributes:
        effects: all of them, in the order in which episodes begin in them; those that lambda has no parameter of too.
    """

    def __init__(self, context: EffectContext) -> None:
        self._random, self._dtype = context.random, context.engine.dtype
        # Effects reserve random numbers when they are made: another order would give other numbers.
        adversary, noise, latency = Adversary(context), ActionNoise(context), ActionLatency(context)
        delay, dropout, stuck, backlash = (
            kind(context) for kind in (CommandDelay, CommandDropout, StuckActuators, Backlash)
        )
        limp, fade = LimpActuators(context), MotorFade(context)
        forces, pushes, base = RandomForces(context), Pushes(context), MovingBase(context)
        external = ExternalForces(context, forces, adversary)
        self._on_action = [effect for effect in (adversary, noise, latency) if effect.configured]
        self._on_world = [effect for effect in (external, fade, pushes, base) if effect.configured]
        self._commanded = (dropout, stuck, backlash, delay)
        self._on_command = [effect for effect in self._commanded if effect.configured]
        self._first_command = FirstCommand(context)
        self.effects: dict[str, Effect] = {
            "limp": limp, "adversary": adversary, "noise": noise, "latency": latency, "delay": delay,
            "dropout": dropout, "stuck": stuck, "backlash": backlash, "fade": fade,  # fades from what has failed
            "forces": forces, "pushes": pushes, "base": base, "external": external,
        }  # fmt: skip
        self._configured = [effect for effect in self.effects.values() if effect.configured]

    def before_reset(self, mask: Tensor) -> None:
        """Undo what these effects have written to model fields, before physics parameters write theirs."""
        for effect in self._configured:
            effect.before_reset(mask)

    def reset(self, mask: Tensor, lam: Tensor) -> None:
        """Begin episodes in mask [N] in the worlds lam [N, d]."""
        self._first_command.reset(mask)
        for effect in self._configured:
            effect.reset(mask, lam)

    def begin_step(self) -> None:
        """Begin a control step, before the task is given the action."""
        if self._on_command:
            self._first_command.hold(self._commanded)

    def act(self, action: Tensor) -> Tensor:
        """The action [N, A] that is executed when the policy's is `action` [N, A]."""
        self._random.ensure_drawn()
        for effect in self._on_action:
            action = effect.apply(action)
        return action

    def send(self, command: Tensor) -> Tensor | None:
        """Disturb the world for this control step, and pass a command [N, C] on.

        Returns:
            What the physics gets: [N, C] for the whole step, [N, decimation, C] for each physics step, or None for the
            command as it is.
        """
        for effect in self._on_world:
            effect.apply()
        if not self._on_command:
            return None
        self.begin_step()  # where the environment has not said that one begins
        command = command.to(self._dtype)
        for effect in self._on_command:
            command = effect.apply(command)
        return command

    def state_dict(self) -> dict[str, Any]:
        """The state of all effects, by name."""
        states = {name: effect.state_dict() for name, effect in self.effects.items()}
        return states | {"first_command": self._first_command.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self._random.forget()
        for name, effect in self.effects.items():
            effect.load_state_dict(state[name])
        self._first_command.load_state_dict(state["first_command"])


class SensorEffects(Stateful):
    """What happens between a clean observation and the policy: errors of the values, then when they arrive."""

    _state = ("_errors", "_timing")

    def __init__(self, context: EffectContext) -> None:
        self._random = context.random
        self._errors, self._timing = SensorErrors(context), SensorTiming(context)

    def reset(self, mask: Tensor, lam: Tensor) -> None:
        """Begin episodes in mask [N] in the worlds lam [N, d]."""
        if self._errors.configured:
            self._errors.reset(mask, lam)
        if self._timing.configured:
            self._timing.reset(mask, lam)

    def measure(self, observation: Tensor, first: Tensor | None) -> Tensor:
        """Clean observation [N, nobs] -> measured: a new tensor, or `observation` itself where nothing is configured.

        Args:
            first: see `SensorTiming.apply`.
        """
        if not (self._errors.configured or self._timing.configured):
            return observation
        self._random.draw()
        measured = observation.clone()
        if self._errors.configured:
            self._errors.apply(measured)
        if self._timing.configured:
            self._timing.apply(measured, first)
        return measured


class ExternalForces(Effect):
    """Adds random forces and the adversary's wrenches to what a task writes to MuJoCo's `xfrc_applied` itself.

    A task may write its forces at every control step, or once for many: what differs from what was left here is the
    task's, and the rest is what the task had written before.
    """

    _state = ("_own", "_left")

    def __init__(self, context: EffectContext, forces: RandomForces, adversary: Adversary) -> None:
        self._forces, self._adversary = forces, adversary
        bodies, device = sorted({*forces.bodies, *adversary.bodies}), context.engine.device
        self.configured = bool(bodies)
        if not self.configured:
            return
        self._applied, self._masses = context.engine.data("xfrc_applied"), context.body_values("body_mass")
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
            force = self._masses[:, self._forced, None] * self._forces.accelerations()
            added[:, self._places_forced, :3] += force.to(self._applied.dtype)
        self._left = self._own + added
        self._applied[:, self._all] = self._left
