"""Runs of a second, and how to compare two of them."""

from __future__ import annotations

import csv
import gc
import os
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from simreal.training.checkpoint import newest_checkpoint
from simreal.training.run_config import RunConfig, parse_config
from simreal.training.trainer import Trainer

_OFF_POLICY = {"hidden": [8], "batch_size": 16, "warmup_steps": 60, "updates_per_cycle": 5, "updates_per_step": 0.5}
_ON_POLICY = {
    "algorithm": "ppo", "horizon": 12, "segment": 4, "minibatches": 2, "epochs": 2,
    "actor_hidden": [8], "critic_hidden": [8], "memory_size": 4,
}  # fmt: skip
LEARNERS: dict[str, dict[str, Any]] = {
    "ppo": {"learner": _ON_POLICY | {"lr_schedule": "linear"}},
    "ppo lstm": {"learner": _ON_POLICY | {"memory": "lstm"}},
    "sac": {"learner": _OFF_POLICY | {"algorithm": "sac", "replay_size": 250, "lr_schedule": "linear"}},
    "td3": {"learner": _OFF_POLICY | {"algorithm": "td3", "updates_per_cycle": 3, "observation_history": 2}},
    "ddpg her": {
        "task": "FetchReach-v4",
        "learner": _OFF_POLICY | {"algorithm": "ddpg", "action_history": 2, "average_updates": 20},
    },
}
PARAMETERS: dict[str, Any] = {
    "body_mass": {"range": [0.5, 2.0]},
    "action_delay": {"range": [0, 60]},
    "action_noise": {"range": [0, 0.1]},
    "observation_delay": {"range": [0, 60]},
    "observation_noise": {"range": [0, 0.02]},
    "observation_bias": {"range": [0, 0.02]},
    "observation_dropout": {"range": [0, 0.2]},
    "adversary_action": {"range": [0, 0.1]},
}
SAMPLERS: dict[str, dict[str, Any]] = {
    "manual": {"sampler": "manual"},
    "adr": {"sampler": "adr", "performance": "return", "adr": {"buffer_size": 2, "thresholds": [-100.0, -100.0]}},
    "doraemon": {"sampler": "doraemon", "performance": "return", "doraemon": {"buffer_size": 8, "success_at": 3.0}},
}


def configuration(kind: str, sampler: str, steps: int = 600, **more: Any) -> RunConfig:
    """A run of `steps` environment steps in three environments, with a learner and a sampler of the tables above."""
    document: dict[str, Any] = {
        "task": "InvertedPendulum-v5",
        "num_envs": 3,
        "threads": 1,
        "randomization": SAMPLERS[sampler] | {"parameters": PARAMETERS},
        "train": {"env_steps": steps, "log_interval": 30, "torch_threads": 1},
        "evaluate": {"episodes": 3, "worlds": ["nominal", "trained"]},
    }
    return parse_config(document | LEARNERS[kind] | more, "test")


class Died(Exception):
    """The process is gone, without saving."""


class Script:
    """Stands where the progress display does: saves at given steps, dies at one."""

    def __init__(self, trainer: Trainer, saves: set[int], dies: int | None = None) -> None:
        self._trainer, self._saves, self._dies = trainer, saves, dies

    def __enter__(self) -> Script:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        return None

    def note(self, text: str) -> None:
        """Lines that nobody reads."""

    def update(self, steps: int, score: str, entropy: float) -> None:
        if steps in self._saves:
            self._trainer.save()
        if steps == self._dies:
            raise Died


def train(config: RunConfig, run: Path, saves: set[int] | None = None, dies: int | None = None) -> Trainer:
    """Train in a run directory, from its newest checkpoint if it has one. Raises Died."""
    (run / "checkpoints").mkdir(parents=True, exist_ok=True)
    (run / "config.yaml").write_text(config.to_yaml())
    trainer = Trainer(config, run)
    if any((run / "checkpoints").glob("step_*.safetensors")):
        trainer.load(newest_checkpoint(run))
    trainer.train(Script(trainer, saves or set(), dies))  # pyright: ignore[reportArgumentType]
    return trainer


def leaves(state: Any, prefix: str = "") -> dict[str, Any]:
    """Every leaf of nested mappings and lists by its path."""
    if isinstance(state, dict):
        items = list(state.items())
    elif isinstance(state, (list, tuple)):
        items = list(enumerate(state))
    else:
        return {prefix: state}
    return {path: leaf for key, value in items for path, leaf in leaves(value, f"{prefix}/{key}").items()}


def table(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file without the one column that tells the time."""
    with path.open(newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def unequal(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """Paths of the leaves in which two checkpoints differ, but for the time that they took."""
    found = sorted(a.keys() ^ b.keys())
    for path in a.keys() & b.keys():
        same = torch.equal(a[path], b[path]) if isinstance(a[path], torch.Tensor) else a[path] == b[path]
        if not same and path != "/seconds":
            found.append(path)
    return found


def differences(one: Path, other: Path) -> list[str]:
    """Everything in which the results of two runs differ, but for the time that they took."""
    found = [f"{name}.csv" for name in ("metrics", "adr") if table(one / f"{name}.csv") != table(other / f"{name}.csv")]
    return found + unequal(*(leaves(newest_checkpoint(run)) for run in (one, other)))


def fork() -> int:
    """`os.fork`. The child frees no engine that it finds: it would wait for threads, which are not forked."""
    child = os.fork()
    if not child:
        gc.freeze()
    return child
