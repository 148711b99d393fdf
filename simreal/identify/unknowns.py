"""What is looked for: parameters of the catalogue, and what only a log has: the delay of commands, offsets of
sensors."""

from __future__ import annotations

import math
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
        logarithmic: whether it is looked for by its logarithm: factors.
    """

    name: str
    role: Role
    nominal: float
    limits: tuple[float, float]
    unit: str = "1"
    parameter: Parameter | None = None
    joint: str = ""
    logarithmic: bool = False


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
        logarithmic=parameter.mode == "scale" and low > 0.0,
    )  # fmt: skip


class Scales:
    """Between values and coordinates z in which every prior range is [-1, 1].

    Args:
        unknowns: P of them.
    """

    def __init__(self, unknowns: Sequence[Unknown]) -> None:
        self._log = np.array([u.logarithmic for u in unknowns])
        ends = [tuple(math.log(v) if u.logarithmic else v for v in u.limits) for u in unknowns]
        self._middle = np.array([(low + high) / 2.0 for low, high in ends])
        self._half = np.array([(high - low) / 2.0 for low, high in ends])
        self.nominal = self.inward(np.array([u.nominal for u in unknowns]))  # [P] z of the model as it is

    def inward(self, values: Numbers) -> Numbers:
        """z [..., P] of values."""
        safe = np.where(self._log, np.maximum(values, 1e-300), 1.0)
        return (np.where(self._log, np.log(safe), values) - self._middle) / self._half

    def outward(self, z: Numbers) -> Numbers:
        """Values [..., P] of z."""
        straight = self._middle + self._half * z
        return np.where(self._log, np.exp(np.where(self._log, straight, 0.0)), straight)
