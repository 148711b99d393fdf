"""The command `simreal solve`, as `simreal.cli.main` takes it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

OUT = Console(highlight=False, markup=False, emoji=False, soft_wrap=True, width=None if sys.stdout.isatty() else 110)


def solve(
    policy: Annotated[Path, typer.Argument(metavar="RUN_OR_BUNDLE", help="of RubiksCube-v0")],
    scramble: Annotated[str | None, typer.Option(metavar="MOVES", help='as "R U2 F\'"; default: by --seed')] = None,
    facelets: Annotated[str | None, typer.Option(metavar="STRING", help="the cube, as 54 letters of URFDLB")] = None,
    moves: Annotated[int, typer.Option(min=0, max=1000, help="of a scramble by seed")] = 25,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="of the scramble and the episode")] = 7,
    world: Annotated[str, typer.Option(help="world name or YAML file")] = "nominal",
    video: Annotated[Path | None, typer.Option(help="also write an MP4 or a GIF")] = None,
    strip: Annotated[Path | None, typer.Option(help="also write a picture of moments, PNG or JPEG")] = None,
    size: Annotated[str, typer.Option(metavar="WIDTHxHEIGHT", help="of pictures")] = "480",
    json_file: Annotated[Path | None, typer.Option("--json", help="also write what became of it to this file")] = None,
) -> None:
    """Scramble a Rubik's Cube, plan, and have a policy solve it, subgoal after subgoal."""
    from simreal.evaluation.solve import solve_command

    solve_command(policy, (scramble, facelets, seed, moves), world, (video, strip, json_file), size, OUT)
