"""`simreal record`: a policy's transitions in a file."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from simreal.common.errors import UserError
from simreal.common.json_io import write_target
from simreal.evaluation.record import Exploration, record
from simreal.evaluation.worlds import find_world
from simreal.learners.off_policy.dataset import read_dataset, write_dataset
from simreal.training.monitoring.progress import Progress
from simreal.training.run_directory import load_policy


def record_command(
    path: Path,
    output: Path,
    steps: int,
    noise: float,
    random: float,
    world: str,
    seed: int,
    task: str | None,
    out: Console,
) -> None:
    """`simreal record`. Raises UserError before anything is played."""
    if output.suffix != ".npz":
        raise UserError(f"{output}: expected a name that ends in .npz")
    write_target(output, ".npz")
    if output.exists():
        try:
            read_dataset(output)
        except UserError:
            raise UserError(f"{output}: exists and is no dataset of simreal; name another file") from None
    policy = load_policy(path, task)
    place = find_world(world, policy)
    bar = Progress(steps, 0, out, adr=False)
    with bar:
        dataset = record(
            policy, place, steps, seed, Exploration(noise, random),
            lambda count, ended: bar.update(count, f"{ended:,} episodes", 0.0),
        )  # fmt: skip
    if not len(dataset):
        raise UserError(f"{path}: nothing to record: every simulation became unstable")
    write_dataset(output, dataset)
    successes = float(dataset.arrays["success"].mean())
    out.print(
        f"{output}: {len(dataset):,} transitions of {dataset.episodes:,} episodes of {policy.task_id}, "
        f"reward {float(dataset.arrays['reward'].mean()):.3g} and success {successes:.2f} per step"
    )
