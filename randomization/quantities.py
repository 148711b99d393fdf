"""The catalogue: every quantity that can differ between worlds, with mode, unit, limits and a sensible range."""

from __future__ import annotations

from randomization.effect_quantities import EFFECTS
from randomization.physics_quantities import PHYSICS
from randomization.quantity import Channel, Mode, RandomizableQuantity, Target
from randomization.visual_quantities import VISUAL

__all__ = ["QUANTITIES", "Channel", "Mode", "RandomizableQuantity", "Target"]

QUANTITIES: dict[str, RandomizableQuantity] = {q.name: q for q in (*PHYSICS, *EFFECTS, *VISUAL)}
