"""Speed of the GPU engine against a bare loop of `mujoco_warp.step`, of training with it, and its memory."""

from __future__ import annotations

import gc
import importlib
import importlib.util
import json
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.speed.command import Case, chosen
from benchmarks.speed.gpu_graph import Record, StepGraph, cuda_graph
from envs.engines.cpu import CpuEngine
from envs.engines.gpu.host_sync import no_waits_if_asked
from envs.environment import Environment
from envs.platform.menagerie import ModelUnavailableError
from envs.registry import make_task, task_ids
from randomization.parameters import RandomizationError
from simreal.common.atomic_files import write_text
from simreal.common.errors import UserError
from simreal.learners.base import LearnerSpec
from simreal.learners.on_policy.ppo import PPO
from simreal.learners.options import PPOConfig
from simreal.training.build import make_environment

T = TypeVar("T")
TASKS = ("Go1Velocity-v0", "FetchPush-v4", "AllegroCube-v0")
SIZES = (1024, 4096, 16384)
_CPU_ENVS = 1024
_TRAINED = 4096  # environments of the training loop
_RANDOMIZATION: dict[str, Any] = {
    "sampler": "manual",
    "parameters": {
        "body_mass": {"range": [0.7, 1.4]},
        "geom_friction": {"range": [0.7, 1.3]},
        "gravity": {"of": "z", "range": [-0.5, 0.5]},
        "action_delay": {"range": [0, 20]},
        "observation_noise": {"range": [0, 0.01]},
    },
}
_PPO: dict[str, Any] = {
    "actor_hidden": (512, 256, 128), "critic_hidden": (512, 256, 128), "horizon": 24, "epochs": 5, "minibatches": 4,
}  # fmt: skip


@dataclass(frozen=True)
class Lengths:
    """How long to measure."""

    chunk: int = 20  # control steps between two looks at the clock
    chunks: int = 10
    updates: int = 5


class Clock:
    """Time that a device spends; on CUDA it has to finish first."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def time(self, function: Callable[[], T]) -> tuple[T, float]:
        """What a call returns and its duration in s, with everything that it sets off."""
        self._finish()
        began = time.perf_counter()
        result = function()
        self._finish()
        return result, time.perf_counter() - began

    def seconds(self, function: Callable[[], object]) -> float:
        """Duration of a call, with everything that it sets off."""
        return self.time(function)[1]

    def _finish(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


class BareLoop:
    """`mujoco_warp.step` on the environments' model and states, one captured control step at a time.

    It steps a model and data of its own: no field differs between its worlds, and nothing else is done.

    Args:
        environment: on the GPU engine.
    """

    _STATE = ("time", "qpos", "qvel", "act", "qacc_warmstart", "mocap_pos", "mocap_quat")

    def __init__(self, environment: Environment) -> None:
        mjw, wp = importlib.import_module("mujoco_warp"), importlib.import_module("warp")
        kernels = importlib.import_module("envs.engines.gpu.kernels")
        engine: Any = environment.engine
        self._engine, self._device = engine, wp.device_from_torch(engine.device)
        room = {"nconmax": engine.room.contacts, "njmax": engine.room.constraints}
        with kernels.on_torch_stream(self._device):
            model = mjw.put_model(engine.model)
            data = mjw.make_data(engine.model, nworld=engine.num_envs, **room)
        model.opt.warn_overflow = 0
        self._recorder = kernels.Recorder(self._device)
        flat = lambda name: wp.to_torch(getattr(data, name)).view(engine.num_envs, -1)  # noqa: E731
        self._views = {name: flat(name) for name in self._STATE if getattr(data, name).size}
        self._ctrl = flat("ctrl") if data.ctrl.size else None
        self._decimation = environment.task.decimation
        self._step_once = lambda: mjw.step(model, data)

    def take_state(self) -> None:
        """Start from where the environments are."""
        for name, view in self._views.items():
            view.copy_(self._engine.data(name).view_as(view))

    def step(self, ctrl: Tensor, mocap: tuple[Tensor, Tensor] | None) -> None:
        """One control step with the controls [N, nu] and mocap poses that the environments had."""
        if self._ctrl is not None:
            self._ctrl.copy_(ctrl)
        if mocap is not None:
            for name, pose in zip(("mocap_pos", "mocap_quat"), mocap, strict=True):
                self._views[name].copy_(pose.view_as(self._views[name]))
        self._recorder.run("step", self._launch)

    def _launch(self) -> None:
        for _ in range(self._decimation):
            self._step_once()


def bench_engine(
    task: str, num_envs: int, randomized: bool, lengths: Lengths, one_graph: bool = False
) -> dict[str, Any]:
    """Control steps of environments against those of the bare loop, from the same states with the same controls.

    With `one_graph` the same environments are also stepped as one CUDA graph per control step.
    """
    before = _free_bytes()
    environment = made(task, num_envs, randomized)
    device = environment.device
    clock = Clock(device)
    generator = torch.Generator(device).manual_seed(0)
    shape = (lengths.chunk, num_envs, environment.task.action_size)
    commands: list[tuple[Tensor, tuple[Tensor, Tensor] | None]] = []
    engine = environment.engine
    mocap = environment.task.model.nmocap > 0

    def ours(watched: bool = True) -> None:
        commands.clear()
        for row in 2.0 * torch.rand(shape, generator=generator, device=device) - 1.0:
            with no_waits_if_asked(device) if watched else nullcontext():
                environment.step(row)
            poses = (engine.data("mocap_pos").clone(), engine.data("mocap_quat").clone()) if mocap else None
            commands.append((engine.data("ctrl").clone(), poses))

    ours(watched=False)  # kernels are loaded, graphs recorded, what is made once is made
    used = before - _free_bytes()
    bare = BareLoop(environment)

    def theirs() -> None:
        for ctrl, poses in commands:
            bare.step(ctrl, poses)

    theirs()
    mine, reference = [], []
    for _ in range(lengths.chunks):
        bare.take_state()
        mine.append(clock.seconds(ours))
        reference.append(clock.seconds(theirs))
    steps = lengths.chunk * num_envs
    own, other = _median(mine), _median(reference)
    everyone = torch.ones(num_envs, dtype=torch.bool, device=device)
    parts = {
        "physics": 1e3 * other / lengths.chunk,
        "environment": 1e3 * (own - other) / lengths.chunk,
        "of_it_forward": 1e3 * clock.seconds(lambda: engine.forward(everyone)),
        "of_it_set_const": 1e3 * clock.seconds(lambda: engine.set_const(everyone)),
    }
    return {
        "name": f"{task}, {num_envs} environments{', randomized' if randomized else ''}",
        "ratio": other / own,
        "ours_per_s": steps / own,
        "reference_per_s": steps / other,
        "reference": "captured mujoco_warp.step",
        "bytes_per_env": used / num_envs,
        "ms_per_control_step": parts,
    } | (bench_one_graph(environment, lengths, clock) if one_graph else {})


def bench_one_graph(
    environment: Environment, lengths: Lengths, clock: Clock, record: Record = cuda_graph
) -> dict[str, Any]:
    """Control steps of environments, each replayed as one graph; or why that cannot be."""
    if record is cuda_graph and environment.device.type != "cuda":
        return {"one_graph": "needs CUDA"}
    try:
        graph = StepGraph(environment, record)
    except RuntimeError as error:  # a GraphError, or CUDA's
        return {"one_graph": str(error).splitlines()[0]}
    actions = torch.zeros(environment.num_envs, environment.task.action_size, device=environment.device)

    def chunk() -> None:
        for _ in range(lengths.chunk):
            graph.step(actions)

    chunk()
    seconds = _median([clock.seconds(chunk) for _ in range(lengths.chunks)])
    return {
        "one_graph_per_s": lengths.chunk * environment.num_envs / seconds,
        "one_graph_carries": graph.carried,
    }


def bench_training(task: str, num_envs: int, lengths: Lengths) -> dict[str, Any]:
    """The PPO loop as training runs it: frames per second, and where the time goes."""
    environment = made(task, num_envs, True)
    config = PPOConfig(**_PPO)
    learner = PPO(LearnerSpec.of(environment, environment.device), config, 0)
    clock = Clock(environment.device)

    def iterate() -> None:
        for _ in range(config.horizon):
            observed = environment.observed
            action = learner.act(observed)
            learner.record(observed, action, environment.step(action))
        learner.update()

    iterate()
    total = clock.seconds(lambda: [iterate() for _ in range(lengths.updates)])

    def step() -> tuple[float, float, float]:
        observed = environment.observed
        action, acting = clock.time(lambda: learner.act(observed))
        result, stepping = clock.time(lambda: environment.step(action))
        return acting, stepping, clock.seconds(lambda: learner.record(observed, action, result))

    # The same in parts: each is finished before the next begins, so they add up to more.
    acting, stepping, recording = (sum(part) for part in zip(*(step() for _ in range(config.horizon)), strict=True))
    spent = {"act": acting, "environment": stepping, "record": recording, "update": clock.seconds(learner.update)}
    frames = lengths.updates * config.horizon * num_envs
    return {
        "name": f"{task}, PPO, {num_envs} environments, randomized",
        "ours_per_s": frames / total,
        "ms_per_iteration": {name: 1e3 * seconds for name, seconds in spent.items()},
    }


def bench_cpu(task: str, lengths: Lengths) -> dict[str, Any]:
    """Control steps of randomized environments on the CPU engine of this machine."""
    environment = made(task, _CPU_ENVS, True, "cpu")
    generator = torch.Generator().manual_seed(0)

    def chunk() -> None:
        for _ in range(lengths.chunk):
            environment.step(2.0 * torch.rand(_CPU_ENVS, environment.task.action_size, generator=generator) - 1.0)

    clock = Clock(torch.device("cpu"))
    chunk()
    seconds = _median([clock.seconds(chunk) for _ in range(max(lengths.chunks // 3, 1))])
    engine = environment.engine
    assert isinstance(engine, CpuEngine)
    return {
        "name": f"{task}, {_CPU_ENVS} environments, randomized, CPU engine with {engine.threads} threads",
        "ours_per_s": lengths.chunk * _CPU_ENVS / seconds,
    }


def gpu_cases(quick: bool) -> list[Case[dict[str, Any]]]:
    """Everything that can be measured with the tasks that there are."""
    lengths = Lengths(chunks=3, updates=2) if quick else Lengths()
    found: list[Case[dict[str, Any]]] = []
    for task in (name for name in TASKS if name in task_ids()):
        for n in SIZES[:1] if quick else SIZES:
            for randomized, kind in ((False, "plain"), (True, "randomized")):
                found.append(Case(f"{task} {n} {kind}", partial(bench_engine, task, n, randomized, lengths)))
        found.append(Case(f"{task} ppo", partial(bench_training, task, SIZES[0] if quick else _TRAINED, lengths)))
        found.append(Case(f"{task} cpu engine", partial(bench_cpu, task, lengths)))
    return found


def bench_gpu_command(json_file: Path | None, quick: bool, out: Console, only: str | None = None) -> None:
    """Measure the GPU engine. Raises UserError where there is no GPU or the file cannot be written."""
    from simreal.common.json_io import write_target

    if importlib.util.find_spec("mujoco_warp") is None:
        raise UserError("engine: 'gpu' needs mujoco-warp, which is not installed: pip install 'simreal[gpu]'")
    if not torch.cuda.is_available():
        raise UserError("engine: the benchmark of 'gpu' needs a CUDA device, and torch finds none")
    todo = chosen(gpu_cases(quick), only)
    target = None if json_file is None else write_target(json_file, ".json")
    rows: list[dict[str, Any]] = []
    for case in todo:
        out.print(f"{case.name} ...", style="dim", highlight=False)
        try:
            rows.append(case.measure())
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if "memory" not in str(error):
                raise
            out.print(f"{case.name}: not enough memory")
        except ModelUnavailableError as error:
            out.print(f"not measured: {error}")
        _clear()
    device = torch.cuda.get_device_name()
    out.print(gpu_table(rows, device))
    if target is not None:
        write_text(target, json.dumps({"device": device, "results": rows}, indent=2) + "\n")


def gpu_table(rows: Sequence[dict[str, Any]], device: str) -> Table:
    """The measurements for people."""
    table = Table(title=f"Environment steps on {device}", title_justify="left", header_style="bold")
    for column in ("what", "per second", "of bare loop", "MB per env", "ms"):
        table.add_column(column, justify="left" if column in ("what", "ms") else "right")
    for row in rows:
        parts = row.get("ms_per_control_step") or row.get("ms_per_iteration") or {}
        table.add_row(
            row["name"], f"{row['ours_per_s']:,.0f}", f"{row['ratio']:.2f}" if "ratio" in row else "",
            f"{row['bytes_per_env'] / 1e6:.3f}" if "bytes_per_env" in row else "",
            ", ".join(f"{name} {ms:.2f}" for name, ms in parts.items()),
        )  # fmt: skip
    return table


def made(task: str, num_envs: int, randomized: bool, engine: Any = "gpu") -> Environment:
    """Environments, reset, with their episodes' ends spread; what a task does not have is not randomized."""
    block = None
    if randomized:
        block = {"sampler": "manual", "parameters": _suitable(task)}
    environment = make_environment(task, num_envs, block, engine=engine, seed=1)
    environment.reset()
    environment.stagger()
    return environment


def _suitable(task_id: str) -> dict[str, Any]:
    """The parameters that a task has."""
    from randomization.parameters import build_parameters

    task, kept = make_task(task_id), {}
    for name, entry in _RANDOMIZATION["parameters"].items():
        try:
            build_parameters(task, {name: entry})
        except RandomizationError:
            continue
        kept[name] = entry
    return kept


def _free_bytes() -> int:
    return torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else 0


def _clear() -> None:
    """Give memory back before the next measurement."""
    gc.collect()
    torch.cuda.empty_cache()


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]
