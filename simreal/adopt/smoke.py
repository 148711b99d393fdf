"""A short training of an adopted robot: does it learn?"""

from __future__ import annotations

import contextlib
import csv
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.console import Console

from simreal.common.errors import UserError
from simreal.training.build import make_environment
from simreal.training.run_config import RunConfig, load_config

RUN = Path("runs") / "smoke"
_MEASURED_S = 1.0
_SHARE = 0.45  # of the steps per second of stepping alone that a training makes
_ROWS = 20  # of metrics
_CURVES = {"success_rate": 1.0, "return": 1.0, "term/linear_error": -1.0, "term/distance": -1.0, "term/off": -1.0}
_GAIN = 0.05  # share by which a curve has to get better


def smoke_run(folder: Path, seconds: float, out: Console) -> bool:
    """Train in the package's folder for about so many seconds, and say what became of it. Returns whether it learns.

    Raises:
        UserError, Interrupted: as `simreal train`.
    """
    from simreal.cli.commands import train_command

    with within(folder):
        config = load_config("config.yaml", [])
        steps = _affordable(config, seconds)
        out.print(f"smoke run: {steps:,} steps, about {seconds:g} s of training in {folder / RUN} ...")
        interval = max(steps // _ROWS, config.num_envs)
        overrides = [f"train.env_steps={steps}", f"train.log_interval={interval}", "evaluate.episodes=20",
                     "evaluate.worlds=[nominal]", *_shorter(config, steps)]  # fmt: skip
        train_command("config.yaml", overrides, RUN, False, out)
        text, learns = verdict(RUN / "metrics.csv")
    out.print(f"smoke run: {text}")
    return learns


def _shorter(config: RunConfig, steps: int) -> list[str]:
    """What a run of few steps needs: less time at random."""
    warmup = getattr(config.learner, "warmup_steps", None)
    return [] if warmup is None or warmup < steps // 4 else [f"learner.warmup_steps={max(steps // 4, 1)}"]


@contextlib.contextmanager
def within(folder: Path) -> Iterator[None]:
    """Work in a folder, whose module `task` is this package's."""
    stale = sys.modules.pop("task", None)
    path = list(sys.path)
    try:
        with contextlib.chdir(folder):
            sys.path.insert(0, str(Path.cwd()))
            yield
    finally:
        sys.path[:] = path
        sys.modules.pop("task", None)
        if stale is not None:
            sys.modules["task"] = stale


def _affordable(config: RunConfig, seconds: float) -> int:
    """Environment steps that a training makes in so many seconds, by how quick random actions are."""
    environment = make_environment(config.task, config.num_envs, None, threads=config.threads)
    environment.reset()
    shape = (environment.num_envs, environment.task.action_size)
    environment.step(torch.zeros(shape))
    began, steps = time.perf_counter(), 0
    while (took := time.perf_counter() - began) < _MEASURED_S:
        environment.step(2.0 * torch.rand(shape) - 1.0)
        steps += environment.num_envs
    share = _SHARE if config.learner.algorithm == "ppo" else 0.3 * _SHARE
    per_update = config.num_envs * int(getattr(config.learner, "horizon", 1))
    return max(round(share * steps / took * seconds / per_update), 2) * per_update


def verdict(metrics: Path) -> tuple[str, bool]:
    """What the first and the last fifth of a training's rows say of it, from the first end of an episode on.

    Raises UserError where there are none.
    """
    if not metrics.is_file():
        raise UserError(f"{metrics}: the training left no curve")
    with metrics.open() as file:
        rows = [row for row in csv.DictReader(file) if float(row.get("episodes") or 0) > 0]
    told, better = list[str](), list[bool]()
    for name, sign in _CURVES.items():
        values = [float(row[name]) for row in rows if row.get(name) not in (None, "", "nan")]
        if len(values) < 2:
            continue
        part = max(len(values) // 5, 1)
        first, last = sum(values[:part]) / part, sum(values[-part:]) / part
        words = name.removeprefix("term/").replace("_", " ")
        told.append(f"{words} {first:.3g} -> {last:.3g}")
        better.append(sign * (last - first) > _GAIN * abs(first))
    learns = any(better)
    begin = "it learns" if learns else "no progress yet: train longer, and look at the terms of the reward"
    return f"{begin} ({', '.join(told) or 'no episode has ended'})", learns
