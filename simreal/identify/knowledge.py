"""What a log can tell of each unknown, what only in combination, and what not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .fit import Fit
from .unknowns import Scales, Unknown

Numbers = NDArray[np.float64]
_RESAMPLES = 400
_KNOWN = 0.25  # of the prior range's half: an interval whose standard deviation is larger tells nothing worth having
_MEMBER = 0.15  # share of a direction from which on an unknown is said to be part of it
_95 = 1.96


@dataclass(frozen=True)
class Known:
    """What is known of an unknown.

    Attributes:
        unknown: which.
        value: best one, in its unit.
        low, high: 95 % interval; of one that the log does not tell its prior range.
        told: whether the log tells it.
    """

    unknown: Unknown
    value: float
    low: float
    high: float
    told: bool


@dataclass(frozen=True)
class Knowledge:
    """What is known of the world.

    Attributes:
        of: each unknown.
        covariance: [P, P] of z; wide where nothing is known.
        correlations: [P, P].
        combinations: what only a sum or a ratio is known of, in words.
    """

    of: tuple[Known, ...]
    covariance: Numbers
    correlations: Numbers
    combinations: tuple[str, ...]


def knowledge(
    fit: Fit, unknowns: Sequence[Unknown], scales: Scales, seed: int = 0, halved: Numbers | None = None
) -> Knowledge:
    """Intervals from the curvature of the fit and from which pieces were there, whichever is wider.

    The first is right where the model can explain the log and noise is white, the second also where it is not: pieces
    are drawn again with repetition and one Gauss-Newton step is made for each draw (a bootstrap over pieces; Efron
    and Tibshirani 1993, chapter 8).

    A robot has no timestep. `halved` [P] is how far the best world moves when physics steps are half as long; with a
    method of first order it moves as far again on the way to none. The middle of that way is taken, with its length as
    uncertainty.
    """
    information = fit.information.sum(axis=0)
    directions = np.linalg.eigh(information)
    known = directions.eigenvalues > (1.0 / _KNOWN) ** 2  # the rest may be anything in its range
    basis, values = directions.eigenvectors[:, known], directions.eigenvalues[known]
    curvature = basis @ np.diag(1.0 / values) @ basis.T
    bootstrap = _resampled(fit, basis, seed)
    lost = directions.eigenvectors[:, ~known]
    # What is not known in a direction is as wide as the prior there, and where the prior has its middle.
    reach = 1.0 / np.abs(lost).max(axis=0, initial=1e-12)
    unknown = (lost * (reach**2 / 3.0)) @ lost.T
    middle = lost @ (lost.T @ (scales.nominal - fit.z))
    moved = np.zeros_like(fit.z) if halved is None else basis @ (basis.T @ halved)
    best = np.clip(fit.z + middle + 1.5 * moved, -1.0, 1.0)
    variance = np.maximum(np.diag(curvature), np.diag(bootstrap)) + np.diag(unknown) + (0.5 * moved) ** 2
    ratio = np.sqrt(variance / np.maximum(np.diag(curvature) + np.diag(unknown), 1e-300))
    covariance = (curvature + unknown) * np.outer(ratio, ratio)
    spread = np.sqrt(np.diag(covariance))
    told = spread < _KNOWN
    of = tuple(_known(unknown, k, best, spread[k], bool(told[k]), scales) for k, unknown in enumerate(unknowns))
    correlations = covariance / np.maximum(np.outer(spread, spread), 1e-300)
    return Knowledge(of, covariance, correlations, _combinations(lost, unknowns, told))


def _known(unknown: Unknown, k: int, z: Numbers, spread: float, told: bool, scales: Scales) -> Known:
    ends = []
    for at in (z[k] - _95 * spread, z[k], z[k] + _95 * spread):
        point = z.copy()
        point[k] = at
        ends.append(float(scales.outward(point)[k]))
    low, value, high = ends
    if not told:
        return Known(unknown, value, *unknown.limits, False)
    return Known(unknown, value, max(low, unknown.limits[0]), min(high, unknown.limits[1]), True)


def _resampled(fit: Fit, basis: Numbers, seed: int) -> Numbers:
    """Covariance [P, P] of z over draws of the pieces, in the directions of `basis` that the log tells."""
    count = len(fit.gradients)
    if count < 3 or not basis.shape[1]:
        return np.zeros((len(fit.z), len(fit.z)))
    generator = np.random.default_rng(seed)
    information = np.einsum("pi,wpq,qj->wij", basis, fit.information, basis)
    gradients = fit.gradients @ basis
    gradients = gradients - gradients.mean(axis=0)  # 0 at the best world but for what ends of ranges hold back
    ridge = 1e-3 * np.diag(np.diag(information.sum(axis=0)))
    steps = []
    for _ in range(_RESAMPLES):
        drawn = np.bincount(generator.integers(count, size=count), minlength=count).astype(float)
        there = np.tensordot(drawn, information, axes=1) + ridge
        steps.append(np.linalg.solve(there, drawn @ gradients))
    moved = np.asarray(steps)
    # The middle of the draws: a few with hardly any information jump far.
    width = np.subtract(*np.percentile(moved, [84.13, 15.87], axis=0)) / 2.0
    correlation = np.corrcoef(moved.T).reshape(moved.shape[1], moved.shape[1])
    correction = count / max(count - 1, 1)
    return basis @ (np.outer(width, width) * correlation * correction) @ basis.T


def _combinations(lost: Numbers, unknowns: Sequence[Unknown], told: NDArray[np.bool_]) -> tuple[str, ...]:
    """Directions that a log does not tell, in words."""
    lines: list[str] = []
    for direction in lost.T:
        shares = np.abs(direction).round(2)
        members = [k for k in np.argsort(-shares, kind="stable").tolist() if shares[k] > _MEMBER]
        if len(members) < 2:
            continue
        names = [unknowns[k].name for k in members]
        same = {np.sign(direction[k]) for k in members}
        if len(members) == 2:
            ratios = all(unknowns[k].logarithmic for k in members)
            what = ("their product" if ratios else "their sum") if len(same) == 2 else (
                "their ratio" if ratios else "their difference"
            )  # fmt: skip
            lines.append(f"{names[0]} and {names[1]}: only {what}")
        else:
            lines.append(f"{', '.join(names[:-1])} and {names[-1]}: only together")
    alone = [
        unknowns[k].name for k in np.flatnonzero(~told).tolist() if not any(unknowns[k].name in line for line in lines)
    ]
    return (*lines, *(f"{name}: nothing" for name in alone))
