"""The commands `simreal render` and `simreal estimate`, as `simreal.cli.main` takes them."""

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


def estimate(
    config: Annotated[str, typer.Argument(metavar="CONFIG|RUN", help="a YAML file, a shipped one, or a trained run")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[key.sub=value ...]")] = None,
    run_dir: Annotated[Path | None, typer.Option(help="where to write; default runs/NAME-N")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="continue the newest checkpoint")] = False,
    noise: Annotated[
        bool, typer.Option("--noise-block", help="RUN: print its errors as a randomization block")
    ] = False,
    policy: Annotated[
        Path | None, typer.Option(metavar="RUN_OR_BUNDLE", help="RUN: play this policy on what it reads")
    ] = None,
    look: Annotated[list[str] | None, typer.Option(help="RUN: nominal, trained, held_out, blur, occluder")] = None,
    frames: Annotated[int | None, typer.Option(min=16, help="RUN: fresh pictures in every look")] = None,
    episodes: Annotated[int, typer.Option(min=1, help="--policy: of each kind")] = 400,
    seed: Annotated[int | None, typer.Option(min=0, max=_LARGEST_SEED, help="RUN: of states, looks, episodes")] = None,
    rate: Annotated[float | None, typer.Option(min=0.01, help="--policy: pictures per second")] = None,
    latency: Annotated[float, typer.Option(min=0, max=10, help="--policy: of the camera, s")] = 0.0,
    drop: Annotated[float, typer.Option(min=0, max=0.99, help="--policy: probability that a picture is lost")] = 0.0,
    json_file: Annotated[Path | None, typer.Option("--json", help="RUN: write the figures to this file")] = None,
) -> None:
    """Train a network that reads poses from pictures; of a trained one: how well it reads, and what a policy makes of
    it."""
    OUT.print(f"{config}: loading ...")
    from simreal.common.errors import UserError
    from simreal.vision.estimator import command
    from simreal.vision.sensors.config import SensorConfig

    run = Path(config)
    trained = run.is_dir()
    if not trained and (noise or policy is not None or look or frames or json_file is not None or seed is not None):
        raise UserError(f"{config}: --noise-block, --policy, --look, --frames, --seed and --json are of a trained run")
    if trained and (overrides or resume or run_dir is not None):
        raise UserError(f"{config}: is a run; to go on with it, name its CONFIG, and --run-dir {config} --resume")
    if not trained:
        command.estimate_command(config, overrides or [], run_dir, resume, OUT)
    elif noise:
        command.noise_command(run, (look or ["trained"])[0], OUT)
    elif policy is not None:
        camera = SensorConfig(estimator=config, rate_hz=rate, latency_s=latency, drop=drop, unseen=False)
        looks = look or ["nominal", "held_out"]
        command.policy_command(
            run, policy, looks, episodes, 1_000_003 if seed is None else seed, camera, json_file, OUT
        )
    else:
        command.assess_command(run, look, frames, seed, json_file, OUT)
