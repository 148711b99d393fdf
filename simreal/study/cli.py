"""The commands `simreal probe` and `simreal sweep`, as `simreal.cli.main` takes them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

OUT = Console(highlight=False, markup=False, emoji=False, soft_wrap=True, width=None if sys.stdout.isatty() else 110)


def probe(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="a run directory")],
    world: Annotated[str, typer.Option(help="world whose parameters vary: a name or a YAML file")] = "trained",
    at: Annotated[list[float] | None, typer.Option(help="s since the beginning of an episode; may come again")] = None,
    episodes: Annotated[int, typer.Option(min=50, max=100_000, help="to play")] = 500,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="of them")] = 4_000_003,
    json_file: Annotated[Path | None, typer.Option("--json", help="also write all figures to this file")] = None,
    task: Annotated[str | None, typer.Option(metavar="MODULE:CLASS", help="that the run's own code may be run")] = None,
    over_time: Annotated[
        bool, typer.Option("--adaptation", help="success since the world changes, see --world")
    ] = False,
    window: Annotated[
        float | None, typer.Option(help="s at first and later; default: a quarter of what follows")
    ] = None,
    picture: Annotated[Path | None, typer.Option(help="also draw --adaptation to this .png file")] = None,
) -> None:
    """Read the world's parameters from a policy's memory: what it has found out of where it is.

    With --adaptation: success and reward over time since the world of --world changes within an episode, beside the
    same episodes where it stays and where the policy forgets at that moment.
    """
    OUT.print(f"{run}: loading ...")
    from simreal.common.atomic_files import write_text
    from simreal.common.errors import UserError
    from simreal.common.json_io import to_json, write_target
    from simreal.evaluation.worlds import find_world
    from simreal.study.memory_probe import probe as probed
    from simreal.study.memory_probe import table
    from simreal.training.run_directory import load_policy

    if over_time:
        if at:
            raise UserError("--at: is of the memory; --adaptation takes --window")
        from simreal.study.adaptation import adaptation_command

        adaptation_command(run, world, episodes, seed, window, (json_file, picture), task, OUT.print)
        return
    if window is not None or picture is not None:
        raise UserError(f"--{'picture' if window is None else 'window'}: is of --adaptation; add that")
    target = None if json_file is None else write_target(json_file, ".json")
    policy = load_policy(run, task)
    if policy.module is None:
        raise UserError(f"{run}: is a bundle, which shows no memory; expected the directory of a run")
    times = (
        sorted(set(at)) if at else _times(policy.make_task().max_episode_steps * policy.make_task().control_period_s)
    )
    document = probed(policy, find_world(world, policy), times, episodes, seed, lambda text: OUT.print(text))
    for line in table(document):
        OUT.print(line)
    if target is not None:
        write_text(target, to_json(document))
        OUT.print(f"{target}: all figures")


def sweep(
    sweep: Annotated[str, typer.Argument(metavar="SWEEP", help="a YAML file")],
    run_dir: Annotated[Path | None, typer.Option(help="where to write and to continue; default sweeps/NAME")] = None,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="make the trials on this Ray cluster; 'local': on this machine"),
    ] = None,
) -> None:
    """Look for settings: trainings that a search proposes, judged by the same episodes, and how sure the best is."""
    OUT.print(f"{sweep}: reading ...")
    from simreal.study.sweep.search import sweep_command

    sweep_command(sweep, run_dir, OUT, ray)


def _times(length_s: float) -> list[float]:
    """Some times of an episode, most of them early: there is most to be found out."""
    return [share * length_s for share in (0.0, 0.02, 0.05, 0.1, 0.25, 0.5, 0.95)]
