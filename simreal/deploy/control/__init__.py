"""A controller that runs a policy on a robot and protects it: time, start, limits, watchdog, log."""
