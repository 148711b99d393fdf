"""The catalogue: every quantity that can differ between worlds, with mode, unit, limits and a sensible range."""
