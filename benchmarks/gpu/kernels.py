"""Compiles the kernels of the GPU engine for a GPU that is not there, so that a lent one need not wait for it.

    python kernels.py --arch 90 --jobs 2        into WARP_CACHE_PATH, where Warp looks for them

Nothing runs: launches end where they load their module, chosen as on a GPU, and those modules are compiled by NVRTC,
which needs no driver. What is in the cache already is left alone, so on the GPU's machine the same command compiles
what the carried kernels lack, in parallel. Prints one line of JSON for each workload.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # none is used, and a process that has one open must not be forked

import warp as wp

_ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(_ROOT), str(_ROOT / "tests"), str(_ROOT / "tests" / "support")]
context: Any = importlib.import_module("warp._src.context")
TASKS = ("Go1Velocity-v0", "FetchPush-v4", "AllegroCube-v0")
SMS = {"H100": 132, "H200": 132}  # multiprocessors, which some launches depend on


class Compiler:
    """Compiles modules in processes of their own.

    Args:
        arch: compute capability, 90 for sm_90.
        jobs: processes at a time.
    """

    def __init__(self, arch: int, jobs: int) -> None:
        self.arch, self.jobs = arch, jobs
        self._seen: set[tuple[str, int, bytes]] = set()
        self._running: set[int] = set()
        self.loaded = self.compiled = self.failed = 0

    def load(self, module: Any, block_dim: int | None) -> None:
        """What `Module.load` is asked for."""
        dim = module.options["block_dim"] if block_dim is None else block_dim
        key = (module.name, dim, module.get_module_hash(dim))
        if key in self._seen:
            return
        self._seen.add(key)
        self.loaded += 1
        folder = Path(wp.config.kernel_cache_dir or "") / module.get_module_identifier(dim)
        if list(folder.glob(f"*.sm{self.arch}.cubin")) and list(folder.glob("*.meta")):
            return
        self.compiled += 1
        while len(self._running) >= self.jobs:
            self._one_less()
        if pid := os.fork():
            self._running.add(pid)
            return
        status = 1
        try:
            options = module.resolved_options[dim]
            module._compile(None, str(folder), output_arch=self.arch, use_ptx=False, options=options)
            status = 0
        except Exception as error:
            print(f"{module.name}: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(status)

    def _one_less(self) -> None:
        pid, status = os.wait()
        self._running.discard(pid)
        self.failed += status != 0

    def finish(self) -> None:
        """Wait for all that is being compiled."""
        while self._running:
            self._one_less()


def pretend_cuda(compiler: Compiler, multiprocessors: int) -> None:
    """Have launches choose kernels and block sizes as on CUDA, load them through the compiler, and end there."""
    real = wp.get_device
    device = SimpleNamespace(is_cuda=True, is_cpu=False, sm_count=multiprocessors, arch=compiler.arch)

    def get_device(name: Any = None) -> Any:
        asked_by = sys._getframe(1).f_globals["__name__"]
        return device if name is None and asked_by.startswith("mujoco_warp") else real(name)

    def both(*_: Any, on_true: Any = None, on_false: Any = None, **kwargs: Any) -> None:
        for branch in filter(None, (on_true, on_false)):
            branch(**kwargs)

    wp.get_device = get_device  # type: ignore[assignment]
    wp.is_conditional_graph_supported = lambda: True
    wp.capture_while = lambda condition, while_body, stream=None, **kwargs: while_body(**kwargs)
    wp.capture_if = both
    context.Module.load = lambda module, device, block_dim=None, **_: compiler.load(module, block_dim)
    context._resolve_launch_block_dim = lambda device, dim: dim if dim and dim > 0 else 256


def play(task: str, randomized: bool) -> None:
    """All that a run, an evaluation and the benchmark launch."""
    import torch

    from benchmarks.speed.gpu import BareLoop, made

    environment = made(task, 4, randomized)
    engine: Any = environment.engine
    for _ in range(2):
        environment.step(torch.zeros(4, environment.task.action_size))
    for stage in ("kinematics", "position", "velocity", "acceleration"):
        engine.forward(stage=stage)
    if not randomized:
        mocap = (engine.data("mocap_pos"), engine.data("mocap_quat")) if engine.model.nmocap else None
        BareLoop(environment).step(engine.data("ctrl"), mocap)


def draw(task: str) -> None:
    """Pictures, as the benchmark takes them."""
    from benchmarks.speed.gpu import made
    from simreal.gym.image_observations import Images

    Images(made(task, 2, False), 84, 84).take()


def contract() -> None:
    """The small world of the tests."""
    import torch

    from gpu_worlds import DERIVED, bind, gpu

    for randomized in (False, True):
        engine = gpu(3)
        bind((*DERIVED, "cfrc_ext"), engine)
        if randomized:
            for name in ("body_mass", "geom_pos", "body_quat"):
                engine.field(name)
        engine.use_commands(("ctrl", "mocap_pos", "mocap_quat"))
        engine.step(2, torch.zeros(3, 2, 8))
        engine.reset()
        engine.set_const()
        for stage in ("kinematics", "position", "velocity", "acceleration"):
            engine.forward(stage=stage)


def workloads() -> dict[str, Callable[[], None]]:
    """By name; each is one that `run.sh` has."""
    found: dict[str, Callable[[], None]] = {}
    for task in TASKS:
        found[task] = lambda task=task: play(task, False)
        found[f"{task}, randomized"] = lambda task=task: play(task, True)
    return found | {"contract": contract, "pictures": lambda: draw(TASKS[0])}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command above; 1 where a kernel does not compile."""
    parser = argparse.ArgumentParser(description="Kernels of the GPU engine for a GPU that is not there.")
    parser.add_argument("--arch", type=int, default=90, help="compute capability: 90 for an H100 or H200")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="kernels to compile at a time")
    parser.add_argument("--only", default="", help="workloads whose name contains this")
    args = parser.parse_args(arguments)
    wp.init()
    compiler = Compiler(args.arch, max(args.jobs, 1))
    pretend_cuda(compiler, SMS["H100"])
    for name, workload in workloads().items():
        if args.only not in name:
            continue
        began, before = time.perf_counter(), compiler.compiled
        try:
            workload()
        except Exception as error:  # the others are worth having without it
            print(json.dumps({"kernels": name, "error": f"{type(error).__name__}: {error}"}), flush=True)
            compiler.failed += 1
            continue
        compiler.finish()
        seconds = round(time.perf_counter() - began, 1)
        print(json.dumps({"kernels": name, "compiled": compiler.compiled - before, "seconds": seconds}), flush=True)
    print(
        json.dumps(
            {"kernels": "all", "needed": compiler.loaded, "compiled": compiler.compiled, "failed": compiler.failed}
        )
    )
    return 1 if compiler.failed else 0


if __name__ == "__main__":
    sys.exit(main())
