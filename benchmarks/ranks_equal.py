"""Whether a run on W ranks is the run on one: weights, worlds, curricula, after resuming at another W, after kills.

    python benchmarks/ranks_equal.py                # all learners and samplers, W = 1, 2, 3, and from 2 to 3
    python benchmarks/ranks_equal.py --only ppo     # those whose name holds "ppo"
    python benchmarks/ranks_equal.py --kills 20     # kill -9 of a random rank under torchrun, 20 times
    python benchmarks/ranks_equal.py --kills 20 --only sac --overlap # of a run whose updates are made beside collecting
    python benchmarks/ranks_equal.py --double ...   # in float64

Ranks are forks of this process that gloo connects; only the kills start torchrun. Exit status 1 where something is not
as it should be.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import itertools
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from envs.common.ranks import ALONE, ProcessRanks, Ranks
from simreal.training.checkpoint import newest_checkpoint
from simreal.training.run_config import RunConfig, parse_config
from simreal.training.trainer import Trainer

_TIMEOUT = timedelta(seconds=120)
_DEADLINE_S = 30.0  # in which the others have to end when a rank has died
_ON = {"algorithm": "ppo", "horizon": 12, "minibatches": 2, "epochs": 2, "actor_hidden": [8], "critic_hidden": [8]}
_OFF = {"hidden": [8], "batch_size": 16, "warmup_steps": 48, "updates_per_cycle": 1, "updates_per_step": 0.25}
LEARNERS: dict[str, dict[str, Any]] = {
    "ppo": {"learner": _ON | {"normalize_advantage": "minibatch", "lr_schedule": "kl_adaptive"}},
    "ppo lstm": {"learner": _ON | {"memory": "lstm", "memory_size": 4, "segment": 4}},
    "sac": {"learner": _OFF | {"algorithm": "sac"}},
    "ddpg her": {"task": "FetchReach-v4", "learner": _OFF | {"algorithm": "ddpg"}},
}
SAMPLERS: dict[str, dict[str, Any]] = {
    "manual": {"sampler": "manual"},
    "adr": {"sampler": "adr", "performance": "return", "adr": {"buffer_size": 2, "thresholds": [-100.0, -100.0]}},
    "doraemon": {"sampler": "doraemon", "performance": "return", "doraemon": {"buffer_size": 6, "success_at": 3.0}},
}
_WORLDS = {"body_mass": {"range": [0.5, 2.0]}, "action_delay": {"range": [0, 60]}, "observation_noise": {}}
UPDATES = 20
_NUM_ENVS = 4


def configuration(learner: str, sampler: str, updates: int = UPDATES, **train: Any) -> RunConfig:
    """A run of four environments and so many updates."""
    made = LEARNERS[learner]
    settings = made["learner"]
    steps = updates * _NUM_ENVS * settings["horizon"] if "horizon" in settings else 48 + updates * _NUM_ENVS
    document = {
        "task": "InvertedPendulum-v5",
        "num_envs": _NUM_ENVS,
        "threads": 1,
        "randomization": SAMPLERS[sampler] | {"parameters": _WORLDS},
        "train": {"env_steps": steps, "log_interval": 40, "torch_threads": 1, "keep": "last"} | train,
        "evaluate": {"episodes": 2, "worlds": ["nominal"]},
    }
    return parse_config(document | made, "ranks_equal")


class Silent:
    """Stands where the progress display does; stops a run at some step, after saving."""

    def __init__(self, trainer: Trainer, stop: int | None) -> None:
        self._trainer, self._stop = trainer, stop

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def update(self, steps: int, score: str, entropy: float) -> None:
        """Called after each step."""
        if steps == self._stop:
            self._trainer.save()
            raise Stopped


class Stopped(Exception):
    """A run was left where it should be resumed."""


def train(config: RunConfig, run: Path, ranks: Ranks = ALONE, stop: int | None = None) -> None:
    """Train in a directory, from its newest checkpoint where it has one; up to step `stop`."""
    (run / "checkpoints").mkdir(parents=True, exist_ok=True)
    trainer = Trainer(config, run, ranks)
    resumes = any((run / "checkpoints").iterdir())
    ranks.objects(None)  # nobody writes before all have looked
    if resumes:
        trainer.load(newest_checkpoint(run) if ranks.first else None)
    with contextlib.suppress(Stopped):
        trainer.train(Silent(trainer, stop))  # pyright: ignore[reportArgumentType]


def on_ranks(size: int, action: Callable[[Ranks], Any]) -> list[Any]:
    """What `action` returns on each of `size` ranks, or the exception that it raised. Raises AssertionError where a
    rank died."""
    with tempfile.TemporaryDirectory() as folder:
        children = []
        for rank in range(size):
            child = os.fork()
            if not child:
                gc.freeze()  # engines that it finds would wait for threads, which are not forked
                _be(rank, size, Path(folder), action)
            children.append(child)
        statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        assert statuses == [0] * size, f"ranks ended with {statuses}"
        return [pickle.loads((Path(folder) / f"result-{rank}").read_bytes()) for rank in range(size)]


def _be(rank: int, size: int, folder: Path, action: Callable[[Ranks], Any]) -> None:
    """The life of a rank."""
    import torch.distributed as group

    try:
        torch.set_num_threads(1)
        store = group.FileStore(str(folder / "store"), size)
        group.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=_TIMEOUT)
        try:
            result: Any = action(ProcessRanks(rank, size))
        except Exception as error:
            traceback.print_exc()
            result = error
        (folder / f"result-{rank}").write_bytes(pickle.dumps(result))
        sys.stderr.flush()
        os._exit(0)
    finally:
        os._exit(1)


@contextlib.contextmanager
def double() -> Iterator[None]:
    """Within the block learners compute in float64."""
    before, single = torch.get_default_dtype(), Tensor.float
    torch.set_default_dtype(torch.float64)
    Tensor.float = Tensor.double  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        torch.set_default_dtype(before)
        Tensor.float = single  # pyright: ignore[reportAttributeAccessIssue]


def compare(one: Path, other: Path) -> dict[str, Any]:
    """How the newest checkpoints of two runs differ.

    Returns:
        weights: largest difference of a tensor of the learner's networks, relative to its largest value; rest: the same
        of all other tensors; unequal: what has to be identical, and is not.
    """
    a, b = newest_checkpoint(one), newest_checkpoint(other)
    differs: dict[str, float] = {}
    unequal: list[str] = []
    _compare("", a, b, differs, unequal)
    networks = ("policy", "critic", "target_critic", "target_actor", "actor", "log_alpha")
    weights = [d for path, d in differs.items() if path.split("/")[1:3] in [["learner", name] for name in networks]]
    return {"weights": max(weights), "rest": max(differs.values()), "unequal": unequal}


_ROUNDED = ("/environment/layer/sampler/sum", "/environment/layer/sampler/judged")  # of returns, which are sums


def _compare(path: str, a: Any, b: Any, differs: dict[str, float], unequal: list[str]) -> None:
    if isinstance(a, dict):
        if a.keys() != b.keys():
            unequal.append(f"{path}: {sorted(a.keys() ^ b.keys())}")
        for key in a.keys() & b.keys():
            _compare(f"{path}/{key}", a[key], b[key], differs, unequal)
    elif isinstance(a, list):
        if len(a) != len(b):
            unequal.append(path)
        for i, (x, y) in enumerate(zip(a, b, strict=False)):
            _compare(f"{path}/{i}", x, y, differs, unequal)
    elif isinstance(a, Tensor):
        exact = not a.is_floating_point() or path.startswith(("/environment/layer/sampler", "/environment/layer/lam"))
        if a.shape != b.shape or (exact and path not in _ROUNDED and not torch.equal(a, b)):
            unequal.append(path)
        elif a.numel():
            scale = a.double().abs().max().clamp(min=1e-3)
            differs[path] = float((a.double() - b.double()).abs().max() / scale)
    elif isinstance(a, (int, str, bool)) and a != b:
        unequal.append(path)


def equality(learner: str, sampler: str, folder: Path) -> dict[str, dict[str, Any]]:
    """One learner and sampler on 2 and 3 ranks, and resumed from 2 to 3, each compared with one process."""
    config = configuration(learner, sampler)
    train(config, folder / "1")
    found = {}
    for size in (2, 3):
        on_ranks(size, lambda ranks, size=size: train(config, folder / str(size), ranks))
        found[str(size)] = compare(folder / "1", folder / str(size))
    middle = config.train.env_steps // 2 // _NUM_ENVS * _NUM_ENVS
    on_ranks(2, lambda ranks: train(config, folder / "2 to 3", ranks, stop=middle))
    on_ranks(3, lambda ranks: train(config, folder / "2 to 3", ranks))
    found["2 to 3"] = compare(folder / "1", folder / "2 to 3")
    return found


def matrix(only: str, tolerance: float) -> bool:
    """Compare all learners and samplers; whether all are equal within a tolerance."""
    good = True
    for learner in LEARNERS:
        for sampler in SAMPLERS:
            if only not in f"{learner}, {sampler}":
                continue
            with tempfile.TemporaryDirectory() as folder:
                for ranks, found in equality(learner, sampler, Path(folder)).items():
                    fine = found["weights"] <= tolerance and not found["unequal"]
                    good &= fine
                    weights = f"weights within {found['weights']:.1e}, all else {found['rest']:.1e}"
                    verdict = "" if fine else f"  NOT EQUAL: {found['unequal'][:5]}"
                    print(f"{learner:9} {sampler:9} W = {ranks:7} {weights}{verdict}", flush=True)
    return good


class Torchrun:
    """A run of two ranks under torchrun."""

    def __init__(self, config: Path, run: Path, restarts: int) -> None:
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--max-restarts={restarts}"]
        command += ["-m", "simreal", "train", str(config), "--run-dir", str(run)]
        self.log = run.with_suffix(".log")
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)

    def workers(self) -> list[int]:
        """Processes of the ranks."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()] if children.exists() else []


def kills(count: int, learner: str, overlap: bool, each: int = 4) -> bool:
    """Kill random ranks at random moments; whether every run ended as an undisturbed one, in time, without orphans."""
    draw, good = random.Random(0), True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = folder / "config.yaml"
        made = json.loads(
            configuration(learner, "adr", 60, checkpoint_interval_s=0.3, overlap=overlap).model_dump_json()
        )
        config.write_text(yaml.safe_dump(made))
        began = time.monotonic()
        assert Torchrun(config, folder / "undisturbed", 0).process.wait(300) == 0
        took = time.monotonic() - began
        killed = 0
        for attempt in itertools.count():
            if killed == count:
                break
            run = folder / f"killed-{attempt}"
            times, fine = _killed(config, run, min(each, count - killed), took, draw)
            killed, good = killed + times, good and fine
            found = compare(folder / "undisturbed", run)
            print(f"  against the undisturbed run: {found}", flush=True)
            good &= found["weights"] <= 1e-6 and not found["unequal"]
    return good


def _killed(config: Path, run: Path, times: int, took: float, draw: random.Random) -> tuple[int, bool]:
    """One run, killed so often unless it is over. How often, and whether the others ended within the deadline and
    nothing was left over."""
    under, good, killed = Torchrun(config, run, times), True, 0
    seen: set[int] = set()
    for _ in range(times):
        time.sleep(draw.uniform(0.05, 0.5) * took)
        workers = under.workers()
        while not workers and under.process.poll() is None:
            time.sleep(0.05)
            workers = under.workers()
        if under.process.poll() is not None:
            break
        seen.update(workers)
        victim = draw.choice(workers)
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
        killed += 1
        began = time.monotonic()
        while any(_alive(pid) for pid in workers) and time.monotonic() - began < 2 * _DEADLINE_S:
            time.sleep(0.05)
        ended = time.monotonic() - began
        good &= ended < _DEADLINE_S
        steps = [path.stem for path in sorted((run / "checkpoints").glob("step_*"))[-1:]]
        print(f"  rank {workers.index(victim)} of {len(workers)} killed, newest {steps}; all gone after {ended:.1f} s")
    status = under.process.wait(600)
    left = [pid for pid in {*seen, *under.workers()} if _alive(pid)]
    print(f"{run.name}: exit status {status}, {len(left)} processes left over")
    if status:
        print(under.log.read_text()[-3000:])
    return killed, good and status == 0 and not left


def _alive(pid: int) -> bool:
    """Whether a process is there, and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="part of LEARNER, SAMPLER")
    parser.add_argument("--double", action="store_true", help="in float64; tolerance 1e-10 instead of 1e-6")
    parser.add_argument("--kills", type=int, default=0, help="kill so many ranks instead")
    parser.add_argument("--overlap", action="store_true", help="kill ranks of a run with train.overlap")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.kills:
        sys.exit(0 if kills(given.kills, given.only or "ppo", given.overlap) else 1)
    with double() if given.double else contextlib.nullcontext():
        sys.exit(0 if matrix(given.only, 1e-10 if given.double else 1e-6) else 1)


if __name__ == "__main__":
    main()
