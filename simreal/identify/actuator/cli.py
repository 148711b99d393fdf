"""The command `simreal actuator`, as `simreal.cli.main` takes it; `command` does the work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from simreal.identify.cli import OUT

_LARGEST_SEED = 2**63 - 1
_Patterns = Annotated[list[str] | None, typer.Option("--joints", metavar="PATTERN", help="of the log; default: all")]


def actuator(
    logs: Annotated[list[Path], typer.Argument(metavar="LOG ...", help="rosbag2, MCAP, CSV or npz, of one robot")],
    output: Annotated[Path, typer.Option(metavar="DIR", help="a new folder for the network")],
    joints: _Patterns = None,
    stands_for: Annotated[
        list[str] | None,
        typer.Option(
            "--for", metavar="PATTERN", help="joints of the robot that the network is for; default: the log's"
        ),
    ] = None,
    each: Annotated[bool, typer.Option("--each", help="a network for each joint; default: one for all")] = False,
    network: Annotated[
        Literal["mlp", "gru"], typer.Option(help="mlp sees the last --samples; gru has a memory in their place")
    ] = "mlp",
    period: Annotated[float, typer.Option(min=0.1, max=1000, help="between samples of the history, ms")] = 5.0,
    samples: Annotated[int, typer.Option(min=1, max=64, help="of the history, the present one included")] = 4,
    hidden: Annotated[
        int, typer.Option(min=1, max=256, help="units of each of the two hidden layers, or of the memory")
    ] = 32,
    steps: Annotated[int, typer.Option(min=1, max=1_000_000, help="of gradients")] = 4000,
    seed: Annotated[int, typer.Option(min=0, max=_LARGEST_SEED, help="of the network's start and batches")] = 0,
    command: Annotated[str | None, typer.Option(metavar="SIGNAL", help="of the log: positions that were told")] = None,
    position: Annotated[str | None, typer.Option(metavar="SIGNAL", help="of the log: positions of joints")] = None,
    velocity: Annotated[str | None, typer.Option(metavar="SIGNAL", help="of the log: velocities of joints")] = None,
    torque: Annotated[str | None, typer.Option(metavar="SIGNAL", help="of the log: torques at joints")] = None,
) -> None:
    """Train a network of what actuators exert from a robot's logs."""
    OUT.print(f"reading {', '.join(map(str, logs))} ...")
    from simreal.identify.actuator.command import actuator_command
    from simreal.identify.actuator.training import Shape

    chosen = {"command": command, "position": position, "velocity": velocity, "torque": torque}
    signals = {kind: name for kind, name in chosen.items() if name is not None}
    shape = Shape(1e-3 * period, samples if network == "mlp" else 1, hidden, each, steps, seed, network)
    actuator_command(logs, output, signals, joints or ["*"], stands_for or [], shape, OUT)
