"""The GPU engine: mujoco_warp behind torch tensors, stepped as a CUDA graph."""
