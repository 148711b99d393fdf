"""Gymnasium's MuJoCo tasks, version v5, batched: `planar`, `free` and `arms`; what they share in `common`."""
