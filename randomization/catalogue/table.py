"""The catalogue: every quantity that can differ between worlds, with mode, unit, limits and a sensible range."""

from __future__ import annotations

from randomization.catalogue.physics import PHYSICS
from randomization.catalogue.quantity import Channel, Mode, RandomizableQuantity, Target
from randomization.catalogue.timing_and_noise import EFFECTS
from randomization.catalogue.visual import VISUAL

__all__ = ["QUANTITIES", "Channel", "Mode", "RandomizableQuantity", "Target"]

QUANTITIES: dict[str, RandomizableQuantity] = {q.name: q for q in (*PHYSICS, *EFFECTS, *VISUAL)}
