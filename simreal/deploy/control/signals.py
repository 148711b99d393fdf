"""SIGINT and SIGTERM while a controller runs: noted at once, acted upon when the robot is safe.

Part of `simreal.deploy`, which imports nothing else of simreal.
"""

from __future__ import annotations

import signal
import threading
from typing import Any


class Interrupts:
    """A context in which SIGINT and SIGTERM only set `signal`; in threads other than the main one, nothing.

    A second one raises KeyboardInterrupt at once: where the first changed nothing, the robot's own code hangs.
    """

    def __init__(self) -> None:
        self.signal, self._before = 0, dict[int, Any]()

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: object) -> None:
        if self.signal:
            raise KeyboardInterrupt
        self.signal = number

    @property
    def name(self) -> str:
        """Of the signal that came."""
        return signal.Signals(self.signal).name

    def act(self) -> None:
        """Raise what the signal that came raises in a Python program."""
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        if self.signal:
            raise SystemExit(128 + self.signal)
