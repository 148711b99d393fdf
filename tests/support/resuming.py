"""A training in pieces."""

from __future__ import annotations

from simreal.training.trainer import Trainer


def advance(trainer: Trainer, steps: int) -> None:
    """Collect and learn some times."""
    with trainer.overlapping():
        for _ in range(steps):
            trainer._collect()
            trainer._learn()
