"""Locomotion tasks, and the small arms and pendulums that Gymnasium ships with them."""
