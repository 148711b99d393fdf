"""What the wall time of a training loop goes into."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from benchmarks.speed.timing import Clocked, Row, torch_threads
from simreal.training.run_config import load_config
from simreal.training.trainer import Trainer

_ENGINE = ("step", "forward", "set_const", "reset", "refresh_written")


def bench_loop(config_name: str, rollouts: int) -> Row:
    """The whole loop of a shipped PPO configuration: collecting and learning, without logs and checkpoints."""
    config = load_config(config_name)
    with tempfile.TemporaryDirectory() as folder, torch_threads(1):
        trainer = Trainer(config, Path(folder))
        learn_from_rollouts(trainer, 1)
        clocked = Clocked()
        clocked.watch("physics", trainer.environment.engine, *_ENGINE)
        clocked.watch("policy", trainer.learner, "act")
        clocked.watch("update", trainer.learner, "update")
        before, began = trainer.env_steps, time.perf_counter()
        learn_from_rollouts(trainer, rollouts)
        seconds = time.perf_counter() - began
    return Row(
        name=f"PPO loop, {config_name}, {config.num_envs} environments",
        reference="",
        ratio=None,
        ours_per_s=(trainer.env_steps - before) / seconds,
        shares=clocked.shares(seconds),
    )


def learn_from_rollouts(trainer: Trainer, rollouts: int) -> None:
    """Collect rollouts and learn from each."""
    for _ in range(rollouts):
        while not trainer.learner.ready():
            trainer._collect()
        trainer._learn()
