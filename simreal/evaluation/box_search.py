"""The search for a box of parameters in which a policy succeeds: patient rule induction.

Friedman and Fisher, "Bump hunting in high-dimensional data", Statistics and Computing 9 (1999): starting from all
that was sampled, cut off the slice along one face that fails most, again and again, until what is left is good enough.
Cutting thin slices from the outside in leaves the largest box that this finds; nothing says that none is larger.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
_SLICE = 0.06  # share of the sample that a cut takes
_FEWEST = 30  # episodes on which a cut may be based


def inside(worlds: Array, box: Array) -> Mask:
    """Which worlds [n, d] lie in a box [d, 2]."""
    return np.all((worlds >= box[:, 0]) & (worlds <= box[:, 1]), axis=1)


def peel(worlds: Array, success: Mask, box: Array, centre: Array, target: float) -> tuple[Array, float]:
    """Cut slices off a box until the share of successes in it reaches `target`, or too few worlds are left.

    Args:
        worlds: [n, d] uniform in the box.
        success: [n] how their episodes ended.
        box: [d, 2].
        centre: [d] the calibrated world, which stays in the box.
        target: share of successes.

    Returns:
        The box that is left, and the share of successes in it.
    """
    box, least = box.copy(), max(_FEWEST, len(worlds) // 4)
    kept = inside(worlds, box)
    while success[kept].mean() < target and kept.sum() > least:
        cut = _worst_slice(worlds[kept], success[kept], centre)
        if cut is None:
            break
        parameter, side, value = cut
        box[parameter, side] = value
        kept = inside(worlds, box)
    return box, float(success[kept].mean())


def _worst_slice(worlds: Array, success: Mask, centre: Array) -> tuple[int, int, float] | None:
    """The face whose slice has the lowest share of successes: parameter, side and where to cut; None if there is none
    that leaves the centre in."""
    worst: tuple[float, int, int, float] | None = None
    fewest = 0.5 * _SLICE * len(worlds)
    for parameter in range(worlds.shape[1]):
        column = worlds[:, parameter]
        for side, share in ((0, _SLICE), (1, 1.0 - _SLICE)):
            at = float(np.quantile(column, share))
            at = min(at, float(centre[parameter])) if side == 0 else max(at, float(centre[parameter]))
            off = column < at if side == 0 else column > at
            if off.sum() < fewest:
                continue
            rate = float(success[off].mean())
            if worst is None or rate < worst[0]:
                worst = (rate, parameter, side, at)
    return None if worst is None else worst[1:]


def shrunk(box: Array, centre: Array, share: float) -> Array:
    """A box whose faces have moved towards the centre by a share of their distance."""
    return box + share * (centre[:, None] - box)
