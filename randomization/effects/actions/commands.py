"""What happens to commands between the task and the physics: lost, ignored, late.

    command -> dropped (`action_dropout`) -> ignored by stuck actuators -> backlash -> delayed (ms; jitter, bursts)

A dropped command is one that never leaves: the one before it holds. Delay comes last, because it alone works at the
resolution of a physics step; the others act once per control step. Until the first command of an episode arrives, the
robot does what it does for an action of zero: it stays.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from envs.common.stateful import Stateful
from envs.task_state import preserved
from randomization.effects.actions.bursty_delay import BurstyDelay
from randomization.effects.actions.delay_buffer import CommandDelayBuffer
from randomization.effects.context import EffectContext
from randomization.effects.effect import Effect
from randomization.effects.parameter_index import index_of
from randomization.targets.objects import controls_of

_LARGEST_JITTER = 3.0  # standard deviations


class CommandDropout(Effect):
    """Applies `action_dropout`."""

    order = 10
    _state = ("_held", "_p_lost")

    def __init__(self, context: EffectContext) -> None:
        self._random, self._dropout = context.random, context.index("action_dropout")
        self._draws = context.random.reserve_uniform(self._dropout.size)
        self._held = context.zeros(context.command_size).to(context.engine.dtype)  # the last one that was not lost
        self._p_lost = context.zeros(1)

    def reset(self, mask: Tensor, lam: Tensor) -> None:
        """Take the probability of new worlds lam [N, d] in mask [N]."""
        self._p_lost = torch.where(mask[:, None], self._dropout.of(lam), self._p_lost)

    def change(self, mask: Tensor, lam: Tensor) -> None:
        """Take another probability."""
        self.reset(mask, lam)

    def hold(self, command: Tensor, fresh: Tensor) -> None:
        """Take a command [N, C] as the last that was not lost."""
        self._held = torch.where(fresh[:, None], command, self._held)

    def on_command(self, command: Tensor) -> Tensor:
        """Command [N, C], or where it is lost the one before it."""
        lost = self._random.uniform[:, self._draws] < self._p_lost
        self._held = torch.where(lost, self._held, command)
        return self._held


class StuckActuators(Effect):
    """Applies `actuator_stuck`: the controls of an actuator keep the command of the start."""

    order = 20
    _state = ("_start", "_ignores")

    def __init__(self, context: EffectContext) -> None:
        self._rng = context.rng
        self._stuck = context.index("actuator_stuck")
        self._start = context.zeros(context.command_size).to(context.engine.dtype)
        self._ignores = torch.zeros_like(self._start, dtype=torch.bool)
        controls, owners = controls_of(context.task.model, self._stuck.places)
        self._controls, self._owners = (index_of(x, context.engine.device) for x in (controls, owners))

    def reset(self, mask: Tensor, lam: Tensor) -> None:
        """Draw which actuators are stuck in the worlds lam [N, d] of mask [N]."""
        ignores = self._ignores.clone()
        u = self._rng.episode_uniform("actuator_stuck", self._stuck.size)
        ignores[:, self._controls] = (u < self._stuck.of(lam))[:, self._owners]
        self._ignores = torch.where(mask[:, None], ignores, self._ignores)

    def hold(self, command: Tensor, fresh: Tensor) -> None:
        """Take a command [N, C] as the one that stuck actuators keep."""
        self._start = torch.where(fresh[:, None], command, self._start)

    def on_command(self, command: Tensor) -> Tensor:
        """Command [N, C] with that of the start for what is stuck."""
        return torch.where(self._ignores, self._start, command)


class CommandDelay(Effect):
    """Applies `action_delay`, its jitter, and the bursts of `BurstyDelay`."""

    order = 90  # it alone says what arrives within the step
    _state = ("_delay_steps", "_sigma_steps", "_bursts", "_buffer")

    def __init__(self, context: EffectContext) -> None:
        self._random, self._durations = context.random, context.durations
        self._delay, self._jitter = context.index("action_delay"), context.index("action_delay_jitter")
        self._bursts = BurstyDelay(context)
        self._draws = context.random.reserve_normal(self._jitter.size)
        own = {"action_delay", "action_delay_jitter"} & context.changing
        self._varies = bool(self._jitter.size or self._bursts.configured or own)
        # mean and deviation, physics steps
        self._delay_steps, self._sigma_steps = context.zeros(), context.zeros()
        longest_ms = context.longest("action_delay") + _LARGEST_JITTER * context.longest("action_delay_jitter")
        longest_s = 1e-3 * (longest_ms + context.longest("action_burst_delay"))
        engine, longest = context.engine, context.durations.most_physics_steps(longest_s)
        self._buffer = CommandDelayBuffer(
            engine.num_envs, context.command_size, context.task.decimation, longest, engine.device, engine.dtype
        )

    def reset(self, mask: Tensor, lam: Tensor) -> None:
        """Take the delay of new worlds lam [N, d] in mask [N]."""
        self._buffer.reset(mask, self._take(mask, lam).round().long())
        if self._bursts.configured:
            self._bursts.reset(mask, lam)

    def change(self, mask: Tensor, lam: Tensor) -> None:
        """Take another delay, for the commands that are sent from now on."""
        self._take(mask, lam)
        if self._bursts.configured:
            self._bursts.change(mask, lam)

    def _take(self, mask: Tensor, lam: Tensor) -> Tensor:
        """Take mean and deviation of lam [N, d] in mask [N]; returns that mean [N], physics steps."""
        zero, step_ms = torch.zeros_like(lam[:, 0]), 1000.0 * self._durations.timestep_s
        delay = self._delay.of(lam)[:, 0] / step_ms if self._delay.size else zero
        sigma = self._jitter.of(lam)[:, 0] / step_ms if self._jitter.size else zero
        self._delay_steps = torch.where(mask, delay, self._delay_steps)
        self._sigma_steps = torch.where(mask, sigma, self._sigma_steps)
        return delay

    def hold(self, command: Tensor, fresh: Tensor) -> None:
        """Take a command [N, C] as the one that holds until the first arrives."""
        self._buffer.fill(command)

    def on_command(self, command: Tensor) -> Tensor:
        """Command [N, C] -> what arrives in each physics step, [N, decimation, C]."""
        if not self._varies:
            return self._buffer.send(command)
        delay = self._delay_steps
        if self._jitter.size:
            normal = self._random.normal[:, self._draws][:, 0].clamp(-_LARGEST_JITTER, _LARGEST_JITTER)
            delay = delay + self._sigma_steps * normal
        if self._bursts.configured:
            delay = delay + self._bursts.advance()
        return self._buffer.send(command, delay.round().long())


class FirstCommand(Stateful):
    """Finds out what holds until the first command of an episode arrives: the command of an action of zero."""

    _state = ("_fresh", "_any_fresh")

    def __init__(self, context: EffectContext) -> None:
        self._task, self._checks, engine = context.task, context.environment.checks, context.engine
        self._dtype = engine.dtype
        self._fresh = torch.ones(engine.num_envs, dtype=torch.bool, device=engine.device)  # nothing sent yet
        self._any_fresh = True
        self._rest = torch.zeros(engine.num_envs, context.task.action_size, device=engine.device)

    def reset(self, mask: Tensor) -> None:
        """Episodes begin in mask [N]."""
        self._fresh, self._any_fresh = self._fresh | mask, True

    def hold(self, effects: Sequence[Effect]) -> None:
        """Give effects the command [N, C] of an action of zero in the present state, where an episode begins; to be
        called before the task is given the first action."""
        if not self._any_fresh:
            return
        with preserved(self._task):
            self._task.decided(self._rest.clone())
            rest, unsound = self._checks.sound(self._task.command(self._rest.clone()))
        if unsound is not None:
            self._checks.say_of_rest(unsound)
        for effect in effects:
            effect.hold(rest.to(self._dtype), self._fresh)
        self._fresh, self._any_fresh = torch.zeros_like(self._fresh), False
