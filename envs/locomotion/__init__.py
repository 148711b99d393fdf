"""Locomotion tasks, and the small arms and pendulums that Gymnasium ships with them.

`go1.Go1VelocityTask` walks as commands say; `gymnasium_v5_planar`, `_free` and `_arms` hold Gymnasium's tasks of
version v5.
"""
