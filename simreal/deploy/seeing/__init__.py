"""Estimators on a robot: what pictures show, what follows from it, and policies that run on it."""
