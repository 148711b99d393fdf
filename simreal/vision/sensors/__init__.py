"""Estimators as sensors of an environment: `config` says which component, how often and how late, `eyes` renders and
reads the pictures."""
