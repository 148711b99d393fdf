"""What ails a curriculum: ranges that do not move, steps that are too large, a nominal world that is forgotten, a step
size of the learner that has gone while ranges still widen. Read off the tables of a run, while it trains and later."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from randomization.parameters import Parameter
from randomization.samplers.adr import ADR
from randomization.samplers.base import Sampler
from randomization.samplers.doraemon import Doraemon

Columns = Mapping[str, Sequence[float]]
Side = Literal["lower", "upper"]
_EARLY = 0.3  # of the run, in which nothing is said
_LATE = 1.0 / 3.0  # of the steps so far: the time over which a boundary is said to stand still
_DECISIONS = 3  # in that time, before it is
_TURNS = 4  # of a boundary, outwards after inwards or the other way, before it is said to swing
_SLOW = 0.2  # of the learner's first step size
_WIDENING = 0.05  # nats per dimension in that time
_MOST = 3  # parameters that a line names


@dataclass(frozen=True)
class Concern:
    """Something that ails a curriculum.

    Attributes:
        kind: the same thing is said once.
        text: one line: evidence and remedy.
    """

    kind: str
    text: str


@dataclass(frozen=True)
class Boundary:
    """One end of a parameter's range over a run: rows of adr.csv.

    Attributes:
        parameter: whose.
        side: which end.
        at: where it was.
        performance: mean of its last full buffer; NaN before the first.
        window: the first row of the last third.
    """

    parameter: Parameter
    side: Side
    at: Sequence[float]
    performance: Sequence[float]
    window: int

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.parameter.name} ({self.side})"

    @property
    def limit(self) -> float:
        """As far as it may go."""
        return self.parameter.limits[self.side == "upper"]

    @property
    def done(self) -> bool:
        """Whether it is there."""
        return math.isclose(self.at[-1], self.limit, abs_tol=1e-12)

    @property
    def decisions(self) -> int:
        """That can be seen in the last third of the run so far, at least."""
        seen = self.performance[self.window :]
        return sum(not math.isnan(b) and a != b for a, b in pairwise(seen))

    @property
    def turns(self) -> int:
        """How often it went the other way in the last third."""
        moves = [b - a for a, b in pairwise(self.at[self.window :]) if a != b]
        return sum(a * b < 0.0 for a, b in pairwise(moves))

    def mean(self) -> float:
        """Performance there, over the decisions of the last third."""
        seen = [p for p in self.performance[self.window :] if not math.isnan(p)]
        return sum(seen) / len(seen)

    def end(self, steps: Sequence[float], total: int) -> float:
        """Where it will be at the end of the run, at the pace of the last third, its limit at most."""
        over = steps[-1] - steps[self.window]
        reached = self.at[-1] + (self.at[-1] - self.at[self.window]) * (total - steps[-1]) / over
        low, high = sorted((self.limit, self.parameter.nominal))
        return min(max(reached, low), high)

    @property
    def stands(self) -> bool:
        """Whether it has been judged in the last third, and is where it was."""
        return self.decisions >= _DECISIONS and len(set(self.at[self.window :])) == 1 and not self.done


def concerns_of(sampler: Sampler, adr: Columns, metrics: Columns, judged: Columns, total: int) -> list[Concern]:
    """`concerns` of a sampler; none of one that is no curriculum."""
    if not isinstance(sampler, (ADR, Doraemon)):
        return []
    thresholds = sampler.thresholds if isinstance(sampler, ADR) else None
    return concerns(sampler.parameters, thresholds, adr, metrics, judged, total)


def concerns(
    parameters: Sequence[Parameter],
    thresholds: tuple[float, float] | None,
    adr: Columns,
    metrics: Columns,
    judged: Columns,
    total: int,
) -> list[Concern]:
    """What ails a curriculum, most serious first; nothing in the first third of a run.

    Args:
        parameters: randomized.
        thresholds: of ADR: mean performance that narrows, and that widens; None for other samplers.
        adr, metrics, judged: columns of adr.csv, metrics.csv and judged.csv, as far as there are any.
        total: steps of the whole run.
    """
    steps = adr.get("env_steps", ())
    if not parameters or len(steps) < 6 or steps[-1] < _EARLY * total:
        return []
    window = next(i for i, step in enumerate(steps) if step >= steps[-1] - steps[-1] * _LATE)
    found = [_forgotten(judged)]
    if thresholds is not None:
        boundaries = _boundaries(parameters, adr, window)
        found += [
            _undecided(boundaries, steps[-1], total),
            _closed(boundaries, thresholds, steps[-1]),
            _standing(boundaries, thresholds, steps[-1] - steps[window]),
            _swinging(boundaries),
            _starved(boundaries, thresholds, steps, total),
            _finished(boundaries, steps, total),
        ]
    found.append(_slow(adr, metrics, window))
    return [concern for concern in found if concern is not None]


def _boundaries(parameters: Sequence[Parameter], adr: Columns, window: int) -> list[Boundary]:
    """Those that can move and of which there is something to read."""
    found: list[Boundary] = []
    sides: tuple[Side, Side] = ("lower", "upper")
    for parameter in parameters:
        for i, side in enumerate(sides):
            at, performance = (adr.get(f"{parameter.name}.{side}{end}") for end in ("", "_performance"))
            if at and performance and parameter.limits[i] != parameter.nominal:
                found.append(Boundary(parameter, side, at, performance, window))
    return found


def _undecided(boundaries: Sequence[Boundary], steps: float, total: int) -> Concern | None:
    """No buffer has filled."""
    waiting = [b for b in boundaries if math.isnan(b.performance[-1])]
    if not waiting:
        return None
    return Concern(
        "undecided",
        f"{len(waiting)} of {len(boundaries)} boundaries of ADR have not been decided about once after "
        f"{steps / total:.0%} of the run ({_named(waiting)}): a smaller randomization.adr.buffer_size, fewer "
        "parameters, or more steps",
    )


def _closed(boundaries: Sequence[Boundary], thresholds: tuple[float, float], steps: float) -> Concern | None:
    """Not one range has opened, although boundaries are judged."""
    if not boundaries or any(b.at[-1] != b.parameter.nominal or b.decisions < _DECISIONS for b in boundaries):
        return None
    mean = sum(b.mean() for b in boundaries) / len(boundaries)
    return Concern(
        "closed",
        f"no range has opened after {steps:,.0f} steps: performance is {mean:.2g} in the nominal world itself, ADR "
        f"widens at {thresholds[1]:g}: the task has to be learnt first, or lower randomization.adr.thresholds",
    )


def _standing(boundaries: Sequence[Boundary], thresholds: tuple[float, float], over: float) -> Concern | None:
    """Some boundaries are judged and do not move."""
    still = [b for b in boundaries if b.stands]
    if not still or all(b.at[-1] == b.parameter.nominal for b in boundaries):
        return None
    still.sort(key=lambda b: b.mean())
    low, high = thresholds
    figures = ", ".join(f"{b.name} at {b.at[-1]:.3g}: {b.mean():.2f}" for b in still[:_MOST])
    if sum(low < b.mean() < high for b in still) > len(still) / 2:
        remedy = "between the thresholds nothing moves: bring them nearer to each other, or train longer"
    elif all(b.at[-1] == b.parameter.nominal for b in still[:_MOST]):
        remedy = "they have not opened: the policy fails in the ranges that have; train longer, or lower the thresholds"
    else:
        remedy = "it fails there: give it what tells it of that parameter (a history, a memory), or narrow other ranges"
    return Concern(
        "standing",
        f"{len(still)} of {len(boundaries)} boundaries stand still over the last {over:,.0f} steps (performance of "
        f"{figures}; ADR widens at {high:g}, narrows at {low:g}): {remedy}",
    )


def _swinging(boundaries: Sequence[Boundary]) -> Concern | None:
    """A boundary goes out and in."""
    swing = [b for b in boundaries if b.turns >= _TURNS]
    if not swing:
        return None
    worst = max(swing, key=lambda b: b.turns)
    least, most = min(worst.at[worst.window :]), max(worst.at[worst.window :])
    return Concern(
        "swinging",
        f"{_named(swing)} {'swing' if len(swing) > 1 else 'swings'}: {worst.name} turned {worst.turns} times between "
        f"{least:.3g} and {most:.3g}: a smaller step ({_step(worst.parameter)}), or a larger "
        "randomization.adr.buffer_size",
    )


def _starved(
    boundaries: Sequence[Boundary], thresholds: tuple[float, float], steps: Sequence[float], total: int
) -> Concern | None:
    """The policy would go further than there are decisions for."""
    short: list[tuple[float, Boundary, float]] = []
    for b in boundaries:
        end, span = b.end(steps, total), abs(b.limit - b.parameter.nominal)
        left, before = abs(b.limit - end), abs(b.limit - b.at[b.window])
        if b.decisions >= _DECISIONS and b.mean() >= thresholds[1] and b.parameter.step < left < before:
            short.append((left / span, b, end))
    if not short or len(short) < len(boundaries) / 2:
        return None
    short.sort(key=lambda entry: -entry[0])
    figures = ", ".join(
        f"{b.name} at {b.at[-1]:.3g}, {end:.3g} at the end, of {b.limit:.3g}" for _, b, end in short[:_MOST]
    )
    return Concern(
        "starved",
        f"the budget and not the policy ends {len(short)} of {len(boundaries)} ranges: they widen whenever they are "
        f"decided about, and not often enough ({figures}): fewer parameters, a smaller "
        "randomization.adr.buffer_size, larger steps, or more train.env_steps",
    )


def _step(parameter: Parameter) -> str:
    """A step, and where it comes from."""
    low, high = parameter.limits
    by_limits = math.isclose(parameter.step, (high - low) / 10.0, rel_tol=1e-9)
    return f"now {parameter.step:.3g}{', a tenth of what its limits span: state one' if by_limits else ''}"


def _finished(boundaries: Sequence[Boundary], steps: Sequence[float], total: int) -> Concern | None:
    """All ranges are as wide as they may be, long before the end."""
    if not boundaries or not all(b.done for b in boundaries):
        return None
    rows = range(len(steps))
    there = next(i for i in rows if all(math.isclose(b.at[i], b.limit, abs_tol=1e-12) for b in boundaries))
    if steps[there] > 0.8 * total:
        return None
    return Concern(
        "finished",
        f"every range reached its limits at step {steps[there]:,.0f}: ADR has nothing left to widen; wider ranges "
        "would show how far the policy can go",
    )


def _slow(adr: Columns, metrics: Columns, window: int) -> Concern | None:
    """The learner's step size has gone while ranges still widen."""
    lr, entropy = [v for v in metrics.get("lr", ()) if not math.isnan(v)], adr.get("entropy_npd", ())
    if len(lr) < 2 or not entropy or lr[-1] > _SLOW * lr[0]:
        return None
    widened = entropy[-1] - entropy[window]
    if widened < _WIDENING:
        return None
    return Concern(
        "slow",
        f"ranges still widen (entropy {widened:+.2f} over the last third) while the learner's step size is "
        f"{lr[-1] / lr[0]:.0%} of its first: it cannot follow; learner.lr_schedule: kl_adaptive or constant, or "
        "more steps",
    )


def _forgotten(judged: Columns) -> Concern | None:
    """The nominal world was once better known."""
    steps, low, high = (judged.get(key, ()) for key in ("env_steps", "nominal_low", "nominal_high"))
    if len(low) < 2 or len(low) != len(high):
        return None
    best = max(range(len(low)), key=lambda i: low[i])
    if best == len(low) - 1 or high[-1] >= low[best]:
        return None
    return Concern(
        "forgotten",
        f"the nominal world is being forgotten: {low[best]:.2f} to {high[best]:.2f} at step {steps[best]:,.0f}, "
        f"{low[-1]:.2f} to {high[-1]:.2f} now (95 %): higher randomization.adr.thresholds, or a larger network",
    )


def _named(boundaries: Sequence[Boundary]) -> str:
    names = ", ".join(b.name for b in boundaries[:_MOST])
    return names if len(boundaries) <= _MOST else f"{names} and {len(boundaries) - _MOST} more"
