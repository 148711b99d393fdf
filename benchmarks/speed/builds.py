"""Wall time of whole trainings of two builds, which take turns: five pairs each, medians.

    python -m benchmarks.speed.builds OLD NEW                          # two checkouts; the three runs below
    python -m benchmarks.speed.builds . . --new-option train.overlap=true # an option of one
    python -m benchmarks.speed.builds OLD NEW --only fetch_reach --pairs 3 --scale 0.1 --json FILE

Pair p trains with seed p modulo 3 in both builds. Beside wall time: processor time of the command and all that it
started, which says on a busy machine how much of it was work, and the evaluation at the end. On a quiet machine with
more than two processors: `taskset -c 0,1 python -m benchmarks.speed.builds ...`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RUNS = {"fetch_reach": 30_000, "fetch_push": 100_000, "go1_velocity": 500_000}  # environment steps
_SEEDS = 3


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        wall_s: of the command, start, evaluation and export included.
        training_s: of training alone.
        processor_s: of the command and its children.
        worlds: the evaluation: name, success rate and its 95 % interval, mean return and its standard error.
    """

    config: str
    build: str
    seed: int
    wall_s: float
    training_s: float
    processor_s: float
    worlds: list[dict[str, Any]]


def train(config: str, steps: int, seed: int, build: str, checkout: Path, options: list[str]) -> Run:
    """Train in a process of its own, with a checkout's packages. Raises CalledProcessError."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "simreal", "train", config, f"train.env_steps={steps}", f"seed={seed}", *options,
            "--run-dir", f"{folder}/run",
        ]  # fmt: skip
        environment = os.environ | {"PYTHONPATH": str(checkout.resolve())}
        before, began = _children_s(), time.perf_counter()
        done = subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True)
        wall = time.perf_counter() - began
        worlds = json.loads(Path(folder, "run", "evaluation.json").read_text())["worlds"]
    (told,) = (line for line in done.stdout.splitlines() if line.startswith("Trained "))
    keys = ("name", "success_rate", "success_ci95", "return_mean", "return_se")
    figures = [{key: world[key] for key in keys} for world in worlds]
    return Run(config, build, seed, wall, float(told.split()[-2]), _children_s() - before, figures)


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def table(config: str, runs: list[Run]) -> str:
    """Medians of both builds, the median of the ratios of pairs, and what the evaluations say."""
    old, new = ([run for run in runs if run.build == build] for build in ("old", "new"))
    lines = [f"{config}: {len(new)} pairs"]
    for name in ("wall_s", "training_s", "processor_s"):
        a, b = ([getattr(run, name) for run in part] for part in (old, new))
        ratios = sorted(y / x for x, y in zip(a, b, strict=True))
        ratio = statistics.median(ratios)
        lines.append(
            f"  {name:12} old {statistics.median(a):8.1f}  new {statistics.median(b):8.1f}  "
            f"ratio {ratio:.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})"
        )
    for run in sorted((run for run in runs), key=lambda run: (run.seed, run.build == "new")):
        said = ", ".join(
            f"{w['name']}: success {w['success_rate']:.2f} {w['success_ci95']}, "
            f"return {w['return_mean']:.1f} +- {w['return_se']:.1f}"
            for w in run.worlds
        )
        lines.append(f"  seed {run.seed} {run.build}: {said}")
    return "\n".join(lines)


def main() -> None:
    """Measure; prints a table for each configuration as it is done."""
    parser = argparse.ArgumentParser(description="Wall time of trainings of two builds, in turns.")
    parser.add_argument("old", type=Path, help="a checkout")
    parser.add_argument("new", type=Path, help="another one, or the same")
    parser.add_argument("--old-option", action="append", default=[], help="key=value for the old build's runs alone")
    parser.add_argument("--new-option", action="append", default=[], help="key=value for the new build's runs alone")
    parser.add_argument("--option", action="append", default=[], help="key=value for all runs")
    parser.add_argument("--only", choices=sorted(RUNS), action="append")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of steps")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all runs to this file")
    options = parser.parse_args()
    found: list[Run] = []
    for config in options.only or RUNS:
        steps, runs = round(RUNS[config] * options.scale), list[Run]()
        for pair in range(options.pairs):
            builds = [("old", options.old, options.old_option), ("new", options.new, options.new_option)]
            for build, checkout, own in builds if pair % 2 == 0 else builds[::-1]:
                runs.append(train(config, steps, pair % _SEEDS, build, checkout, [*options.option, *own]))
                print(f"  {config} {build} seed {runs[-1].seed}: {runs[-1].wall_s:.1f} s", file=sys.stderr, flush=True)
        found += runs
        print(table(config, runs), flush=True)
        if options.json is not None:
            options.json.write_text(json.dumps([asdict(run) for run in found], indent=1) + "\n")


if __name__ == "__main__":
    main()
