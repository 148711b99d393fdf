"""Learning curves of several arms: python benchmarks/plot_scores.py OUTPUT.png NAME=PATH[,PATH ...] [NAME=... ...].

A path is a run directory of ours, or a file that scores_sb3.py wrote. Both are drawn as the mean return of the last 100
episodes in training against steps, a line for the mean of an arm's seeds and a band from the lowest to the highest.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from simreal.report.figures import learning_curves
from simreal.report.records import Columns, read_columns

_WINDOW, _EVERY = 100, 5000  # episodes of a mean, steps between two points: as in our runs


def curve(path: Path) -> Columns:
    """Columns "env_steps" and "return" of a run."""
    if path.is_dir():
        return read_columns(path / "metrics.csv")
    row = json.loads(path.read_text())
    returns, ends = row["training"]["return"], np.cumsum(row["training"]["length"])
    steps = list(range(_EVERY, row["steps"] + 1, _EVERY))
    over = np.searchsorted(ends, steps, side="right")  # episodes that have ended by then
    means = [float(np.mean(returns[max(k - _WINDOW, 0) : k])) if k else float("nan") for k in over]
    return {"env_steps": [float(step) for step in steps], "return": means}


def main(output: str, arms: list[str]) -> None:
    """Draw the arms that the command line names."""
    named = dict(arm.split("=", 1) for arm in arms)
    curves = {name: [curve(Path(path)) for path in paths.split(",")] for name, paths in named.items()}
    learning_curves(curves, "return", "return, last 100 episodes", "env_steps").savefig(output, dpi=100)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
