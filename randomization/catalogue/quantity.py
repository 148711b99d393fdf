"""What the catalogue says of a quantity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mode = Literal["scale", "add", "spread", "absolute"]
Target = Literal[
    "body", "moving body", "floating body", "geom", "joint", "tendon", "actuator", "axis", "action", "component",
    "camera", "light", "material", "none",
]  # fmt: skip
Channel = Literal["physics", "action", "observation", "disturbance", "adversary", "visual"]


@dataclass(frozen=True)
class RandomizableQuantity:
    """Something that can differ between worlds.

    Attributes:
        name: as configurations spell it.
        channel: where it acts.
        mode: scale multiplies the nominal value, add is added to it, absolute replaces it; spread is the standard
            deviation of what is added to each value, drawn anew in every episode.
        target: the kind of object that it belongs to.
        unit: of lambda ("1" for factors).
        nominal: lambda of the calibrated world.
        limits: values outside make no sense.
        default_range: a sensible range to start from.
        writes: model fields written.
        description: one line for people.
        needs: a quantity without which this one does nothing.
    """

    name: str
    channel: Channel
    mode: Mode
    target: Target
    unit: str
    nominal: float
    limits: tuple[float, float]
    default_range: tuple[float, float]
    writes: tuple[str, ...]
    description: str
    needs: str = ""
