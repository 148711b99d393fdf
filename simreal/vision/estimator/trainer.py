"""The estimator's training loop: take a round of pictures, judge the boundaries, learn, log, save."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from envs.common.safe_yaml import one_line
from envs.platform.processors import available_threads
from randomization.samplers.adr import ADR
from simreal.common.errors import UserError
from simreal.learners.adam import Adam
from simreal.training.build import learner_device
from simreal.training.checkpoint import MISFITS, save_checkpoint
from simreal.training.monitoring.metrics_log import CsvLog, bounds_of
from simreal.training.monitoring.progress import Progress
from simreal.training.trainer import Interrupted, SignalHandler, seconds_between_saves
from simreal.vision.datasets.plan import worlds_of
from simreal.vision.estimator.config import EstimatorConfig
from simreal.vision.estimator.network import EstimatorNetwork
from simreal.vision.estimator.rounds import FolderRounds, FreshRounds, Round, Rounds

_LARGEST_GRADIENT = 10.0
_JUDGED_AT_ONCE = 256


class EstimatorTrainer:
    """One training: everything that a checkpoint holds. A resumed one has the same bits.

    Args:
        config: validated.
        run: its directory, which exists.
        trusted: the task's name, where it is code that the user has named.

    Attributes:
        looks: the sampler of looks.
        network: what is learnt.
        frames: pictures so far.
    """

    def __init__(self, config: EstimatorConfig, run: Path, trusted: str | None = None) -> None:
        self.config, self.run, self._trusted = config, run, trusted
        task = config.make_task()
        self.targets = config.find_targets(task)
        self.looks = worlds_of(task, config.randomization).looks
        self._device = learner_device(config.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.network = EstimatorNetwork(self.targets, len(config.cameras), config.network).to(self._device)
        self.network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self._optimizer = Adam(self.network.parameters(), config.train.learning_rate)
        self.frames = self._round = 0
        self._asked = self.looks.state_dict()  # of the looks, as the round to be taken was asked for
        self.seconds = 0.0
        self._seen: dict[str, list[float]] = {}

    def train(self, out: Console) -> None:
        """Train to the configured number of pictures.

        Raises:
            Interrupted: by SIGINT or SIGTERM, after saving.
            UserError: the disk refuses, or nothing can be rendered.
        """
        config = self.config.train
        before, started = self.seconds, time.monotonic()
        next_save = started + config.checkpoint_interval_s
        threads = torch.get_num_threads()
        torch.set_num_threads(config.torch_threads or 1)
        metrics = CsvLog(self.run / "metrics.csv", self.frames)
        bounds = CsvLog(self.run / "adr.csv", self.frames)
        rounds = self._rounds()
        adr = isinstance(self.looks, ADR)
        progress = Progress(config.frames, self.frames, out, adr, "frames")
        try:
            with SignalHandler().listening() as stop, progress:
                if self.frames < config.frames:
                    rounds.ask(self._round, self._asked)
                while self.frames < config.frames:
                    logged = self.frames // config.log_interval
                    self._proceed(rounds)
                    self.seconds = before + time.monotonic() - started
                    progress.update(min(self.frames, config.frames), self._score(), self.looks.entropy())
                    if self.frames // config.log_interval > logged or self.frames >= config.frames:
                        metrics.write({"frames": self.frames, **self._row(), "seconds": self.seconds})
                        bounds.write({"frames": self.frames, **bounds_of(self.looks)})
                    if stop.requested or time.monotonic() > next_save:
                        began = time.monotonic()
                        self._save(metrics, bounds)
                        took = time.monotonic() - began
                        next_save = time.monotonic() + seconds_between_saves(config.checkpoint_interval_s, took)
                    if stop.requested:
                        raise Interrupted(f"interrupted at frame {self.frames:,}")
                self._save(metrics, bounds)
        finally:
            rounds.close()
            torch.set_num_threads(threads)

    def _rounds(self) -> Rounds:
        if self.config.pictures.folder is not None:
            return FolderRounds(self.config, self.targets)
        return FreshRounds(self.config, self.targets, self._trusted)

    def _proceed(self, rounds: Rounds) -> None:
        """Take a round and learn from it, while the next one is rendered: in looks as they are before this one is
        judged."""
        looks = self.looks.state_dict()
        rounds.ask(self._round + 1, looks)
        taken = rounds.take()
        self._asked = looks
        if self._round == 0:
            self.network.fit_scales(_on(self._device, taken.truths))
        ordinary = taken.boundary < 0
        if not bool(ordinary.all()):
            self._judge(taken.where(~ordinary))
        self._learn(taken.where(ordinary))
        self.frames += len(taken)
        self._round += 1

    def _judge(self, at_boundary: Round) -> None:
        """Tell the sampler which pictures at boundaries are read well; they are not learnt from (arXiv 1910.07113)."""
        right = torch.cat([
            self._right(at_boundary.pictures[i : i + _JUDGED_AT_ONCE], at_boundary.truths, i)
            for i in range(0, len(at_boundary), _JUDGED_AT_ONCE)
        ])  # fmt: skip
        self.looks.record(at_boundary.boundary, right.double(), at_boundary.worlds)

    @torch.no_grad()
    def _right(self, pictures: Tensor, truths: dict[str, Tensor], start: int) -> Tensor:
        """Whether all targets of pictures [b] are within their thresholds."""
        outputs = self.network(pictures.to(self._device))
        right = torch.ones(len(pictures), dtype=torch.bool, device=self._device)
        for target in self.targets:
            truth = truths[target.name][start : start + len(pictures)].to(self._device)
            right &= target.error(target.estimate(outputs[target.name])[0], truth) <= target.within
        return right.cpu()

    def _learn(self, taken: Round) -> None:
        """Gradient steps on a round's pictures, in a random order that the seed and the round fix."""
        config, generator = self.config.train, torch.Generator().manual_seed(self.config.seed * 1_000_003 + self._round)
        size = min(config.batch_size, len(taken))  # a round has fewer where many pictures are at boundaries
        if not size:
            return
        steps, made = config.passes * (len(taken) // size), 0
        for _ in range(config.passes):
            order = torch.randperm(len(taken), generator=generator)
            for start in range(0, len(taken) - size + 1, size):
                at = self.frames + len(taken) * made / steps
                self._optimizer.lr = annealed(config.learning_rate, at / config.frames)
                self._step(taken, order[start : start + size])
                made += 1

    def _step(self, taken: Round, rows: Tensor) -> None:
        pictures = taken.pictures[rows].to(self._device)
        truths = _on(self._device, {name: values[rows] for name, values in taken.truths.items()})
        outputs = self.network(pictures)
        loss = self.network.loss(outputs, truths)
        self._optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), _LARGEST_GRADIENT)
        self._optimizer.step()
        seen = {"loss": float(loss.detach())}
        with torch.no_grad():
            for target in self.targets:
                value, _ = target.estimate(outputs[target.name])
                seen[target.name] = float(target.error(value, truths[target.name]).median())
        if not math.isfinite(seen["loss"]):
            raise UserError(f"{self.run}: frame {self.frames:,}: the loss is not finite; lower train.learning_rate")
        for name, value in seen.items():
            self._seen.setdefault(name, []).append(value)

    def _row(self) -> dict[str, float]:
        """Means since the last row: the loss, and of each target the median error when they are learnt from."""
        row = {("loss" if n == "loss" else f"{n}.median_error"): sum(v) / len(v) for n, v in self._seen.items()}
        self._seen = {}
        return row

    def _score(self) -> str:
        texts = []
        for target in self.targets:
            if self._seen.get(target.name):
                texts.append(f"{target.name} {self._seen[target.name][-1]:.3g} {target.unit}")
        return " ".join(texts[:2])

    def _save(self, *logs: CsvLog) -> None:
        """Write a checkpoint that the logs are not behind."""
        for log in logs:
            log.sync()
        content = {
            "task": self.config.task,
            "config": self.config.to_yaml(),
            "seconds": self.seconds,
            "round": self._round,
            "network": dict(self.network.state_dict()),
            "optimizer": self._optimizer.state_dict(),
            "looks": self.looks.state_dict(),
            "asked": self._asked,
            "seen": self._seen,
        }
        save_checkpoint(self.run / "checkpoints", self.frames, content, self.config.train.keep_checkpoints)

    def load(self, checkpoint: dict[str, Any]) -> None:
        """Continue from a checkpoint, bit for bit. Raises UserError if it does not fit this configuration."""
        try:
            self.network.load_state_dict(checkpoint["network"])
            self._optimizer.load_state_dict(checkpoint["optimizer"])
            self.looks.load_state_dict(checkpoint["looks"])
            self._asked, self._round = checkpoint["asked"], checkpoint["round"]
            self.frames, self.seconds = checkpoint["env_steps"], checkpoint["seconds"]
            self._seen = {name: list(values) for name, values in checkpoint["seen"].items()}
        except MISFITS as error:
            raise UserError(f"{self.run}: the checkpoint does not fit the configuration: {one_line(error)}") from None


def annealed(rate: float, share: float) -> float:
    """A learning rate that falls to 0 along a cosine, when `share` of the training is over."""
    return rate * 0.5 * (1.0 + math.cos(math.pi * min(share, 1.0)))


def with_estimator_threads(config: EstimatorConfig, started: int | None) -> EstimatorConfig:
    """The configuration with the threads of a gradient step written out: those of the run, where there is one."""
    if config.train.torch_threads is not None:
        return config
    train = config.train.model_copy(update={"torch_threads": started or max(available_threads() // 2, 1)})
    return config.model_copy(update={"train": train})


def _on(device: torch.device, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.to(device) for name, tensor in tensors.items()}
