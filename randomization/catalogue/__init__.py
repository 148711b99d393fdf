"""The catalogue: every quantity that can differ between worlds, each an object with all that is known of it."""
