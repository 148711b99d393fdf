"""What a log can tell of each unknown, what only in combination, and what not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .fitting.linear import Fit
from .unknowns import Scales, Unknown

Numbers = NDArray[np.float64]
_RESAMPLES = 400
_KNOWN = 0.25  # of the prior range's half: an interval whose standard deviation is larger tells nothing worth having
_MEMBER = 0.08  # share of a direction from which on an unknown is said to be part of it
_ALIKE = 1.4  # largest factor between the steps of factors that are said to grow alike
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
    fit: Fit, unknowns: Sequence[Unknown], scales: Scales, seed: int = 0, led_on: Numbers | None = None
) -> Knowledge:
    """Intervals from the curvature of the fit and from which pieces were there, whichever is wider, and from what was
    believed beforehand.

    The first is right where the model can explain the log and noise is white, the second also where it is not: pieces
    are drawn again with repetition and one Gauss-Newton step is made for each draw (a bootstrap over pieces; Efron
    and Tibshirani 1993, chapter 8).

    A robot has no timestep. `led_on` [P] is how far the best world would still move on the way to none; half of that
    is uncertain too.
    """
    directions = np.linalg.eigh(fit.information.sum(axis=0))
    known = directions.eigenvalues > (1.0 / _KNOWN) ** 2  # the rest may be about anything in its range
    basis, values = directions.eigenvectors[:, known], directions.eigenvalues[known]
    curvature = basis @ np.diag(1.0 / values) @ basis.T
    posterior = fit.covariance()
    moved = np.zeros_like(fit.z) if led_on is None else led_on
    best = np.clip(fit.z + moved, -1.0, 1.0)
    more = np.maximum(np.diag(_resampled(fit, basis, seed)) - np.diag(curvature), 0.0)
    variance = np.diag(posterior) + more + (0.5 * moved) ** 2
    ratio = np.sqrt(variance / np.diag(posterior))
    covariance = posterior * np.outer(ratio, ratio)
    spread = np.sqrt(variance)
    lost = _sparse(directions.eigenvectors[:, ~known])  # [K, P]
    along = np.abs(lost) / np.abs(lost).max(axis=1, keepdims=True, initial=1e-300)
    told = (spread < _KNOWN) & (along <= _KNOWN).all(axis=0)  # a valley of what is not told may be bent, and long
    of = tuple(_known(unknown, k, best, spread[k], bool(told[k]), scales) for k, unknown in enumerate(unknowns))
    correlations = covariance / np.outer(spread, spread)
    shares = scales.half / np.where([u.factor for u in unknowns], scales.outward(fit.z), 1.0)
    return Knowledge(of, covariance, correlations, combinations(lost, unknowns, shares, told))


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


def combinations(
    lost: Numbers, unknowns: Sequence[Unknown], shares: Numbers, told: NDArray[np.bool_]
) -> tuple[str, ...]:
    """Directions [K, P] of z that a log does not tell, in words; a step of 1 changes factors by `shares` [P]."""
    lines: list[str] = []
    spoken: set[int] = set()
    for direction in lost:
        parts = np.abs(direction).round(2)
        members = [k for k in np.argsort(-parts, kind="stable").tolist() if parts[k] > _MEMBER]
        if len(members) < 2:
            continue
        spoken.update(members)
        names = [unknowns[k].name for k in members]
        lines.append(
            f"{', '.join(names[:-1])} and {names[-1]}: only {_known_of(members, direction * shares, unknowns)}"
        )
    alone = [unknowns[k].name for k in np.flatnonzero(~told).tolist() if k not in spoken]
    return (*lines, *(f"{name}: nothing" for name in alone))


def _known_of(members: list[int], direction: Numbers, unknowns: Sequence[Unknown]) -> str:
    """What is known of unknowns that may move together along a direction: factors that grow alike keep their ratios."""
    steps = direction[members]
    ratios = all(unknowns[k].factor for k in members) and np.abs(steps).max() < _ALIKE * np.abs(steps).min()
    if len(members) == 2:
        if steps[0] * steps[1] > 0.0:
            return "their ratio" if ratios else "their difference"
        return "their product" if ratios else "their sum"
    return "their ratios" if ratios and (steps * steps[0] > 0.0).all() else "together"


def _sparse(lost: Numbers) -> Numbers:
    """A basis [K, P] of the space that directions [P, K] span, each with as few members as elimination gives."""
    rows = lost.T.copy()
    done: list[int] = []
    for _ in range(len(rows)):
        left = [k for k in range(len(rows)) if k not in done]
        row, column = np.unravel_index(np.abs(rows[left]).argmax(), (len(left), rows.shape[1]))
        pivot = left[int(row)]
        rows[pivot] /= rows[pivot, column]
        for k in range(len(rows)):
            if k != pivot:
                rows[k] -= rows[k, column] * rows[pivot]
        done.append(pivot)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)
