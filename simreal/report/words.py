"""How the page writes figures."""

from __future__ import annotations

from randomization.parameters import Parameter
from simreal.evaluation.metrics import NARROW_SPACE, Metric
from simreal.report.records import Arm
from simreal.report.summary import Cell

SAMPLERS = {"none": "no randomization", "manual": "fixed ranges", "adr": "ADR", "doraemon": "DORAEMON"}


def percent(share: float) -> str:
    """97.5 %."""
    return f"{100 * share:.1f}{NARROW_SPACE}%"


def signed(value: float) -> str:
    """+0.12 or −2.34, with a minus sign that is not a hyphen."""
    return f"{value:+.2f}".replace("-", "\u2212")


def clock(seconds: float) -> str:
    """1 h 02 min, 8 min 28 s or 19.4 s."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def span(ends: tuple[float, float] | None) -> str:
    """0.7 to 1.6; a dash for None."""
    return "–" if ends is None else f"{ends[0]:.4g} to {ends[1]:.4g}"


def trained_for(arm: Arm) -> tuple[str, str]:
    """500,000 steps, and 8 min 28 s; the time is empty where no run has one."""
    seconds = [run.seconds for run in arm.runs if run.seconds is not None]
    time = clock(sum(seconds) / len(seconds)) + (" each" if len(seconds) > 1 else "") if seconds else ""
    return f"{max(run.steps for run in arm.runs):,} {arm.first.unit}", time


def seeds_of(arm: Arm) -> str:
    """The seeds of an arm's runs: seeds 0, 1."""
    return f"seed{'s' if len(arm.runs) > 1 else ''} {', '.join(str(run.config.seed) for run in arm.runs)}"


def doubt(found: Cell, named: bool = False) -> list[str]:
    """How well a mean is known; `named`: with words for each figure, where no caption (`what_cells_say`) has them."""
    parts, written = [], found.measure.page
    if found.error is not None:
        parts.append(f"± {written.error(found.error)}" + (f" over {found.seeds} seeds" if named else ""))
    if found.pooled is not None:
        words = f"{'pooled ' if found.seeds > 1 else ''}95 %: " if named else ""
        parts.append(words + written.span(*found.pooled))
    if found.measure.median is not None:
        parts.append(f"median {written.value(found.median)}")
    if found.spread is not None:
        parts.append(f"± {written.error(found.spread)}" + (" over episodes" if named else ""))
    return parts


def what_cells_say(measure: Metric) -> str:
    """What cells of tables show, a mean and `doubt` without words, for their caption."""
    text = "mean over seeds; below it ± its standard error over seeds"
    if measure.interval is not None:
        text += f", and the 95 % {measure.interval_kind} interval of all episodes pooled"
    return text + (", and their median" if measure.median is not None else "")


def labelled(p: Parameter) -> str:
    """A parameter's name with its unit."""
    return f"{p.name} ({unit_of(p)})" if unit_of(p) else p.name


def unit_of(p: Parameter) -> str:
    """A parameter's unit for readers."""
    if p.unit != "1":
        return p.unit
    return "x nominal" if p.mode == "scale" else ""
