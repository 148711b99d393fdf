"""What a look at a robot's file finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from envs.common.messages import listed

Severity = Literal["error", "warning", "note"]
Kind = Literal[
    "inertia", "mass", "mimic", "limits", "units", "actuators", "effort", "velocity", "collision", "mesh", "visual",
    "damping", "rest", "keyframe", "structure", "base", "gain", "friction", "compile",
]  # fmt: skip


@dataclass(frozen=True)
class Symptom:
    """One thing about a robot's file.

    Attributes:
        severity: "error": no simulation of it can be right; "warning": it is probably not what was meant, and a
            policy would learn it; "note": worth knowing, as what an importer leaves out.
        kind: of thing.
        of: what has it, as "link 'thigh'".
        evidence: what was read or measured.
        remedy: what to change.
    """

    severity: Severity
    kind: Kind
    of: str
    evidence: str
    remedy: str

    def line(self) -> str:
        """In one line, for people."""
        return f"{self.of}: {self.evidence}; {self.remedy}"


def several(word: str, names: Sequence[str], plural: str = "") -> str:
    """Things of one sort in a message: "link 'a'", or "links a, b, c"."""
    return f"{word} {names[0]!r}" if len(names) == 1 else f"{plural or word + 's'} {listed(names, 6)}"
