"""What a task is judged by: how often episodes end in success, how many successes they have, or their return.

Everything that shows how well a policy does asks here which figures to show and how they are written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from envs.task import Task
from randomization.config import Performance

NARROW_SPACE = "\u202f"


@dataclass(frozen=True)
class Format:
    """How figures are written: `factor` times the figure, with a number of digits and a unit."""

    digits: int
    factor: float = 1.0
    unit: str = ""
    minus: str = "-"

    def value(self, figure: float) -> str:
        """97.5 %, or 4.48."""
        return self.error(figure) + self.unit

    def error(self, figure: float) -> str:
        """A standard error: written as `value` without the unit, because it stands beside its mean."""
        return f"{self.factor * figure:.{self.digits}f}".replace("-", self.minus)

    def change(self, figure: float) -> str:
        """A difference, with its sign and without the unit."""
        return f"{self.factor * figure:+.{self.digits}f}".replace("-", self.minus)

    def span(self, low: float, high: float) -> str:
        """94.3 to 98.9 %."""
        return f"{self.error(low)} to {self.error(high)}{self.unit}"

    def change_span(self, low: float, high: float) -> str:
        """-1.0 to +2.5."""
        return f"{self.change(low)} to {self.change(high)}"


@dataclass(frozen=True)
class Metric:
    """What episodes of a task are judged by, and where its figures are found.

    Attributes:
        name: key of an episode's value in `samples` and `differences` of evaluate's JSON, and a configuration's
            `performance`.
        words: what it is called within a sentence.
        column: of metrics.csv, the mean over recent training episodes.
        mean: key of a world's mean in evaluate's JSON.
        interval: key of the 95 % interval of that mean; None where none is shown.
        median: key of a world's median; None where none is shown.
        interval_kind: method by which the interval is computed.
        ends: of the scale on which worlds and policies are coloured; None: the least or the largest value there is.
        criterion: an example of what `--criterion` may ask of an episode; None: an episode succeeds or fails by itself.
        plain: how figures are written in a terminal and in Markdown.
        page: how they are written in a report.
        points: the unit of differences in a report.
    """

    name: Performance
    words: str
    column: str
    mean: str
    interval: str | None
    median: str | None
    interval_kind: str
    ends: tuple[float | None, float | None]
    criterion: str | None
    plain: Format
    page: Format
    points: str = ""
    sequence: bool = False  # every episode has the same sequence of goals: half and all of it are looked at

    @property
    def columns(self) -> tuple[str, ...]:
        """Heads of the columns of `cells`."""
        if self.sequence:
            return (self.name, "median", "half", "full", "return", "median\nreturn", "worst\n10 %")
        own = () if self.interval is None else (self.name, "95 % interval")
        median = () if self.median is None else ("median",)
        return (*own, *median, "return", "median\nreturn", "worst\n10 %")  # on two lines, or terminals are too narrow

    def cells(self, world: Mapping[str, Any], page: bool = False) -> list[str]:
        """The figures of a world of evaluate's JSON, those of its returns last; `page`: as in a report."""
        own, returns = (self.page, RETURN.page) if page else (self.plain, RETURN.plain)
        cells = []
        if self.sequence:
            cells = [
                f"{own.value(world[self.mean])} ± {own.error(world['successes_se'])}",
                own.value(world["successes_median"]),
            ]
            cells += [SUCCESS.page.value(world[key]) for key in ("half_rate", "full_rate")]
        elif self.interval is not None:
            cells += [own.value(world[self.mean]), own.span(*world[self.interval])]
        if self.median is not None and not self.sequence:
            cells.append(own.value(world[self.median]))
        mean = f"{returns.value(world['return_mean'])} ± {returns.error(world['return_se'])}"
        return [*cells, mean, returns.value(world["return_median"]), returns.value(world["return_cvar10"])]


_MINUS = "\u2212"
SUCCESS = Metric(
    name="success", words="success at the last step", column="success_rate",
    mean="success_rate", interval="success_ci95", median=None, interval_kind="Wilson", ends=(0.0, 1.0),
    criterion=None, plain=Format(3), page=Format(1, 100.0, f"{NARROW_SPACE}%", _MINUS), points="points",
)  # fmt: skip
SUCCESSES = Metric(
    name="successes", words="successes per episode", column="successes",
    mean="successes_mean", interval="successes_ci95", median="successes_median", interval_kind="bootstrap",
    ends=(0.0, None), criterion="successes>=3", plain=Format(2), page=Format(2, minus=_MINUS),
)  # fmt: skip
RETURN = Metric(
    name="return", words="return", column="return",
    mean="return_mean", interval=None, median=None, interval_kind="", ends=(None, None),
    criterion="return>=1000", plain=Format(2), page=Format(2, minus=_MINUS),
)  # fmt: skip
SEQUENCE = replace(SUCCESSES, sequence=True)
METRICS = {measure.name: measure for measure in (SUCCESS, SUCCESSES, RETURN)}


def metric_of(task: Task) -> Metric:
    """The metric that a task is judged by."""
    if task.counts_successes:
        return SEQUENCE if task.sequence_length else SUCCESSES
    return SUCCESS if task.has_success else RETURN
