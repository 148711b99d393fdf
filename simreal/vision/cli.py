"""The command `simreal render`, as `simreal.cli.main` takes them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

OUT = Console(highlight=False, markup=False, emoji=False, soft_wrap=True, width=None if sys.stdout.isatty() else 140)
_LARGEST_SEED = 2**63 - 1


def render(
    task: Annotated[str, typer.Argument(metavar="TASK", help="an id of `simreal envs`, or MODULE:CLASS")],
    output: Annotated[Path, typer.Option(metavar="DIR", help="the folder to write")],
    frames: Annotated[int, typer.Option(min=1, max=100_000_000, help="pictures of each camera")],
    states: Annotated[str, typer.Option(metavar="RUN|random", help="whose actions lead to what is shown")] = "random",
    camera: Annotated[list[str] | None, typer.Option(help="'view' or a camera of the model; up to three times")] = None,
    mount: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=X,Y,Z:X,Y,Z:FOVY", help="a further camera: place, what it looks at (m), degrees"),
    ] = None,
    size: Annotated[str, typer.Option(metavar="WIDTHxHEIGHT", help="pixels; or one number for both")] = "96",
    seed: Annotated[int, typer.Option(min=0, max=_LARGEST_SEED, help="of states and worlds")] = 0,
    randomization: Annotated[
        str | None, typer.Option(metavar="FILE|visual", help="worlds: a YAML file; 'visual': everything visual")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on where it stopped")] = False,
    workers: Annotated[int | None, typer.Option(min=0, max=256, help="processes; default: all processors")] = None,
) -> None:
    """Render pictures of a task in sampled worlds, with states and worlds beside them, for networks to learn from."""
    OUT.print(f"{task}: loading ...")
    from simreal.vision.datasets.command import make_plan, parse_mounts, parse_pixels, render_command

    mounts = parse_mounts(mount or [])
    plan = make_plan(task, states, camera or list(mounts) or ["view"], parse_pixels(size), seed, randomization, mounts)
    render_command(plan, frames, output, resume, workers, OUT)
