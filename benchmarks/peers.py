"""simreal beside its peers: environment steps and updates per second, seconds until FetchReach is learnt.

    python -m benchmarks.peers [--python envpool=PYTHON ...] [--only steps ...] [--rounds 5] [--json FILE]

Peers that are not installed are left out; one that wants other versions of what we use gets an interpreter of its own
(`--python mjbatch=.venv-mjbatch/bin/python`). Every peer is a process that waits while the others are measured; they
take turns, and medians over the rounds are reported.

    steps     N environments of a task with uniformly random actions, on all processors. mjbatch is physics alone:
              no observation, no reward, no reset
    updates   SAC and DDPG against stable-baselines3's and skrl's, PPO against rsl_rl's: same sizes, batches, threads
    learning  FetchReach-v4 in its nominal world: seconds of training until 95 of 100 fresh episodes succeed; SAC with
              hindsight, nets, batch, step size, gamma, share of updates and first temperature the same.
              Tried every 1,000 steps
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import IO, Any, cast

STEPS = ("simreal", "gymnasium sync", "gymnasium async", "envpool", "mjbatch")
TASKS = ("FetchPush-v4", "Ant-v5", "HalfCheetah-v5")
LEARNING = ("simreal", "stable-baselines3")
NUM_ENVS, SEEDS = 64, (0, 1, 2)
_WORKER = Path(__file__).resolve().parent / "peers_worker.py"
_ROOT = _WORKER.parent.parent


class Worker:
    """A process that does one peer's work when it is asked to.

    Attributes:
        there: whether the peer is installed and knows the task.
        why_not: what it said where it does not.
    """

    def __init__(self, python: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [python, str(_WORKER), *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": str(_ROOT), "PYTHONWARNINGS": "ignore"},
        )  # fmt: skip
        self.there = self._answer() == "ready"
        self.why_not = "" if self.there else (self._process.communicate()[1].strip().splitlines() or [""])[-1]

    def _answer(self) -> str:
        """The next line that begins with '>': what packages print beside it is nobody's answer."""
        for line in cast("IO[str]", self._process.stdout):
            if line.startswith(">"):
                return line[1:].strip()
        return ""

    def ask(self, seconds: float) -> dict[str, float]:
        """Have it work for so long. Raises RuntimeError where it ends instead."""
        asked = cast("IO[str]", self._process.stdin)
        asked.write(f"{seconds}\n")
        asked.flush()
        answer = self._answer()
        if not answer:
            raise RuntimeError(self._process.communicate()[1])
        return json.loads(answer)

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


def stepping(pythons: dict[str, str], rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Environment steps per second of all peers, task by task."""
    rows: list[dict[str, Any]] = []
    for task in TASKS:
        workers = {
            peer: Worker(pythons.get(peer, sys.executable), "steps", peer, task, str(NUM_ENVS)) for peer in STEPS
        }
        absent = {peer: worker.why_not for peer, worker in workers.items() if not worker.there}
        found: dict[str, list[float]] = {peer: [] for peer in STEPS if peer not in absent}
        for _ in range(rounds):
            for peer, kept in found.items():
                kept.append(workers[peer].ask(seconds)["steps_per_s"])
        for worker in workers.values():
            worker.close()
        speeds = {peer: median(kept) for peer, kept in found.items()}
        rows += [
            {"task": task, "peer": peer, "steps_per_s": round(speed), "ratio": round(speeds["simreal"] / speed, 2)}
            for peer, speed in speeds.items()
        ]
        rows += [{"task": task, "peer": peer, "absent": why} for peer, why in absent.items()]
        print(*rows[-len(STEPS) :], sep="\n", flush=True)
    return rows


def learning(pythons: dict[str, str]) -> list[dict[str, Any]]:
    """Seconds until FetchReach is learnt, seed by seed in turns."""
    rows: list[dict[str, Any]] = []
    for seed in SEEDS:
        for peer in LEARNING:
            worker = Worker(pythons.get(peer, sys.executable), "learning", peer, "FetchReach-v4", str(seed))
            found = worker.ask(600.0) if worker.there else {"absent": worker.why_not}
            worker.close()
            rows.append({"peer": peer, "seed": seed, **found})
            print(rows[-1], flush=True)
    return rows


def updates(rounds: int) -> list[dict[str, Any]]:
    """Updates per second, as `benchmarks.speed` measures them."""
    from benchmarks.speed.off_policy import bench_off_policy
    from benchmarks.speed.on_policy import bench_on_policy

    rows = [row for name in ("sac", "ddpg") for row in bench_off_policy(name, 4 * rounds) or []]
    found = [row.as_dict() for row in (*rows, *bench_on_policy(512, (128, 128), rounds))]
    print(*found, sep="\n", flush=True)
    return found


def main() -> None:
    """Measure; prints rows as they come."""
    parser = argparse.ArgumentParser(description="simreal beside its peers.")
    parser.add_argument("--python", action="append", default=[], metavar="PEER=PYTHON")
    parser.add_argument("--only", action="append", choices=("steps", "updates", "learning"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each turn of `steps`")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    pythons = dict(text.split("=", 1) for text in options.python)
    wanted, found = options.only or ["steps", "updates", "learning"], dict[str, Any]()
    for name in wanted:
        if name == "steps":
            found[name] = stepping(pythons, options.rounds, options.seconds)
        elif name == "updates":
            found[name] = updates(options.rounds)
        else:
            found[name] = learning(pythons)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
