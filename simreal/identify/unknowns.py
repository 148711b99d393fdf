"""What is looked for: parameters of the catalogue, and what only a log has: the delay of commands, offsets of
sensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from randomization.parameters import Parameter

Numbers = NDArray[np.float64]
Role = Literal["physics", "delay", "offset"]


@dataclass(frozen=True)
class Unknown:
    """One number that is looked for.

    Attributes:
        name: label.
        role: physics is written into the model, a delay shifts commands (ms), an offset is added to what a joint shows.
        nominal: of the model as it is, where the search starts.
        limits: lowest and highest value that makes sense: the prior range.
        unit: of the value.
        parameter: of the catalogue, where it is one.
        joint: whose sensor an offset is of.
        factor: whether it multiplies what the model has.
    """

    name: str
    role: Role
    nominal: float
    limits: tuple[float, float]
    unit: str = "1"
    parameter: Parameter | None = None
    joint: str = ""
    factor: bool = False


def unknown_of(parameter: Parameter) -> Unknown:
    """A parameter of a randomization block as an unknown.

    Raises:
        ValueError: it is none that a log of joints and commands can tell.
    """
    low, high = parameter.limits
    if parameter.quantity == "action_delay":
        return Unknown(parameter.name, "delay", parameter.nominal, (low, high), "ms", parameter)
    return Unknown(
        parameter.name, "physics", parameter.nominal, (low, high), parameter.unit, parameter,
        factor=parameter.mode == "scale" and low > 0.0,
    )  # fmt: skip


class Scales:
    """Between values and coordinates z in which every prior range is [-1, 1].

    They are in proportion: what a log tells only of a sum (damping of a joint and of its servo), or only of ratios (all
    that a light joint has), is a straight line then, along which a search comes quickly; of logarithms only the second
    is.

    Args:
        unknowns: P of them.

    Attributes:
        nominal: [P] z of the model as it is.
        half: [P] of each prior range.
    """

    def __init__(self, unknowns: Sequence[Unknown]) -> None:
        low, high = np.array([u.limits for u in unknowns]).reshape(-1, 2).T
        self._middle, self.half = (low + high) / 2.0, (high - low) / 2.0
        self.nominal = self.inward(np.array([u.nominal for u in unknowns]))

    def inward(self, values: Numbers) -> Numbers:
        """z [..., P] of values."""
        return (values - self._middle) / self.half

    def outward(self, z: Numbers) -> Numbers:
        """Values [..., P] of z."""
        return self._middle + self.half * z
