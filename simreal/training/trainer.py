"""The training loop: collect, learn, widen, log, save."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch

from envs.common.fast_matmul import thread_independent
from envs.common.ranks import ALONE, Ranks, Share
from envs.common.safe_yaml import one_line
from envs.common.step_records import on_device
from envs.environment import Environment
from envs.platform.processors import available_threads, shared_by
from randomization.randomizer import DomainRandomizer
from simreal.common.errors import ElsewhereError, UserError
from simreal.evaluation.metrics import metric_of
from simreal.learners.base import Learner
from simreal.training.best import BestPolicy
from simreal.training.build import learner_device, make_environment, make_learner
from simreal.training.checkpoint import MISFITS, checkpoint_path, save_checkpoint, save_failed_update
from simreal.training.monitoring.episode_statistics import EpisodeStatistics
from simreal.training.monitoring.metrics_log import NoLog, RunLog
from simreal.training.monitoring.progress import Progress
from simreal.training.monitoring.rank_clock import RankClock
from simreal.training.run_config import RunConfig
from simreal.training.run_directory import given_policies
from simreal.training.shards import Layout, check_alike
from simreal.training.updates.background import Background
from simreal.training.updates.nan_guard import NanGuard
from simreal.training.updates.threads import UpdateThreads


class Interrupted(Exception):
    """Training was interrupted; a checkpoint has been written."""


class NonFiniteUpdate(UserError):
    """An update ended in NaN or infinity; the state before it has been written."""


class SignalHandler:
    """Notes SIGINT and SIGTERM while `listening`, for the loop to stop; a second signal raises KeyboardInterrupt.

    Attributes:
        one_signal_s: signals closer together are one: a terminal sends it to all processes, and so does torchrun.
    """

    one_signal_s: ClassVar[float] = 0.5

    def __init__(self) -> None:
        self.requested = False
        self._at = 0.0

    def _handle(self, signum: int, frame: Any) -> None:
        if self.requested and time.monotonic() - self._at > self.one_signal_s:
            raise KeyboardInterrupt
        self.requested, self._at = True, time.monotonic()

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
_RANKS_STEPS = 16  # steps between two agreements of ranks: what to count, whether to save or to stop
_COMPARED = 32  # updates between two looks whether ranks have the same state
_MOST_TIME_SAVING = 0.01  # share of the training time; where a checkpoint takes longer there are fewer


def seconds_between_saves(interval_s: float, took_s: float) -> float:
    """Seconds without a checkpoint after one that took `took_s`, where `interval_s` are configured."""
    return max(interval_s, took_s / _MOST_TIME_SAVING)


_SMALL_PRODUCT = 8_000_000  # multiply-adds; smaller matrix products lose more to a second thread than they gain


def update_threads(config: RunConfig) -> int:
    """Torch threads of an update on an idle machine: one where its matrix products are small, else all processors, or
    half of them where physics runs beside it."""
    if config.observation is None and config.learner.largest_product(config.num_envs) < _SMALL_PRODUCT:
        return 1
    return max(available_threads() // (2 if config.train.overlap else 1), 1)


def physics_threads(config: RunConfig) -> int | None:
    """Threads of physics: those configured, or what an update beside it leaves; None takes all processors. So it does
    beside updates of on-policy learners, which take less time than a rollout."""
    if config.threads is not None or not config.train.overlap or config.learner.STAGGERED:
        return config.threads
    return max(available_threads() - update_threads(config), 1)


class Trainer:
    """One run: environment, learner and everything that a checkpoint holds.

    Args:
        config: validated.
        run: the run directory, which exists.
        ranks: of the run; each makes a trainer, and the first one writes.

    Raises:
        UserError: there are more ranks than environments, or the learner runs on one process only.
    """

    def __init__(self, config: RunConfig, run: Path, ranks: Ranks = ALONE) -> None:
        self.config, self.run, self.ranks = config, run, ranks
        self._overlaps = config.train.overlap
        if config.num_envs < ranks.size:
            raise UserError(f"num_envs: expected at least {ranks.size}, one for each rank, got {config.num_envs}")
        self._share = ranks.share(config.num_envs)
        self.environment: Environment = self._make_environment(self._share.count, self._share)
        self._metric = metric_of(self.environment.task)
        if config.learner.STAGGERED:
            self.environment.stagger()
        self.learner: Learner = make_learner(config, self.environment, given_policies(config))
        self._device = learner_device(config.device)
        if self._overlaps:
            self.learner.talk_through(self.ranks.beside())
        self._background: Background[tuple[dict[str, float], list[str]]] = Background(self._device)
        self._learnt: dict[str, float] | None = None  # told by an update beside, to be logged once its time is over
        at_once = _RANKS_STEPS if ranks.size > 1 else 1 if self._device.type == "cpu" else _GPU_STEPS
        self.statistics = EpisodeStatistics(at_once, ranks)
        self._clock = RankClock(ranks)
        self._updates = 0  # made in this process
        self.env_steps = 0  # or sweeps, see `LearnerOptions.COUNTS`
        self._acts = config.learner.COUNTS == "env_steps"
        self.seconds = 0.0  # of training, evaluation and start-up not counted
        first = config.train.torch_threads or update_threads(config)
        free = config.train.torch_threads is None and config.observation is None
        adaptive = free and self._device.type == "cpu" and thread_independent()
        alone = (lambda: self._background.awaited) if self._overlaps else None
        self._threads = UpdateThreads(available_threads() if adaptive else first, first, adaptive, alone, first)
        self._guard = NanGuard(self.learner, self._overlaps)
        about = self.environment.task, self.environment.max_episode_steps, self.learner.spec
        self._best = BestPolicy(config, run, *about) if config.train.keep == "best" and ranks.first else None

    def _make_environment(self, num_envs: int, share: Share | None = None) -> Environment:
        """Environments of the run, after their first reset."""
        config = self.config
        environment = make_environment(
            config.task, num_envs, config.randomization,
            engine=config.engine, seed=config.seed, threads=physics_threads(config),
            task_options=config.task_options, gpu=config.gpu.options(), share=share, sensors=config.sensors,
            observation=config.observation,
        )  # fmt: skip
        environment.reset()
        return environment

    @cached_property
    def _layout(self) -> Layout:
        """How the state is divided among ranks."""
        return Layout(type(self.learner).ROWS or {}, self.environment, self._make_environment)

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
            LostRankError: another rank has ended.
        """
        config = self.config.train
        started = time.monotonic()
        next_save = started + config.checkpoint_interval_s
        before = self.seconds
        total = self.config.learner.run_length(config.env_steps)
        log: RunLog | NoLog = NoLog()
        if self.ranks.first:
            log = RunLog(self.run, self.layer.sampler, self.env_steps, self.config)
        with SignalHandler().listening() as stop, log, progress, self.overlapping():
            self._learn()  # nothing, unless the checkpoint is one before an update that failed
            while self.env_steps < total:
                self._proceed()
                self._learn()
                self.seconds = before + time.monotonic() - started
                if not self._acts or self.env_steps % config.log_interval < self.config.num_envs:
                    for text in log.write(self.env_steps, self._row()):
                        progress.note(f"curriculum: {text}")
                progress.update(self.env_steps, self._score(), self.layer.sampler.entropy())
                if self._best is not None and self._best.due(self.env_steps):
                    before -= self._judge(self._best, progress)
                stops, saves = self._agreed(stop.requested, time.monotonic() > next_save)
                if stops:
                    self._save(log)
                    raise Interrupted
                if saves:
                    took = self._save(log)
                    next_save = time.monotonic() + seconds_between_saves(config.checkpoint_interval_s, took)
            if self._best is not None:
                self._judge(self._best, progress)
            self._save(log)

    @contextlib.contextmanager
    def overlapping(self) -> Iterator[None]:
        """Within the block updates can run beside collecting; at its end the last one is made."""
        if not self._overlaps:
            yield
            return
        with self._background:
            yield
            self._settle()

    def _agreed(self, stop: bool, save: bool) -> tuple[bool, bool]:
        """Whether the run stops, as any rank was told, and whether it saves, as the first one's clock says."""
        if self.ranks.size == 1:
            return stop, save
        if self.env_steps // self.config.num_envs % _RANKS_STEPS:
            return False, False
        told = torch.tensor([float(stop), float(save and self.ranks.first)])
        self.ranks.sum_(told)
        return bool(told[0]), bool(told[1])

    def _judge(self, best: BestPolicy, progress: Progress) -> float:
        """Keep the better of the present policy and the kept one; returns the seconds that it took."""
        self._settle()
        began = time.monotonic()
        with shared_by(1):  # the other ranks wait
            told = best.judge(self.env_steps, self.learner.policy, self.layer.sampler)
        if told is not None:
            progress.note(told)
        return time.monotonic() - began

    def _save(self, log: RunLog | NoLog) -> float:
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
        with self._clock.physics():
            result = self.environment.step(action).to(self._device)
        self.learner.record(observed, action, result)
        self.statistics.add_reward_terms(result.terms)
        self.statistics.add_episodes(result)
        self.env_steps += self.config.num_envs

    def _learn(self) -> None:
        """The update that is due, if one is; where the run overlaps it begins, and is made beside the next steps."""
        if not self._overlaps:
            self._fail(self.learn())
            return
        if not self.due:
            return
        if not self._was_begun:
            drawn = self.learner.draw()
            self._settle(drawn)
            self.statistics.learner = self._learnt or self.statistics.learner
            self.learner.begin(drawn)
        self._guard.snapshot()
        self._background.start(self._update)

    @property
    def _was_begun(self) -> bool:
        """Whether an update has begun and does not run: the run was saved before it, after it had failed."""
        return not self._background.busy and self.learner.begun is not None

    def _settle(self, next_drawn: Any = None) -> None:
        """Wait for the update that runs beside, if one does. Raises NonFiniteUpdate, after what was drawn for the next
        one was put back."""
        if not self._background.busy:
            return
        metrics, broken = self._background.finish()
        if self._counted(broken) and next_drawn is not None:
            self.learner.put_back(next_drawn)
        self._fail(broken)
        self._learnt = metrics

    @property
    def due(self) -> bool:
        """Whether an update has to be made, or had begun when the run was saved."""
        return self._was_begun or self.learner.ready()

    def _fail(self, broken: list[str]) -> None:
        """Save the state before an update that was taken back. Raises NonFiniteUpdate if `broken` says why."""
        if not broken:
            return
        checkpoint = self.save()
        if not self.ranks.first:
            raise ElsewhereError(broken[0])
        kept = save_failed_update(self.run, checkpoint, broken)
        raise NonFiniteUpdate(
            f"{self.run}: step {self.env_steps:,}: {broken[0]} after an update; the state before it is in "
            f"{checkpoint}, `python -m simreal.training.replay_failure {kept}` repeats it; lower the learning rate"
        )

    def learn(self) -> list[str]:
        """An update, if one is due. If it ends in NaN or infinity it is taken back: returns what was not finite."""
        if not self.due:
            return []
        self._guard.snapshot()
        metrics, broken = self._update()
        if not self._counted(broken):
            self.statistics.learner = metrics
        return broken

    def _update(self) -> tuple[dict[str, float], list[str]]:
        """Make an update; returns what to log, and what was not finite."""
        self._threads.begin()
        try:
            with self._clock.learning(self.learner.ranks):
                metrics = self.learner.update(self._threads.step)
        finally:
            self._threads.end()
        return metrics, self._guard.nonfinite(metrics)

    def _counted(self, broken: list[str]) -> list[str]:
        """Count an update, look whether it is the same on all ranks, and take it back if it is `broken`."""
        self._updates += 1
        if self.ranks.size > 1 and self._updates % _COMPARED == 0:
            check_alike(self.learner.common_state() | {"sampler": self.layer.sampler.state_dict()}, self.ranks)
        if broken:
            self._guard.restore()
        return broken

    def _score(self) -> str:
        if not self._acts:
            return " ".join(f"{name} {value:.3g}" for name, value in list((self.statistics.learner or {}).items())[:2])
        return f"{self._metric.name} {self.statistics.metrics()[self._metric.column]:.2f}"

    def _row(self) -> dict[str, float]:
        if not self._acts:
            return (self.statistics.learner or {}) | {"seconds": self.seconds}
        divergences = sum(self.ranks.objects(self.environment.divergences))
        extra = {"seconds": self.seconds, "divergences": float(divergences)}
        return self.statistics.row() | extra | self._clock.row()

    def save(self) -> Path:
        """Write a checkpoint of everything that changes during training: the first rank, of all; the others wait."""
        self._settle()
        content = {
            "task": self.config.task,
            "config": self.config.to_yaml(),
            "seconds": self.seconds,
            "learner": self.learner.state_dict(),
            "environment": self.environment.state_dict(),
            "statistics": self.statistics.state_dict(),
            "learnt": self._learnt,
        }
        if self.ranks.size > 1:
            divided = {name: on_device(content[name], torch.device("cpu")) for name in ("learner", "environment")}
            everywhere = self.ranks.collected(divided)
            content |= {} if everywhere is None else self._layout.join(everywhere)
        folder = self.run / "checkpoints"
        if self.ranks.first:
            save_checkpoint(folder, self.env_steps, content, self.config.train.keep_checkpoints)
        self.ranks.objects(None)
        return checkpoint_path(folder, self.env_steps)

    def load(self, checkpoint: dict[str, Any] | None) -> None:
        """Continue from a checkpoint, bit for bit; of ranks only the first one needs to have it. Raises UserError if it
        does not fit this configuration."""
        try:
            if self.ranks.size > 1:
                whole = None if checkpoint is None else self._layout.split(checkpoint, self._share)
                checkpoint = self.ranks.dealt(whole)
            assert checkpoint is not None
            if "collector" in checkpoint["learner"] and not self._overlaps:
                raise UserError(f"{self.run}: train.overlap: the run has a rollout under way beside; expected true")
            self.learner.load_state_dict(checkpoint["learner"])
            self.environment.load_state_dict(checkpoint["environment"])
            self.statistics.load_state_dict(checkpoint["statistics"])
            self.env_steps, self.seconds = checkpoint["env_steps"], checkpoint["seconds"]
            self._learnt = checkpoint.get("learnt")  # earlier versions had none
            self._guard = NanGuard(self.learner, self._overlaps)
            if self._best is not None:
                self._best.load(checkpoint, self.learner.policy, self.layer.sampler)
        except MISFITS as error:
            raise UserError(f"{self.run}: the checkpoint does not fit the configuration: {one_line(error)}") from None
