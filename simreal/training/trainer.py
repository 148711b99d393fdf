"""The training loop: collect, learn, widen, log, save."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from envs.common.fast_matmul import thread_independent
from envs.common.safe_yaml import one_line
from envs.environment import Environment
from envs.platform.processors import available_threads
from randomization.randomizer import DomainRandomizer
from simreal.common.errors import UserError
from simreal.evaluation.metrics import metric_of
from simreal.learners.base import Learner
from simreal.learners.nan_guard import NanGuard
from simreal.training.best import BestPolicy
from simreal.training.build import learner_device, make_environment, make_learner
from simreal.training.checkpoint import MISFITS, save_checkpoint, save_failed_update
from simreal.training.episode_statistics import EpisodeStatistics
from simreal.training.metrics_log import RunLog
from simreal.training.progress import Progress
from simreal.training.run_config import RunConfig
from simreal.training.run_directory import given_policies
from simreal.training.threads import UpdateThreads


class Interrupted(Exception):
    """Training was interrupted; a checkpoint has been written."""


class NonFiniteUpdate(UserError):
    """An update ended in NaN or infinity; the state before it has been written."""


class SignalHandler:
    """Notes SIGINT and SIGTERM while `listening`, for the loop to stop; a second signal raises KeyboardInterrupt."""

    def __init__(self) -> None:
        self.requested = False

    def _handle(self, signum: int, frame: Any) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True

    @contextlib.contextmanager
    def listening(self) -> Iterator[SignalHandler]:
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
_MOST_TIME_SAVING = 0.01  # share of the training time; where a checkpoint takes longer there are fewer


def seconds_between_saves(interval_s: float, took_s: float) -> float:
    """Seconds without a checkpoint after one that took `took_s`, where `interval_s` are configured."""
    return max(interval_s, took_s / _MOST_TIME_SAVING)


_SMALL_PRODUCT = 8_000_000  # multiply-adds; smaller matrix products lose more to a second thread than they gain


def update_threads(config: RunConfig) -> int:
    """Torch threads of an update on an idle machine: one where its matrix products are small, else all processors."""
    return 1 if config.learner.largest_product(config.num_envs) < _SMALL_PRODUCT else available_threads()


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
        self._metric = metric_of(self.environment.task)
        if config.learner.STAGGERED:
            self.environment.stagger()
        self.learner: Learner = make_learner(config, self.environment, given_policies(config))
        self._device = learner_device(config.device)
        self.statistics = EpisodeStatistics(1 if self._device.type == "cpu" else _GPU_STEPS)
        self.env_steps = 0  # or sweeps, see `LearnerOptions.COUNTS`
        self._acts = config.learner.COUNTS == "env_steps"
        self.seconds = 0.0  # of training, evaluation and start-up not counted
        first = config.train.torch_threads or update_threads(config)
        adaptive = config.train.torch_threads is None and self._device.type == "cpu" and thread_independent()
        self._threads = UpdateThreads(available_threads() if adaptive else first, first, adaptive)
        self._guard = NanGuard(self.learner)
        about = self.environment.task, self.environment.max_episode_steps, self.learner.spec
        self._best = BestPolicy(config, run, *about) if config.train.keep == "best" else None

    @property
    def layer(self) -> DomainRandomizer:
        """The randomization that the run trains under."""
        layer = self.environment.layer
        assert isinstance(layer, DomainRandomizer)
        return layer

    def train(self, progress: Progress) -> None:
        """Train to the configured number of steps, or of sweeps.

        Raises:
            Interrupted: by SIGINT or SIGTERM, after saving.
            NonFiniteUpdate: an update ended in NaN or infinity, after saving the state before it.
            UserError: the disk refuses; what was saved before is intact.
        """
        config = self.config.train
        started = time.monotonic()
        next_save = started + config.checkpoint_interval_s
        before = self.seconds
        total = self.config.learner.run_length(config.env_steps)
        log = RunLog(self.run, self.layer.sampler, self.env_steps, self.config.learner.COUNTS)
        with SignalHandler().listening() as stop, log, progress:
            self._learn()  # nothing, unless the checkpoint is one before an update that failed
            while self.env_steps < total:
                self._proceed()
                self._learn()
                self.seconds = before + time.monotonic() - started
                if not self._acts or self.env_steps % config.log_interval < self.config.num_envs:
                    log.write(self.env_steps, self._row())
                progress.update(self.env_steps, self._score(), self.layer.sampler.entropy())
                if self._best is not None and self._best.due(self.env_steps):
                    before -= self._judge(self._best, progress)
                if stop.requested:
                    self._save(log)
                    raise Interrupted
                if time.monotonic() > next_save:
                    took = self._save(log)
                    next_save = time.monotonic() + seconds_between_saves(config.checkpoint_interval_s, took)
            if self._best is not None:
                self._judge(self._best, progress)
            self._save(log)

    def _judge(self, best: BestPolicy, progress: Progress) -> float:
        """Keep the better of the present policy and the kept one; returns the seconds that it took."""
        began = time.monotonic()
        told = best.judge(self.env_steps, self.learner.policy, self.layer.sampler)
        if told is not None:
            progress.note(told)
        return time.monotonic() - began

    def _save(self, log: RunLog) -> float:
        """Write a checkpoint that the logs are not behind; returns the seconds that it took."""
        began = time.monotonic()
        log.sync()
        self.save()
        return time.monotonic() - began

    def _proceed(self) -> None:
        """A step of the environments, or the beginning of a sweep."""
        if self._acts:
            self._collect()
            return
        self.learner.proceed()
        self.env_steps += 1

    def _collect(self) -> None:
        observed = self.environment.observed.to(self._device)
        action = self.learner.act(observed)
        result = self.environment.step(action).to(self._device)
        self.learner.record(observed, action, result)
        self.statistics.add_reward_terms(result.terms)
        self.statistics.add_episodes(result)
        self.env_steps += self.config.num_envs

    def _learn(self) -> None:
        broken = self.learn()
        if broken:
            checkpoint = self.save()
            kept = save_failed_update(self.run, checkpoint, broken)
            raise NonFiniteUpdate(
                f"{self.run}: step {self.env_steps:,}: {broken[0]} after an update; the state before it is in "
                f"{checkpoint}, `python -m simreal.training.replay_failure {kept}` repeats it; lower the learning rate"
            )

    def learn(self) -> list[str]:
        """An update, if one is due. If it ends in NaN or infinity it is taken back: returns what was not finite."""
        if not self.learner.ready():
            return []
        self._guard.snapshot()
        self._threads.begin()
        try:
            metrics = self.learner.update(self._threads.step)
        finally:
            self._threads.end()
        broken = self._guard.nonfinite(metrics)
        if broken:
            self._guard.restore()
        else:
            self.statistics.learner = metrics
        return broken

    def _score(self) -> str:
        if not self._acts:
            return " ".join(f"{name} {value:.3g}" for name, value in list((self.statistics.learner or {}).items())[:2])
        return f"{self._metric.name} {self.statistics.metrics()[self._metric.column]:.2f}"

    def _row(self) -> dict[str, float]:
        if not self._acts:
            return (self.statistics.learner or {}) | {"seconds": self.seconds}
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
            self._guard = NanGuard(self.learner)
            if self._best is not None:
                self._best.load(checkpoint, self.learner.policy, self.layer.sampler)
        except MISFITS as error:
            raise UserError(f"{self.run}: the checkpoint does not fit the configuration: {one_line(error)}") from None
