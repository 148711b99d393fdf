"""`simreal new`: a task, a configuration and a randomization block to start from, for a robot's MJCF."""

from __future__ import annotations

import importlib.util
import keyword
import re
import sys
from pathlib import Path

import mujoco
from rich.console import Console

from envs.common.errors import TaskError
from envs.registry import build_task
from envs.task import Task
from simreal.adopt.starter import Starter
from simreal.common.atomic_files import new_folder, writing
from simreal.common.errors import UserError

_TOO_GENERAL = ("scene", "robot", "model", "main", "task")  # names of files that say nothing about the robot


def new_command(robot: Path, output: Path | None, out: Console) -> Path:
    """Write a folder with a task and its configuration. Returns it.

    Raises:
        UserError, TaskError: the file is no robot, or the folder exists; nothing is written then.
    """
    name = module_name(robot)
    folder = output or Path(name)
    if folder.exists():
        raise UserError(f"{folder}: exists; name another --output")
    spec = _spec(robot)
    out.print(f"{robot}: looking at the robot ...")
    starter = Starter(robot, name, spec)
    try:
        with writing(folder), new_folder(folder) as made:
            (made / f"{name}.py").write_text(starter.code())
            task = made_task(made / f"{name}.py", name, starter.class_name)
            (made / f"{name}.yaml").write_text(starter.configuration(task))
    except TaskError as error:
        raise UserError(f"{robot}: cannot be made a task: {error}") from None
    for finding in starter.left:
        out.print(f"warning: simulation: {finding.line()}")
    out.print(f"""
  {folder / name}.py      the task: hold a posture that is asked for; make it yours
  {folder / name}.yaml      how it is trained, and in which worlds

Next:
  cd {folder}
  simreal check {name}:{starter.class_name}
  simreal train {name}.yaml
""")
    return folder


def module_name(robot: Path) -> str:
    """A name for the module, which no module that Python finds has."""
    stem = robot.resolve().parent.name if robot.stem.lower() in _TOO_GENERAL else robot.stem
    name = re.sub(r"\W+", "_", stem.lower()).strip("_") or "robot"
    name = f"robot_{name}" if name[0].isdigit() or keyword.iskeyword(name) else name
    return f"{name}_task" if name in sys.stdlib_module_names or importlib.util.find_spec(name) else name


def _spec(robot: Path) -> mujoco.MjSpec:
    if not robot.is_file():
        raise UserError(f"{robot}: no such file; expected the MJCF or URDF of a robot")
    try:
        spec = mujoco.MjSpec.from_file(str(robot.resolve()))
        spec.compile()
    except ValueError as error:
        raise UserError(f"{robot}: MuJoCo cannot compile it: {' '.join(str(error).split())}") from None
    return spec


def made_task(path: Path, name: str, class_name: str) -> Task:
    """The task that was just written."""
    spec = importlib.util.spec_from_file_location(f"_new_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return build_task(f"{name}:{class_name}", getattr(module, class_name), {})
