"""Draws runs for docs/results: python benchmarks/plot_runs.py PREFIX RUN [RUN ...] writes PREFIX_*.png."""

from __future__ import annotations

import sys
from pathlib import Path

from envs.registry import make_task
from simreal.report.figures import entropy_curves, learning_curves, range_curves
from simreal.report.records import read_columns
from simreal.training.run_directory import is_estimator, run_config


def main(prefix: str, folders: list[Path]) -> None:
    """Successes, success or return against time (of policies), entropy against steps, the ranges of the first run."""
    metrics = {folder.name: [read_columns(folder / "metrics.csv")] for folder in folders}
    adr = {folder.name: [read_columns(folder / "adr.csv")] for folder in folders}
    if not is_estimator(folders[0]):
        config = run_config(folders[0])
        task = make_task(config.task, **config.task_options)
        column = "successes" if task.counts_successes else "success_rate" if task.has_success else "return"
        shown = f"{column.removesuffix('_rate')}, last 100 episodes"
        curves = learning_curves(metrics, column, shown, "seconds", share=column == "success_rate")
        curves.savefig(f"{prefix}_curve.png", dpi=100)
    first = adr[folders[0].name]
    if any(".lower" in key for key in first[0]):
        entropy = entropy_curves(adr)
        if entropy is not None:
            if is_estimator(folders[0]):
                entropy.axes[0].set_xlabel("pictures")
            entropy.savefig(f"{prefix}_entropy.png", dpi=100)
        range_curves(first).savefig(f"{prefix}_ranges.png", dpi=100)


if __name__ == "__main__":
    if len(sys.argv) < 3 or "--help" in sys.argv:
        print(__doc__)
        sys.exit(0 if "--help" in sys.argv else 2)
    main(sys.argv[1], [Path(argument) for argument in sys.argv[2:]])
