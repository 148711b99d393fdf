"""Whether a robot shows what training showed: the range of every component, and the time from sensor to actuator.

Part of `simreal.deploy`, which imports nothing else of simreal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..bundle_reader import Layout
from ..files import Array
from ..targets import Numbers

_MEMORY = 1.0 / 25.0  # weight of the newest cycle in the running shares and means
_ENTER, _LEAVE = 0.5, 0.1  # mean weight of recent cycles, at which a component counts as outside, and inside again
_FAR = 4.0  # times the half-width of the trained range (3 standard deviations): the largest weight of a cycle
_JITTER = 3.0  # standard deviations of jitter that count


class TrainedRange:
    """Which observation components are outside the range that training saw.

    A cycle in which a value is beyond the range weighs as much as it is far from its middle, in half-widths of it
    (at most 4). A component is outside when the running mean over about 25 cycles exceeds a half, after 17 cycles just
    beyond or 4 far beyond, and inside again below a tenth: single peaks belong to training. Values that never varied
    there (scale 0) are not looked at: the policy does not see them.
    """

    def __init__(self, layout: Layout, contract: Mapping[str, Any]) -> None:
        parts = layout.observation
        self._parts, size = parts, parts[-1].stop
        self._middle, self._half = np.zeros(size), np.full(size, np.inf)
        for part, entry in zip(parts, contract["observation"], strict=True):
            trained = entry.get("training_range")
            if not trained:
                continue
            low, high = (np.array(trained[side], dtype=np.float64) for side in ("lower", "upper"))
            varied = (part.scale > 0.0) & (high > low)
            self._middle[part.start : part.stop] = (low + high) / 2
            self._half[part.start : part.stop] = np.where(varied, (high - low) / 2, np.inf)
        self._starts = np.array([part.start for part in parts])
        self.reset()

    def reset(self) -> None:
        """Forget the past."""
        self._share = np.zeros(len(self._parts))
        self.outside = np.zeros(len(self._parts), dtype=bool)  # which components are

    def update(self, flat: Array) -> Iterator[tuple[str, bool, str]]:
        """Look at an observation [nobs]; yields what changes: component, whether it is outside now, and how far."""
        far = np.abs(flat - self._middle) / self._half  # 1 at the ends of the range
        worst = np.maximum.reduceat(far, self._starts)
        self._share += _MEMORY * (np.where(worst > 1.0, np.minimum(worst, _FAR), 0.0) - self._share)
        now = self._share > np.where(self.outside, _LEAVE, _ENTER)
        changed, self.outside = np.flatnonzero(now != self.outside), now
        return iter([self._said(int(i), far, flat) for i in changed])

    def _said(self, number: int, far: Numbers, flat: Array) -> tuple[str, bool, str]:
        part = self._parts[number]
        at = part.start + int(np.argmax(far[part.start : part.stop]))
        element = part.elements[at - part.start] if part.elements else str(at - part.start)
        low, high = self._middle[at] - self._half[at], self._middle[at] + self._half[at]
        text = f"element {element!r} is {flat[at]:.4g}, trained {low:.4g} to {high:.4g}"
        return part.name, bool(self.outside[number]), text


class TrainedLatency:
    """The time from measurement to command, beside that of training (and of the measured envelope, where there is one).

    Args:
        contract: of the policy.
        names: of the observation's components.
        period: of control, s.

    Attributes:
        low, high: [components] latency in training, s; None where the contract does not say what training was like.
        sensor_high: the largest delay of each sensor alone, s.
    """

    def __init__(self, contract: Mapping[str, Any], names: list[str], period: float) -> None:
        self._names, self._period = names, period
        self._share, self._cycles = np.full(len(names), np.nan), 0
        self.unlike = np.zeros(len(names), dtype=bool)
        about = contract.get("randomization")
        parameters = about.get("parameters", []) if isinstance(about, dict) else None
        self.low = self.high = self.proven = None
        self.sensor_high = dict.fromkeys(names, 0.0)
        if parameters is None:
            return
        self.low, self.high = _latency(parameters, names, period)
        only = [p for p in parameters if str(p["quantity"]).startswith("observation_")]
        self.sensor_high = dict(zip(names, _latency(only, names, period)[1].tolist(), strict=True))
        box = ((contract.get("envelope") or {}).get("box") or {}).get("ranges") or {}
        if any(p["name"] in box for p in parameters if _delays(p)):
            boxed = [p | dict(zip(("lower", "upper"), box.get(p["name"], (p["lower"], p["upper"])), strict=True))
                     for p in parameters]  # fmt: skip
            self.proven = _latency(boxed, names, period)

    def update(self, latency: Numbers) -> Iterator[tuple[str, bool, str]]:
        """Take the latency [components] of a cycle, s, NaN where nothing was measured; yields what changes, as
        `TrainedRange.update` does."""
        self._share = np.where(np.isnan(self._share), latency, self._share + _MEMORY * (latency - self._share))
        self._cycles += 1
        if self.low is None or self.high is None or self._cycles < 1.0 / _MEMORY:
            return iter(())
        low, high = (self.low, self.high) if self.proven is None else self.proven
        slack = np.where(self.unlike, 0.1, 0.2) * self._period  # a decision in training takes no time, on a robot some
        with np.errstate(invalid="ignore"):
            now = (self._share > high + slack) | (self._share < low - slack)
        changed, self.unlike = np.flatnonzero(now != self.unlike), now
        return iter([(self._names[i], bool(now[i]), self._said(int(i))) for i in changed])

    def _said(self, number: int) -> str:
        assert self.low is not None
        assert self.high is not None
        text = f"{self._share[number] * 1e3:.0f} ms measured, trained {_ms(self.low[number], self.high[number])}"
        if self.proven is not None:
            text += f", works with {_ms(self.proven[0][number], self.proven[1][number])} (envelope)"
        return text


def _ms(low: float, high: float) -> str:
    return f"{low * 1e3:.0f} to {high * 1e3:.0f}"


def _delays(parameter: Mapping[str, Any]) -> bool:
    quantity = str(parameter["quantity"])
    return quantity.startswith(("action_", "observation_")) and quantity.split("_", 1)[1] in (
        "delay", "delay_jitter", "burst_delay", "latency")  # fmt: skip


def _latency(parameters: list[Mapping[str, Any]], names: list[str], period: float) -> tuple[Numbers, Numbers]:
    """Least and largest time [components] from measurement to command, s."""
    low, high = np.zeros(len(names)), np.zeros(len(names))
    for parameter in filter(_delays, parameters):
        quantity, targets = parameter["quantity"], parameter["targets"]
        which = np.array([not targets or name in targets for name in names])
        unit = period if quantity == "action_latency" else 1e-3
        lower, upper = parameter["lower"] * unit, parameter["upper"] * unit
        if quantity.endswith("_jitter"):
            lower, upper = 0.0, _JITTER * upper
        if quantity == "action_burst_delay":
            lower = 0.0
        low, high = low + which * lower, high + which * upper
    return low, high
