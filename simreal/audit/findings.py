"""What an audit says: findings with evidence and a fix, and measured figures beside them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal[
    "permuted", "sign", "degrees", "scale", "offset", "frame", "quaternion_order", "lag", "stale", "loss", "frozen",
    "clipped", "gains", "rate", "outside_training", "action", "invalid",
]  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        kind: of fault.
        components: of the contract that it spoils.
        elements: places in the (first) component; () for all of them.
        text: what is wrong, in one line.
        evidence: what shows it, with figures.
        fix: what to do.
        figures: the same figures by name, for programs.
        weight: how sure it is: log likelihood gained, or a z-score; the largest is said first.
    """

    kind: Kind
    components: tuple[str, ...]
    elements: tuple[int, ...]
    text: str
    evidence: str
    fix: str
    figures: dict[str, Any] = field(default_factory=dict)
    weight: float = 0.0

    @property
    def key(self) -> tuple[str, tuple[str, ...], tuple[int, ...]]:
        """What makes two findings the same."""
        return self.kind, self.components, self.elements


def places(name: str, elements: tuple[int, ...] | list[int]) -> str:
    """ "joint_pos[3] and [6]" for a component and places in it."""
    if not len(elements):
        return name
    return f"{name}[" + "] and [".join(str(e) for e in elements) + "]"
