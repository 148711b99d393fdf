"""The bias of a gyro walks: a quantity to randomize that is not part of simreal.

What a gyro shows when it stands still wanders off, faster for a cheap one. IEEE Std 952 calls this the rate random
walk, with a coefficient K in rad/s/sqrt(s); of independent normal steps the variance after t seconds is K^2 t:

    b(0) = 0,    b(t + dt) = b(t) + K sqrt(dt) n,    n ~ N(0, 1) for every value,    shown = true + b
"""

from __future__ import annotations

import torch
from torch import Tensor

import simreal

NAME = "gyro_random_walk"


class GyroRandomWalk(simreal.Effect):
    """Adds a bias that walks during an episode to the values of the components named."""

    _state = ("coefficient", "bias")

    def __init__(self, context: simreal.EffectContext) -> None:
        self.values, self.random, self.durations = context.index(NAME), context.random, context.durations
        self.draws = context.random.reserve_normal(self.values.size)
        self.coefficient, self.bias = context.zeros(self.values.size), context.zeros(self.values.size)

    def reset(self, mask: Tensor, lam: Tensor) -> None:
        self.coefficient = torch.where(mask[:, None], self.values.of(lam), self.coefficient)
        self.bias = self.bias.masked_fill(mask[:, None], 0.0)

    def on_step(self) -> None:
        step = self.coefficient * self.durations.period_s.sqrt()
        self.bias = self.bias + step * self.random.normal[:, self.draws]

    def on_measurement(self, measured: Tensor) -> None:
        measured[:, self.values.index] += self.bias.to(measured.dtype)


def measures_a_rate(task: simreal.Task, index: int) -> bool:
    """Whether a component is an angular velocity."""
    return task.measured_components()[index].unit == "rad/s"


simreal.register_quantity(
    simreal.Quantity(
        name=NAME,
        channel="observation",
        target="component",
        unit="rad/s/sqrt(s)",
        default_range=(0.0, 0.01),
        description="how fast a gyro's bias walks: the standard deviation of what one second adds to it",
        effect=GyroRandomWalk,
        suits=measures_a_rate,
        expected="angular velocity (a component in rad/s)",
    )
)
