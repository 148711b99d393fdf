"""What a log is in memory: named signals, each with its own times."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simreal.common.errors import UserError

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Signal:
    """Values over time.

    Attributes:
        name: of the topic, followed by ":FIELD" where a message has several groups of values.
        time: [T] s, not decreasing.
        values: [T, n].
        elements: n names: joints, axes, or numbers.
        unit: where the log says one.
    """

    name: str
    time: Numbers
    values: Numbers
    elements: tuple[str, ...]
    unit: str | None = None


@dataclass(frozen=True)
class Log:
    """Signals by name; the contract of the policy that ran, where the log has one."""

    signals: dict[str, Signal]
    contract: dict[str, Any] | None
    source: Path


def checked(source: Path, name: str, time: Numbers, values: Numbers, elements: tuple[str, ...]) -> Signal:
    """A signal whose times and shapes make sense. Raises UserError naming what does not."""
    if values.ndim != 2 or len(values) != len(time) or values.shape[1] != len(elements):
        raise UserError(
            f"{source}: {name}: expected values [T, n] with T times and n names, got values of shape "
            f"{list(values.shape)}, {len(time)} times and {len(elements)} names"
        )
    if not np.isfinite(time).all():
        at = int(np.flatnonzero(~np.isfinite(time))[0])
        raise UserError(f"{source}: {name}: time {at} is {time[at]}, expected seconds")
    back = np.flatnonzero(np.diff(time) < 0.0)
    if len(back):
        i = int(back[0])
        raise UserError(
            f"{source}: {name}: time goes backwards, by {time[i] - time[i + 1]:.6g} s at message {i + 1}; expected one "
            "recording in the order of its stamps"
        )
    return Signal(name, time, values, elements)
