"""Whether the simulation of a model is sound, found out by moving it: `checkup` looks, `subject` says at what."""
