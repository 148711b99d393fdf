"""Learners: PPO and its family on fresh experience (`on_policy`), SAC and DDPG with hindsight replay (`off_policy`)."""
