"""How long cycles take: the last hundred thousand of them, in bounded memory.

Part of `simreal.deploy`, which imports nothing else of simreal.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..targets import Numbers


class Times:
    """Times of the last cycles, s.

    Args:
        names: of what is timed in each cycle.
        kept: cycles that are kept.
    """

    def __init__(self, names: Sequence[str], kept: int = 100_000) -> None:
        self._names, self._kept, self._count = tuple(names), kept, 0
        self._rows: Numbers = np.full((kept, len(names)), np.nan)

    def add(self, row: Sequence[float]) -> None:
        """The times of one cycle."""
        self._rows[self._count % self._kept] = row
        self._count += 1

    def summary(self) -> dict[str, dict[str, float]]:
        """p50, p99 and max of each, s; without those that were never measured."""
        rows, found = self._rows[: self._count], dict[str, dict[str, float]]()
        for name, column in zip(self._names, rows.T, strict=True):
            known = column[~np.isnan(column)]
            if len(known):
                p50, p99 = np.percentile(known, (50, 99))
                found[name] = {"p50": float(p50), "p99": float(p99), "max": float(known.max())}
        return found
