"""The last seconds of what an environment showed, for plots."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


class History:
    """The newest rows of some numbers over time.

    Args:
        names: of the columns.
        rows: how many are kept.
    """

    def __init__(self, names: tuple[str, ...], rows: int) -> None:
        self.names = names
        self._rows = np.full((rows, 1 + len(names)), np.nan)
        self._count = 0

    def add(self, time_s: float, values: Values) -> None:
        """Take a row [columns] at a time."""
        self._rows[self._count % len(self._rows)] = (time_s, *values)
        self._count += 1

    def columns(self, chosen: list[int]) -> tuple[Values, ...]:
        """Times, then the chosen columns, oldest first, [rows so far] each."""
        rows, at = self._rows, self._count % len(self._rows)
        ordered = rows[:at] if self._count < len(rows) else np.concatenate((rows[at:], rows[:at]))
        return tuple(np.ascontiguousarray(ordered[:, i]) for i in (0, *(k + 1 for k in chosen)))

    def clear(self) -> None:
        """Forget everything."""
        self._rows[:], self._count = np.nan, 0
