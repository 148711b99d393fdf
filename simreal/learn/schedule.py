"""Step sizes of off-policy learners over a run."""

from __future__ import annotations

from collections.abc import Sequence

from torch.optim import Optimizer

from simreal.config import OffPolicyConfig


class StepSizes:
    """Lets the step sizes of optimizers fall linearly from those they begin with to 0.

    Args:
        optimizers: all fall by the same factor.
        begin, end: environment steps between which they fall.
    """

    def __init__(self, optimizers: Sequence[Optimizer], begin: int, end: int) -> None:
        # Not the groups themselves: an optimizer that loads its state makes new ones.
        self._rates = [(optimizer, float(optimizer.param_groups[0]["lr"])) for optimizer in optimizers]
        self._begin, self._end = begin, end

    def set(self, steps: int) -> None:
        """Set them for updates that are made after `steps` environment steps."""
        left = (self._end - steps) / max(self._end - self._begin, 1)
        for optimizer, rate in self._rates:
            for group in optimizer.param_groups:
                group["lr"] = rate * min(max(left, 0.0), 1.0)


def step_sizes(config: OffPolicyConfig, optimizers: Sequence[Optimizer], total_steps: int | None) -> StepSizes | None:
    """What `lr_schedule` asks for in a run of `total_steps`; None where step sizes stay. Raises ValueError."""
    if config.lr_schedule == "constant":
        return None
    if total_steps is None:
        raise ValueError("lr_schedule linear: needs the number of steps of the run")
    return StepSizes(optimizers, config.warmup_steps, total_steps)
