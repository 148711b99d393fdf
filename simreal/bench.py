"""Speed as ratios within one process: medians of interleaved measurements, no absolute promises."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mujoco.batch import Batch
from rich.console import Console
from rich.table import Table

from envs.cpu_engine import CpuEngine, available_threads
from envs.registry import UnknownTaskError, make_task
from randomization.adr import ADR
from randomization.parameters import Parameter
from simreal.build import make_environment
from simreal.config import DDPGConfig, SACConfig
from simreal.errors import UserError
from simreal.learn.ddpg import DDPG
from simreal.learn.problem import Problem
from simreal.learn.sac import SAC
from simreal.render import Scene
from simreal.sheet import visual_block

# Physics, latency and noise for every task; `_MORE` has what is a task's own.
_RANDOMIZATION: dict[str, Any] = {
    "body_mass": {"of": "robot0:*", "range": [0.5, 2.0]},
    "geom_friction": {"range": [0.7, 1.3]},
    "joint_damping": {"of": "robot0:*", "range": [0.5, 2.0]},
    "gravity": {"of": "z", "range": [-0.5, 0.5]},
    "action_delay": {"range": [0, 40]},
    "observation_noise": {"range": [0, 0.01]},
}
_MORE: dict[str, dict[str, Any]] = {  # by the beginning of the task's id
    "Fetch": {"observation_bias": {"of": "grip_pos", "range": [0, 0.01]}},
    "HandManipulate": {
        "observation_bias": {"of": "object_pos", "range": [0, 0.01]},
        "body_size": {"of": "object", "range": [0.95, 1.05]},
        "actuator_gain": {"range": [0.75, 1.5]},
        "tendon_range": {"range": [0, 0.001]},
    },
}
_HAND: dict[str, Any] = {  # for hands with a cube, whose parts have other names
    "sampler": "manual",
    "parameters": {
        "body_mass": {"range": [0.5, 2.0]},
        "body_size": {"of": "cube", "range": [0.95, 1.05]},
        "geom_friction": {"range": [0.7, 1.3]},
        "joint_damping": {"range": [0.5, 2.0]},
        "actuator_kp": {"range": [0.75, 1.5]},
        "gravity": {"of": "z", "range": [-0.5, 0.5]},
        "action_delay": {"range": [0, 40]},
        "observation_noise": {"range": [0, 0.01]},
        "observation_bias": {"of": "cube_pos", "range": [0, 0.01]},
    },
}
_OBSERVATIONS, _ACTIONS = 28, 4  # FetchPush's sizes
_ADR_BUDGET_S = 0.002
_PICTURE = 128  # pixels along an edge


def median_seconds(functions: Sequence[Callable[[], None]], repeats: int) -> list[float]:
    """Median duration of each function, called in turn so that the machine's drift meets all alike."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(repeats):
        for function, kept in zip(functions, times, strict=True):
            began = time.perf_counter()
            function()
            kept.append(time.perf_counter() - began)
    return [float(np.median(kept)) for kept in times]


def bench_environment(task: str, num_envs: int, repeats: int) -> dict[str, Any]:
    """Steps of a randomized environment against bare `Batch.step` from the same states.

    The ratio of medians leaves out the one step in an episode's length that resets; the ratio of totals has it.
    """
    if task.endswith("Cube-v0"):
        block = _HAND
    else:
        own = next((more for family, more in _MORE.items() if task.startswith(family)), {})
        block = {"sampler": "manual", "parameters": _RANDOMIZATION | own}
    environment = make_environment(task, num_envs, block, seed=1)
    environment.reset()
    engine = environment.engine
    assert isinstance(engine, CpuEngine)
    bare = Batch(environment.task.model, num_envs, engine.threads)
    decimation = environment.task.decimation
    generator = torch.Generator().manual_seed(0)
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(repeats):
        action = torch.rand(num_envs, environment.task.action_size, generator=generator) * 2 - 1
        bare.state[:] = engine.state_rows()
        began = time.perf_counter()
        bare.step(nstep=decimation)
        middle = time.perf_counter()
        environment.step(action)
        ours.append(time.perf_counter() - middle)
        theirs.append(middle - began)
    return {
        "name": f"{task}, {num_envs} environments",
        "ratio": float(np.median(theirs) / np.median(ours)),
        "ratio_with_resets": float(np.sum(theirs) / np.sum(ours)),
        "ours_per_s": num_envs / float(np.median(ours)),
        "reference_per_s": num_envs / float(np.median(theirs)),
        "reference": "bare Batch.step",
    }


def bench_adapter(env_id: str, num_envs: int, repeats: int) -> dict[str, Any]:
    """Steps of a Gymnasium environment behind the adapter against the native task of the same id, without worlds."""
    environments = [make_environment(task, num_envs, seed=1) for task in (f"gymnasium:{env_id}", env_id)]
    for environment in environments:
        environment.reset()
    generator = torch.Generator().manual_seed(0)
    times: list[list[float]] = [[], []]
    for _ in range(repeats):
        action = torch.rand(num_envs, environments[0].task.action_size, generator=generator) * 2 - 1
        for environment, kept in zip(environments, times, strict=True):
            began = time.perf_counter()
            environment.step(action)
            kept.append(time.perf_counter() - began)
    (mine, theirs), (all_mine, all_theirs) = np.median(times, axis=1), np.sum(times, axis=1)
    return {
        "name": f"gymnasium:{env_id}, {num_envs} environments",
        "ratio": float(theirs / mine),
        "ratio_with_resets": float(all_theirs / all_mine),
        "ours_per_s": num_envs / float(mine),
        "reference_per_s": num_envs / float(theirs),
        "reference": f"native {env_id}",
    }


def _filled(learner: DDPG | SAC, problem: Problem) -> Callable[[], None]:
    """A function that makes ten updates of a learner whose replay is filled with noise."""
    n = problem.num_envs
    for _ in range(20):
        learner.replay.add(
            torch.randn(n, _OBSERVATIONS), torch.rand(n, _ACTIONS) * 2 - 1, torch.randn(n),
            torch.randn(n, _OBSERVATIONS), torch.zeros(n), torch.zeros(n, dtype=torch.bool),
        )  # fmt: skip

    def ten_updates() -> None:
        learner.updates_due = 10.0
        learner.update()

    return ten_updates


def bench_learner(algorithm: str, repeats: int) -> dict[str, Any] | None:
    """Updates per second against stable-baselines3's, same sizes and threads; None where it is not installed."""
    try:
        reference = _stable_baselines(algorithm)
    except ImportError:
        return None
    problem = Problem(256, _OBSERVATIONS, _ACTIONS, 0, 0, None, torch.device("cpu"))
    sizes: dict[str, Any] = {"hidden": (256, 256), "batch_size": 256, "replay_size": 10_000, "her_k": 0}
    ours = (
        _filled(SAC(problem, SACConfig(**sizes), 0), problem)
        if algorithm == "sac"
        else _filled(DDPG(problem, DDPGConfig(**sizes), 0), problem)
    )
    for warm_up in (ours, reference):
        warm_up()
    mine, theirs = median_seconds([ours, reference], repeats)
    return {
        "name": f"{algorithm.upper()} updates, {torch.get_num_threads()} threads",
        "ratio": theirs / mine,
        "ours_per_s": 10 / mine,
        "reference_per_s": 10 / theirs,
        "reference": "stable-baselines3",
    }


def _stable_baselines(algorithm: str) -> Callable[[], None]:
    """Ten gradient steps of stable-baselines3's learner of the same sizes. Raises ImportError without it."""
    import gymnasium
    import stable_baselines3
    from stable_baselines3.common.logger import Logger

    class Shape(gymnasium.Env[Any, Any]):
        observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (_OBSERVATIONS,), np.float32)
        action_space = gymnasium.spaces.Box(-1.0, 1.0, (_ACTIONS,), np.float32)

    kind = {"sac": stable_baselines3.SAC, "ddpg": stable_baselines3.DDPG}[algorithm]
    model = kind(
        "MlpPolicy", Shape(), batch_size=256, buffer_size=10_000, device="cpu",
        policy_kwargs={"net_arch": [256, 256]},
    )  # fmt: skip
    model.set_logger(Logger(None, []))
    random = np.random.default_rng(0)
    assert model.replay_buffer is not None
    for _ in range(5120):
        a, b = random.standard_normal((2, 1, _OBSERVATIONS)).astype(np.float32)
        action = random.uniform(-1, 1, (1, _ACTIONS)).astype(np.float32)
        model.replay_buffer.add(a, b, action, random.standard_normal(1), np.zeros(1), [{}])

    def ten_updates() -> None:
        model.train(gradient_steps=10, batch_size=256)

    return ten_updates


def bench_rendering(task_id: str, repeats: int) -> dict[str, Any]:
    """Pictures of randomized looks against nominal ones. Raises UserError where nothing can be rendered.

    Shadows and mirrors are as in the model: in software each costs more than all else, whoever asks for it.
    """
    block = visual_block(make_task(task_id))
    for name in ("light_shadow", "material_reflectance"):
        block["parameters"].pop(name, None)
    environment = make_environment(task_id, 8, block, seed=1, threads=1)
    scene = Scene(environment, _PICTURE, _PICTURE)
    environment.reset()
    ours, reference = (lambda: _take_all(scene, False)), (lambda: _take_all(scene, True))
    for warm_up in (ours, reference):
        warm_up()
    mine, theirs = median_seconds([ours, reference], repeats)
    scene.close()
    return {
        "name": f"{task_id}, pictures of {_PICTURE} x {_PICTURE}",
        "ratio": theirs / mine,
        "ours_per_s": 8 / mine,
        "reference_per_s": 8 / theirs,
        "reference": "without visual randomization",
    }


def _take_all(scene: Scene, nominal: bool) -> None:
    for index in range(8):
        scene.picture(index, nominal)


def bench_adr(repeats: int, parameters: int = 100, num_envs: int = 4096) -> dict[str, Any]:
    """Sampling worlds and recording how their episodes went, on one thread, against a budget of 2 ms."""
    chosen = [Parameter(f"p{i}", nominal=0.0, limits=(-1.0, 1.0), step=0.05) for i in range(parameters)]
    adr = ADR(chosen, buffer_size=20, thresholds=(0.4, 0.6))
    performance = torch.rand(num_envs, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def sample_and_record() -> None:
        lam, boundary = adr.sample(num_envs)
        adr.record(boundary, performance, lam)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    sample_and_record()
    (seconds,) = median_seconds([sample_and_record], 10 * repeats)
    torch.set_num_threads(threads)
    return {
        "name": f"ADR, {parameters} parameters, {num_envs} worlds sampled and recorded, 1 thread",
        "ratio": _ADR_BUDGET_S / seconds,
        "ours_per_s": num_envs / seconds,
        "reference_per_s": num_envs / _ADR_BUDGET_S,
        "reference": f"{1000 * _ADR_BUDGET_S:g} ms",
    }


def bench_command(json_file: Path | None, quick: bool, out: Console) -> None:
    """`simreal bench`: print the table, write the JSON. Raises UserError if the file cannot be written."""
    from simreal.documents import write_target

    target = None if json_file is None else write_target(json_file)
    steps, rounds = (60, 6) if quick else (300, 30)
    results: list[dict[str, Any]] = []
    for task in ("FetchReach-v4", "FetchPush-v4", "HandManipulateBlock-v1", "AllegroCube-v0"):
        for num_envs in (64, 256):
            torch.set_num_threads(1)
            out.print(f"{task}, {num_envs} environments ...", style="dim")
            try:
                results.append(bench_environment(task, num_envs, steps))
            except UnknownTaskError as error:
                out.print(f"{task} is not measured: {error}")
    for env_id in ("HalfCheetah-v5", "FetchPush-v4"):
        out.print(f"gymnasium:{env_id} ...", style="dim")
        results.append(bench_adapter(env_id, 64, steps))
    torch.set_num_threads(available_threads())
    for algorithm in ("sac", "ddpg"):
        out.print(f"{algorithm} updates ...", style="dim")
        row = bench_learner(algorithm, rounds)
        if row is None:
            out.print("stable-baselines3 is not installed: learners are not compared (pip install 'simreal[test]')")
        else:
            results.append(row)
    out.print("ADR ...", style="dim")
    results.append(bench_adr(rounds))
    try:
        for task in ("FetchPush-v4", "HalfCheetah-v5"):
            out.print(f"{task}, pictures ...", style="dim")
            results.append(bench_rendering(task, rounds))
    except UserError as error:
        out.print(f"pictures are not measured: {error}")
    out.print(results_table(results))
    if target is not None:
        target.write_text(json.dumps({"threads": available_threads(), "results": results}, indent=2) + "\n")


def results_table(results: Sequence[dict[str, Any]]) -> Table:
    """The measurements for people."""
    title = f"Ratios to the reference, {available_threads()} processors; higher is better"
    table = Table(title=title, title_justify="left", header_style="bold")
    for column in ("what", "ratio", "with resets", "per second", "reference per second", "reference"):
        table.add_column(column, justify="left" if column in ("what", "reference") else "right")
    for row in results:
        resets = row.get("ratio_with_resets")
        table.add_row(
            row["name"], f"{row['ratio']:.2f}", "" if resets is None else f"{resets:.2f}",
            f"{row['ours_per_s']:,.0f}", f"{row['reference_per_s']:,.0f}", row["reference"],
        )  # fmt: skip
    return table
