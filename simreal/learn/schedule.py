"""Step sizes of off-policy learners over a run."""

from __future__ import annotations

from collections.abc import Sequence

from simreal.config import OffPolicyConfig
from simreal.learn.adam import Adam


class StepSizes:
    """Lets the step sizes of optimizers fall linearly from those they begin with to 0.

    Args:
        optimizers: all fall by the same factor.
        begin, end: environment steps between which they fall.
    """

    def __init__(self, optimizers: Sequence[Adam], begin: int, end: int) -> None:
        self._rates = [(optimizer, optimizer.lr) for optimizer in optimizers]
        self._begin, self._end = begin, end

    def set(self, steps: int) -> None:
        """Set them for updates that are made after `steps` environment steps."""
        left = (self._end - steps) / max(self._end - self._begin, 1)
        for optimizer, rate in self._rates:
            optimizer.lr = rate * min(max(left, 0.0), 1.0)


def step_sizes(config: OffPolicyConfig, optimizers: Sequence[Adam], total_steps: int | None) -> StepSizes | None:
    """What `lr_schedule` asks for in a run of `total_steps`; None where step sizes stay. Raises ValueError."""
    if config.lr_schedule == "constant":
        return None
    if total_steps is None:
        raise ValueError("lr_schedule linear: needs the number of steps of the run")
    return StepSizes(optimizers, config.warmup_steps, total_steps)
