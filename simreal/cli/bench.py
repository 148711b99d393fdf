"""`simreal bench`: how fast tasks step and policies learn on this machine."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from envs.platform.menagerie import ModelUnavailableError
from envs.platform.processors import available_threads
from simreal.common.atomic_files import write_text
from simreal.common.json_io import write_target
from simreal.evaluation.compare import plain_table
from simreal.training.build import make_environment, make_learner
from simreal.training.run_config import RunConfig, load_config
from simreal.training.trainer import update_threads

CONFIGS = ("fetch_reach", "half_cheetah", "go1_velocity")
_SECONDS = 3.0  # that each measurement takes, at least
_COLUMNS = {
    "config": "configuration", "task": "task", "num_envs": "environments",
    "steps_per_s": "steps/s, random actions", "training_steps_per_s": "steps/s, training", "update_s": "s per update",
}  # fmt: skip


def bench_command(names: Sequence[str], json_file: Path | None, out: Console) -> None:
    """Measure configurations; print a table and write JSON.

    Args:
        names: YAML files or names of shipped configurations; CONFIGS where there is none.
        json_file: gets {"threads", "results": [a row of `bench_config`]}.
        out: where the table goes.

    Raises:
        UserError: a configuration is wrong, or the file cannot be written.
    """
    configs = {name: load_config(name) for name in names or CONFIGS}
    target = None if json_file is None else write_target(json_file, ".json")
    rows = []
    for name, config in configs.items():
        out.print(f"{name} ...", style="dim")
        try:
            rows.append(bench_config(name, config))
        except ModelUnavailableError as error:
            out.print(f"not measured: {error}")
    texts, numbers = list(_COLUMNS.values())[:2], list(_COLUMNS.values())[2:]
    table = plain_table(f"Speed with {available_threads()} processors", texts, numbers)
    for row in rows:
        table.add_row(*map(_shown, row.values()))
    out.print(table)
    if target is not None:
        write_text(target, json.dumps({"threads": available_threads(), "results": rows}, indent=2) + "\n")


def bench_config(name: str, config: RunConfig) -> dict[str, Any]:
    """Speed of a configuration: its task in its worlds, and its learner.

    Returns:
        "config", "task", "num_envs", "steps_per_s" (environment steps with random actions), "training_steps_per_s"
        (with the policy's actions and the updates), "update_s" (seconds between two collections).
    """
    torch.set_num_threads(1)
    environment = make_environment(
        config.task, config.num_envs, config.randomization, engine=config.engine, seed=config.seed,
        threads=config.threads, task_options=config.task_options, gpu=config.gpu.options(),
        sensors=config.sensors, observation=config.observation,
    )  # fmt: skip
    environment.reset()
    learner, threads = make_learner(config, environment), update_threads(config)
    updating: list[float] = []
    size = (environment.num_envs, environment.task.action_size)

    def step() -> int:
        environment.step(2.0 * torch.rand(size, device=environment.device) - 1.0)
        return environment.num_envs

    def collect_and_update() -> int:
        steps = 0
        while not learner.ready():
            observed = environment.observed
            action = learner.act(observed)
            learner.record(observed, action, environment.step(action))
            steps += environment.num_envs
        torch.set_num_threads(threads)
        updating.append(_timed(learner.update)[1])
        torch.set_num_threads(1)
        return steps

    steps_per_s = _per_second(step, _SECONDS)
    training_per_s = _per_second(collect_and_update, _SECONDS)
    update_s = sum(updating[1:]) / (len(updating) - 1)
    return dict(zip(_COLUMNS, (name, config.task, size[0], steps_per_s, training_per_s, update_s), strict=True))


def _per_second(work: Callable[[], int], seconds: float) -> float:
    """What `work` counts, per second; its first call prepares things once and is left out."""
    work()
    count = spent = 0.0
    while spent < seconds:
        done, took = _timed(work)
        count, spent = count + done, spent + took
    return count / spent


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Result of a call, and its duration in s until the GPU has finished too."""
    began = time.perf_counter()
    result = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return result, time.perf_counter() - began


def _shown(value: Any) -> str:
    return str(value) if not isinstance(value, float) else f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
