"""Where a policy works: success against each parameter, pairs of them, and a box in which it holds with confidence."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from envs.common.messages import nearest
from randomization.catalogue.table import QUANTITIES
from randomization.parameters import Parameter
from randomization.samplers.base import Points
from simreal.common.errors import UserError
from simreal.evaluation.box_search import Array, Mask, peel, shrunk
from simreal.evaluation.evaluate import Episodes, batch_of, run_episodes
from simreal.evaluation.intervals import clopper_pearson_lower, wilson
from simreal.evaluation.metrics import METRICS, metric_of
from simreal.evaluation.worlds import beyond, trained_ranges
from simreal.training.run_directory import LoadedPolicy

CONFIDENCE = 0.95
_PAIR_POINTS, _PAIRS_OF = 7, 3  # points along a side of a heat map; parameters that are paired unless others are named
_SEARCHES, _ATTEMPTS = 8, 5
_SHRINK = 0.15
_CRITERION = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*(>=|<=)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*")

Judge = Callable[[Episodes], torch.Tensor]
"""Episodes -> [episodes] bool: which of them count as success."""


@dataclass(frozen=True)
class EnvelopeSettings:
    """What to measure.

    Attributes:
        threshold: least share of successes in the box.
        points: values of each parameter.
        episodes: per value; a cell of a heat map gets two fifths, the box ten times as many.
        pairs: parameters of heat maps; empty: those that matter most.
        reach: how far to look beyond the trained ranges, see `beyond`.
        criterion: what makes an episode a success, as "return>=900"; None: the task's own success.
        seed: of the episodes.
    """

    threshold: float = 0.8
    points: int = 9
    episodes: int = 50
    pairs: tuple[tuple[str, str], ...] = ()
    reach: float = 1.0
    criterion: str | None = None
    seed: int = 1_000_003


def measure_envelope(
    policy: LoadedPolicy, settings: EnvelopeSettings, say: Callable[[str], None], ranges_of: LoadedPolicy | None = None
) -> dict[str, Any]:
    """The document of `simreal evaluate --envelope`, see docs/evaluate.md.

    Args:
        policy: to be measured.
        settings: what to measure.
        say: called with one line of progress at a time.
        ranges_of: whose ranges to look at; None: the policy's own.

    Raises:
        UserError: the policy has no ranges, or a setting does not fit it.
    """
    survey = Survey(policy, settings, trained_ranges(ranges_of or policy, "--envelope"))
    named = survey.named_pairs()
    curves = survey.curves(say)
    pairs = survey.heat_maps(named or survey.strongest_pairs(curves), say)
    box = survey.box(say)
    return {
        "schema": 1,
        "task": policy.task_id,
        "threshold": settings.threshold,
        "criterion": settings.criterion,
        "parameters": curves,
        "pairs": pairs,
        "box": box,
    }


class Survey:
    """Episodes of a policy at chosen points of its parameters.

    Args:
        policy: to be measured.
        settings: what to measure.
        trained: its parameters, with the trained ranges as limits.
    """

    def __init__(self, policy: LoadedPolicy, settings: EnvelopeSettings, trained: list[Parameter]) -> None:
        self._policy, self._settings, self._trained = policy, settings, trained
        self._judge = judge_of(policy, settings.criterion)
        task = policy.make_task()
        ends = [beyond(task, p, settings.reach) for p in trained]
        self._parameters = [replace(p, limits=e) for p, e in zip(trained, ends, strict=True)]
        self._inner = torch.tensor([p.limits for p in trained], dtype=torch.float64)
        self._units = {c.name: c.unit for c in task.components("policy")}
        self._seed = settings.seed

    def success(self, points: torch.Tensor, episodes: int) -> Mask:
        """Play `episodes` episodes at each point [M, d] (NaN: drawn from the trained range); success [M, episodes]."""
        sampler, total = Points(self._parameters, self._inner, points), len(points) * episodes
        self._seed += 1  # fresh episodes: none is looked at twice
        environment = self._policy.make_environment(batch_of(total), sampler, self._seed)
        sampler.follow(environment.rng)
        ended = self._judge(run_episodes(self._policy, environment, total))
        return ended.view(episodes, len(points)).T.numpy()

    def values(self, index: int, points: int) -> list[float]:
        """Values of a parameter from one outer end to the other; evenly spaced, factors in their logarithm."""
        low, high = self._parameters[index].limits
        if QUANTITIES[self._parameters[index].quantity].mode == "scale" and low > 0:
            return np.geomspace(low, high, points).tolist()
        return np.linspace(low, high, points).tolist()

    def curves(self, say: Callable[[str], None]) -> list[dict[str, Any]]:
        """Success against each parameter, the others drawn from their trained ranges."""
        points, episodes, d = self._settings.points, self._settings.episodes, len(self._parameters)
        grid = torch.full((d, points, d), math.nan, dtype=torch.float64)
        for i in range(d):
            grid[i, :, i] = torch.tensor(self.values(i, points), dtype=torch.float64)
        say(f"curves: {d} parameters at {points} values, {d * points * episodes:,} episodes")
        counts = self.success(grid.view(-1, d), episodes).sum(axis=1).reshape(d, points)
        return [
            {
                "name": p.name,
                "unit": self._unit(p),
                "trained": list(p.limits),
                "values": grid[i, :, i].tolist(),
                "success": (counts[i] / episodes).tolist(),
                "ci95": [list(wilson(int(k), episodes)) for k in counts[i]],
                "episodes": episodes,
            }
            for i, p in enumerate(self._trained)
        ]

    def heat_maps(self, pairs: Sequence[tuple[str, str]], say: Callable[[str], None]) -> list[dict[str, Any]]:
        """Success against pairs of parameters, the others drawn from their trained ranges."""
        if not pairs:
            return []
        names, d = [p.name for p in self._parameters], len(self._parameters)
        points, episodes = min(self._settings.points, _PAIR_POINTS), max(1, round(0.4 * self._settings.episodes))
        grid = torch.full((len(pairs), points, points, d), math.nan, dtype=torch.float64)
        for k, (x, y) in enumerate(pairs):
            grid[k, :, :, names.index(x)] = torch.tensor(self.values(names.index(x), points))[None, :]
            grid[k, :, :, names.index(y)] = torch.tensor(self.values(names.index(y), points))[:, None]
        say(f"heat maps: {len(pairs)} of {points} x {points} cells, {grid[..., 0].numel() * episodes:,} episodes")
        share = self.success(grid.view(-1, d), episodes).mean(axis=1).reshape(len(pairs), points, points)
        return [
            {
                "x": x,
                "y": y,
                "xs": grid[k, 0, :, names.index(x)].tolist(),
                "ys": grid[k, :, 0, names.index(y)].tolist(),
                "success": share[k].tolist(),
                "episodes": episodes,
            }
            for k, (x, y) in enumerate(pairs)
        ]

    def box(self, say: Callable[[str], None]) -> dict[str, Any] | None:
        """A box in which success is at least the threshold with 95 % confidence, or None if none was found.

        Searched on episodes of its own, then verified on fresh ones. Where that fails, the box shrinks and is verified
        on other fresh episodes; attempt k has the error probability 0.05 / 2^k, so all together stay below 0.05.
        """
        threshold, centre = self._settings.threshold, np.array([p.nominal for p in self._parameters])
        count = max(10 * self._settings.episodes, math.ceil(8.0 / (1.0 - threshold)))
        target = self._target(count)
        found = self._search(count, target, centre, say)
        if found is None:
            say(f"box: none found in which success reaches {target:.3f}, as a proof of {threshold:g} needs")
            return None
        for attempt in range(1, _ATTEMPTS + 1):
            successes = int(self._in_box(found, count)[1].sum())
            bound = clopper_pearson_lower(successes, count, (1.0 - CONFIDENCE) / 2**attempt)
            say(f"box: verification {attempt}, {successes} of {count} episodes, at least {bound:.3f}")
            if bound >= threshold:
                ranges = {p.name: found[i].tolist() for i, p in enumerate(self._parameters)}
                return {
                    "success": threshold, "confidence": CONFIDENCE, "ranges": ranges, "episodes": count,
                    "successes": successes, "lower_bound": bound,
                }  # fmt: skip
            found = shrunk(found, centre, _SHRINK)
        return None

    def _target(self, count: int) -> float:
        """The share of successes to search for: one that passes the first verification unless luck is bad."""
        p, alpha = self._settings.threshold, (1.0 - CONFIDENCE) / 2
        start = math.floor(p * count)
        enough = next(k for k in range(start, count + 1) if k == count or clopper_pearson_lower(k, count, alpha) >= p)
        return min(enough / count + math.sqrt(p * (1.0 - p) / count), 1.0)

    def _search(self, count: int, target: float, centre: Array, say: Callable[[str], None]) -> Array | None:
        """Peel the box of everything that the curves show; sample anew in what is left until that is good enough."""
        box = np.array([p.limits for p in self._parameters], dtype=np.float64)
        for number in range(1, _SEARCHES + 1):
            worlds, success = self._in_box(box, count)
            say(f"box: search {number}, success {success.mean():.3f} of {count} episodes")
            if success.mean() >= target:
                return box
            smaller, _ = peel(worlds, success, box, centre, target)
            if np.array_equal(smaller, box):
                return None
            box = smaller
        return None

    def _in_box(self, box: Array, count: int) -> tuple[Array, Mask]:
        """Worlds [count, d] uniform in a box, and how an episode in each ended."""
        generator = np.random.default_rng((self._seed, count))
        worlds: NDArray[np.float64] = generator.uniform(box[:, 0], box[:, 1], size=(count, len(box)))
        return worlds, self.success(torch.from_numpy(worlds), 1)[:, 0]

    def named_pairs(self) -> list[tuple[str, str]]:
        """The pairs that were asked for. Raises UserError for a name that is no parameter."""
        names = [p.name for p in self._parameters]
        for pair in self._settings.pairs:
            for name in pair:
                if name not in names:
                    raise UserError(
                        f"--pair: no parameter {name!r}{nearest(name, names)}; there are: {', '.join(names)}"
                    )
            if pair[0] == pair[1]:
                raise UserError(f"--pair: expected two parameters, got {pair[0]!r} twice")
        return list(self._settings.pairs)

    def strongest_pairs(self, curves: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
        """Pairs of the parameters along which success varies most."""
        spread = {c["name"]: max(c["success"]) - min(c["success"]) for c in curves}
        strongest = sorted(spread, key=lambda name: -spread[name])[:_PAIRS_OF]
        return list(combinations(strongest, 2))

    def _unit(self, parameter: Parameter) -> str:
        units = [self._units[t] for t in parameter.targets] if parameter.unit == "unit" else [parameter.unit]
        return " or ".join(dict.fromkeys(units))


def judge_of(policy: LoadedPolicy, criterion: str | None) -> Judge:
    """What counts as success. Raises UserError for a criterion that cannot be understood or is missing."""
    if criterion is None:
        measure = metric_of(policy.make_task())
        if measure.criterion is not None:
            raise UserError(
                f"{policy.task_id} is judged by {measure.words}: say what an episode must reach with --criterion, as "
                f"'{measure.criterion}'"
            )
        return lambda episodes: episodes.success
    match = _CRITERION.fullmatch(criterion)
    if match is None:
        raise UserError(f"--criterion: expected NAME>=NUMBER or NAME<=NUMBER, got {criterion!r}")
    name, above, limit = match[1], match[2] == ">=", float(match[3])
    known = [*(name for name, m in METRICS.items() if m.criterion is not None), *_measures(policy)]
    if name not in known:
        raise UserError(f"--criterion: no measure {name!r}{nearest(name, known)}; there are: {', '.join(known)}")

    def judge(episodes: Episodes) -> torch.Tensor:
        values = {**episodes.samples, **episodes.measures}[name]
        return values >= limit if above else values <= limit

    return judge


def _measures(policy: LoadedPolicy) -> list[str]:
    """Names of the terms that the task reports with every step."""
    environment = policy.make_environment(1, policy.trained_sampler(), seed=0)
    environment.reset()
    return list(environment.step(torch.zeros(1, environment.task.action_size)).terms)
