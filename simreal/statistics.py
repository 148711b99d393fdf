"""Honest figures about finite numbers of episodes."""

from __future__ import annotations

import math
from collections.abc import Sequence


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


def median(values: Sequence[float]) -> float:
    """The middle value, or the mean of the two in the middle."""
    ordered, n = sorted(values), len(values)
    return ordered[n // 2] if n % 2 else 0.5 * (ordered[n // 2 - 1] + ordered[n // 2])
