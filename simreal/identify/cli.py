"""The commands `simreal excite` and `simreal identify`, as `simreal.cli.main` takes them; `commands` does the work."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

OUT = Console(highlight=False, markup=False, emoji=False, soft_wrap=True, width=None if sys.stdout.isatty() else 110)
_LARGEST_SEED = 2**63 - 1
Hang = Annotated[bool, typer.Option("--hang", help="the robot hangs by its base, level, and touches nothing")]
Without = Annotated[
    list[str] | None, typer.Option(metavar="BODY", help="of the task, that is not there; may come again")
]


def excite(
    task: Annotated[
        str, typer.Argument(metavar="TASK", help="whose model is the robot's: a task's id, or FILE.py:CLASS")
    ],
    output: Annotated[Path, typer.Option(metavar="FILE.csv", help="the table of commands to write")],
    parameters: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="YAML: what is to be found, with ranges; default: every driven joint's"),
    ] = None,
    hang: Hang = False,
    without: Without = None,
    seconds: Annotated[float, typer.Option(min=2, max=600, help="length of the motion")] = 20.0,
    speed: Annotated[float, typer.Option(min=1e-6, help="largest speed of a joint, rad/s or m/s")] = 1.5,
    force: Annotated[float, typer.Option(min=0.01, max=1, help="largest share of an actuator's force")] = 0.7,
    travel: Annotated[
        float, typer.Option(min=0.001, max=0.5, help="largest share of a command's range, to either side of the start")
    ] = 0.15,
    rate: Annotated[float | None, typer.Option(min=1, max=10_000, help="of commands, Hz; default: the task's")] = None,
    band: Annotated[tuple[float, float], typer.Option(help="lowest and highest frequency, Hz")] = (0.1, 3.0),
    noise: Annotated[
        tuple[float, float], typer.Option(help="of measured positions and velocities, assumed: rad or m, and per s")
    ] = (5e-4, 5e-3),
    draws: Annotated[int, typer.Option(min=1, max=1000, help="motions to choose from")] = 6,
    seed: Annotated[int, typer.Option(min=0, max=_LARGEST_SEED, help="of these")] = 0,
) -> None:
    """Write a motion that shows a robot's parameters, and say what a log of it will tell."""
    OUT.print(f"{task}: drawing motions ...")
    from simreal.identify.commands import excite_command
    from simreal.identify.excite.excitation import Limits
    from simreal.identify.rig import Rig

    limits, rig = Limits(speed, force, travel), Rig(hang, tuple(without or ()))
    excite_command(task, rig, output, parameters, seconds, limits, rate, band, noise, draws, seed, OUT)


def identify(
    task: Annotated[
        str, typer.Argument(metavar="TASK", help="whose model is the robot's: a task's id, or FILE.py:CLASS")
    ],
    logs: Annotated[list[Path], typer.Argument(metavar="LOG ...", help="rosbag2, MCAP, CSV or npz, of one robot")],
    output: Annotated[Path, typer.Option(metavar="DIR", help="a new folder for what is found")],
    parameters: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="YAML: parameters with their ranges; default: every driven joint's"),
    ] = None,
    hang: Hang = False,
    without: Without = None,
    command: Annotated[str | None, typer.Option(metavar="SIGNAL", help="of the log: what actuators were told")] = None,
    position: Annotated[str | None, typer.Option(metavar="SIGNAL", help="of the log: positions of joints")] = None,
    velocity: Annotated[str | None, typer.Option(metavar="SIGNAL", help="of the log: velocities of joints")] = None,
    offset: Annotated[float, typer.Option(min=0, help="largest offset of a joint's sensor, rad or m; 0: none")] = 0.0,
    piece: Annotated[
        float, typer.Option(min=0.02, max=60, help="length of the pieces that logs are cut into, s")
    ] = 0.5,
    starts: Annotated[int, typer.Option(min=1, max=1000, help="worlds from which the search may begin")] = 4,
    seed: Annotated[int, typer.Option(min=0, max=_LARGEST_SEED, help="of these worlds and of the bootstrap")] = 0,
) -> None:
    """Find a robot's parameters, with their uncertainty, from its logs."""
    OUT.print(f"{task}: reading {', '.join(map(str, logs))} ...")
    from simreal.identify.commands import identify_command
    from simreal.identify.rig import Rig

    chosen = {"command": command, "position": position, "velocity": velocity}
    signals = {key: value for key, value in chosen.items() if value is not None}
    identify_command(
        task, Rig(hang, tuple(without or ())), logs, parameters, output, signals, offset, piece, starts, seed, OUT
    )
