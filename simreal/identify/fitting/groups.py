"""Which unknowns can be moved together: those that different joints show (Curtis, Powell and Reid 1974, estimation of
sparse Jacobian matrices)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
_SHARED = 0.1  # of what is seen of an unknown, at joints that show another one of its group, at most


def reach_of(slopes: list[Numbers], joints: list[NDArray[np.int64]], count: int) -> Numbers:
    """What each joint shows [C, J] of each unknown: sums of squares of derivatives.

    Args:
        slopes: per piece, [m, C], in units of noise.
        joints: per piece, the joint of each sample [m].
        count: J.
    """
    seen = np.zeros((slopes[0].shape[1], count))
    for slope, joint in zip(slopes, joints, strict=True):
        np.add.at(seen.T, joint, slope**2)
    return seen


def groups_of(reach: Numbers, kinds: Sequence[int]) -> list[list[int]]:
    """Groups of unknowns of one kind; where one hardly shows at the joints of another they share a group.

    Args:
        reach: [C, J] of `reach_of`.
        kinds: [C] numbers of which kind each is.
    """
    share = reach / np.maximum(reach.sum(axis=1, keepdims=True), 1e-300)
    groups: list[list[int]] = []
    for column in range(len(reach)):
        for group in groups:
            alike = kinds[group[0]] == kinds[column]
            if alike and all(np.minimum(share[column], share[other]).sum() < _SHARED for other in group):
                group.append(column)
                break
        else:
            groups.append([column])
    return groups


def divided(moved: Numbers, before: Numbers, group: list[int], owner: NDArray[np.int64], steps: Numbers) -> Numbers:
    """Derivatives [m, C] of a piece after the unknowns of a group were moved together.

    At each joint the change is that of the unknown that shows most there, less what the others did when each was moved
    by itself; of these nothing new is known.

    Args:
        moved: [m] change when each of the group made its step.
        before: [m, C] when each was moved by itself.
        group: columns.
        owner: [m] the column of the group that a sample shows most of.
        steps: [C] of each.
    """
    after = before.copy()
    rows = np.arange(len(moved))
    after[rows, owner] = (moved - before[:, group] @ steps[group]) / steps[owner] + before[rows, owner]
    return after
