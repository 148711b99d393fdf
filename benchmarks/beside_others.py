"""How fast training is beside other processes: updates and physics steps per second, alone and beside busy ones.

    python benchmarks/beside_others.py [--rounds 3] [--seconds 6] [--json FILE]

Each worker process trains `fetch_push`, or runs its exported policy, without end; busy processes (an empty loop in
Python) are stopped and continued around it, so that one worker is measured alone, beside one busy process, beside two,
and beside one that comes and goes every half second. Workers take turns; medians over the rounds are reported.

    fixed      as training was before: torch loaded first, so that its threads wait by spinning; all processors
    passive    the same, threads sleep while they wait
    one        one thread
    adaptive   as `simreal train` does it
    policy     `simreal.deploy.Policy`, one call after another
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simreal.training.trainer import Trainer

WORKERS = {  # environment variables, torch threads (0: adaptive)
    "fixed": ({"SIMREAL_BENCH_TORCH_FIRST": "1"}, os.cpu_count() or 1),
    "passive": ({"OMP_WAIT_POLICY": "PASSIVE"}, os.cpu_count() or 1),
    "one": ({"OMP_WAIT_POLICY": "PASSIVE"}, 1),
    "adaptive": ({}, 0),
    "policy": ({}, -1),
}
CONDITIONS = ("alone", "beside one", "beside two", "one that comes and goes")
_CONFIG = Path(__file__).resolve().parent.parent / "configs" / "fetch_push.yaml"


Work = Callable[[float], dict[str, float]]  # seconds -> figures


def trainer_of(threads: int, folder: str) -> Trainer:
    """A trainer of `fetch_push` with so many torch threads; 0: as many as pay."""
    import torch

    from simreal.training.run_config import load_config
    from simreal.training.trainer import Trainer

    overrides = ["learner.warmup_steps=640", "learner.replay_size=50000"]
    config = load_config(str(_CONFIG), [*overrides, *([f"train.torch_threads={threads}"] if threads else [])])
    torch.set_num_threads(1)
    return Trainer(config, Path(folder))


def policy_work(folder: str) -> Work:
    """Calls of an exported policy."""
    import numpy as np

    from simreal.deploy import Policy
    from simreal.export.bundle import export_bundle

    trainer = trainer_of(1, folder)
    export_bundle(trainer.learner.policy, trainer.environment.task, Path(folder) / "bundle")
    policy = Policy.load(Path(folder) / "bundle")
    observation = np.zeros(policy.observation_size, np.float32)

    def run(seconds: float) -> dict[str, float]:
        took: list[float] = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            began = time.perf_counter()
            policy(observation)
            took.append(time.perf_counter() - began)
        p50, p99 = np.percentile(took, (50, 99))
        return {"calls_per_s": len(took) / seconds, "p50_us": 1e6 * float(p50), "p99_us": 1e6 * float(p99)}

    return run


def training_work(threads: int, folder: str) -> Work:
    """Control steps and updates."""
    if os.environ.get("SIMREAL_BENCH_TORCH_FIRST"):
        import torch  # noqa: F401  # so that its threads wait as torch's default has it
    trainer = trainer_of(threads, folder)
    learner: Any = trainer.learner

    def one_cycle() -> tuple[float, float]:
        began = time.perf_counter()
        trainer._collect()
        collected = time.perf_counter()
        trainer.learn()
        return collected - began, time.perf_counter() - collected

    while trainer.env_steps < 3200:
        one_cycle()

    def run(seconds: float) -> dict[str, float]:
        steps, updates, end = trainer.env_steps, learner.updates, time.perf_counter() + seconds
        collecting = updating = 0.0
        while time.perf_counter() < end:
            took = one_cycle()
            collecting, updating = collecting + took[0], updating + took[1]
        return {
            "updates_per_s": (learner.updates - updates) / updating,
            "collected_per_s": (trainer.env_steps - steps) / collecting,
            "steps_per_s": (trainer.env_steps - steps) / (collecting + updating),
        }

    return run


def work(threads: int) -> None:
    """For each line "SECONDS" on stdin, work so long and answer with a line of figures."""
    with tempfile.TemporaryDirectory() as folder:
        run = policy_work(folder) if threads < 0 else training_work(threads, folder)
        print("ready", flush=True)
        for line in sys.stdin:
            print(json.dumps(run(float(line))), flush=True)


class Busy:
    """Processes that do nothing but keep a processor busy while they are wanted."""

    def __init__(self, count: int) -> None:
        self._processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
        self._signal(signal.SIGSTOP, count)

    def _signal(self, which: signal.Signals, count: int) -> None:
        for process in self._processes[:count]:
            process.send_signal(which)

    @contextmanager
    def wanted(self, condition: str) -> Iterator[None]:
        """Within the block the machine is in a condition."""
        count = {"alone": 0, "beside two": 2}.get(condition, 1)
        over = threading.Event()

        def come_and_go() -> None:
            while not over.wait(0.5):
                self._signal(signal.SIGSTOP, count)
                over.wait(0.5)
                self._signal(signal.SIGCONT, count)

        self._signal(signal.SIGCONT, count)
        thread = threading.Thread(target=come_and_go) if condition == CONDITIONS[-1] else None
        if thread is not None:
            thread.start()
        try:
            yield
        finally:
            over.set()
            if thread is not None:
                thread.join()
            self._signal(signal.SIGSTOP, count)

    def end(self) -> None:
        """Kill them."""
        for process in self._processes:
            process.kill()


def measure(
    rounds: int, seconds: float, advance_some: float, names: list[str]
) -> dict[str, dict[str, dict[str, float]]]:
    """Median figures by worker and condition."""
    found: dict[str, dict[str, list[dict[str, float]]]] = {n: {c: [] for c in CONDITIONS} for n in names}
    busy = Busy(2)
    workers: dict[str, Any] = {}
    try:
        for name in names:
            variables, threads = WORKERS[name]
            command = [sys.executable, __file__, "--worker", str(threads)]
            environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"} | variables
            workers[name] = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
            )
            assert workers[name].stdout.readline() == "ready\n", name
        for number in range(rounds):
            for condition in CONDITIONS:
                for name in names if number % 2 == 0 else reversed(names):
                    with busy.wanted(condition):
                        for length in (advance_some, seconds):
                            workers[name].stdin.write(f"{length}\n")
                            workers[name].stdin.flush()
                            figures = json.loads(workers[name].stdout.readline())
                        found[name][condition].append(figures)
    finally:
        busy.end()
        for worker in workers.values():
            worker.kill()
    return {
        name: {
            condition: {key: median(run[key] for run in runs) for key in runs[0]}
            for condition, runs in conditions.items()
        }
        for name, conditions in found.items()
    }


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description="Training beside other processes.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--settle", type=float, default=3.0, help="seconds before each measurement that do not count")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", nargs="+", default=list(WORKERS), choices=list(WORKERS))
    parser.add_argument("--worker", type=int)
    options = parser.parse_args()
    if options.worker is not None:
        work(options.worker)
        return
    figures = measure(options.rounds, options.seconds, options.advance_some, options.only)
    keys = dict.fromkeys(key for conditions in figures.values() for key in conditions[CONDITIONS[0]])
    for key in keys:
        print(f"\n{key:16s}" + "".join(f"{condition:>26s}" for condition in CONDITIONS))
        for name, conditions in figures.items():
            if key not in conditions[CONDITIONS[0]]:
                continue
            alone = conditions["alone"][key]
            cells = (f"{conditions[c][key]:.1f} ({conditions[c][key] / alone:.2f})" for c in CONDITIONS)
            print(f"{name:16s}" + "".join(f"{cell:>26s}" for cell in cells))
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
