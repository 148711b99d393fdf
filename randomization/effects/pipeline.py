"""All that happens during an episode, in the order of a control step: to actions, commands, the world, sensors."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from envs.common.stateful import Stateful
from randomization.effects.actions.commands import FirstCommand
from randomization.effects.context import EffectContext
from randomization.effects.effect import STAGES, Effect
from randomization.effects.motors.network import NetworkActuators

# Effects that draw random numbers in every step, in the order in which they reserve them: another one would give other
# numbers. Those of other packages follow by name.
_DRAWING = (
    "action_noise", "action_delay", "action_dropout", "force_size", "push_velocity", "observation_scale",
    "observation_delay",
)  # fmt: skip


class EffectPipeline(Stateful):
    """The effects that lambda has parameters of, stage by stage.

    Attributes:
        effects: all of them, by the quantity that each is called after.
    """

    _state = ("effects", "_changed", "_forces", "_first_command")

    def __init__(self, context: EffectContext) -> None:
        self._random, self._dtype = context.random, context.engine.dtype
        networks = {} if context.task.actuator is None else {"actuator": NetworkActuators}
        kinds = context.effects | networks
        drawing = {name: place for place, name in enumerate(_DRAWING)}
        names = sorted(kinds, key=lambda name: (drawing.get(name, len(drawing)), name))
        self.effects: dict[str, Effect] = {name: kinds[name](context) for name in names}
        ordered = sorted(self.effects.values(), key=lambda effect: effect.order)  # stable: by name where alike
        self._on = {stage: [e for e in ordered if e.overrides(hook)] for stage, hook in STAGES.items()}
        self._first_command = FirstCommand(context)
        self._changed, self._forces = context.changed, context.forces
        self._forces.prepare()

    def before_reset(self, mask: Tensor) -> None:
        """Undo what effects have written to model fields, before physics parameters write theirs."""
        for values in self._changed.values():
            values.restore(mask)
        for effect in self.effects.values():
            effect.before_reset(mask)

    def reset(self, mask: Tensor, lam: Tensor) -> None:
        """Begin episodes in mask [N] in the worlds lam [N, d]."""
        self._first_command.reset(mask)
        for effect in self.effects.values():
            effect.reset(mask, lam)
        for values in self._changed.values():
            values.take(mask)

    def before_change(self) -> None:
        """Undo what effects did to model fields in the last control step, before worlds change within episodes."""
        for values in self._changed.values():
            values.begin_step()

    def change(self, mask: Tensor, lam: Tensor) -> None:
        """Go on in mask [N] in the worlds lam [N, d], whose own model fields have been written."""
        for effect in self.effects.values():
            if effect.overrides("change"):
                effect.change(mask, lam)
        for values in self._changed.values():
            values.take(mask)

    def begin_step(self) -> None:
        """Begin a control step, before the task is given the action."""
        if self._on["command"]:
            self._first_command.hold(self._on["command"])

    def act(self, action: Tensor) -> Tensor:
        """The action [N, A] that is executed when the policy's is `action` [N, A]."""
        self._random.ensure_drawn()
        for effect in self._on["action"]:
            action = effect.on_action(action)
        return action

    def send(self, command: Tensor) -> Tensor | None:
        """Disturb the world for this control step, and pass a command [N, C] on.

        Returns:
            What the physics gets: [N, C] for the whole step, [N, decimation, C] for each physics step, or None for the
            command as it is.
        """
        for values in self._changed.values():
            values.begin_step()
        for effect in self._on["world"]:
            effect.on_step()
        self._forces.write()
        if not self._on["command"]:
            return None
        self.begin_step()  # where the environment has not said that one begins
        command = command.to(self._dtype)
        for effect in self._on["command"]:
            command = effect.on_command(command)
        return command

    @property
    def within_steps(self) -> bool:
        """Whether anything acts before each physics step."""
        return bool(self._on["physics"])

    def before_physics(self) -> None:
        """Act before a physics step, for which the command has been written."""
        for effect in self._on["physics"]:
            effect.on_physics_step()

    def measure(self, observation: Tensor, first: Tensor | None) -> Tensor:
        """Clean observation [N, nobs] -> measured: a new tensor, or `observation` itself where nothing acts on sensors.

        Args:
            first: see `Effect.on_arrival`.
        """
        if not (self._on["sensor values"] or self._on["sensor timing"]):
            return observation
        self._random.draw()
        measured = observation.clone()
        for effect in self._on["sensor values"]:
            effect.on_measurement(measured)
        for effect in self._on["sensor timing"]:
            effect.on_arrival(measured, first)
        return measured

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self._random.forget()
        super().load_state_dict(state)
