"""What a log says of a robot: found by name, checked, and cut into pieces."""
