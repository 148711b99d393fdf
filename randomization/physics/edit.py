"""What a quantity of an object changes in a model, and where models keep it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mujoco
import numpy as np

_INF = float("inf")


@dataclass(frozen=True)
class Edit:
    """Values of one field that lambda changes.

    Attributes:
        field: of mjModel, or `opt.` and one of mjOption.
        elements: flat indices within one environment's values.
        power: a factor lambda multiplies the values by lambda ** power.
        low, high: written values outside make no sense.
        sharers: how many objects own the values together: a factor of one of them counts for its share, so that the
            values are multiplied by the mean of all their factors.
        once: a parameter that names several owners of the values changes them once.
    """

    field: str
    elements: tuple[int, ...]
    power: float = 1.0
    low: float = -_INF
    high: float = _INF
    sharers: int = 1
    once: bool = False


Writer = Callable[[mujoco.MjModel, int], list[Edit]]


def field_values(model: mujoco.MjModel, field: str) -> np.ndarray:
    """The values of a field of mjModel, or, with `opt.` before its name, of mjOption."""
    owner = model.opt if field.startswith("opt.") else model
    return np.asarray(getattr(owner, field.removeprefix("opt.")))


def edit_values(model: mujoco.MjModel, edit: Edit) -> list[float]:
    """Nominal values of an edit's elements."""
    flat = np.ravel(field_values(model, edit.field))
    return [float(flat[e]) for e in edit.elements]
