"""The fit: `linear` is its arithmetic, `groups` says which unknowns can be moved together, `steps` leads trajectories
on to physics steps of no length, `fit` searches."""
