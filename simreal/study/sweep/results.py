"""The figures of a sweep, and how sure it is which trial is the best."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from simreal.cli.commands import EVALUATION
from simreal.evaluation.intervals import bootstrap_ci
from simreal.evaluation.metrics import Metric
from simreal.study.sweep.spec import SweepSpec

if TYPE_CHECKING:
    import optuna

Numbers = NDArray[np.float64]
_RESAMPLES = 4000


def results(
    spec: SweepSpec, measure: Metric, trials: Sequence[optuna.trial.FrozenTrial], folder: Path
) -> dict[str, Any]:
    """sweep.json: trials from the best on, with intervals, differences to the best in the same episodes, and in what
    share of draws of the episodes each one is the best."""
    judged = [trial for trial in trials if trial.state.name == "COMPLETE"]
    judged.sort(key=lambda trial: -float(trial.value or 0.0))
    samples = [_samples(folder, trial.user_attrs["run"], spec, measure) for trial in judged]
    shares = best_shares(samples)
    rows = []
    for trial, own, share in zip(judged, samples, shares, strict=True):
        low, high = bootstrap_ci(own).tolist()
        apart = bootstrap_ci(own - samples[0]).tolist() if trial is not judged[0] else [0.0, 0.0]
        rows.append({
            "run": trial.user_attrs["run"], "values": trial.user_attrs["values"], "value": float(trial.value or 0.0),
            "ci95": [low, high], "below_best_ci95": apart, "best_in": float(share),
        })  # fmt: skip
    broken = [
        {"run": trial.user_attrs["run"], "values": trial.user_attrs["values"],
         "looks": len(trial.intermediate_values)} for trial in trials if trial.state.name == "PRUNED"
    ]  # fmt: skip
    return {
        "schema": 1, "name": spec.name, "measure": measure.name, "seeds": list(spec.seeds),
        "worlds": list(spec.evaluate.worlds), "episodes": spec.evaluate.episodes, "trials": rows, "broken_off": broken,
    }  # fmt: skip


def _samples(folder: Path, run: str, spec: SweepSpec, measure: Metric) -> Numbers:
    """The measure of every episode [worlds x seeds x episodes]; episode k is the same one in every trial."""
    parts: list[float] = []
    for seed in spec.seeds:
        document = json.loads((folder / "runs" / f"{run}-{seed}" / EVALUATION).read_text())
        for world in document["worlds"]:
            parts += world["samples"][measure.name]
    return np.asarray(parts, dtype=np.float64)


def best_shares(samples: Sequence[Numbers], seed: int = 0) -> Numbers:
    """In what share of draws of the episodes, with repetition, each trial has the highest mean (ties are divided)."""
    if not samples:
        return np.zeros(0)
    episodes, generator = np.stack(samples), np.random.default_rng(seed)
    count, wins = episodes.shape[1], np.zeros(len(samples))
    for _ in range(_RESAMPLES):
        means = episodes @ np.bincount(generator.integers(count, size=count), minlength=count)
        top = np.isclose(means, means.max(), rtol=1e-12, atol=1e-9)
        wins[top] += 1.0 / top.sum()
    return wins / _RESAMPLES


def table(path: Path, markdown: bool = False) -> list[str]:
    """The figures of sweep.json, to read."""
    found = json.loads(path.read_text())
    rows, worlds = found["trials"], ", ".join(found["worlds"])
    if not rows:
        return ["no trial has been judged yet"]
    keys = list(rows[0]["values"])
    head = ["trial", *keys, found["measure"], "95 %", "less than the best (95 %)", "best in"]
    cells = [head]
    for row in rows:
        low, high = row["below_best_ci95"]
        apart = "" if row is rows[0] else f"{low:+.3g} to {high:+.3g}"
        cells.append([
            row["run"], *(_short(row["values"][key]) for key in keys), f"{row['value']:.4g}",
            f"{row['ci95'][0]:.4g} to {row['ci95'][1]:.4g}", apart, f"{row['best_in']:.0%}",
        ])  # fmt: skip
    said = [
        f"{len(rows)} trials judged, {len(found['broken_off'])} broken off; {found['episodes']} episodes each in "
        f"{worlds}, the same for all.",
        f"{rows[0]['run']} is the best in {rows[0]['best_in']:.0%} of 4,000 draws of these episodes; "
        + _certainty(rows, found["seeds"]),
    ]
    if markdown:
        lines = ["| " + " | ".join(line) + " |" for line in cells]
        return [f"# {found['name']}", "", *said, "", lines[0], "|---" * len(head) + "|", *lines[1:]]
    widths = [max(len(line[i]) for line in cells) for i in range(len(head))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells] + [
        "",
        *said,
    ]


def _certainty(rows: Sequence[dict[str, Any]], seeds: Sequence[int]) -> str:
    """What that says, and what not."""
    alike = [row["run"] for row in rows[1:] if row["below_best_ci95"][1] >= 0.0]
    text = f"{len(alike)} others are not told from it" if alike else "every other one is worse beyond doubt"
    if len(seeds) == 1:
        text += "; one seed: another training with the same values may come out otherwise"
    return text + "."


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value)
