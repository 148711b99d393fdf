"""Honest figures about finite numbers of episodes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
_RESAMPLES = 4000
_DRAWS_AT_ONCE = 1 << 22  # keeps a bootstrap of 10,000 episodes in a few tens of megabytes


def wilson(successes: int, trials: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Wilson score interval of a proportion (Wilson 1927); (0, 1) without trials. z = 1.96 for 95 %."""
    if trials == 0:
        return 0.0, 1.0
    p = successes / trials
    denominator = 1.0 + z * z / trials
    centre = (p + z * z / (2 * trials)) / denominator
    half = z * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials)) / denominator
    low, high = centre - half, centre + half
    return (0.0 if successes == 0 else max(low, 0.0), 1.0 if successes == trials else min(high, 1.0))


def cvar(values: Sequence[float], share: float = 0.1) -> float:
    """Mean of the worst `share` of the values, at least one (conditional value at risk, EPOpt)."""
    worst = sorted(values)[: max(1, math.ceil(share * len(values) - 1e-9))]
    return sum(worst) / len(worst)


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error (0 for a single value)."""
    n = len(values)
    mean = sum(values) / n
    if n < 2:
        return mean, 0.0
    variance = sum((v - mean) ** 2 for v in values) / (n - 1)
    return mean, math.sqrt(variance / n)


def clopper_pearson_lower(successes: int, trials: int, alpha: float) -> float:
    """The lower confidence bound of a proportion at level 1 - alpha, one sided and exact (Clopper, Pearson 1934).

    It is the p at which `successes` or more of `trials` have the probability alpha: found by bisection.
    """
    if successes == 0:
        return 0.0
    low, high = 0.0, successes / trials
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if _upper_tail(successes, trials, middle) < alpha else (low, middle)
    return low


def _upper_tail(least: int, trials: int, p: float) -> float:
    """P(X >= least) for X ~ Binomial(trials, p), 0 < p < 1."""
    k = np.arange(least, trials + 1)
    factorials = np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, trials + 1)))))  # log n!
    logs = factorials[trials] - factorials[k] - factorials[trials - k] + k * math.log(p) + (trials - k) * math.log1p(-p)
    return float(np.exp(logs).sum())


def bootstrap_ci(values: ArrayLike, seed: int = 0, level: float = 0.95) -> Array:
    """Percentile bootstrap intervals of means over episodes (Efron 1979).

    Args:
        values: [n] or [n, k]; the k columns are resampled together.
        seed: of the resampling.
        level: of confidence.

    Returns:
        [2] or [2, k], lower and upper ends.
    """
    columns = np.asarray(values, dtype=np.float64)
    flat = columns.reshape(len(columns), -1)
    means = np.concatenate([counts @ flat for counts in _resampled(len(flat), seed)]) / len(flat)
    tail = 50.0 * (1.0 - level)
    ends = np.percentile(means, [tail, 100.0 - tail], axis=0)
    return ends.reshape(2, *columns.shape[1:])


def _resampled(n: int, seed: int) -> Iterator[Array]:
    """How often each of n episodes occurs in resamples of n, [some, n] at a time, _RESAMPLES in all."""
    generator, left = np.random.default_rng(seed), _RESAMPLES
    while left:
        rows = min(left, max(1, _DRAWS_AT_ONCE // n))
        picks = generator.integers(n, size=(rows, n)) + n * np.arange(rows)[:, None]
        yield np.bincount(picks.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)
        left -= rows


def unanimous_ci(difference: float, trials: int, level: float = 0.95) -> list[float]:
    """How far two success rates may differ when all pairs of `trials` episodes had the same difference: -1, 0 or 1.

    The bootstrap knows only what it saw and would claim certainty. With a share d of other pairs, none is seen with
    probability (1 - d)^trials; at the d where that is half of 1 - level (the rule of three, two sided) the others may
    all be -1, or all be 1.
    """
    unseen = 1.0 - (0.5 * (1.0 - level)) ** (1.0 / trials)
    middle = (1.0 - unseen) * difference
    return [middle - unseen, middle + unseen]
