"""What happened while a controller ran: each thing once, with its time.

Part of `simreal.deploy`, which imports nothing else of simreal.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

Kind = Literal[
    "armed", "starting", "running", "stopped", "refused", "finished", "interrupted",  # what the controller does
    "stale", "not_finite", "out_of_range", "lost", "limits", "stalled", "out_of_training",  # why it stops: faults seen,
    "read_failed", "inputs_failed", "decide_failed", "write_failed",  # and code that raised
    "back_in_training", "latency", "latency_as_trained", "overrun", "clamped", "safe_failed", "log",  # and what is told
]  # fmt: skip
_MOST = 10_000  # events that are kept


@dataclass(frozen=True)
class Event:
    """One line of the log.

    Attributes:
        t: s since the controller was made, on its clock.
        kind: what it is.
        component: of the observation or the action; "" where it concerns none.
        text: what was seen and what was expected.
    """

    t: float
    kind: Kind
    component: str
    text: str

    def __str__(self) -> str:
        return f"{self.t:9.3f} s  {self.kind}{f' {self.component}' if self.component else ''}: {self.text}"

    def json(self) -> str:
        """The event as one line of JSON."""
        return json.dumps(asdict(self))


class Fault(Exception):
    """Why the policy must not go on; caught by the controller, which makes the robot safe."""

    def __init__(self, kind: Kind, component: str, text: str) -> None:
        super().__init__(text)
        self.kind: Kind = kind
        self.component, self.text = component, text


class EventLog:
    """All events of a controller, in order, and whoever is told of them.

    Args:
        clock: s.
        listeners: called with every event; one that raises is not called again.
    """

    def __init__(self, clock: Callable[[], float], listeners: list[Callable[[Event], None]]) -> None:
        self._clock, self._begin, self._listeners = clock, clock(), listeners
        self.events: list[Event] = []

    def add(self, kind: Kind, text: str, component: str = "") -> None:
        """One event more, which happens now."""
        event = Event(self._clock() - self._begin, kind, component, text)
        if len(self.events) < _MOST:
            self.events.append(event)
        for listener in list(self._listeners):
            try:
                listener(event)
            except Exception:
                self._listeners.remove(listener)


class Spell:
    """Something that lasts: told when it begins, and again only after `calm` cycles without it."""

    def __init__(self, calm: int = 50) -> None:
        self.active, self._calm, self._quiet = False, calm, 0

    def begins(self, now: bool) -> bool:
        """Whether it begins in this cycle, in which it is there or not (`now`)."""
        if now:
            new, self.active, self._quiet = not self.active, True, 0
            return new
        self._quiet += 1
        self.active = self.active and self._quiet < self._calm
        return False
