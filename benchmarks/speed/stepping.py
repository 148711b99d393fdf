"""Steps of randomized environments against bare `Batch.step`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from mujoco.batch import Batch

from benchmarks.speed.timing import Clocked, Row, torch_threads
from envs.engines.cpu import CpuEngine
from envs.environment import Environment
from envs.registry import make_task
from simreal.cli.suggest import suggested_block
from simreal.training.build import make_environment

# Physics, latency and noise; of them what a task has.
USUAL = (
    "body_mass", "geom_friction", "joint_damping", "actuator_gain", "gravity", "action_delay", "observation_noise",
    "observation_bias",
)  # fmt: skip
_LAYER = ("reset", "act", "schedule", "measure", "reveal", "finished")
_WARM_UP = 5  # control steps
_BLOCK = 10  # control steps of one kind in a row


def bench_stepping(task_id: str, num_envs: int, everything: bool, repeats: int) -> Row:
    """Steps of an environment with random actions, against bare `Batch.step` from the same states.

    Args:
        task_id: see `simreal envs`.
        num_envs: N.
        everything: randomize every non-visual quantity that the task has; otherwise `USUAL`.
        repeats: control steps.
    """
    block = suggested_block(make_task(task_id), None if everything else USUAL)
    with torch_threads(1):
        environment = _running(task_id, num_envs, block)
        ours, nominal, same = _durations(environment, repeats)
        share = _randomization_share(_running(task_id, num_envs, block), repeats)
    worlds = f"all {len(block['parameters'])} quantities" if everything else "physics, latency, noise"
    return Row(
        name=f"{task_id}, {num_envs} environments, {worlds}",
        reference="bare Batch.step",
        ratio=float(np.median(nominal) / np.median(ours)),
        ours_per_s=num_envs / float(np.median(ours)),
        reference_per_s=num_envs / float(np.median(nominal)),
        ratio_with_resets=float(np.sum(nominal) / np.sum(ours)),
        ratio_same_worlds=float(np.median(same) / np.median(ours)),
        shares={"randomization": share},
    )


def bench_adapter(env_id: str, num_envs: int, repeats: int) -> Row:
    """Steps of a Gymnasium environment behind the adapter against the native task of the same id, without worlds."""
    with torch_threads(1):
        environments = [make_environment(task, num_envs, seed=1) for task in (f"gymnasium:{env_id}", env_id)]
        for environment in environments:
            environment.reset()
        generator = torch.Generator().manual_seed(0)
        times: tuple[list[float], list[float]] = ([], [])
        for start in range(0, repeats, _BLOCK):
            actions = [_action(environments[0], generator) for _ in range(min(_BLOCK, repeats - start))]
            for environment, kept in zip(environments, times, strict=True):
                kept.append(_mean([_seconds(partial(environment.step, action)) for action in actions]))
    mine, theirs = (float(np.median(kept)) for kept in times)
    return Row(
        name=f"gymnasium:{env_id}, {num_envs} environments",
        reference=f"native {env_id}",
        ratio=theirs / mine,
        ours_per_s=num_envs / mine,
        reference_per_s=num_envs / theirs,
        ratio_with_resets=float(np.sum(times[1]) / np.sum(times[0])),
    )


def _running(task_id: str, num_envs: int, block: Mapping[str, Any]) -> Environment:
    """An environment in the midst of its episodes; those of goal tasks begin together, as where one learns them."""
    environment = make_environment(task_id, num_envs, block, engine="cpu", seed=1)
    environment.reset()
    if not environment.task.goal_size:
        environment.stagger()
    generator = torch.Generator().manual_seed(1)
    for _ in range(_WARM_UP):
        environment.step(_action(environment, generator))
    return environment


def _action(environment: Environment, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(environment.num_envs, environment.task.action_size, generator=generator) * 2 - 1


def _durations(environment: Environment, repeats: int) -> tuple[list[float], list[float], list[float]]:
    """Seconds per control step in each block of steps: ours, and `Batch.step` of nominal and of the same worlds.

    They take turns in blocks, the latter two from the states in which ours began its steps. Taking turns in every step
    would time ours with caches that two other simulators have just filled, which no program does. And where an episode
    ends in about every second step, a median of steps may say either what it takes with a reset or what without.
    """
    engine, task = environment.engine, environment.task
    assert isinstance(engine, CpuEngine)
    nominal, same = (Batch(task.model, environment.num_envs, engine.threads) for _ in range(2))
    generator = torch.Generator().manual_seed(0)
    times: tuple[list[float], list[float], list[float]] = ([], [], [])
    fields = {name: engine.field(name).numpy() for name in engine.state_dict()["fields"]}  # live views
    changed = _Worlds.of(fields, np.ones(environment.num_envs, dtype=bool))
    for start in range(0, repeats, _BLOCK):
        begun: list[tuple[np.ndarray, _Worlds]] = []  # states and new worlds of the steps
        seconds: list[float] = []
        for _ in range(min(_BLOCK, repeats - start)):
            action = _action(environment, generator)
            begun.append((engine.state_rows().copy(), changed))
            seconds.append(_seconds(partial(environment.step, action)))
            changed = _Worlds.of(fields, (environment.steps == 0).numpy())
        times[0].append(_mean(seconds))
        for batch, kept in ((nominal, times[1]), (same, times[2])):
            seconds = []
            for states, worlds in begun:
                if batch is same:
                    worlds.write(batch)
                batch.state[:] = states
                seconds.append(_seconds(partial(batch.step, nstep=task.decimation)))
            kept.append(_mean(seconds))
    return times


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _seconds(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


@dataclass(frozen=True)
class _Worlds:
    """Model fields of some of an engine's simulations."""

    mask: np.ndarray  # [N] bool: of which
    fields: dict[str, np.ndarray]  # [their number, ...]

    @staticmethod
    def of(fields: dict[str, np.ndarray], mask: np.ndarray) -> _Worlds:
        return _Worlds(mask, {name: values[mask] for name, values in fields.items()} if mask.any() else {})

    def write(self, batch: Batch) -> None:
        """Give a batch these fields and compute what depends on them, which may change fields: they come last again."""
        for compute_constants in (True, False):
            for name, values in self.fields.items():
                batch.expand(name)[self.mask] = values
            if compute_constants and self.fields:
                batch.set_const(self.mask)


def _randomization_share(environment: Environment, repeats: int) -> float:
    """Share of the wall time in the layer and in what it makes the engine compute."""
    clocked = Clocked()
    clocked.watch("randomization", environment.layer, *_LAYER)
    clocked.watch("randomization", environment.engine, "set_const")
    generator = torch.Generator().manual_seed(0)
    began = time.perf_counter()
    for _ in range(repeats):
        environment.step(_action(environment, generator))
    return clocked.shares(time.perf_counter() - began)["randomization"]
