"""`simreal adopt`: looks at a robot as somebody has it, writes a package for it, and tries whether it learns."""

from __future__ import annotations

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
from simreal.adopt.new import module_name
from simreal.adopt.package import ABOUT, KINDS, Kind, guess_kind, write_package
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


def adopt_command(name: str, kind: str | None, output: Path | None, smoke_s: float | None, out: Console) -> Path:
    """Look at a robot, write a package for it and train a little. Returns the package's folder.

    Args:
        name: a file, or a name of MuJoCo Menagerie.
        kind: of task; None: the one that fits.
        output: folder to write; None: the robot's name.
        smoke_s: seconds of the training that shows whether it learns; None: none.
        out: where to say so.

    Raises:
        UserError, TaskError: the robot cannot be adopted, or the folder exists; nothing is written then.
    """
    if kind is not None and kind not in KINDS:
        raise UserError(f"--task: expected {', '.join(KINDS)}, got {kind!r}{nearest(kind, KINDS)}")
    robot = open_robot(name)
    module = module_name(robot.path)
    folder = output or Path(module)
    if folder.exists():
        raise UserError(f"{folder}: exists; name another --output")
    symptoms = _looked(robot, out)
    errors = [symptom for symptom in symptoms if symptom.severity == "error"]
    if errors or robot.model is None:
        more = f" ({len(errors) - 1} more above)" if len(errors) > 1 else ""
        raise UserError(f"{name}: cannot be adopted: {errors[0].line()}{more}" if errors else f"{name}: {robot.error}")
    chosen: Kind = guess_kind(robot) if kind is None else next(k for k in KINDS if k == kind)
    out.print(f"{name}: {ABOUT[chosen]}{' (--task says another)' if kind is None else ''}; writing {folder} ...")
    try:
        with writing(folder), new_folder(folder) as made:
            written = write_package(robot, chosen, module, made, symptoms)
    except TaskError as error:
        raise UserError(f"{name}: --task {chosen}: {error}") from None
    for finding in written.left:
        out.print(f"warning: simulation: {finding.line()}")
    out.print(f"""
  {folder / "task.py"}      the task, a class {written.class_name}: make it yours
  {folder / "config.yaml"}  how it is trained, and in which worlds
  {folder / "README.md"}    what to do next

Next:
  cd {folder}
  simreal check task:{written.class_name}
  simreal train config.yaml
""")
    if smoke_s is not None:
        from simreal.adopt.smoke import smoke_run

        smoke_run(folder, smoke_s, out)
    return folder


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
