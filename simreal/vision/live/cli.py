"""The command `simreal view`, as `simreal.cli.main` takes it."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

OUT = Console(highlight=False, markup=False, emoji=False, soft_wrap=True, width=None if sys.stdout.isatty() else 110)


def view(
    target: Annotated[
        str, typer.Argument(metavar="RUN|BUNDLE|TASK", help="a run, also one that is being trained; a bundle; a task")
    ],
    port: Annotated[int, typer.Option(min=0, max=65535, help="of the page; 0 takes a free one")] = 8080,
    host: Annotated[str, typer.Option(help="address to listen on; 0.0.0.0: the network sees the page")] = "127.0.0.1",
    actions: Annotated[Literal["zero", "random"], typer.Option(help="of a TASK, which has no policy")] = "zero",
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="of the episodes")] = 7,
    output: Annotated[Path, typer.Option(metavar="DIR", help="where films go")] = Path(),
    seconds: Annotated[float | None, typer.Option(min=0, help="how long to show it; default: until ctrl-c")] = None,
    task: Annotated[str | None, typer.Option(metavar="MODULE:CLASS", help="that the run's own code may be run")] = None,
    task_option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="of a TASK; may be repeated")
    ] = None,
) -> None:
    """Show a robot in the browser: push it, command it, change its world while it runs."""
    OUT.print(f"{target}: loading ...")
    from simreal.common.errors import UserError

    if find_spec("viser") is None:
        raise UserError("simreal view needs viser, which is not installed: pip install 'simreal[view]'")
    from simreal.training.run_config import apply_overrides
    from simreal.vision.live.page import serve
    from simreal.vision.live.source import find_source

    if not output.is_dir():
        raise UserError(f"--output: {output}: no such folder")
    source = find_source(target, actions, task, apply_overrides({}, task_option or []))
    serve(source, host, port, seed, output, seconds, OUT)
