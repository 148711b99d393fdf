"""Draws learning curves and ADR ranges of runs: python benchmarks/plot_runs.py OUTPUT.png RUN [RUN ...]."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def table(path: Path) -> dict[str, list[float]]:
    """Columns of a CSV file; empty cells are NaN."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {key: [float(row[key] or "nan") for row in rows] for key in rows[0]} if rows else {}


def main(output: str, runs: list[Path]) -> None:
    """One row of panels: success against time, entropy, and the ranges of the first run in shares of their limits."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
    for run in runs:
        metrics, adr = table(run / "metrics.csv"), table(run / "adr.csv")
        left.plot(metrics["seconds"], metrics["success_rate"], label=run.name)
        floor = [value if value > -10 else float("nan") for value in adr["entropy_npd"]]
        middle.plot(adr["env_steps"], floor, label=run.name)
    left.set(xlabel="training time (s)", ylabel="success, last 100 episodes", ylim=(-0.02, 1.02))
    middle.set(xlabel="environment steps", ylabel="ADR entropy (nats per dimension)")
    adr = table(runs[0] / "adr.csv")
    names = [key.removesuffix(".lower") for key in adr if key.endswith(".lower")]
    for i, name in enumerate(names):
        low, high = adr[f"{name}.lower"], adr[f"{name}.upper"]
        widest = max(abs(high[-1]), 1e-12)
        steps = adr["env_steps"]
        right.fill_between(steps, [v / widest + 2 * i for v in low], [v / widest + 2 * i for v in high], alpha=0.5)
        right.annotate(f"{name}: {low[-1]:.3g} to {high[-1]:.3g}", (steps[0], 2 * i + 0.95), fontsize=7)
    right.set(
        xlabel="environment steps", yticks=[], title=f"ranges of {runs[0].name}", ylim=(-0.2, 2 * len(names) + 0.3)
    )
    for axis in (left, middle):
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.savefig(output, dpi=110)


if __name__ == "__main__":
    main(sys.argv[1], [Path(argument) for argument in sys.argv[2:]])
