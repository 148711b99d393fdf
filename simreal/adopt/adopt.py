"""`simreal adopt`: looks at a robot as somebody has it, writes a package for it, and tries whether it learns, or trains
it to the end."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from envs.common.errors import TaskError
from envs.common.messages import nearest
from envs.robots.doctor.examine import examine
from envs.robots.doctor.symptom import Symptom
from envs.robots.files import RobotFile, open_robot
from envs.robots.ready import floating_robots
from simreal.adopt.new import module_name
from simreal.adopt.package import ABOUT, KINDS, Kind, guess_kind, write_package
from simreal.adopt.train import ORIGIN, RUN, check_origin, origin, train_package
from simreal.common.atomic_files import new_folder, write_text, writing
from simreal.common.errors import UserError
from simreal.common.json_io import to_json, write_target


def doctor_command(name: str, json_file: Path | None, out: Console) -> bool:
    """Look at a robot's file, print what is wrong, write JSON. Returns whether nothing is.

    Raises:
        UserError, TaskError: there is no such robot, or its file is neither MJCF nor URDF.
    """
    target = None if json_file is None else write_target(json_file, ".json")
    robot = open_robot(name)
    symptoms = _looked(robot, out)
    if target is not None:
        write_text(target, to_json(_document(robot, symptoms)))
    return not any(symptom.severity != "note" for symptom in symptoms)


def adopt_command(
    name: str,
    kind: str | None,
    output: Path | None,
    out: Console,
    smoke_s: float | None = None,
    train: list[str] | None = None,
    json_file: Path | None = None,
) -> Path:
    """Look at a robot, write a package for it, and train in it. Returns the package's folder.

    Args:
        name: a file, or a name of MuJoCo Menagerie.
        kind: of task; None: the one that fits.
        output: folder to write; None: the robot's name. With `train`, a folder that was made of the same robot is gone
            on with.
        out: where to say so.
        smoke_s: seconds of a training that shows whether it learns; None: none.
        train: train to the end, evaluate and export, with these overrides of the configuration; None: do not.
        json_file: what the doctor found, and what became of the training, is written there; needs `train`.

    Raises:
        UserError, TaskError: the robot cannot be adopted, or the folder holds something else; nothing is written then.
        Interrupted: the training was; a checkpoint is there.
    """
    if kind is not None and kind not in KINDS:
        raise UserError(f"--task: expected {', '.join(KINDS)}, got {kind!r}{nearest(kind, KINDS)}")
    target = None if json_file is None else write_target(json_file, ".json")
    robot = open_robot(name)
    module = module_name(robot.path)
    folder = output or Path(module)
    there = folder.exists()
    if there and train is None:
        raise UserError(f"{folder}: exists; name another --output")
    if there:
        kind = check_origin(folder, robot, kind)
    symptoms = _looked(robot, out)
    if not there:
        class_name = _write(robot, kind, folder, module, symptoms, out)
        if train is None:
            out.print(f"Next:\n  cd {folder}\n  simreal check task:{class_name}\n  simreal train config.yaml\n")
    if train is not None:
        asked = ["simreal", "adopt", name, *train, *(() if output is None else ("--output", str(output))), "--train"]
        became = train_package(folder, train, shlex.join(asked), out)
        out.print(_summary(robot, symptoms))
        out.print(f"{became['bundle'] or folder / RUN}      the policy for your robot: see docs/deploy.md")
        if target is not None:
            write_text(target, to_json(_document(robot, symptoms) | {"folder": str(folder), "trained": became}))
    elif smoke_s is not None:
        from simreal.adopt.smoke import smoke_run

        smoke_run(folder, smoke_s, out)
    return folder


def _write(
    robot: RobotFile, kind: str | None, folder: Path, module: str, symptoms: list[Symptom], out: Console
) -> str:  # fmt: skip
    """Write a package into a new folder; the name of its class. Raises UserError where the robot cannot be adopted."""
    errors = [symptom for symptom in symptoms if symptom.severity == "error"]
    if errors or robot.model is None:
        more = f" ({len(errors) - 1} more above)" if len(errors) > 1 else ""
        ails = f"cannot be adopted: {errors[0].line()}{more}" if errors else robot.error
        raise UserError(f"{robot.name}: {ails}")
    if len(robots := floating_robots(robot.model)) > 1:
        raise UserError(f"{robot.name}: holds {len(robots)} robots that float ({', '.join(robots)}), expected one")
    chosen: Kind = guess_kind(robot) if kind is None else next(k for k in KINDS if k == kind)
    out.print(f"{robot.name}: {ABOUT[chosen]}{' (--task says another)' if kind is None else ''}; writing {folder} ...")
    try:
        with writing(folder), new_folder(folder) as made:
            written = write_package(robot, chosen, module, made, symptoms)
            (made / ORIGIN).write_text(origin(robot, chosen))
    except TaskError as error:
        raise UserError(f"{robot.name}: --task {chosen}: {error}") from None
    for finding in written.left:
        out.print(f"warning: simulation: {finding.line()}")
    out.print(f"""
  {folder / "task.py"}      the task, a class {written.class_name}: make it yours
  {folder / "config.yaml"}  how it is trained, and in which worlds
  {folder / "README.md"}    what to do next
""")
    return written.class_name


def _looked(robot: RobotFile, out: Console) -> list[Symptom]:
    out.print(f"{robot.name}: looking at {robot.path.name} ...")
    symptoms = examine(robot)
    for symptom in symptoms:
        out.print(f"{symptom.severity}: {symptom.kind}: {symptom.line()}")
    out.print(_summary(robot, symptoms))
    return symptoms


def _summary(robot: RobotFile, symptoms: list[Symptom]) -> str:
    counts = Counter(symptom.severity for symptom in symptoms)
    told = [f"{counts[s]} {s}{'s' if counts[s] > 1 else ''}" for s in ("error", "warning", "note") if counts[s]]
    looked, model = "", robot.model
    if model is not None:
        looked = f" ({model.njnt} joints, {model.nactuator} actuators, {float(model.body_mass.sum()):.4g} kg)"
    wrong = counts["error"] + counts["warning"]
    return f"{robot.name}: {'' if wrong else 'nothing is wrong; '}{', '.join(told) or 'nothing to say'}{looked}"


def _document(robot: RobotFile, symptoms: list[Symptom]) -> dict[str, Any]:
    return {
        "name": robot.name,
        "file": robot.path.name,
        "kind": robot.kind,
        "healthy": all(symptom.severity == "note" for symptom in symptoms),
        "findings": [asdict(symptom) for symptom in symptoms],
    }
