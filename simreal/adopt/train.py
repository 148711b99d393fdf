"""An adopted robot's training to its end, evaluated and exported as its package says, and what became of it."""

from __future__ import annotations

import hashlib
import shlex
from pathlib import Path
from typing import Any

from rich.console import Console

from envs.robots.files import RobotFile, files_of
from simreal.adopt.smoke import within
from simreal.common.errors import UserError
from simreal.common.json_io import read_json, to_json, without_samples
from simreal.evaluation.compare import reported_table
from simreal.evaluation.metrics import metric_of
from simreal.training.checkpoint import EVALUATION, newest_checkpoint
from simreal.training.run_directory import load_policy
from simreal.training.trainer import Interrupted

RUN = Path("runs") / "first"
ORIGIN = "adopted.json"  # in a package: which robot it was made of


def origin(robot: RobotFile, kind: str) -> str:
    """What a package remembers of its robot's files, so that the same command goes on with it: JSON."""
    files = files_of(robot.path) if robot.urdf is None else (robot.path, *robot.urdf.assets.values())
    digest = hashlib.sha256()
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return to_json({"file": robot.path.name, "sha256": digest.hexdigest(), "task": kind})


def check_origin(folder: Path, robot: RobotFile, kind: str | None) -> str:
    """The kind of task of a package that this robot was adopted into before.

    Raises:
        UserError: the folder is no package, or one of another robot or task.
    """
    known = read_json(folder / ORIGIN)
    if known is None:
        raise UserError(f"{folder}: exists, and is no package of simreal adopt; name another --output")
    made = str(known.get("task"))
    if kind not in (None, made):
        raise UserError(f"{folder}: holds a package for --task {made}, got --task {kind}; name another --output")
    if to_json(known) != origin(robot, made):
        raise UserError(f"{folder}: holds another robot, or {robot.path.name} has changed; name another --output")
    return made


def train_package(folder: Path, overrides: list[str], again: str, out: Console) -> dict[str, Any]:
    """Train in a package's folder from the start or where it stopped; evaluate, export, and say what became of it.

    Args:
        folder: of the package.
        overrides: of its configuration.
        again: the command that goes on with it.
        out: where to say so.

    Returns:
        steps, minutes of training, evaluation of each world, and the bundle's folder (None where there is none).

    Raises:
        UserError, Interrupted: as `simreal train`; where it was interrupted, with what to do to go on.
    """
    from simreal.cli.commands import train_command

    out.print(f"Training in {folder}: {RUN / 'metrics.csv'} has the curve, and Ctrl-C stops it so that it can go on")
    with within(folder):
        try:
            train_command("config.yaml", overrides, RUN, (RUN / "config.yaml").is_file(), out)
        except Interrupted as interrupted:
            first, _, resume = str(interrupted).partition("; to continue: ")
            raise Interrupted(f"{first}; to continue: {again}, or cd {shlex.quote(str(folder))} && {resume}") from None
        task, last = load_policy(RUN).make_task(), newest_checkpoint(RUN)
        evaluation = read_json(RUN / EVALUATION)
        bundle = folder / RUN / "bundle" if (RUN / "bundle").is_dir() else None
    assert evaluation is not None
    steps, minutes, measure = int(last["env_steps"]), float(last["seconds"]) / 60.0, metric_of(task)
    out.print(f"{folder}: {steps:,} steps in {minutes:.1f} min of training")
    for world in evaluation["worlds"] if measure.interval is not None else ():
        value, span = measure.plain.value(world[measure.mean]), measure.plain.span(*world[measure.interval])
        out.print(f"{world['name']}: {measure.words} {value} (95 % interval {span}, {world['episodes']} episodes)")
    if (table := reported_table(evaluation, task.reported)) is not None:
        out.print(table)
    return {
        "steps": steps,
        "minutes": minutes,
        "evaluation": without_samples(evaluation),
        "bundle": None if bundle is None else str(bundle),
    }
