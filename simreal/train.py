"""The training loop: collect, learn, widen, log, save."""

from __future__ import annotations

import contextlib
import signal
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from envs.environment import Environment, StepResult
from envs.matmul import thread_independent
from envs.processors import available_threads
from randomization.environment import Randomization
from simreal.build import learner_device, make_environment, make_learner
from simreal.checkpoint import save_checkpoint
from simreal.config import PPOConfig, RunConfig
from simreal.errors import UserError
from simreal.failure import keep_evidence
from simreal.learn.guard import Guard
from simreal.learn.problem import Learner
from simreal.logs import RunLog
from simreal.measure import metric_of
from simreal.progress import Progress
from simreal.threads import UpdateThreads


class Interrupted(Exception):
    """Training was interrupted; a checkpoint has been written."""


class NumbersLost(UserError):
    """An update ended in NaN or infinity; the state before it has been written."""


class Stop:
    """Set by SIGINT and SIGTERM while `listening`; a second signal interrupts at once."""

    def __init__(self) -> None:
        self.requested = False

    def _handle(self, signum: int, frame: Any) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True

    @contextlib.contextmanager
    def listening(self) -> Iterator[Stop]:
        """Catch the signals within a block (in the main thread; elsewhere nothing is caught)."""
        try:
            previous = [signal.signal(s, self._handle) for s in (signal.SIGINT, signal.SIGTERM)]
        except ValueError:
            yield self
            return
        try:
            yield self
        finally:
            for s, handler in zip((signal.SIGINT, signal.SIGTERM), previous, strict=True):
                signal.signal(s, handler)


_GPU_STEPS = 16  # steps whose episodes are counted at once


@dataclass
class Statistics:
    """Averages over the last episodes, of the reward's terms since the last row, and what the learner last reported."""

    success: deque[float]
    returns: deque[float]
    successes: deque[float]
    episodes: int = 0
    learner: dict[str, float] | None = None
    terms: Tensor | None = None  # sums over environments and steps
    term_names: tuple[str, ...] = ()
    steps: int = 0  # that `terms` sums up
    keep_steps: int = 1  # more on a GPU, which has to finish its work to say which episodes ended
    kept: list[tuple[Tensor, ...]] = field(default_factory=list)  # steps whose episodes are not counted yet

    @classmethod
    def new(cls, window: int = 100) -> Statistics:
        return cls(deque(maxlen=window), deque(maxlen=window), deque(maxlen=window))

    def finished(self, result: StepResult) -> None:
        """Take in the episodes that ended with a step."""
        sound = ~result.diverged
        self.kept.append((result.done, sound, result.success, result.episode_return, result.episode_successes))
        if len(self.kept) >= self.keep_steps:
            self.count()

    def count(self) -> None:
        """Count the episodes that are not counted yet."""
        steps = [torch.stack(column).cpu() for column in zip(*self.kept, strict=True)]
        for done, sound, success, returns, successes in zip(*steps, strict=True):
            self.success += success[done].double().tolist()
            self.returns += returns[done & sound].double().tolist()  # else finite, and nonsense
            self.successes += (successes * sound)[done].double().tolist()
            self.episodes += int(done.sum())
        self.kept = []

    def took(self, terms: dict[str, Tensor]) -> None:
        """Take in the terms [N] of the reward of a step."""
        if not terms:
            return
        sums = torch.stack(tuple(terms.values())).sum(dim=1)
        self.terms = sums if self.terms is None else self.terms.to(sums) + sums
        self.term_names = tuple(terms)
        self.steps += len(next(iter(terms.values())))

    def row(self) -> dict[str, float]:
        """A row for the logs; averages of terms start anew."""
        self.count()
        row = self.metrics()
        if self.terms is not None:
            means = (self.terms / self.steps).tolist()
            row |= {f"term/{name}": value for name, value in zip(self.term_names, means, strict=True)}
            self.terms, self.steps = None, 0
        return row

    def success_rate(self) -> float:
        """Share of recent episodes that ended in success; 0 before the first."""
        return sum(self.success) / max(len(self.success), 1)

    def mean_return(self) -> float:
        """Mean return of recent episodes; 0 before the first."""
        return sum(self.returns) / max(len(self.returns), 1)

    def mean_successes(self) -> float:
        """Mean number of steps with success in recent episodes; 0 before the first."""
        return sum(self.successes) / max(len(self.successes), 1)

    def metrics(self) -> dict[str, float]:
        """Averages over episodes, and of the learner."""
        row = {
            "episodes": float(self.episodes),
            "success_rate": self.success_rate(),
            "successes": self.mean_successes(),
            "return": self.mean_return(),
        }
        return row | (self.learner or {})

    def state_dict(self) -> dict[str, Any]:
        self.count()
        return {
            "success": list(self.success),
            "returns": list(self.returns),
            "successes": list(self.successes),
            "episodes": self.episodes,
            "learner": self.learner,
            "terms": self.terms,
            "term_names": list(self.term_names),
            "steps": self.steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.success.extend(state["success"])
        self.returns.extend(state["returns"])
        self.successes.extend(state["successes"])
        self.episodes, self.learner = state["episodes"], state["learner"]
        self.terms, self.steps = state["terms"], state["steps"]
        self.term_names = tuple(state["term_names"])


_MOST_TIME_SAVING = 0.01  # share of the training time; where a checkpoint takes longer there are fewer


def seconds_between_saves(interval_s: float, took_s: float) -> float:
    """Seconds without a checkpoint after one that took `took_s`, where `interval_s` are configured."""
    return max(interval_s, took_s / _MOST_TIME_SAVING)


_SMALL_PRODUCT = 8_000_000  # multiply-adds; smaller matrix products lose more to a second thread than they gain


def update_threads(config: RunConfig) -> int:
    """Torch threads of an update on an idle machine: one where its matrix products are small, else all processors."""
    learner = config.learner
    if isinstance(learner, PPOConfig):
        hidden, batch = learner.actor_hidden, config.num_envs * learner.horizon // learner.minibatches
    else:
        hidden, batch = learner.hidden, learner.batch_size
    largest = batch * max(a * b for a, b in zip(hidden, hidden[1:] or hidden, strict=False))
    return 1 if largest < _SMALL_PRODUCT else available_threads()


class Trainer:
    """One run: environment, learner and everything that a checkpoint holds.

    Args:
        config: validated.
        run: the run directory, which exists.
    """

    def __init__(self, config: RunConfig, run: Path) -> None:
        self.config, self.run = config, run
        self.environment: Environment = make_environment(
            config.task, config.num_envs, config.randomization,
            engine=config.engine, seed=config.seed, threads=config.threads,
            task_options=config.task_options, gpu=config.gpu.options(),
        )  # fmt: skip
        self.environment.reset()
        self._measure = metric_of(self.environment.task)
        if isinstance(config.learner, PPOConfig):
            self.environment.stagger()
        self.learner: Learner = make_learner(config, self.environment)
        self._device = learner_device(config.device)
        self.statistics = Statistics.new()
        if self._device.type != "cpu":
            self.statistics.keep_steps = _GPU_STEPS
        self.env_steps = 0
        self.seconds = 0.0  # of training, evaluation and start-up not counted
        first = config.train.torch_threads or update_threads(config)
        adaptive = config.train.torch_threads is None and self._device.type == "cpu" and thread_independent()
        self._threads = UpdateThreads(available_threads() if adaptive else first, first, adaptive)
        self._guard = Guard(self.learner)

    @property
    def layer(self) -> Randomization:
        """The randomization that the run trains under."""
        layer = self.environment.layer
        assert isinstance(layer, Randomization)
        return layer

    def train(self, progress: Progress) -> None:
        """Train to the configured number of steps.

        Raises:
            Interrupted: by SIGINT or SIGTERM, after saving.
            NumbersLost: an update ended in NaN or infinity, after saving the state before it.
            UserError: the disk refuses; what was saved before is intact.
        """
        config = self.config.train
        started = time.monotonic()
        next_save = started + config.checkpoint_interval_s
        before = self.seconds
        with Stop().listening() as stop, RunLog(self.run, self.layer.sampler, self.env_steps) as log, progress:
            self._learn()  # nothing, unless the checkpoint is one before an update that failed
            while self.env_steps < config.env_steps:
                self._collect()
                self._learn()
                self.seconds = before + time.monotonic() - started
                if self.env_steps % config.log_interval < self.config.num_envs:
                    log.write(self.env_steps, self._row())
                progress.update(self.env_steps, self._score(), self.layer.sampler.entropy())
                if stop.requested:
                    self._save(log)
                    raise Interrupted
                if time.monotonic() > next_save:
                    took = self._save(log)
                    next_save = time.monotonic() + seconds_between_saves(config.checkpoint_interval_s, took)
            self._save(log)

    def _save(self, log: RunLog) -> float:
        """Write a checkpoint that the logs are not behind; returns the seconds that it took."""
        began = time.monotonic()
        log.sync()
        self.save()
        return time.monotonic() - began

    def _collect(self) -> None:
        observed = self.environment.observed.to(self._device)
        action = self.learner.act(observed)
        result = self.environment.step(action).to(self._device)
        self.learner.record(observed, action, result)
        self.statistics.took(result.terms)
        if self.statistics.keep_steps > 1 or bool(result.done.any()):
            self.statistics.finished(result)
        self.env_steps += self.config.num_envs

    def _learn(self) -> None:
        broken = self.learn()
        if broken:
            checkpoint = self.save()
            kept = keep_evidence(self.run, checkpoint, broken)
            raise NumbersLost(
                f"{self.run}: step {self.env_steps:,}: {broken[0]} after an update; the state before it is in "
                f"{checkpoint}, `python -m simreal.failure {kept}` repeats it; lower the learning rate"
            )

    def learn(self) -> list[str]:
        """An update, if one is due. If it ends in NaN or infinity it is taken back: returns what was not finite."""
        if not self.learner.ready():
            return []
        self._guard.remember()
        self._threads.begin()
        try:
            metrics = self.learner.update(self._threads.step)
        finally:
            self._threads.end()
        broken = self._guard.broken(metrics)
        if broken:
            self._guard.take_back()
        else:
            self.statistics.learner = metrics
        return broken

    def _score(self) -> str:
        return f"{self._measure.name} {self.statistics.metrics()[self._measure.column]:.2f}"

    def _row(self) -> dict[str, float]:
        extra = {"seconds": self.seconds, "divergences": float(self.environment.divergences)}
        return self.statistics.row() | extra

    def save(self) -> Path:
        """Write a checkpoint of everything that changes during training."""
        content = {
            "task": self.config.task,
            "config": self.config.to_yaml(),
            "seconds": self.seconds,
            "learner": self.learner.state_dict(),
            "environment": self.environment.state_dict(),
            "statistics": self.statistics.state_dict(),
        }
        return save_checkpoint(self.run / "checkpoints", self.env_steps, content, self.config.train.keep_checkpoints)

    def load(self, checkpoint: dict[str, Any]) -> None:
        """Continue from a checkpoint, bit for bit. Raises UserError if it does not fit this configuration."""
        try:
            self.learner.load_state_dict(checkpoint["learner"])
            self.environment.load_state_dict(checkpoint["environment"])
            self.statistics.load_state_dict(checkpoint["statistics"])
            self.env_steps, self.seconds = checkpoint["env_steps"], checkpoint["seconds"]
            self._guard = Guard(self.learner)
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{self.run}: the checkpoint does not fit the configuration: {reason}") from None
