"""Learners on fresh experience: `ppo` and `trpo`, their networks, rollouts, returns and symmetry loss."""
