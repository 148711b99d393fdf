"""Other simulators as engines: they make the physics steps, MuJoCo computes actuators, sensors and all that follows."""
