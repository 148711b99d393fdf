"""The command `simreal adopt`, as `simreal.cli.main` takes it; `adopt` does the work."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from simreal.common.errors import UserError


def adopt(
    robot: Annotated[str, typer.Argument(metavar="ROBOT", help="an MJCF or URDF file, or a name of MuJoCo Menagerie")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[key.sub=value ...]", help="of --train")] = None,
    task: Annotated[str | None, typer.Option(help="velocity, reach or hold; default: what fits the robot")] = None,
    output: Annotated[Path | None, typer.Option(metavar="DIR", help="folder to write; default: its name")] = None,
    doctor: Annotated[bool, typer.Option("--doctor", help="only look at the robot; status 1 where it ails")] = False,
    smoke: Annotated[bool, typer.Option(help="train for a short while, to see whether it learns")] = True,
    seconds: Annotated[float, typer.Option(min=1, max=3600, help="of that training")] = 90.0,
    train: Annotated[bool, typer.Option("--train", help="to the end, evaluate, export; again: goes on")] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="of --doctor and --train: also write it to this file")
    ] = None,
) -> None:
    """Look at a robot of yours, write a package with a task for it, and train: a little, or to the end."""
    out = Console(
        highlight=False, markup=False, emoji=False, soft_wrap=True, width=None if sys.stdout.isatty() else 110
    )
    out.print(f"{robot}: loading ...")
    from simreal.adopt.adopt import adopt_command, doctor_command

    if doctor:
        if task is not None or output is not None or train or overrides:
            raise UserError("--doctor: only looks at the robot; it takes none of --task, --output, --train, key=value")
        if not doctor_command(robot, json_file, out):
            sys.exit(1)
        return
    if overrides and not train:
        raise UserError(f"{overrides[0]}: changes what --train trains with; give --train too")
    if json_file is not None and not train:
        raise UserError("--json: says what --doctor or --train finds; give one of them too")
    adopt_command(robot, task, output, out, seconds if smoke else None, (overrides or []) if train else None, json_file)
