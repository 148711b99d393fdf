"""Plots of runs, for reports and docs/results."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from simreal.errors import UserError

Columns = dict[str, list[float]]
_UNSEEN_NPD = -10.0  # below it the entropy only says that some range has not opened yet


def read_columns(path: Path) -> Columns:
    """Columns of a CSV file; empty cells are NaN. Raises UserError if it is missing or not a table of numbers."""
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        return {key: [float(row[key] or "nan") for row in rows] for key in rows[0]} if rows else {}
    except (OSError, ValueError, TypeError, KeyError):
        raise UserError(f"{path}: missing or damaged; expected a table that `simreal train` wrote") from None


def learning_curves(runs: dict[str, Columns], column: str, label: str, against: str) -> Figure:
    """One column of metrics.csv of several runs, against "env_steps" or "seconds"."""
    figure, axis = _panel()
    for name, columns in runs.items():
        if column in columns:
            axis.plot(columns[against], columns[column], label=name)
    names = {"env_steps": "environment steps", "seconds": "training time (s)"}
    axis.set(xlabel=names[against], ylabel=label)
    if column == "success_rate":
        axis.set_ylim(-0.02, 1.02)
    if runs:
        axis.legend(fontsize=8)
    return figure


def entropy_curves(runs: dict[str, Columns]) -> Figure:
    """ADR entropy against steps; left out while some range still has no width."""
    figure, axis = _panel()
    for name, columns in runs.items():
        entropy = [value if value > _UNSEEN_NPD else math.nan for value in columns.get("entropy_npd", [])]
        axis.plot(columns.get("env_steps", []), entropy, label=name)
    axis.set(xlabel="environment steps", ylabel="ADR entropy (nats per dimension)")
    axis.legend(fontsize=8)
    return figure


def parameter_names(columns: Columns) -> list[str]:
    """Parameters whose bounds a table of adr.csv holds."""
    return [key.removesuffix(".lower") for key in columns if key.endswith(".lower")]


def range_curves(columns: Columns) -> Figure:
    """The range of every parameter against steps, a small panel each."""
    names = parameter_names(columns)
    wide = min(4, max(1, len(names)))
    tall = max(1, math.ceil(len(names) / wide))
    figure = Figure(figsize=(2.6 * wide, 1.7 * tall), layout="constrained")
    for i, name in enumerate(names):
        axis: Axes = figure.add_subplot(tall, wide, i + 1)
        low, high = columns[f"{name}.lower"], columns[f"{name}.upper"]
        axis.fill_between(columns["env_steps"], low, high, alpha=0.4)
        axis.plot(columns["env_steps"], low, linewidth=1, color="C0")
        axis.plot(columns["env_steps"], high, linewidth=1, color="C0")
        axis.set_title(name, fontsize=8)
        axis.tick_params(labelsize=6)
        axis.xaxis.get_offset_text().set_fontsize(6)
        axis.ticklabel_format(axis="x", style="sci", scilimits=(3, 3))
    return figure


def _panel() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.2, 3.2), layout="constrained")
    axis: Axes = figure.add_subplot()
    axis.xaxis.set_major_locator(MaxNLocator(6))
    axis.grid(alpha=0.3)
    return figure, axis
