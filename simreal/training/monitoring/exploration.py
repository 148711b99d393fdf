"""What a policy owes to the noise of its exploration, which the exported one does not have."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from simreal.evaluation.metrics import RETURN, Metric
from simreal.training.monitoring.metrics_log import read_columns

_ROWS = 5  # of metrics.csv, the last ones
_LEAST = 0.75  # of what training shows; less is said


def noise_remarks(run: Path, figures: Mapping[str, Any], measure: Metric) -> list[str]:
    """A line where an evaluation in the worlds of the training is far below what training showed with noise.

    Args:
        run: its run directory.
        figures: `evaluate`'s JSON.
        measure: what the task is judged by; of a return, which may have any sign, nothing is said.
    """
    world = next((row for row in figures["worlds"] if row["group"] == "trained"), None)
    world = world or next((row for row in figures["worlds"] if row["group"] == "nominal"), None)
    seen = [value for value in read_columns(run / "metrics.csv").get(measure.column, []) if math.isfinite(value)]
    if world is None or measure.name == RETURN.name or measure.interval is None or not seen:
        return []
    with_noise, most = fmean(seen[-_ROWS:]), world[measure.interval][1]
    if most >= _LEAST * with_noise:
        return []
    value = measure.plain.value
    return [
        f"warning: {measure.words}: {value(with_noise)} at the end of the training, {value(world[measure.mean])} "
        f"({world['name']}) of the policy as it is exported, without the noise of exploration, which keeps joints "
        "with dry friction from sticking; train on (docs/motors.md)"
    ]
