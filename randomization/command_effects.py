"""What becomes of a command between the task and the physics: lost, ignored, slack, late.

    command -> dropped (`action_dropout`) -> ignored by stuck actuators -> backlash -> delayed (ms; jitter, bursts)

A dropped command is one that never leaves: the one before it holds. Delay comes last, because it alone works at the
resolution of a physics step; the others act once per control step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from envs.checks import Checks
from envs.engine import Engine
from envs.rng import EpisodeRandom
from envs.task import Task
from envs.task_state import preserved
from randomization.backlash import Backlash
from randomization.clock import Clock
from randomization.columns import Columns, StepDraws, index_of, whole
from randomization.congestion import Congestion
from randomization.latency import CommandLine
from randomization.names import single_places
from randomization.objects import controls_of
from randomization.parameters import Parameter

_LARGEST_JITTER = 3.0  # standard deviations


class CommandEffects:
    """Applies the parameters that act on commands.

    Args:
        task, engine: attached to each other.
        parameters: all of lambda, in order.
        rng: the environment's random numbers.
        draws: random numbers of the step.
        clock: turns times into steps.
        checks: what notices commands that are no numbers.
    """

    def __init__(
        self,
        task: Task,
        engine: Engine,
        parameters: list[Parameter],
        rng: EpisodeRandom,
        draws: StepDraws,
        clock: Clock,
        checks: Checks,
    ) -> None:
        self._checks = checks
        self._task, self._rng, self._draws, self._clock = task, rng, draws, clock
        n, device = engine.num_envs, engine.device
        self._delay, self._jitter, self._dropout = (
            whole(name, parameters, device) for name in ("action_delay", "action_delay_jitter", "action_dropout")
        )
        self._stuck = Columns("actuator_stuck", parameters, single_places(task, "actuator"), device)
        self._backlash = Backlash(task, engine, parameters, rng, clock)
        self._congestion = Congestion(parameters, rng, draws, clock)
        self._jitter_draws = draws.reserve_normal(self._jitter.size)
        self._dropout_draws = draws.reserve_uniform(self._dropout.size)
        self._varies = bool(self._jitter.size or self._congestion.configured)
        late = bool(self._delay.size or self._varies)
        self.configured = bool(late or self._dropout.size or self._stuck.size or self._backlash.configured)
        size = engine.use_commands(task.command_fields) if self.configured else 0
        self._held = torch.zeros(n, size, dtype=engine.dtype, device=device)  # the last command that was not lost
        self._start = torch.zeros_like(self._held)  # the command of an action of zero where the episode began
        self._ignores = torch.zeros(n, size, dtype=torch.bool, device=device)
        self._p_lost = torch.zeros(n, 1, dtype=torch.float64, device=device)
        self._delay_steps = torch.zeros(n, dtype=torch.float64, device=device)  # mean and deviation, physics steps
        self._sigma_steps = torch.zeros(n, dtype=torch.float64, device=device)
        self._fresh = torch.ones(n, dtype=torch.bool, device=device)  # nothing sent yet
        self._any_fresh = True
        self._rest = torch.zeros(n, task.action_size, device=device)
        self._line: CommandLine | None = None
        if self._stuck.size:
            controls, owners = controls_of(task.model, self._stuck.places)
            self._stuck_controls, self._stuck_owners = index_of(controls, device), index_of(owners, device)
        if late:
            longest = clock.most_physics_steps(_longest_delay_s(parameters))
            self._line = CommandLine(n, size, task.decimation, longest, device, engine.dtype)

    def reset(self, mask: Tensor, lam: Tensor) -> None:
        """Begin episodes in mask [N] in the worlds lam [N, d]."""
        rows = mask[:, None]
        self._fresh, self._any_fresh = self._fresh | mask, True
        if self._dropout.size:
            self._p_lost = torch.where(rows, self._dropout.of(lam), self._p_lost)
        if self._stuck.size:
            ignores = self._ignores.clone()
            u = self._rng.episode_uniform("actuator_stuck", self._stuck.size)
            ignores[:, self._stuck_controls] = (u < self._stuck.of(lam))[:, self._stuck_owners]
            self._ignores = torch.where(rows, ignores, self._ignores)
        if self._backlash.configured:
            self._backlash.reset(mask, lam)
        if self._line is not None:
            zero, step_ms = torch.zeros_like(lam[:, 0]), 1000.0 * self._clock.timestep_s
            delay = self._delay.of(lam)[:, 0] / step_ms if self._delay.size else zero
            sigma = self._jitter.of(lam)[:, 0] / step_ms if self._jitter.size else zero
            self._delay_steps = torch.where(mask, delay, self._delay_steps)
            self._sigma_steps = torch.where(mask, sigma, self._sigma_steps)
            self._line.reset(mask, delay.round().long())
        if self._congestion.configured:
            self._congestion.reset(mask, lam)

    def begin_step(self) -> None:
        """Find out what holds until the first command of an episode arrives: what the robot does for an action of
        zero, before the task hears of the first action."""
        if self._any_fresh:
            self._begin(self._rest_command())

    def _rest_command(self) -> Tensor:
        """The command [N, C] of an action of zero in the present state, of which the task remembers nothing."""
        with preserved(self._task):
            self._task.decided(self._rest.clone())
            rest, unsound = self._checks.sound(self._task.command(self._rest.clone()))
        if unsound is not None:
            self._checks.say_of_rest(unsound)
        return rest.to(self._held.dtype)

    def send(self, command: Tensor) -> Tensor:
        """Command [N, C] -> what the physics gets: [N, C], or [N, decimation, C] where there is a delay."""
        self.begin_step()  # where the environment has not said that one begins
        command = command.to(self._held.dtype)
        if self._dropout.size:
            lost = self._draws.uniform[:, self._dropout_draws] < self._p_lost
            self._held = command = torch.where(lost, self._held, command)
        if self._stuck.size:
            command = torch.where(self._ignores, self._start, command)
        if self._backlash.configured:
            command = self._backlash.apply(command)
        if self._line is None:
            return command
        return self._line.send(command, self._varied_delay() if self._varies else None)

    def _begin(self, rest: Tensor) -> None:
        """Until the first command arrives, the robot does what it does for an action of zero: it stays."""
        rows = self._fresh[:, None]
        self._start = torch.where(rows, rest, self._start)
        self._held = torch.where(rows, rest, self._held)
        if self._line is not None:
            self._line.fill(rest)
        self._fresh, self._any_fresh = torch.zeros_like(self._fresh), False

    def _varied_delay(self) -> Tensor:
        """This command's delay [N] in physics steps."""
        delay = self._delay_steps
        if self._jitter.size:
            normal = self._draws.normal[:, self._jitter_draws][:, 0].clamp(-_LARGEST_JITTER, _LARGEST_JITTER)
            delay = delay + self._sigma_steps * normal
        if self._congestion.configured:
            delay = delay + self._congestion.advance()
        return delay.round().long()

    def state_dict(self) -> dict[str, Any]:
        names = ("held", "start", "ignores", "p_lost", "delay_steps", "sigma_steps", "fresh")
        line = {} if self._line is None else self._line.state_dict()
        return {name: getattr(self, f"_{name}") for name in names} | {
            "any_fresh": self._any_fresh,
            "backlash": self._backlash.state_dict(),
            "congestion": self._congestion.state_dict(),
            "line": line,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in ("held", "start", "ignores", "p_lost", "delay_steps", "sigma_steps", "fresh"):
            setattr(self, f"_{name}", state[name].clone())
        self._any_fresh = state["any_fresh"]
        self._backlash.load_state_dict(state["backlash"])
        self._congestion.load_state_dict(state["congestion"])
        if self._line is not None:
            self._line.load_state_dict(state["line"])


def _longest_delay_s(parameters: list[Parameter]) -> float:
    """The longest delay that a command can have, its jitter and congestion included."""
    times_ms = {p.quantity: p.limits[1] for p in parameters}
    usual_ms = times_ms.get("action_delay", 0.0) + _LARGEST_JITTER * times_ms.get("action_delay_jitter", 0.0)
    return 1e-3 * (usual_ms + times_ms.get("action_burst_delay", 0.0))
