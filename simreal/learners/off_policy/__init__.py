"""Learners on replayed experience: `sac` and `ddpg`, the replay with hindsight, and the memory of past actions."""
