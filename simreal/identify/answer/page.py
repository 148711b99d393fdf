"""One page about what a log told: intervals, trajectories that were not fitted, residuals."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from simreal.identify.answer.files import at_ends, odd, tied, unexplained
from simreal.identify.identify import Identified
from simreal.report.figures import svg
from simreal.report.page import render, write_sections

_SHOWN = 3  # held-back pieces in a drawing
_LAGS = 40


@dataclass(frozen=True)
class _Plot:
    svg: Markup
    caption: str


def write_page(found: Identified, title: str, output: Path) -> Path:
    """Write the page."""
    known = found.knowledge.of
    told = sum(k.told for k in known)
    remarks = [f"Not told apart: {line}." for line in found.knowledge.combinations]
    remarks += [f"Tied to each other: {line}." for line in tied(found)]
    remarks += [f"Left out: {line}." for line in odd(found)]
    remarks += [f"{line[0].upper()}{line[1:]}." for line in [*at_ends(found), *unexplained(found)]]
    verdict = Markup("<p>{} of {} unknowns are told by the log, from {} pieces of {:g} s.</p>").format(
        told, len(known), found.pieces, found.length_s
    )
    items = Markup("").join(Markup("<li>{}</li>").format(remark) for remark in remarks)
    notes = Markup('<ul class="note">{}</ul>').format(items) if remarks else Markup("")
    motion = [_Plot(Markup(svg(figure, alt)), alt) for figure, alt in (*_motion(found), *_residuals(found))]
    bars, moved = [_Plot(Markup(svg(_bars(found), _BARS)), _BARS)], {"plots": motion}
    sections = [
        ("identified", "What is known", render("identified", {"known": known, "plots": bars}) + notes),
        ("motion", "Pieces that were held back", render("identified_motion", {"held_back": found.held_back} | moved)),
    ]
    return write_sections(output, title, "", verdict, sections)


_BARS = "Bars: 95 % intervals within the ranges asked for, which reach from left to right. Dots: the model as it is."


def _bars(found: Identified) -> Figure:
    """Every interval within its prior range."""
    known = found.knowledge.of
    figure = Figure(figsize=(9, 0.6 + 0.22 * len(known)), layout="constrained")
    axes = figure.add_subplot()
    for row, k in enumerate(known):
        low, high = k.unknown.limits
        width = (high - low) or 1.0
        axes.plot([(k.low - low) / width, (k.high - low) / width], [row, row], lw=4, color="C0" if k.told else "0.8")
        axes.plot((k.unknown.nominal - low) / width, row, "o", ms=4, color="0.3")
    axes.set_yticks(range(len(known)), [k.unknown.name for k in known], fontsize=8)
    axes.set_ylim(len(known) - 0.5, -0.5)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xticks([0, 1], ["lowest", "highest"])
    return figure


def _motion(found: Identified) -> list[tuple[Figure, str]]:
    """Measured and simulated positions of each joint, in some held-back pieces."""
    figures: list[tuple[Figure, str]] = []
    track = found.example[0][0].recording.tracks[0]
    for j, joint in enumerate(track.joints):
        figure = Figure(figsize=(9, 2.8), layout="constrained")
        axes = figure.subplots(1, min(_SHOWN, len(found.example)), squeeze=False)[0]
        for panel, (piece, before, after) in zip(axes, found.example, strict=False):
            track = piece.recording.tracks[0]
            time = track.time[piece.samples[0]] - piece.begin_s
            panel.plot(time, track.values[piece.samples[0]][:, j], ".", ms=3, color="0.3", label="measured")
            panel.plot(time, before[0][:, j], "--", lw=1, color="C1", label="model as it is")
            panel.plot(time, after[0][:, j], lw=1.2, color="C0", label="as identified")
            panel.set_xlabel("s")
        axes[0].legend(fontsize=8)
        figures.append((figure, f"{joint}: position in pieces that were not fitted"))
    return figures


def _residuals(found: Identified) -> list[tuple[Figure, str]]:
    """How residuals follow from one another: of white noise nothing sticks out of the band."""
    figures: list[tuple[Figure, str]] = []
    for k, track in enumerate(found.example[0][0].recording.tracks):
        figure = Figure(figsize=(9, 2.8), layout="constrained")
        axes = figure.add_subplot()
        for j, joint in enumerate(track.joints):
            series = [
                piece[k][:, j] - piece[k][:, j].mean() for piece in found.fit.residuals if len(piece[k]) > _LAGS // 2
            ]
            if not series:
                continue
            longest = min(_LAGS, min(len(s) for s in series) - 1)
            variance = sum(float((s * s).sum()) for s in series) or 1.0
            values = [
                sum(float((s[lag:] * s[: len(s) - lag]).sum()) for s in series) / variance for lag in range(longest)
            ]
            axes.plot(values, lw=1, label=joint)
        band = 2.0 / np.sqrt(sum(len(piece[k]) for piece in found.fit.residuals))
        axes.axhspan(-band, band, color="0.9")
        axes.set_xlabel("samples apart")
        axes.legend(fontsize=8, ncols=2)
        figures.append(
            (figure, f"Autocorrelation of what is left of each {track.kind}; grey: what white noise would leave")
        )
    return figures
