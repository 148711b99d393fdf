"""DQN and fitted Q iteration, measured: python benchmarks/value_family.py FOLDER [reach] [batch] [locomotion].

    reach        DQN on FetchReach under ADR, three seeds: a minute each on one processor
    batch        fitted Q iteration on records of random actions: FetchReach and InvertedPendulum, three seeds each
    locomotion   DQN beside SAC on HalfCheetah and Walker2d, 300,000 steps, two seeds: hours

Runs, records and figures go to FOLDER. What is there is not made again, and a training that was interrupted goes on:
call it again after an interruption. FOLDER/figures.json holds what has been measured so far, and each figure is printed
once it is there.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from simreal.cli.main import main as simreal
from simreal.common.json_io import to_json
from simreal.evaluation.intervals import mean_and_error, wilson
from simreal.learners.off_policy.dataset import read_dataset

STEPS, TRANSITIONS = 300_000, 10_000
_ONE_THREAD = ["train.torch_threads=1", "threads=1"]


def train(folder: Path, name: str, config: str, *overrides: str) -> Path:
    """A finished run, made or continued if it is not there."""
    run = folder / name
    if not (run / "evaluation.json").is_file():
        begun = run.is_dir() and any((run / "checkpoints").glob("step_*"))
        simreal(["train", config, *overrides, *_ONE_THREAD, "--run-dir", str(run), *(["--resume"] if begun else [])])
    return run


def figures(run: Path) -> dict[str, Any]:
    """What the evaluation of a run found, in each of its worlds."""
    worlds = json.loads((run / "evaluation.json").read_text())["worlds"]
    rows = (run / "metrics.csv").read_text().splitlines()
    seconds = float(rows[-1].split(",")[rows[0].split(",").index("seconds")])
    keys = ("success_rate", "success_ci95", "return_mean", "return_se", "episodes")
    return {"seconds": seconds} | {world["name"]: {key: world[key] for key in keys} for world in worlds}


def record(folder: Path, run: Path, name: str) -> tuple[Path, dict[str, Any]]:
    """A record of random actions in a run's task, and how well these did, over its whole episodes."""
    path = folder / name
    if not path.is_file():
        simreal(["record", str(run), "--steps", str(TRANSITIONS), "--random", "1", "--output", str(path)])
    a = read_dataset(path).arrays
    ended = a["terminated"] | a["truncated"]
    whole = np.unique(a["episode"][ended])
    returns = [float(a["reward"][a["episode"] == number].sum()) for number in whole]
    successes = int(a["success"][ended].sum())
    mean, error = mean_and_error(returns)
    return path, {
        "success_rate": successes / len(whole), "success_ci95": list(wilson(successes, len(whole))),
        "return_mean": mean, "return_se": error, "episodes": len(whole),
    }  # fmt: skip


def reach(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """DQN under ADR."""
    for seed in range(3):
        yield (
            f"FetchReach, DQN, seed {seed}",
            figures(train(folder, f"reach-{seed}", "fetch_reach_dqn", f"seed={seed}")),
        )


def batch(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Fitted Q iteration on what random actions did."""
    anyone = train(folder, "reach-0", "fetch_reach_dqn", "seed=0")
    path, behaviour = record(folder, anyone, "reach.npz")
    yield "FetchReach, random actions, as recorded", {"nominal": behaviour}
    for seed in range(3):
        run = train(folder, f"reach-fqi-{seed}", "fetch_reach_fqi", f"learner.dataset={path}", f"seed={seed}")
        yield f"FetchReach, FQI, seed {seed}", figures(run)
    few = ("train.env_steps=4096", "evaluate.worlds=[nominal]", "evaluate.episodes=2")
    path, behaviour = record(folder, train(folder, "pendulum", "inverted_pendulum", *few), "pendulum.npz")
    yield "InvertedPendulum, random actions, as recorded", {"nominal": behaviour}
    for seed in range(3):
        run = train(
            folder, f"pendulum-fqi-{seed}", "fetch_reach_fqi", "task=InvertedPendulum-v5", f"learner.dataset={path}",
            "learner.gamma=0.98", "learner.target_limits=[0, 50]", "learner.sweeps=100",
            "learner.updates_per_sweep=200", f"seed={seed}",
        )  # fmt: skip
        yield f"InvertedPendulum, FQI, seed {seed}", figures(run)


def locomotion(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """DQN beside SAC at the same number of steps and updates."""
    for seed in range(2):
        for task, config in (("HalfCheetah", "half_cheetah_dqn"), ("Walker2d", "walker2d_dqn")):
            steps = (f"train.env_steps={STEPS}", f"seed={seed}")
            yield f"{task}, DQN, seed {seed}", figures(train(folder, f"{task}-dqn-{seed}", config, *steps))
            other = train(folder, f"{task}-sac-{seed}", "half_cheetah_sac", f"task={task}-v5", *steps)
            yield f"{task}, SAC, seed {seed}", figures(other)


def main() -> None:
    """Measure the parts that are named, or all."""
    parts = {"reach": reach, "batch": batch, "locomotion": locomotion}
    if len(sys.argv) < 2 or not set(sys.argv[2:]) <= parts.keys():
        sys.exit(__doc__)
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "figures.json"
    found: dict[str, Any] = json.loads(target.read_text()) if target.is_file() else {}
    for part in sys.argv[2:] or parts:
        for name, measured in parts[part](folder):
            found[name] = measured
            target.write_text(to_json(found))
            print(name, json.dumps(measured), flush=True)


if __name__ == "__main__":
    main()
