"""What repeats itself in a log: in a gait that does, every signal follows from every other one's past, at any shift.

So nothing that repeats itself may count for a relation between two signals, only what departs from it: a start, a
push, a change of pace, the scatter of steps.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
_STRETCH = 100  # cycles within which a gait keeps its pace
_SHARE = 0.34  # of a stretch's cycles, which is how many numbers may describe the period in it
_REPEATS = 0.9  # of the variance, from which on a stretch counts as one that repeats itself
_SHORTEST, _STEPS = 4.0, 120  # cycles of a period; paces that are tried


def repeating(signals: Numbers, cycles: NDArray[np.int64]) -> tuple[Numbers, float]:
    """What a common period describes of signals [T, m], at some cycles [K] of theirs.

    In each stretch of some 100 cycles the pace is sought at which sines and cosines of it and of its multiples leave
    the least of the signals unexplained.

    Returns:
        An orthonormal basis [K, c] of what repeats itself there, without columns where nothing does; and the share of
        the cycles that are in stretches that do.
    """
    basis: list[Numbers] = []
    inside = 0
    for part in np.array_split(np.arange(len(cycles)), max(len(cycles) // _STRETCH, 1)):
        x = signals[cycles[part]]
        x = x - x.mean(axis=0)
        size = float((x**2).sum())
        if len(part) < _STRETCH // 2 or size <= 0.0:
            continue
        x = x / np.maximum(np.sqrt((x**2).sum(axis=0)), 1e-12)
        pace = _pace(cycles[part], x)
        waves = _waves(cycles[part], pace, int(_SHARE * len(part) / 2))
        if _explained(waves, x) < _REPEATS:
            continue
        inside += len(part)
        columns = np.zeros((len(cycles), waves.shape[1]))
        columns[part] = waves
        basis.append(columns)
    return (np.column_stack(basis) if basis else np.zeros((len(cycles), 0))), inside / max(len(cycles), 1)


def _pace(cycles: NDArray[np.int64], x: Numbers) -> float:
    """Turns per cycle of what repeats itself in a stretch, at least two and a half times."""
    pace, step = 0.0, (1.0 / _SHORTEST - 2.5 / len(cycles)) / _STEPS
    tried = 2.5 / len(cycles) + step * np.arange(_STEPS + 1)
    for multiples in (3, 4, 4, 8, 8, 16):  # nearer and nearer: an error of the pace grows with the multiple
        pace = float(max(tried, key=lambda pace, most=multiples: _explained(_waves(cycles, pace, most), x)))
        tried, step = pace + step * np.linspace(-1.0, 1.0, 9), step / 4.0
    return pace


def _waves(cycles: NDArray[np.int64], pace: float, most: int) -> Numbers:
    """An orthonormal basis of a constant, a slope and the multiples of a pace; above half a turn those come back as
    slower ones, and count as long as they are none that is there already."""
    apart = 0.7 / len(cycles)
    kept: list[float] = [0.0]
    for multiple in range(1, most + 1):
        turns = abs((multiple * pace + 0.5) % 1.0 - 0.5)
        if min(abs(turns - other) for other in kept) > apart:
            kept.append(turns)
    phase = 2.0 * np.pi * (cycles - cycles[0])[:, None] * np.array(kept[1:])
    along = np.linspace(-1.0, 1.0, len(cycles))
    waves, size = np.linalg.qr(np.column_stack([np.ones(len(cycles)), along, np.cos(phase), np.sin(phase)]))
    return waves[:, np.abs(size.diagonal()) > 1e-6 * np.abs(size).max()]


def _explained(waves: Numbers, x: Numbers) -> float:
    """Share of the variance of columns of length 1 [K, m]."""
    return float(((waves.T @ x) ** 2).sum() / max(float((x**2).sum()), 1e-300))
