"""What happened while a controller ran: each thing once, with its time.

Part of `simreal.deploy`, which imports nothing else of simreal.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal[
    "armed", "started", "running", "stopped", "refused",  # states
    "stale", "not_finite", "out_of_range", "lost", "read_failed", "decide_failed", "write_failed", "stalled",  # faults
    "interrupted", "finished", "safe_failed", "inputs_failed",
    "out_of_training", "back_in_training", "latency", "overrun", "clamped", "log",  # told, not stopped for
]  # fmt: skip


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
        document: dict[str, Any] = {"t": self.t, "kind": self.kind, "component": self.component, "text": self.text}
        return json.dumps(document)
