"""One page about an estimator: how well it reads in every look, how it learnt, and in which looks it trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from markupsafe import Markup

from randomization.samplers.adr import ADR
from simreal.common.errors import UserError
from simreal.common.json_io import read_json, write_target
from simreal.report import figures
from simreal.report.page import render, write_sections
from simreal.report.records import Columns, read_columns
from simreal.report.sections import Plot
from simreal.report.words import labelled
from simreal.training.checkpoint import EVALUATION
from simreal.vision.datasets.plan import worlds_of
from simreal.vision.estimator.loading import Estimator, load_estimator


def write_estimator_report(run: Path, output: Path, say: Callable[[str], object] = lambda text: None) -> Path:
    """Write the page about an estimator's run.

    Args:
        run: its directory.
        output: the HTML file.
        say: told what is being done.

    Raises:
        UserError: the run has no checkpoint, or has not been assessed; nothing is written then.
    """
    write_target(output, ".html")
    estimator = load_estimator(run)
    document = read_json(run / EVALUATION)
    if document is None:
        raise UserError(f"{run}: has not been assessed; first simreal estimate {run}")
    say("drawing figures")
    sections = [("reading", "Looks", render("estimator_looks", {"looks": document["looks"]}))]
    learnt = _learning(estimator, read_columns(run / "metrics.csv"))
    if learnt:
        sections.append(("learning", "Learning", render("estimator_learning", {"plots": learnt})))
    ranges = read_columns(run / "adr.csv")
    sampler = worlds_of(estimator.config.make_task(), estimator.config.randomization).looks
    if isinstance(sampler, ADR) and ranges.get("entropy_npd"):
        found = {"plots": _ranges(sampler, ranges), "boundaries": document.get("boundaries", [])}
        thresholds = estimator.config.randomization.adr.thresholds
        sections.append(("ranges", "Vision ADR", render("estimator_ranges", found | {"thresholds": thresholds})))
    title = f"{estimator.config.task}: estimator {estimator.name}"
    return write_sections(output, title, "", _verdict(estimator, document), sections)


def _verdict(estimator: Estimator, document: dict[str, Any]) -> Markup:
    """What it reads from what, and how well where nothing differs."""
    config = estimator.config
    cameras = "one camera" if len(config.cameras) == 1 else f"{len(config.cameras)} cameras"
    first = document["looks"][0]
    read = "; ".join(
        f"{name} {row['median']:.3g} {row['unit']} (90 % below {row['p90']:.3g})"
        for name, row in first["targets"].items()
    )
    return Markup("<p>Reads {} of {} x {} pixels, trained on {:,} pictures. Median error in look {}: {}.</p>").format(
        cameras, config.width, config.height, estimator.frames, first["name"], read
    )


def _learning(estimator: Estimator, columns: Columns) -> list[Plot]:
    """Median errors of the pictures that were learnt from."""
    plots: list[Plot] = []
    for target in estimator.targets:
        column = f"{target.name}.median_error"
        if not columns.get(column):
            continue
        label = f"{target.name}: median error ({target.unit})"
        counted = {"frames": columns["env_steps"], column: columns[column]}
        curve = figures.learning_curves({estimator.name: [counted]}, column, label, "frames")
        plots.append(_plot(curve, f"{label} against pictures"))
    return plots


def _ranges(sampler: ADR, columns: Columns) -> list[Plot]:
    """Entropy, and every range with its limits, against pictures."""
    plots: list[Plot] = []
    if max((v for v in columns["entropy_npd"] if math.isfinite(v)), default=-math.inf) > figures.UNSEEN_NPD:
        entropy = figures.entropy_curves({"": [columns]}, small=True)
        if entropy is not None:
            plots.append(_plot(entropy, "Entropy of the ranges against pictures"))
    for parameter in sampler.parameters:
        if f"{parameter.name}.lower" in columns:
            curve = figures.range_curve([columns], parameter.name, labelled(parameter), parameter.limits)
            plots.append(_plot(curve, f"Range of {parameter.name} against pictures"))
    return plots


def _plot(figure: figures.Figure, words: str) -> Plot:
    return Plot(Markup(figures.svg(figure, words)), "")
