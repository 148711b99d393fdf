"""Leads trajectories on to physics steps of no length: a robot has none, and a stiff servo feels each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from simreal.identify.simulation import Piece, Player

Numbers = NDArray[np.float64]


class Limit:
    """Twice the trajectories of half a step less those of the step (Richardson 1911): of a method whose error goes with
    its step, what is left goes with the square.

    Args:
        make: makes a player whose physics steps are divided into so many.
        finer: into how many the longer ones are.
    """

    def __init__(self, make: Callable[[int], Player], finer: int) -> None:
        self.finer, self._make = finer, make
        self._coarse, self._fine = make(finer), make(2 * finer)
        self.step_s = self._coarse.timestep_s

    def play(self, pieces: Sequence[Piece], values: Numbers, starts: Numbers) -> list[list[Numbers]]:
        """As `Player.play`."""
        coarse, fine = (player.play(pieces, values, starts) for player in (self._coarse, self._fine))
        return [[2.0 * b - a for a, b in zip(*tracks, strict=True)] for tracks in zip(coarse, fine, strict=True)]

    def halved(self) -> Limit:
        """The same with steps half as long."""
        return Limit(self._make, 2 * self.finer)
