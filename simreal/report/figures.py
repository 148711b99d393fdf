"""Plots of runs, for reports and docs/results.

Colours are Okabe and Ito's, which colour-blind readers tell apart, and every line has a dash pattern and a label of
its own. `svg` replaces them by variables of the page, so that it can be light or dark.
"""

from __future__ import annotations

import hashlib
import html
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from simreal.report.records import Box, Columns, Marginal, Pair

INK, FAINT = "#24292f", "#d0d7de"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
_COLOURS_IN_WORDS = ("blue", "vermilion", "green", "purple", "amber", "sky blue")
_DASHES_IN_WORDS = ("solid", "dashed", "dotted", "dash-dotted")
_WIDE, _SMALL = (4.3, 2.7), (2.35, 1.75)  # inches
UNSEEN_NPD = -10.0  # below it the entropy only says that some range has not opened yet
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "text.parse_math": False, "font.size": 11, "axes.titlesize": 11, "axes.labelsize": 11,
    "xtick.labelsize": 10, "ytick.labelsize": 10, "text.color": INK, "axes.labelcolor": INK, "xtick.color": INK,
    "ytick.color": INK, "axes.edgecolor": FAINT, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": FAINT, "grid.linewidth": 0.6, "axes.axisbelow": True, "lines.linewidth": 1.8,
    "font.sans-serif": ["DejaVu Sans"],
}  # fmt: skip


def learning_curves(
    arms: Mapping[str, Sequence[Columns]], column: str, label: str, against: str, share: bool = False
) -> Figure:
    """One column of metrics.csv per arm: mean over its seeds, band from the lowest to the highest seed.

    Args:
        arms: tables of the seeds of each arm.
        column: what to draw.
        label: of the vertical axis, with its unit.
        against: "env_steps", "frames" or "seconds".
        share: the values are between 0 and 1.
    """
    with _panel(_WIDE) as (figure, axis):
        ends = []
        for i, (name, seeds) in enumerate(arms.items()):
            curves = [(s[against], s[column]) for s in seeds if s.get(column) and s.get(against)]
            if curves:
                ends.append((*_band(axis, curves, i), name, _colour(i)))
        across = {"env_steps": "environment steps", "frames": "pictures", "seconds": "training time (s)"}
        axis.set(xlabel=across[against], ylabel=label)
        if share:
            axis.set_ylim(-0.02, 1.02)
        _shorten_steps(axis)
        _label_ends(axis, ends)
    return figure


def entropy_curves(arms: Mapping[str, Sequence[Columns]], small: bool = False) -> Figure | None:
    """Entropy of the ranges against steps; left out while some range still has no width."""
    shown = {}
    for name, seeds in arms.items():
        shown[name] = [
            {**s, "entropy": [v if v > UNSEEN_NPD else math.nan for v in s["entropy_npd"]]}
            for s in seeds
            if s.get("entropy_npd")
        ]
    if small:
        return health_curve(shown, "entropy", "entropy (npd)")
    return learning_curves(shown, "entropy", "entropy (nats per dimension)", "env_steps")


def range_curve(seeds: Sequence[Columns], name: str, title: str, limits: tuple[float, float] | None = None) -> Figure:
    """The range of one parameter against steps: filled between the seeds' mean bounds, a thin line per bound."""
    with _panel(_SMALL) as (figure, axis):
        _draw_range(axis, seeds, name, title, limits)
    return figure


def range_curves(seeds: Sequence[Columns]) -> Figure:
    """The ranges of all parameters in one figure, four beside each other."""
    names = [key.removesuffix(".lower") for key in seeds[0] if key.endswith(".lower")]
    across = min(4, len(names))
    down = math.ceil(len(names) / across)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_SMALL[0] * across, _SMALL[1] * down), layout="constrained")
        for i, name in enumerate(names):
            _draw_range(figure.add_subplot(down, across, i + 1), seeds, name, name, None)
    return figure


def _draw_range(
    axis: Axes, seeds: Sequence[Columns], name: str, title: str, limits: tuple[float, float] | None
) -> None:
    for side in ("lower", "upper"):
        for s in seeds:
            marker = "o" if len(s["env_steps"]) == 1 else None
            axis.plot(
                s["env_steps"], s[f"{name}.{side}"], color=SERIES[0], linewidth=1.0, marker=marker, markersize=3.5
            )
    grid = _common_grid([s["env_steps"] for s in seeds])
    low, high = (_mean_on(grid, seeds, f"{name}.{side}") for side in ("lower", "upper"))
    axis.fill_between(grid, low, high, color=SERIES[0], alpha=0.25, linewidth=0)
    for limit in limits or ():
        if math.isfinite(limit):
            axis.axhline(limit, color=INK, linewidth=0.8, linestyle=(0, (2, 3)))
    axis.set_title(title, loc="left", fontsize=10)
    _few_ticks(axis, 3, 4)
    _shorten_steps(axis)


def health_curve(arms: Mapping[str, Sequence[Columns]], column: str, label: str) -> Figure | None:
    """One figure of the learner against steps, small; None if no run has it."""
    with _panel(_SMALL) as (figure, axis):
        drawn = False
        for i, seeds in enumerate(arms.values()):
            curves = [(s["env_steps"], s[column]) for s in seeds if s.get(column)]
            curves = [c for c in curves if any(math.isfinite(v) for v in c[1])]
            if curves:
                _band(axis, curves, i, width=1.2)
                drawn = True
        axis.set_title(label, loc="left", fontsize=10)
        _few_ticks(axis, 3, 4)
        _shorten_steps(axis)
    return figure if drawn else None


def marginal_curve(marginal: Marginal, label: str, threshold: float | None, box: Box | None) -> Figure:
    """Success against one parameter, with the trained range shaded and the trusted one as a bar."""
    with _panel((2.9, 2.2)) as (figure, axis):
        if marginal.trained is not None:
            axis.axvspan(*marginal.trained, color=FAINT, alpha=0.6, linewidth=0)
        if threshold is not None:
            axis.axhline(threshold, color=INK, linewidth=0.8, linestyle=(0, (2, 3)))
        if marginal.ci95:
            low, high = zip(*marginal.ci95, strict=True)
            axis.fill_between(marginal.values, low, high, color=SERIES[0], alpha=0.25, linewidth=0)
        axis.plot(marginal.values, marginal.success, color=SERIES[0], marker="o", markersize=3.5)
        if box is not None and marginal.name in box.ranges:
            axis.plot(box.ranges[marginal.name], (0.0, 0.0), color=SERIES[2], linewidth=5, solid_capstyle="butt")
        axis.set(ylim=(-0.03, 1.03), xlabel=label, ylabel="success")
        _few_ticks(axis, 4, 4)
    return figure


def pair_map(pair: Pair, labels: tuple[str, str], trained: Mapping[str, tuple[float, float] | None]) -> Figure:
    """Success against two parameters, the number in every cell; the trained ranges as a frame."""
    with _panel((3.6, 3.2)) as (figure, axis):
        values = np.array(pair.success)
        x, y = np.arange(len(pair.xs) + 1), np.arange(len(pair.ys) + 1)
        axis.pcolormesh(x, y, values, cmap="cividis", vmin=0.0, vmax=1.0, edgecolors="none")
        for (row, column), value in np.ndenumerate(values):
            ink = "#ffffff" if value < 0.55 else "#000000"
            axis.text(column + 0.5, row + 0.5, f"{value:.2f}", ha="center", va="center", fontsize=7.5, color=ink)
        axis.grid(visible=False)
        axis.set_xticks(x[:-1] + 0.5, [f"{v:.3g}" for v in pair.xs])
        axis.set_yticks(y[:-1] + 0.5, [f"{v:.3g}" for v in pair.ys])
        across, up = _cells_within(pair.xs, trained.get(pair.x)), _cells_within(pair.ys, trained.get(pair.y))
        if across is not None and up is not None:
            corner, width, height = (across[0], up[0]), across[1] - across[0], up[1] - up[0]
            axis.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=SERIES[1], linewidth=2.5))
        axis.set(xlabel=labels[0], ylabel=labels[1])
    return figure


def adaptation_curves(document: Mapping[str, Any]) -> Figure:
    """Success and reward over time since a change, a line and a 95 % band for each arm of `adaptation`'s document."""
    measures = [m for m in document["units"] if m in document["arms"]["changes"]]
    middles = [(a + b) / 2.0 - document["change_s"] for a, b in document["bins"]]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDE[0] * len(measures) + 1.2, _WIDE[1]), layout="constrained")
        for place, measure in enumerate(measures, start=1):
            axis: Axes = figure.add_subplot(1, len(measures), place)
            for i, (arm, curves) in enumerate(document["arms"].items()):
                low, high = zip(*curves[measure]["ci95"], strict=True)
                axis.fill_between(middles, low, high, color=_colour(i), alpha=0.2, linewidth=0)
                axis.plot(middles, curves[measure]["mean"], color=_colour(i), linestyle=_DASHES[_dash(i)], label=arm)
            axis.axvline(0.0, color=INK, linewidth=0.8, linestyle=(0, (2, 3)))
            axis.set(xlabel="time since the change (s)", ylabel=document["units"][measure])
            axis.set_title(measure, loc="left")
            _few_ticks(axis, 5, 5)
        handles, names = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside right center", frameon=False, fontsize=9)
    return figure


def svg(figure: Figure, alt: str) -> str:
    """A figure as inline SVG whose colours are variables of the page: sharp at any size, nothing to load.

    Figures of one page need different `alt`: their ids follow from it.
    """
    with mpl.rc_context({**_STYLE, "svg.hashsalt": hashlib.sha1(alt.encode()).hexdigest()}):
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*">', "<g>", text)  # ids of several figures would be the same
    text = re.sub(r' (?:d|x|y)="[^"]*"', _shorter, text)  # labels keep their digits
    text = re.sub(r"\s*\n\s*", "\n", text)
    text = text.replace(INK, "currentColor").replace(FAINT, "var(--line)")
    for i, colour in enumerate(SERIES):
        text = text.replace(colour, f"var(--s{i})")
    return text.replace("<svg", f'<svg role="img" aria-label="{html.escape(alt)}"', 1)


def _shorter(place: re.Match[str]) -> str:
    """Coordinates to a tenth of a point, which is enough for any screen; points of a line without repeating L."""
    return re.sub(r"(\.\d)\d+", r"\1", place.group()).replace(" \nL ", " ")


@contextmanager
def _panel(size: tuple[float, float]) -> Iterator[tuple[Figure, Axes]]:
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        axis: Axes = figure.add_subplot()
        _few_ticks(axis, 5, 5)
        yield figure, axis


def _few_ticks(axis: Axes, across: int, up: int) -> None:
    axis.xaxis.set_major_locator(MaxNLocator(across))
    axis.yaxis.set_major_locator(MaxNLocator(up))


def _shorten_steps(axis: Axes) -> None:
    """500k and 1.5M for 500000 and 1500000."""

    def short(value: float, _: object) -> str:
        for unit, size in (("M", 1e6), ("k", 1e3)):
            if abs(value) >= size:
                return f"{value / size:g}{unit}"
        return f"{value:g}"

    axis.xaxis.set_major_formatter(FuncFormatter(short))


def style_of(i: int) -> str:
    """How the line of arm i looks, in words."""
    return f"{_COLOURS_IN_WORDS[i % len(SERIES)]} {_DASHES_IN_WORDS[_dash(i)]}"


def _dash(i: int) -> int:
    """Dash pattern of arm i: another one for the next arm, and for the next arm of the same colour."""
    return (i + i // len(SERIES)) % len(_DASHES)


def _colour(i: int) -> str:
    return SERIES[i % len(SERIES)]


def _band(
    axis: Axes, curves: Sequence[tuple[Sequence[float], Sequence[float]]], i: int, width: float = 1.8
) -> tuple[float, float]:
    """Draw the mean of an arm's seeds and their spread. Returns where its line ends."""
    if len(curves) == 1:
        x, y = (np.asarray(v, dtype=float) for v in curves[0])
    else:
        x = _common_grid([c[0] for c in curves])
        values = np.stack([np.interp(x, *c) for c in curves])
        y = values.mean(axis=0)
        axis.fill_between(x, values.min(axis=0), values.max(axis=0), color=_colour(i), alpha=0.2, linewidth=0)
    seen = np.flatnonzero(np.isfinite(y))
    line = axis.plot(x, y, color=_colour(i), linestyle=_DASHES[_dash(i)], linewidth=width)[0]
    if len(seen) and x[seen[0]] == x[seen[-1]]:  # a short run: a line of one point cannot be seen
        line.set(marker="o", markersize=3.5, markevery=[int(seen[0])])
    return (float(x[seen[-1]]), float(y[seen[-1]])) if len(seen) else (math.nan, math.nan)


def _common_grid(steps: Sequence[Sequence[float]]) -> np.ndarray:
    """Points between the latest start and the earliest end, where every seed has values: as many as were logged, up to
    200."""
    first, points = max(s[0] for s in steps), min(200, max(map(len, steps)))
    return np.linspace(first, max(min(s[-1] for s in steps), first), points)


def _mean_on(grid: np.ndarray, seeds: Sequence[Columns], column: str) -> np.ndarray:
    return np.mean([np.interp(grid, s["env_steps"], s[column]) for s in seeds], axis=0)


def _label_ends(axis: Axes, ends: list[tuple[float, float, str, str]]) -> None:
    """Names beside the ends of lines, moved apart where they would touch; none for a single line."""
    ends = sorted((e for e in ends if math.isfinite(e[1])), key=lambda e: e[1])
    if len(ends) < 2:
        return
    low, high = axis.get_ylim()
    gap, height = 0.075 * (high - low), -math.inf
    places = []
    for end in ends:
        height = max(end[1], height + gap)
        places.append(height)
    over = max(places[-1] - high, 0.0)
    for (_, _, name, colour), y in zip(ends, places, strict=True):
        axis.annotate(
            name, (1.0, y - over), xycoords=("axes fraction", "data"), xytext=(4, 0), textcoords="offset points",
            va="center", color=colour, fontsize=9, annotation_clip=False,
        )  # fmt: skip


def _cells_within(values: Sequence[float], trained: tuple[float, float] | None) -> tuple[int, int] | None:
    """First and last edge of the cells whose values a range covers."""
    inside = [i for i, v in enumerate(values) if trained is not None and trained[0] - 1e-12 <= v <= trained[1] + 1e-12]
    return (inside[0], inside[-1] + 1) if inside else None
