"""When something was measured, on this machine's clock, from the stamps of another one."""

from __future__ import annotations

import time
from collections.abc import Callable

_WINDOW_S = 10.0


class RemoteClock:
    """Brings stamps of another clock to this machine's monotonic one.

    Two clocks that nobody has synchronized tell the age of a message only up to a constant: the quickest message of the
    last 10 to 20 s counts as one that took no time, and what others take longer is their age. So a delay that is always
    there does not show; where both machines' clocks are synchronized (NTP, PTP, or the same machine), `shared` does.

    Args:
        shared: stamps are s since 1970 on a clock that agrees with this machine's.
        wall: s since 1970.
        clock: monotonic, s.
    """

    def __init__(
        self, shared: bool = False, wall: Callable[[], float] = time.time, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._shared, self._wall, self._clock = shared, wall, clock
        self._last, self._local = float("-inf"), float("-inf")
        self._least, self._before, self._began = float("inf"), float("inf"), float("-inf")

    def local(self, stamp: float, arrival: float) -> float:
        """When a message with this stamp was measured, on the monotonic clock; not after its arrival.

        The same stamp again means that nothing has come since, and gives the same time.

        Args:
            stamp: on the other clock, s.
            arrival: on the monotonic clock, s.
        """
        if stamp == self._last:
            return self._local
        if self._shared:
            offset = self._clock() - self._wall()
        else:
            if stamp < self._last or arrival - self._began > _WINDOW_S:
                restarted = stamp < self._last
                self._before = float("inf") if restarted else self._least
                self._least, self._began = float("inf"), arrival
            self._least = min(self._least, arrival - stamp)
            offset = min(self._least, self._before)
        self._last, self._local = stamp, min(arrival, stamp + offset)
        return self._local
