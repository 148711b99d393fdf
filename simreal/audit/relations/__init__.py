"""What must hold between signals of one sound robot: `joints` and their targets, the halves of an IMU in `attitude`."""
