"""simreal's tasks for others: Gymnasium's interfaces (`vector`), stable-baselines3 (`sb3`), image observations."""
