"""A robot that is another process: MuJoCo in real time, known through messages only."""
