"""Figures of several seeds and worlds brought together.

The unit of repetition is the seed: means and standard errors are over seeds. Intervals over the episodes of all seeds
(Wilson's of a share, the bootstrap's of a count) are shown as well, under the name "pooled": they say how well the
figure of these very policies is known, and nothing about another seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from simreal.evaluation.intervals import bootstrap_ci, mean_and_error, wilson
from simreal.evaluation.metrics import RETURN, SUCCESS, SUCCESSES, Metric
from simreal.report.records import GROUPS, Arm, WorldFigures


@dataclass(frozen=True)
class Cell:
    """How an arm did in one world or in a group of worlds, by what its task is judged by."""

    measure: Metric
    mean: float  # over seeds, of each seed's mean over worlds
    error: float | None  # standard error over seeds; None with one seed
    spread: float | None  # standard error over episodes, of returns of one seed in one world
    median: float  # over seeds and worlds; of counts over all episodes
    pooled: tuple[float, float] | None  # 95 % interval of all episodes, Wilson's or the bootstrap's; None for returns
    seeds: int
    episodes: int  # in all
    worst: tuple[str, float]  # the world with the lowest mean over seeds, and that mean


def cell(arm: Arm, worlds: Sequence[str]) -> Cell | None:
    """An arm's figures over worlds given by name; None if no run has been evaluated in any of them."""
    measure = arm.first.measure
    seeds = [[w for w in run.evaluation.worlds if w.name in worlds] for run in arm.runs if run.evaluation is not None]
    seeds = [found for found in seeds if found]
    if not seeds:
        return None
    everything = [world for found in seeds for world in found]
    mean, error = mean_and_error([_mean(found, measure) for found in seeds])
    counts = [count for world in everything for count in world.samples.successes] if measure is SUCCESSES else []
    by_world = {name: [w for w in everything if w.name == name] for name in dict.fromkeys(w.name for w in everything)}
    worst = min(((name, _mean(found, measure)) for name, found in by_world.items()), key=lambda pair: pair[1])
    return Cell(
        measure=measure,
        mean=mean,
        error=error if len(seeds) > 1 else None,
        spread=everything[0].return_se if len(everything) == 1 and measure is RETURN else None,
        median=median(counts or [value(world, measure) for world in everything]),
        pooled=_pooled(everything, counts, measure),
        seeds=len(seeds),
        episodes=sum(world.episodes for world in everything),
        worst=worst,
    )


def _pooled(worlds: Sequence[WorldFigures], counts: Sequence[float], measure: Metric) -> tuple[float, float] | None:
    if counts:
        low, high = bootstrap_ci(counts)
        return float(low), float(high)
    if measure is not SUCCESS:
        return None
    return wilson(sum(round(w.success_rate * w.episodes) for w in worlds), sum(w.episodes for w in worlds))


def without_effect(arms: Sequence[Arm]) -> list[str]:
    """Worlds that were as the nominal one in every episode of every run that was played in them."""
    runs = [run.evaluation for arm in arms for run in arm.runs if run.evaluation is not None]
    same = [name for evaluation in runs for name in evaluation.without_effect()]
    played = [world.name for evaluation in runs for world in evaluation.worlds]
    return [name for name in dict.fromkeys(same) if same.count(name) == played.count(name)]


def worlds_by_group(arms: Sequence[Arm]) -> dict[str, list[str]]:
    """Names of the worlds that any run has been evaluated in, by group, in the order of GROUPS; without those that had
    no effect, as a mean over them would be too good."""
    found: dict[str, list[str]] = {group: [] for group in GROUPS}
    idle = set(without_effect(arms))
    for arm in arms:
        for run in arm.runs:
            for world in run.evaluation.worlds if run.evaluation is not None else ():
                if world.name not in found[world.kind] and world.name not in idle:
                    found[world.kind].append(world.name)
    return {group: names for group, names in found.items() if names}


def entropy(arm: Arm) -> tuple[float, bool] | None:
    """Mean entropy over seeds (nats per dimension), and whether it is the upper bound from a frozen policy.

    Fixed ranges were chosen, not earned: for them and for no ranges the bound is taken where it has been measured.
    """
    widened = [run.widened.entropy_npd for run in arm.runs if run.widened is not None]
    if widened and arm.first.config.randomization.sampler in ("none", "manual"):
        return sum(widened) / len(widened), True
    own = [run.entropy for run in arm.runs if run.entropy is not None]
    return (sum(own) / len(own), False) if own else None


def training_score(arm: Arm) -> tuple[float, float | None] | None:
    """Of the last 100 training episodes: mean over seeds and its standard error."""
    column = arm.first.measure.column
    last = [run.metrics[column][-1] for run in arm.runs if run.metrics.get(column)]
    if not last:
        return None
    mean, error = mean_and_error(last)
    return mean, error if len(last) > 1 else None


def value(world: WorldFigures, measure: Metric) -> float:
    """How a policy did in one world."""
    return getattr(world, measure.mean)


def _mean(worlds: Sequence[WorldFigures], measure: Metric) -> float:
    return sum(value(world, measure) for world in worlds) / len(worlds)
