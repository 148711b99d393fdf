"""What never losing work costs: checks of numbers, the memory of the last good state, and checkpoints."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed.timing import Clocked, Row, torch_threads
from benchmarks.speed.training_loop import learn_from_rollouts
from simreal.training.run_config import load_config
from simreal.training.trainer import Trainer, seconds_between_saves

_CHECKS = ("observation", "command", "outcome", "action", "sound", "nonfinite_mask")


def bench_safety(config_name: str, updates: int) -> Row:
    """Shares of a shipped configuration's training time; a replay is full when it is saved, as late in a run."""
    config = load_config(config_name)
    with tempfile.TemporaryDirectory() as folder, torch_threads(1):
        trainer = Trainer(config, Path(folder))
        learn_from_rollouts(trainer, 2)
        clocked = Clocked()
        clocked.watch("checks", trainer.environment.checks, *_CHECKS)
        clocked.watch("last good state", trainer._guard, "snapshot", "nonfinite")
        replay: Any = getattr(trainer.learner, "replay", None)
        if replay is not None:
            clocked.watch("checkpoints", replay, "_note_what_follows")  # what makes them compact
        before, began = trainer.env_steps, time.perf_counter()
        learn_from_rollouts(trainer, updates)
        seconds = time.perf_counter() - began
        shares = clocked.shares(seconds)
        if replay is not None:
            fill(replay)
        began = time.perf_counter()
        path = trainer.save()
        took_s = time.perf_counter() - began
        size = path.stat().st_size
    noting = shares.get("checkpoints", 0.0)
    saving = took_s / (took_s + seconds_between_saves(config.train.checkpoint_interval_s, took_s))
    return Row(
        name=f"{config.learner.algorithm.upper()}, {config_name}: checkpoint of {size / 1e6:,.1f} MB in {took_s:.2g} s",
        reference="",
        ratio=None,
        ours_per_s=(trainer.env_steps - before) / seconds,
        shares={**{name: share for name, share in shares.items() if name != "rest"}, "checkpoints": saving + noting},
    )


def fill(replay: Any) -> None:
    """Fill a replay as many episodes would: the last observation of an episode of 50 steps has no successor."""
    replay._rows.normal_()
    replay._follows.copy_(torch.rand(replay._follows.shape) > 0.02)
    replay._valid.fill_(True)
    replay._time = replay.slots
