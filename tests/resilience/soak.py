"""Kills a training run again and again, and looks whether it ends as it would have.

    python tests/resilience/soak.py [CONFIG] [--kills 50] [--seed 0] [--set key.sub=value ...] [--keep FOLDER]

Trains CONFIG (a YAML file or a shipped name; left out: one of the tiny runs of tests/resilience) once undisturbed.
Then trains it once more in processes that get SIGKILL at random moments, half of them while a checkpoint is being
written, and are resumed. Compares everything that a run leaves behind: every leaf of the newest checkpoint, metrics.csv
and adr.csv without the column of seconds, evaluation.json, and the bundle. Exit status 0 if nothing differs.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.console import Console

import simreal.training.trainer as schedule
from simreal.cli.main import main as simreal
from simreal.training.run_config import load_config
from tiny import configuration, differences, fork

_SLOWEST_START_S = 300.0


@dataclass
class Tally:
    """What happened to the killed run."""

    while_writing: int = 0
    lost_steps: list[int] = field(default_factory=list)
    finished: int = 0


def _train(config: Path, run: Path) -> int:
    """A process that trains, resuming whatever there is. Forked: the imports are made once."""
    child = fork()
    if child:
        return child
    status = 1
    try:
        with (run.parent / f"{run.name}.log").open("a") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            resume = ["--resume"] if run.exists() else []
            schedule._MOST_TIME_SAVING = 1.0  # as often as configured, so that many kills meet a save
            simreal(["train", str(config), "--run-dir", str(run), *resume])
            status = 0
    except SystemExit as ended:
        status = int(ended.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _steps_of(path: Path | None) -> int:
    return int(path.stem.removeprefix("step_")) if path else 0


def _newest(run: Path) -> Path | None:
    return max((run / "checkpoints").glob("step_*.safetensors"), default=None)


def _reached(run: Path) -> int:
    """Steps of the last whole row of metrics.csv, for the count of lost steps."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int((run / "metrics.csv").read_bytes().splitlines()[-1].split(b",")[0])
    return 0


def _is_writing(run: Path) -> bool:
    try:
        return any(entry.name.endswith(".tmp") for entry in os.scandir(run / "checkpoints"))
    except OSError:
        return False


def _kill(child: int, run: Path, draw: random.Random, longest_s: float, tally: Tally) -> bool:
    """Kill a process at a random moment, after it has got further than before. False if it finished first."""
    before, writing = _newest(run), draw.random() < 0.5
    deadline = time.monotonic() + _SLOWEST_START_S
    while _newest(run) == before:  # what dies before it saves would never get anywhere
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        if time.monotonic() > deadline:
            raise RuntimeError(f"no checkpoint for {_SLOWEST_START_S:g} s; see {run}.log")
        time.sleep(0.002)
    moment = time.monotonic() + draw.random() * longest_s
    while time.monotonic() < moment or (writing and time.monotonic() < moment + longest_s and not _is_writing(run)):
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        if not writing:
            time.sleep(0.002)
    tally.while_writing += _is_writing(run)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    tally.lost_steps.append(max(_reached(run) - _steps_of(_newest(run)), 0))
    return True


def soak(config: Path, kills: int, seed: int, folder: Path, longest_s: float) -> tuple[Tally, list[str]]:
    """Train undisturbed and killed; returns what happened and what differs."""
    draw, tally = random.Random(seed), Tally()
    whole, killed = folder / "undisturbed" / "run", folder / "killed" / "run"
    for run in (whole, killed):
        run.parent.mkdir(parents=True, exist_ok=True)
    if os.waitpid(_train(config, whole), 0)[1]:
        raise RuntimeError(f"the undisturbed run failed; see {whole}.log")
    while len(tally.lost_steps) < kills:
        if not _kill(_train(config, killed), killed, draw, longest_s, tally):
            tally.finished += 1
            _refuse_failure(killed)
            break
    if os.waitpid(_train(config, killed), 0)[1]:
        raise RuntimeError(f"the killed run could not be resumed; see {killed}.log")
    found = differences(whole, killed)
    for name in ("evaluation.json", "config.yaml", "bundle/policy.onnx", "bundle/golden.npz", "bundle/policy.json"):
        if (whole / name).read_bytes() != (killed / name).read_bytes():
            found.append(name)
    left = [str(p.relative_to(killed)) for p in killed.rglob("*") if p.suffix == ".tmp" or p.name.startswith(".")]
    return tally, found + [f"left behind: {name}" for name in left]


def _refuse_failure(run: Path) -> None:
    if not (run / "bundle").is_dir():
        raise RuntimeError(f"a resumed process ended early; see {run}.log")


def tiny_config(folder: Path, learner: str, sampler: str, steps: int) -> Path:
    """A tiny run as a file."""
    train = {"env_steps": steps, "log_interval": 60, "torch_threads": 1, "checkpoint_interval_s": 0.1}
    path = folder / "tiny.yaml"
    path.write_text(configuration(learner, sampler, train=train).to_yaml())
    return path


def main() -> int:
    """Command line; returns the exit status."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", nargs="?", help="a YAML file or a shipped name")
    parser.add_argument("--learner", default="ddpg her", help="of the tiny run, where no CONFIG is given")
    parser.add_argument("--sampler", default="adr", help="of the tiny run")
    parser.add_argument("--steps", type=int, default=20_000, help="of the tiny run")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--longest", type=float, default=0.4, help="seconds that a process lives after it has saved")
    parser.add_argument("--set", nargs="*", default=[], dest="overrides", metavar="key.sub=value")
    parser.add_argument("--keep", type=Path, help="a new folder for both runs; left out: a temporary one")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="soak"))
    folder.mkdir(parents=True, exist_ok=True)
    if arguments.config is None:
        config = tiny_config(folder, arguments.learner, arguments.sampler, arguments.steps)
    else:
        config = folder / "soak.yaml"
        config.write_text(load_config(arguments.config, arguments.overrides).to_yaml())
    began = time.monotonic()
    tally, found = soak(config, arguments.kills, arguments.seed, folder, arguments.longest)
    lost = sorted(tally.lost_steps) or [0]
    out = Console(highlight=False, soft_wrap=True)
    out.print(
        f"{config.stem}: {len(tally.lost_steps)} kills in {time.monotonic() - began:.0f} s, {tally.while_writing} "
        f"while a checkpoint was being written; steps lost per kill: median {lost[len(lost) // 2]}, most {lost[-1]}"
    )
    if tally.finished:
        out.print(f"the run ended before {arguments.kills} kills; train it for longer")
    out.print("differs: " + ", ".join(found) if found else "nothing differs from the undisturbed run")
    if arguments.keep is None and not found:
        shutil.rmtree(folder)
    return 1 if found or tally.finished else 0


if __name__ == "__main__":
    sys.exit(main())
