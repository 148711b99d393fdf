"""The steps of `run.sh`: what is measured on a GPU, in the order in which it is worth having.

    python steps.py STEP --out FOLDER [--seconds S] [--rehearse]

Every result is a line of JSON in FOLDER/results.jsonl, written as soon as it is there: a step that is cut off leaves
what it had. With --rehearse everything is tiny and runs where there is no CUDA, on Warp's CPU device.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TASKS = ("Go1Velocity-v0", "FetchPush-v4", "AllegroCube-v0")
GRACE_S = 20.0  # for a run to write its checkpoint, after the signal that ends it
BAR = {"term/linear_error": 0.15, "term/turning_error": 0.2}  # m/s and rad/s, docs/results/README.md


@dataclass
class Job:
    """One step of the list.

    Attributes:
        name: of the step.
        out: where results go.
        seconds: that it may take.
        rehearse: tiny, on whatever device there is.
        runs: where runs are written; too many files for `out`.
    """

    name: str
    out: Path
    seconds: float
    rehearse: bool
    runs: Path
    began: float = field(default_factory=time.monotonic)
    errors: int = 0

    def record(self, **values: Any) -> None:
        """Append a result."""
        line = json.dumps({"step": self.name, "at_s": round(time.monotonic() - self.began, 1)} | values)
        with (self.out / "results.jsonl").open("a") as file:
            file.write(line + "\n")
        print(line[:300], flush=True)

    def left(self) -> float:
        """Seconds."""
        return self.seconds - (time.monotonic() - self.began)

    @contextmanager
    def attempt(self, **what: Any) -> Iterator[None]:
        """Record an error instead of ending the step."""
        try:
            yield
        except Exception as error:
            self.errors += 1
            message = (str(error).splitlines() or [""])[0][:300]
            self.record(**what, error=f"{type(error).__name__}: {message}")


def device() -> str:
    """What results belong to."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "Warp's CPU device"


def contract(job: Job) -> None:
    """The engine means what the CPU engine means: the tests that say so, line by line."""
    tests = ["tests/gpu/test_gpu_engine.py", "tests/gpu/test_gpu_waits.py", "tests/gpu/test_gpu_tasks.py"]
    chosen = (
        "test_gpu_engine or on_cuda or one_control_step and (Go1Velocity or FetchPush or AllegroCube or HalfCheetah)"
    )
    if job.rehearse:
        chosen = "a_view_is_memory or one_control_step and InvertedPendulum-v5 or on_cuda and InvertedPendulum"
    command = [sys.executable, "-m", "pytest", "-o", "addopts=", "-p", "no:cacheprovider", "-v", "--tb=line", *tests]
    process = subprocess.Popen(
        [*command, "-k", chosen], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", flush=True)
        if found := re.match(r"(\S+::\S.*?) (PASSED|FAILED|SKIPPED|ERROR)", line):
            job.record(test=found[1].removeprefix("tests/"), outcome=found[2].lower())
        elif line.startswith(("E ", "/")):
            job.record(failure=line.strip()[:300])
    job.errors += process.wait() != 0
    job.record(device=device(), status=process.returncode)


def speed(job: Job) -> None:
    """Control steps against the bare captured loop; memory per environment; that nothing waits."""
    from benchmarks.speed.gpu import Lengths, bench_engine

    sizes, lengths = ((2,), Lengths(1, 1, 1)) if job.rehearse else ((4096, 16384), Lengths(20, 3, 1))
    tasks = TASKS[:1] if job.rehearse else TASKS
    kinds = [(task, size, randomized) for randomized in (False, True) for size in sizes for task in tasks]
    for task, size, randomized in kinds:
        with job.attempt(name=f"{task}, {size}, {'randomized' if randomized else 'plain'}"):
            job.record(device=device(), **bench_engine(task, size, randomized, lengths))
        _give_memory_back()
    os.environ["SIMREAL_GPU_WAITS"] = "error"
    for task in tasks:
        with job.attempt(name=f"{task}: nothing waits"):
            bench_engine(task, sizes[0], False, Lengths(1, 1, 1))
            job.record(name=f"{task}: nothing waits", asserted=device() != "Warp's CPU device")
        _give_memory_back()


def graph(job: Job) -> None:
    """The same beside control steps that are one graph each; apart: a recording that fails spoils what follows."""
    from benchmarks.speed.gpu import Lengths, bench_engine

    for task in TASKS[:1] if job.rehearse else TASKS:
        size, lengths = (2, Lengths(1, 1, 1)) if job.rehearse else (4096, Lengths(20, 3, 1))
        with job.attempt(name=f"{task}, {size}, one graph"):
            job.record(device=device(), **bench_engine(task, size, False, lengths, one_graph=True))
        _give_memory_back()


def go1(job: Job) -> None:
    """Go1 to its tracking bar: how long, and what the policy does on the CPU engine."""
    settings = ["num_envs=4096", "learner.minibatches=4", "train.env_steps=40000000", "train.log_interval=400000"]
    if job.rehearse:
        settings = [
            "num_envs=2",
            "learner.horizon=4",
            "learner.minibatches=1",
            "train.env_steps=16",
            "train.log_interval=8",
        ]
    run = _train(job, "go1_velocity", settings, reserve=0.2)
    rows = _rows(run / "metrics.csv")
    reached = [row for row in rows if rows and all(float(row.get(name) or 9.0) <= most for name, most in BAR.items())]
    bar = {"bar_s": float(reached[0]["seconds"]), "bar_steps": int(next(iter(reached[0].values())))} if reached else {}
    job.record(device=device(), rows=len(rows), last=_last(rows), **bar)
    with job.attempt(name="evaluation"):
        episodes = "2" if job.rehearse else "100"
        _simreal("evaluate", str(run), "--world", "nominal", "--episodes", episodes, "--json", str(run / "go1.json"),
                 seconds=max(job.left(), 5.0))  # fmt: skip
        world = json.loads((run / "go1.json").read_text())["worlds"][0]
        measured = {name: world["measures"][name]["mean"] for name in ("linear_error", "turning_error", "fell")}
        rest = {name: value for name, value in world.items() if isinstance(value, (int, float)) and name != "name"}
        job.record(name="evaluation", **measured, **rest)


def cube(job: Job) -> None:
    """AllegroCube under automatic domain randomization, until the time is up."""
    settings = ["num_envs=8192", "train.env_steps=2000000000", "train.log_interval=1000000"]
    if job.rehearse:
        settings = ["num_envs=2", "learner.horizon=8", "learner.minibatches=1",
                    "train.env_steps=2000000000", "train.log_interval=8"]  # fmt: skip
    run = _train(job, "allegro_cube_adr", settings, reserve=0.0, resumable=True)
    rows, ranges = _rows(run / "metrics.csv"), _rows(run / "adr.csv")
    job.record(device=device(), rows=len(rows), last=_last(rows), adr=_last(ranges))


def pictures(job: Job) -> None:
    """Pictures of all environments in one call."""
    from benchmarks.speed.gpu import Clock, made
    from simreal.gym.image_observations import Images

    for size, pixels in ((2, 16),) if job.rehearse else ((1024, 84), (4096, 84)):
        with job.attempt(name=f"{size} pictures of {pixels} x {pixels}"):
            environment = made(TASKS[0], size, False)
            images, clock = Images(environment, pixels, pixels), Clock(environment.device)
            first, began = clock.time(images.take)
            seconds = sorted(clock.seconds(images.take) for _ in range(5))[2]
            job.record(
                device=device(), name=f"{size} pictures of {pixels} x {pixels}", per_s=size / seconds, first_s=began,
                spread=float(first.double().std()),
            )  # fmt: skip
            _save_pictures(first[:8].cpu(), job.out / "pictures.png")
            del images, environment
        _give_memory_back()


def update(job: Job) -> None:
    """An epoch of PPO as it is, through torch.compile, and as a CUDA graph of one minibatch."""
    from benchmarks.speed.gpu import Clock, made
    from benchmarks.speed.gpu_update import bench_update
    from simreal.learners.base import LearnerSpec
    from simreal.learners.on_policy.ppo import PPO
    from simreal.learners.options import PPOConfig

    size = 2 if job.rehearse else 4096
    environment = made(TASKS[0], size, False)
    config = {"actor_hidden": (512, 256, 128), "critic_hidden": (512, 256, 128), "horizon": 24, "minibatches": 4}
    if job.rehearse:
        config = {"actor_hidden": (8,), "critic_hidden": (8,), "horizon": 4, "minibatches": 2}
    learner = PPO(LearnerSpec.of(environment, environment.device), PPOConfig.model_validate(config), 0)
    while not learner.ready():
        observed = environment.observed
        action = learner.act(observed)
        learner.record(observed, action, environment.step(action))
    with job.attempt(name="update"):
        for row in bench_update(learner, Clock(environment.device), 3 if job.rehearse else 10):
            job.record(device=device(), frames=size * learner.config.horizon, **row)


def hang(job: Job) -> None:
    """For rehearsals: a step that writes a result and then takes for ever."""
    job.record(name="hang", note="before")
    while True:
        time.sleep(1.0)


STEPS: dict[str, Callable[[Job], None]] = {
    step.__name__: step for step in (contract, speed, go1, graph, cube, pictures, update, hang)
}


def _train(job: Job, config: str, settings: list[str], reserve: float, resumable: bool = False) -> Path:
    """Train until `reserve` of the step's time is left, then have the run save; returns its directory.

    A resumable run goes on where an earlier call left it.
    """
    run = job.runs / job.name
    resume = ["--resume"] if resumable and any((run / "checkpoints").glob("*")) else []
    if not resume:
        shutil.rmtree(run, ignore_errors=True)
    overrides = ["engine=gpu", "evaluate.episodes=1", "evaluate.num_envs=1", "evaluate.worlds=[nominal]", *settings]
    command = [sys.executable, "-m", "simreal.cli.main", "train", config, *overrides, "--run-dir", str(run), *resume]
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    asked = False

    def stop() -> None:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)

    signal.signal(signal.SIGTERM, lambda *_: (stop(), sys.exit(143)))
    while process.poll() is None:
        time.sleep(1.0)
        _copy_tables(job, run)
        over = job.left() - reserve * job.seconds
        if over < GRACE_S / 2:
            stop()
        elif over < GRACE_S and not asked:
            process.send_signal(signal.SIGINT)
            asked = True
    _copy_tables(job, run)
    job.errors += process.returncode not in (0, 130)  # 130: interrupted, with its checkpoint written
    job.record(status=process.returncode)
    return run


def _copy_tables(job: Job, run: Path) -> None:
    """So that they come back when the step, or all of it, is cut off."""
    for name in ("metrics.csv", "adr.csv"):
        if (run / name).is_file() and not (job.name == "go1" and name == "adr.csv"):
            shutil.copyfile(run / name, job.out / f"{job.name}_{name}")


def _simreal(*arguments: str, seconds: float) -> None:
    subprocess.run([sys.executable, "-m", "simreal.cli.main", *arguments], cwd=ROOT, timeout=seconds, check=True)


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _last(rows: list[dict[str, str]]) -> dict[str, str]:
    return rows[-1] if rows else {}


def _save_pictures(pictures: Any, path: Path) -> None:
    import imageio.v3 as imageio

    count, height, width, _ = pictures.shape
    imageio.imwrite(path, pictures.permute(1, 0, 2, 3).reshape(height, count * width, 3).numpy())


def _give_memory_back() -> None:
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one step; 1 where a part of it failed, which is recorded."""
    parser = argparse.ArgumentParser(description="A step of what is measured on a GPU.")
    parser.add_argument("step", choices=list(STEPS))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", type=Path, help="where runs are written; OUT/runs")
    parser.add_argument("--seconds", type=float, default=120.0, help="that the step may take")
    parser.add_argument("--rehearse", action="store_true", help="tiny, also without CUDA")
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    job = Job(args.step, args.out, args.seconds, args.rehearse, args.runs or args.out / "runs")
    sys.path.insert(0, str(ROOT))
    if not args.rehearse:
        import torch

        if not torch.cuda.is_available():
            job.record(error="torch finds no CUDA device; --rehearse runs without one")
            return 2
    STEPS[args.step](job)
    return 1 if job.errors else 0


if __name__ == "__main__":
    sys.exit(main())
