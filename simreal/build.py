"""Puts an environment together from what a configuration or a caller names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from envs.cpu_engine import CpuEngine
from envs.environment import Environment
from envs.registry import make_task
from randomization.environment import Randomization
from randomization.samplers import Sampler
from randomization.spec import RandomizationConfig, randomization_config

EngineName = Literal["auto", "cpu", "gpu"]


class UserError(Exception):
    """The user's input is wrong; the message is one line and the command exits with status 2."""


def make_environment(
    task_id: str,
    num_envs: int,
    randomization: str | Path | Mapping[str, Any] | RandomizationConfig | None = None,
    *,
    engine: EngineName = "auto",
    seed: int = 0,
    threads: int | None = None,
    sampler: Sampler | None = None,
    explore: bool = True,
) -> Environment:
    """N environments of a task, batched in torch.

    Args:
        task_id: see `simreal envs`.
        num_envs: N.
        randomization: the worlds; see `randomization_config`.
        engine: "cpu"; "auto" chooses it.
        seed: of every random draw.
        threads: physics threads; None takes all that this process may use.
        sampler: use this sampler instead of a new one (to evaluate in a trained distribution).
        explore: see `Randomization`.

    Raises:
        UnknownTaskError, RandomizationError: naming what is wrong and what is nearest.
    """
    if num_envs < 1:
        raise UserError(f"num_envs: expected at least 1, got {num_envs}")
    if engine == "gpu":
        raise UserError("engine: 'gpu' is not available in this version, use 'cpu' or 'auto'")
    task = make_task(task_id)
    config = randomization_config(randomization)
    if sampler is None:
        sampler = config.sampler_for(task)
    layer = Randomization(sampler, config.performance, explore)
    return Environment(task, CpuEngine(task.model, num_envs, threads), layer, seed)


def default_device() -> torch.device:
    """CUDA where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
