"""Adroit's Door, Hammer, Pen and Relocate: `tasks`, and what they share in `common`."""
