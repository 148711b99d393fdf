"""Learners, found by name in `registry`: PPO and its family on fresh experience (`on_policy`), SAC, TD3 and DDPG with
hindsight replay (`off_policy`)."""
