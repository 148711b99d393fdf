"""Students: a policy that learns from what a robot measures to do what teachers do who know more. `distill`."""
