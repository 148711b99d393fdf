"""One trial of a sweep: trained with each seed and judged, or broken off where its curve lies below the others'."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from simreal.cli.commands import EVALUATION, assess, train_run
from simreal.evaluation.metrics import Metric
from simreal.study.sweep.spec import PruneSpec, SweepSpec
from simreal.training.checkpoint import checkpoints, newest_checkpoint
from simreal.training.monitoring.metrics_log import read_columns
from simreal.training.monitoring.progress import Progress
from simreal.training.run_config import RunConfig

LOOKS = 10  # at the curve of a training
Curve = Mapping[int, float]
"""What is seen at each look: the last value that was logged by then."""


class BrokenOff(Exception):
    """The curve of a trial lies below the others'."""


@dataclass(frozen=True)
class Trial:
    """What is to be trained.

    Attributes:
        name: of its runs, less the seed.
        values: by key of the configuration.
        bars: what the best value so far must reach at a look.
    """

    name: str
    values: dict[str, Any]
    bars: Curve

    def runs(self, spec: SweepSpec) -> list[str]:
        """Names of its runs."""
        return [f"{self.name}-{seed}" for seed in spec.seeds]


@dataclass(frozen=True)
class Outcome:
    """What became of a trial: its value, None where it was broken off, and its curve."""

    value: float | None
    curve: Curve


def bars(prune: PruneSpec | None, curves: Sequence[Curve]) -> dict[int, float]:
    """The medians of judged trials at each look from which a trial may be broken off; none before there are enough.

    The rule is that of optuna's MedianPruner; here it is fixed before a round of trials begins, wherever they are made.
    """
    if prune is None or len(curves) < prune.others:
        return {}
    found: dict[int, float] = {}
    for look in range(max(1, round(prune.after * LOOKS)), LOOKS):
        seen = [curve[look] for curve in curves if look in curve]
        if seen:
            found[look] = float(np.median(seen))
    return found


def make_trial(
    spec: SweepSpec, measure: Metric, trial: Trial, folder: Path, threads: int | None, out: Console
) -> Outcome:
    """Train and judge a trial, as far as it has not been done.

    Args:
        spec: of the sweep.
        measure: what its task is judged by.
        trial: the trial.
        folder: that holds `runs`.
        threads: of configurations that name none.
        out: where progress goes.
    """
    means: list[float] = []
    curve: Curve = {}
    for i, (seed, name) in enumerate(zip(spec.seeds, trial.runs(spec), strict=True)):
        config, run = spec.config_of(trial.values, seed), folder / "runs" / name
        if config.threads is None and threads is not None:
            config = config.model_copy(update={"threads": threads})
        total = config.learner.run_length(config.train.env_steps)
        try:
            _train(config, run, total, _watcher(trial, run, total, measure.column) if i == 0 else None, out)
        except BrokenOff:
            out.print(f"{run}: broken off: below the median of the others at the same step")
            return Outcome(None, curve_of(run, total, measure.column))
        curve = curve or curve_of(run, total, measure.column)
        document = json.loads((run / EVALUATION).read_text())
        means.append(sum(world[measure.mean] for world in document["worlds"]) / len(document["worlds"]))
    return Outcome(sum(means) / len(means), curve)


def curve_of(run: Path, total: int, column: str) -> dict[int, float]:
    """The curve of a run so far. It is that of metrics.csv, so a run that was resumed has all of it."""
    table = read_columns(run / "metrics.csv")
    steps = next(iter(table.values()), [])
    seen = [(step, value) for step, value in zip(steps, table.get(column, []), strict=False) if not math.isnan(value)]
    found: dict[int, float] = {}
    for look in range(1, LOOKS):
        values = [value for step, value in seen if step * LOOKS <= look * total]
        if values and steps[-1] * LOOKS >= look * total:
            found[look] = values[-1]
    return found


def _watcher(trial: Trial, run: Path, total: int, column: str) -> Callable[[int], None] | None:
    """Called with the steps made; raises BrokenOff where the curve is low. None where nothing is compared yet."""
    if not trial.bars:
        return None
    looked = 0

    def watch(steps: int) -> None:
        nonlocal looked
        look = min(steps * LOOKS // total, LOOKS - 1)
        if look <= looked:
            return
        looked = look
        curve = curve_of(run, total, column)
        for at, bar in trial.bars.items():
            best = max((value for seen, value in curve.items() if seen <= at), default=math.inf)
            if at <= look and best < bar:
                raise BrokenOff

    return watch


def _train(config: RunConfig, run: Path, total: int, watch: Callable[[int], None] | None, out: Console) -> None:
    """Train and evaluate a run, as far as it has not been done."""
    reached = checkpoints(run / "checkpoints")
    if not reached or int(reached[-1].stem.removeprefix("step_")) < total:
        train_run(
            config, run, newest_checkpoint(run, config.task) if reached else None, out,
            display=lambda *arguments: _Watched(watch, *arguments),
        )  # fmt: skip
    if not (run / EVALUATION).is_file():
        assess(run, out)


class _Watched(Progress):
    """A display that also tells a watcher how far a training is."""

    def __init__(self, watch: Callable[[int], None] | None, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._watch = watch

    def update(self, steps: int, score: str, entropy: float) -> None:
        super().update(steps, score, entropy)
        if self._watch is not None:
            self._watch(steps)
