"""The Unitree Go1 walks as a velocity command says: the task in `velocity`, the robot in `model`."""
