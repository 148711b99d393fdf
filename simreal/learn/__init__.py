"""Learners: PPO and its family (`ppo`), SAC (`sac`), DDPG (`ddpg`); their options (`options`), and the
networks, buffers and optimizer that they are made of. They know environments, and nothing of runs and their files."""
