"""N environments of one task, stepped together: the loop that every learner and evaluation runs."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import fields, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from envs.common.ranks import ALONE, Share
from envs.common.rng import EpisodeRandom
from envs.common.step_records import Observed, StepResult, copied, merged, on_device
from envs.engines.base import Engine
from envs.task import Outcome, Task
from envs.task_state import preserved
from envs.validation.first_look import FirstLook, blaming
from envs.validation.step_checks import Checks


class Randomizer(Protocol):
    """Randomization of an environment: worlds, actions, commands and sensors. `NoRandomization` changes nothing."""

    def attach(self, environment: Environment) -> None:
        """Look up what the layer needs of an environment; called once, when the environment is made."""

    def reset(self, mask: Tensor) -> bool:
        """Choose new worlds for `mask` [N]; True when model constants have to be recomputed."""
        ...

    def begin_step(self) -> None:
        """Called first in every control step, before `Task.decided`."""

    def act(self, action: Tensor) -> Tensor:
        """The action [N, A] that the task gets, for a policy's action [N, A]: noisy, late, or lost."""
        ...

    def schedule(self, command: Tensor) -> Tensor | None:
        """The command that the actuators get, for a command [N, C] of the task.

        None: that command, from the first physics step on. [N, C]: another one, from the first physics step on.
        [N, nstep, C]: a command for each physics step.
        """

    @property
    def within_steps(self) -> bool:
        """Whether the layer acts within a control step, before each physics step."""
        return False

    def before_physics(self) -> None:
        """Called before each physics step, whose command has been written, where `within_steps`."""

    def measure(self, observation: Tensor, first: Tensor | None) -> Tensor:
        """The observation [N, nobs] with the errors of sensors, for a clean one [N, nobs]: a new tensor, or the clean
        one itself where no sensor errs. `first` [N] masks first observations of episodes; None for those of a step."""
        ...

    def look(self, first: Tensor | None) -> Tensor | None:
        """Pictures [N, height, width, 3] uint8 of the policy's camera, where it has one; `first` as in `measure`."""

    def reveal(self, privileged: Tensor | None) -> Tensor | None:
        """The task's privileged group [N, k] followed by the parameters of the worlds, which only the layer knows."""
        ...

    def finished(self, result: StepResult) -> None:
        """Take note of the episodes that ended (`result.done`), before they are reset. Called after every step in which
        one did; after every step on a GPU, which would have to wait to find out, and on many ranks, which find out in
        common."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that later worlds and steps depend on, as tensors and plain values."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""


class NoRandomization(Randomizer):
    """An environment as its task describes it: every method that is not here does nothing."""

    def reset(self, mask: Tensor) -> bool:
        return False

    def act(self, action: Tensor) -> Tensor:
        return action

    def measure(self, observation: Tensor, first: Tensor | None) -> Tensor:
        return observation

    def reveal(self, privileged: Tensor | None) -> Tensor | None:
        return privileged

    def state_dict(self) -> dict[str, Any]:
        return {}


class Environment:
    """N environments: task, engine and a layer of randomization.

    Args:
        task: the task; this environment attaches it to the engine.
        engine: an engine that runs the task's model.
        layer: randomization; None for the nominal world.
        seed: of every random draw; see `EpisodeRandom`.
        share: which environments of a run on many ranks these N are; None: all.
        max_episode_steps: another time limit than the task's.
    """

    def __init__(
        self,
        task: Task,
        engine: Engine,
        layer: Randomizer | None = None,
        seed: int = 0,
        share: Share | None = None,
        max_episode_steps: int | None = None,
    ) -> None:
        self.task = task
        self.engine = engine
        self.layer: Randomizer = layer or NoRandomization()
        self.num_envs = engine.num_envs
        self.device = engine.device
        self.share = share or ALONE.share(self.num_envs)
        self.rng = EpisodeRandom(seed, self.num_envs, engine.device, self.share)
        with blaming(task):
            task.attach(engine, self.rng)
        self._look = FirstLook(task, engine)
        self._command_size = engine.use_commands(task.command_fields)
        # Copying "has any episode ended?" to the host is cheap on a CPU. A GPU would have to finish all its work first:
        # there everything is computed for all environments, and masks say where it counts.
        self.sync_allowed = self.device.type == "cpu"
        n = self.num_envs
        self.checks = Checks(task, n, self.sync_allowed)
        self.steps = torch.zeros(n, dtype=torch.int64, device=self.device)
        self.episode_return = torch.zeros(n, dtype=engine.dtype, device=self.device)
        self.episode_successes = torch.zeros(n, dtype=torch.int64, device=self.device)
        self._divergences = torch.zeros((), dtype=torch.int64, device=self.device)
        self.autoreset = True  # False: the caller calls `reset` for environments that are done
        self.max_episode_steps = max_episode_steps or task.max_episode_steps
        self._over = torch.zeros(n, dtype=torch.bool, device=self.device)  # ended and not reset: without autoreset
        self._last_reward = torch.zeros(n, dtype=engine.dtype, device=self.device)
        self._observed: Observed | None = None
        self.layer.attach(self)
        if task.actuator is not None and not self.layer.within_steps:
            raise ValueError("a task with an actuator network needs a layer that runs it, as make_environment makes it")

    @property
    def divergences(self) -> int:
        """Simulations that became unstable so far."""
        return int(self._divergences)

    @property
    def observed(self) -> Observed:
        """The present observation. Raises RuntimeError before the first reset."""
        if self._observed is None:
            raise RuntimeError("reset the environments before using them")
        return self._observed

    def reset(self, mask: Tensor | None = None, seed: int | None = None) -> Observed:
        """Start new episodes in `mask` [N] (None: all); `seed` restarts the sequence of episodes."""
        with self._look.at(0):
            return self._reset(mask, seed)

    def _reset(self, mask: Tensor | None, seed: int | None) -> Observed:
        everywhere = mask is None
        if mask is None:
            mask = torch.ones(self.num_envs, dtype=torch.bool, device=self.device)
        if seed is not None:
            self.rng.seed(seed, mask)
        self._begin(mask)
        observed = self._first(mask, everywhere)
        self._observed = observed if self._observed is None else merged(mask, observed, self._observed)
        return self._observed

    def stagger(self) -> None:
        """Spread the time limits of the episodes that run now evenly, so that later episodes do not all begin and end
        together: a rollout then holds every part of an episode."""
        part = (torch.arange(self.num_envs, device=self.device) + self.share.start) / self.share.total
        self.steps += (part * self.max_episode_steps).long()

    def step(self, action: Tensor) -> StepResult:
        """One control step with actions [N, A] in [-1, 1] (clipped); finished episodes are reset."""
        with self._look.at(1):
            return self._step(action)

    def _step(self, action: Tensor) -> StepResult:
        task, engine = self.task, self.engine
        engine.refresh_written()
        self.rng.set_step(self.steps)
        action = self._act(action)
        schedule, unsound_command = self._write_command(task.command(action.clone()))
        if self.layer.within_steps or task.within_steps:
            self._step_by_step(schedule)
        else:
            engine.step(task.decimation, schedule)
        if task.step_stage is not None:
            engine.forward(stage=task.step_stage)
        task.after_step()
        self.steps += 1
        unstable = engine.diverged()
        outcome = self._outcome(action)
        observed = self._observe(None)
        nonfinite = self.checks.nonfinite_mask(observed, outcome, unsound_command, self.steps)
        diverged = unstable if nonfinite is None else unstable | nonfinite
        if not self.sync_allowed or diverged.any():
            self._count_divergence(unstable, diverged)
            observed, outcome = self._terminate_diverged(diverged, observed, outcome)
        result = self._result(observed, outcome, diverged)
        ended = not self.sync_allowed or bool(result.done.any())
        if ended or self.share.ranks.size > 1:
            self.layer.finished(result)
        if ended and self.autoreset:
            self._begin(result.done)
            result = replace(result, observed=merged(result.done, self._first(result.done), observed))
        self._observed = result.observed
        return result

    def _act(self, action: Tensor) -> Tensor:
        """The action [N, A] that the task gets, for a policy's action [N, A]."""
        action = action.to(self.device)
        self.checks.action(action, self.steps)
        action = action.clamp(-1.0, 1.0)
        self.layer.begin_step()
        self.task.decided(action.clone())  # tasks may keep what they get, and write to it
        return self.layer.act(action)

    def _write_command(self, command: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Send a task's command [N, C] on its way to the actuators.

        Returns:
            commands [N, nstep, C] for each physics step; None where one command holds for all, which is written.
            the command where it may hold what is not finite, which spoils the step; else None.
        """
        self.checks.command(command, self._command_size)
        command, unsound = self.checks.sound(command)
        schedule = self.layer.schedule(command)
        if schedule is not None and schedule.dim() == 3:
            return schedule, unsound
        self.engine.write_command(command if schedule is None else schedule)
        return None, unsound

    def _step_by_step(self, schedule: Tensor | None) -> None:
        """The physics of a control step, with what the layer does before each of its steps and the task after it."""
        for substep in range(self.task.decimation):
            if schedule is not None:
                self.engine.write_command(schedule[:, substep])
            self.layer.before_physics()
            self.engine.step(1)
            if self.task.within_steps:
                self.task.after_physics()

    def _outcome(self, action: Tensor) -> Outcome:
        """The task's outcome of the step, in tensors of its own."""
        outcome = self.task.outcome(action)
        self.checks.outcome(outcome)
        return Outcome(**{f.name: copied(getattr(outcome, f.name)) for f in fields(Outcome)})

    def _result(self, observed: Observed, outcome: Outcome, diverged: Tensor) -> StepResult:
        """What the step led to: which episodes ended, and what they have gathered so far."""
        self._last_reward = outcome.reward
        truncated = self.steps >= self.max_episode_steps
        if outcome.truncated is not None:
            truncated = truncated | outcome.truncated
        truncated = truncated & ~outcome.terminated
        done = (outcome.terminated | truncated) & ~self._over
        if not self.autoreset:
            self._over |= done
        self.episode_return += outcome.reward
        self.episode_successes += outcome.success
        return StepResult(
            observed=observed,
            final=observed,
            reward=outcome.reward,
            terminated=outcome.terminated,
            truncated=truncated,
            success=outcome.success,
            diverged=diverged,
            done=done,
            episode_return=self.episode_return.clone(),
            episode_steps=self.steps.clone(),
            episode_successes=self.episode_successes.clone(),
            terms=outcome.terms,
        )

    def _begin(self, mask: Tensor) -> None:
        """Sample a world, write it, reset the state, compute what depends on it."""
        self.rng.next_episode(mask)
        self.engine.reset(mask)
        self._over &= ~mask
        self.steps.masked_fill_(mask, 0)
        self.episode_return.masked_fill_(mask, 0.0)
        self.episode_successes.masked_fill_(mask, 0)
        self._last_reward = self._last_reward.masked_fill(mask, 0.0)
        self.task.before_reset(mask)
        if self.layer.reset(mask):
            self.engine.set_const(mask)
        self.task.reset(mask)
        self.engine.start_histories(mask)
        self.engine.forward(mask)

    def _observe(self, first: Tensor | None) -> Observed:
        """What the environments show, in tensors of its own: a task may return views of the engine, or buffers that
        it uses again."""
        self.rng.set_step(self.steps)
        task, goals = self.task, self.task.goal_size > 0
        observation, privileged = task.observe(), task.observe_privileged()
        achieved = task.achieved_goal() if goals else None
        self.checks.observation(observation, privileged, achieved)
        measured = self.layer.measure(observation, first)
        policy = observation if measured is observation else self.checks.derived(task.derive(measured), measured)
        policy = policy if policy is measured and measured is not observation else policy.clone()
        task.after_observe(policy)
        revealed = self.layer.reveal(privileged)
        return Observed(
            policy=policy,
            privileged=privileged.clone() if privileged is not None and revealed is privileged else revealed,
            achieved_goal=None if achieved is None else achieved.clone(),
            desired_goal=task.goal.clone() if goals else None,
            pictures=self.layer.look(first),
        )

    def _first(self, mask: Tensor, everywhere: bool = False) -> Observed:
        """First observations of the episodes in `mask`; zeros where they are not finite.

        What the task remembers when it observes changes in these environments only: in the others no time has passed.
        """
        with nullcontext() if everywhere or (self.sync_allowed and bool(mask.all())) else preserved(self.task, mask):
            first = self._observe(mask)
        if self.checks.nonfinite_mask(first, None, None, self.steps) is None:
            return first
        values = (first.privileged, first.achieved_goal)
        privileged, achieved = (None if v is None else torch.nan_to_num(v, 0.0, 0.0, 0.0) for v in values)
        policy = torch.nan_to_num(first.policy, 0.0, 0.0, 0.0)
        return replace(first, policy=policy, privileged=privileged, achieved_goal=achieved)

    def _count_divergence(self, unstable: Tensor, diverged: Tensor) -> None:
        """Count simulations that diverged, and warn of the first one [N] that physics says is unstable."""
        self._divergences += (diverged & ~self._over).sum()  # one that is over and not reset stays as it is
        if not self.sync_allowed or not unstable.any():
            return
        i = int(unstable.nonzero()[0])
        where = f"environment {i}, step {int(self.steps[i])}: the simulation became unstable"
        self.checks.warn_once("the simulation became unstable", f"{where}; its episode ends, the others go on")

    def _terminate_diverged(self, diverged: Tensor, final: Observed, outcome: Outcome) -> tuple[Observed, Outcome]:
        """End the episodes of simulations that diverged [N]; they show the last observation and reward before that."""
        observed = merged(diverged, self.observed, final)
        return observed, Outcome(
            reward=torch.where(diverged, self._last_reward, outcome.reward),
            terminated=outcome.terminated | diverged,
            success=outcome.success & ~diverged,
            truncated=outcome.truncated,
            terms={name: value.masked_fill(diverged, 0) for name, value in outcome.terms.items()},
        )

    def state_dict(self) -> dict[str, Any]:
        observed = self.observed
        state = {
            "engine": self.engine.state_dict(),
            "task": self.task.state_dict(),
            "layer": self.layer.state_dict(),
            "rng": self.rng.state_dict(),
            "steps": self.steps,
            "episode_return": self.episode_return,
            "episode_successes": self.episode_successes,
            "over": self._over,
            "divergences": self.divergences,
            "last_reward": self._last_reward,
            "observed": {key: value for key, value in vars(observed).items() if value is not None},
        }
        return copied(state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        state = copied(on_device(state, self.device))
        self.engine.load_state_dict(state["engine"])
        self.task.load_state_dict(state["task"])
        self.layer.load_state_dict(state["layer"])
        self.rng.load_state_dict(state["rng"])
        for name in ("steps", "episode_return", "episode_successes"):
            getattr(self, name).copy_(state[name])
        self._over.copy_(state["over"])
        self._divergences.fill_(state["divergences"])
        self._last_reward = state["last_reward"]
        self._observed = Observed(**{f.name: state["observed"].get(f.name) for f in fields(Observed)})
