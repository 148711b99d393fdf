"""What a look at a simulation finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "penetration", "energy", "unstable", "sign_flips", "saturated", "does_not_arrive", "too_fast", "control_period",
]  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a simulation.

    Attributes:
        kind: of defect.
        of: what has it, as "joint 'elbow'".
        evidence: what was measured.
        remedy: what to change, in which direction and, where that can be known, how far.
        armature: that ends it, where that is the remedy, kg m^2 or kg.
    """

    kind: Kind
    of: str
    evidence: str
    remedy: str
    armature: float | None = None

    def line(self) -> str:
        """In one line, for people."""
        return f"{self.of}: {self.evidence}; {self.remedy}"
