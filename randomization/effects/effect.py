"""What an effect in time is: the hooks that it may have, and when each is called."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from envs.common.stateful import Stateful

# The stages of a control step, in order, and the hook of each.
STAGES = {
    "action": "on_action",
    "command": "on_command",
    "world": "on_step",
    "physics": "on_physics_step",
    "sensor values": "on_measurement",
    "sensor timing": "on_arrival",
}


class Effect(Stateful):
    """Something that happens during an episode, as strongly as lambda says; made where lambda has a quantity of it.

    The hooks that a subclass overrides say in which stages of a control step it acts. Nothing may look at a tensor's
    values (`if`, `float`, `nonzero`), so that a GPU need not wait, and all chance comes from the context, so that an
    episode is the same whatever else is played.

    Args:
        context: the `EffectContext` that it is made from: the places that a quantity names and their values in each
            world, random numbers, the task and the engine.

    Attributes:
        order: of two effects in one stage the one with the lower order acts first. simreal's own: of actions the
            adversary has 10, noise 20, latency 30; of commands loss 10, stuck actuators 20, backlash 30, delay 90; of
            the world forces 10 and 20, fading motors 30, pushes 40, a moving base 50, motors 80, which come first in a
            physics step too; of sensors errors and timing 10.
        whole_episodes: its quantities that say how an episode begins, and so cannot change within one.
        _state: names of the attributes that change during an episode; checkpoints keep these.
    """

    order: ClassVar[int] = 60
    whole_episodes: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, context: Any) -> None:
        """Look up what the hooks need."""

    def before_reset(self, mask: Tensor) -> None:
        """Undo in mask [N] what it has written to model fields, before physics parameters write theirs."""

    def reset(self, mask: Tensor, lam: Tensor) -> None:
        """Begin episodes in mask [N] in the worlds lam [N, d], whose own model fields have been written."""

    def change(self, mask: Tensor, lam: Tensor) -> None:
        """Go on in mask [N] in the worlds lam [N, d], which have just become others, and keep what has happened so far.
        Worlds cannot change within an episode in quantities of an effect that does not override this."""
        raise NotImplementedError

    def held_fields(self) -> set[str]:
        """Model fields that it writes at the beginning of an episode, and expects to be left alone until its end."""
        return set()

    def on_action(self, action: Tensor) -> Tensor:
        """The action [N, A] that is executed for one in [-1, 1], where it lies too; the task is given the last one."""
        raise NotImplementedError

    def on_command(self, command: Tensor) -> Tensor:
        """Command [N, C] of the task -> what goes on of it: [N, C], or from the last effect [N, decimation, C] where it
        may change within the step. C are the controls or poses that `Task.command_fields` names."""
        raise NotImplementedError

    def hold(self, command: Tensor, fresh: Tensor) -> None:
        """Take a command [N, C] as the one before the first, in the episodes of fresh [N] that begin."""

    def on_step(self) -> None:
        """Change the world before the physics of a control step, or let time pass by one control step."""
        raise NotImplementedError

    def on_physics_step(self) -> None:
        """Change the world before each physics step, of which a control step has several. Costs as many calls."""
        raise NotImplementedError

    def on_measurement(self, measured: Tensor) -> None:
        """Change, in place, what sensors measure [N, nobs]. May be called twice in a step, where episodes begin in it:
        what passes with time passes in `on_step`."""
        raise NotImplementedError

    def on_arrival(self, measured: Tensor, first: Tensor | None) -> None:
        """Replace, in place, what sensors measure now [N, nobs] by what they show now.

        Args:
            first: episodes [N] that begin; the sensors of others do not advance and show what they did. None: all
                sensors advance.
        """
        raise NotImplementedError

    @classmethod
    def overrides(cls, hook: str) -> bool:
        """Whether a subclass has a hook of its own."""
        return getattr(cls, hook) is not getattr(Effect, hook)
