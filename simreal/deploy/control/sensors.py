"""From a robot's reading to the observation of the policy: complete, fresh, finite and possible, or a fault.

Part of `simreal.deploy`, which imports nothing else of simreal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..bundle_reader import Layout, Part
from ..files import Array, one_line, unknown_name
from ..targets import Numbers
from .events import Fault
from .robot import Reading

Values = Mapping[str, ArrayLike]
Measured = Mapping[str, Any]
Inputs = Mapping[str, ArrayLike | Callable[[Measured], ArrayLike]] | Callable[[Measured], Values]
"""What no sensor measures, by observation component: values, or functions of what was measured in this cycle; or one
function that returns all of them."""

_LAST_ACTION = ("last action", "the action before this one")  # as contracts describe it
_AS_SENT = " as it was sent last"


def check_inputs(inputs: Any, names: list[str]) -> None:
    """Raise ValueError unless these may be inputs of a policy with observation components of these names."""
    if not callable(inputs) and not isinstance(inputs, Mapping):
        raise ValueError(f"inputs: expected a mapping or a function, got {type(inputs).__name__}")
    for name in () if callable(inputs) else inputs:
        if name not in names:
            raise ValueError(unknown_name("inputs: unknown observation component", str(name), names))


def resolved(inputs: Inputs, measured: Values) -> Values:
    """The inputs of this cycle. Raises Fault where a function of the user's does."""
    try:
        given = inputs(measured) if callable(inputs) else inputs
        return {name: value(measured) if callable(value) else value for name, value in given.items()}
    except Exception as error:
        raise Fault("inputs_failed", "", f"inputs raised {type(error).__name__}: {one_line(error)}") from error


class Sensors:
    """Assembles and checks observations.

    Args:
        layout: of the policy.
        contract: of the policy.
        low, high: [nobs] physically possible values.
        deadline: [components] ages at which measurements are stale, s.
        period: of control, s.

    Attributes:
        names: of the observation's components.
        flat: [nobs] float32, the last observation.
        stamps: [components] when its parts were measured; NaN for what the robot does not measure.
        position, velocity: [S] what the robot showed of its joints; NaN where it did not.
    """

    def __init__(
        self, layout: Layout, contract: Mapping[str, Any], low: Numbers, high: Numbers, deadline: Numbers, period: float
    ) -> None:
        self._layout, self._low, self._high, self._period = layout, low, high, period
        self.deadline = deadline
        self.names = [part.name for part in layout.observation]
        entries = dict(zip(self.names, contract["observation"], strict=True))
        self._entries = entries
        self.sizes = {part.name: part.stop - part.start for part in layout.observation}
        self._at = {name: i for i, name in enumerate(self.names)}
        self.last_action = [name for name in self.names if self._shows_action(entries[name])]
        sent = {f"{part.name}{_AS_SENT}": part for part in layout.action}
        self.last_sent = {
            name: sent[entry["description"]]
            for name, entry in entries.items()
            if not entry.get("measured", True) and entry.get("description") in sent
        }
        self.flat: Array = np.zeros(layout.observation[-1].stop, dtype=np.float32)
        self.stamps: Numbers = np.full(len(self.names), np.nan)
        size = layout.action[-1].sent.stop
        self.position, self.velocity = np.full(size, np.nan), np.full(size, np.nan)

    def _shows_action(self, entry: Mapping[str, Any]) -> bool:
        size = self._layout.action[-1].stop
        known = entry.get("description") in _LAST_ACTION
        return known and not entry.get("measured", True) and entry["shape"] == [size]

    def check_names(self, reading: Reading) -> None:
        """Raise ValueError for components that the contract does not know."""
        actions = [part.name for part in self._layout.action]
        for what, given, known in (
            ("the robot gives an unknown observation component", reading.values, self.names),
            ("the robot stamps an unknown observation component", reading.stamps, self.names),
            ("the robot gives positions of an unknown action component", reading.positions, actions),
            ("the robot gives velocities of an unknown action component", reading.velocities, actions),
        ):
            for name in given:
                if name not in known:
                    raise ValueError(unknown_name(what, str(name), known))

    def take(self, reading: Reading, now: float, inputs: Values, own: Mapping[str, ArrayLike]) -> None:
        """Put an observation together, in `flat`, with its `stamps`, `position` and `velocity`.

        Args:
            reading: of the robot.
            now: when it was read, s.
            inputs: what is not measured.
            own: what the controller itself knows: its last action, what it sent last.

        Raises:
            Fault: a component is missing, or a joint is NaN.
            ValueError: a component has another size.
        """
        wide = np.empty(len(self.flat))
        for i, part in enumerate(self._layout.observation):
            name = part.name
            measured = name in reading.values
            source = reading.values if measured else inputs if name in inputs else own
            if name not in source:
                raise Fault("lost", name, self._missing(name))
            wide[part.start : part.stop] = self._values(part, source[name])
            self.stamps[i] = reading.stamps.get(name, now) if measured else np.nan
        with np.errstate(over="ignore"):
            self.flat = wide.astype(np.float32)
        self.joints(reading)

    def joints(self, reading: Reading) -> None:
        """Take positions and velocities of the joints [S]. Raises Fault and ValueError as `take` does."""
        for given, to in ((reading.positions, self.position), (reading.velocities, self.velocity)):
            to.fill(np.nan)
            for part in self._layout.action:
                if part.name in given:
                    size, values = len(part.low), np.asarray(given[part.name], dtype=np.float64)
                    if values.shape != (size,):
                        raise ValueError(
                            f"{part.name!r}: joints: expected {size} values, got shape {list(values.shape)}"
                        )
                    if not np.isfinite(values).all():
                        raise Fault("not_finite", part.name, f"the joints show {values[~np.isfinite(values)][0]}")
                    to[part.sent] = values

    def check(self, now: float) -> None:
        """Raise Fault unless the observation is finite, possible, and at `now` not older than its deadlines."""
        self.check_age(now)
        if not np.isfinite(self.flat).all():
            part, element = self._blame(~np.isfinite(self.flat))
            raise Fault("not_finite", part.name, f"{element} is {self.flat[~np.isfinite(self.flat)][0]}")
        outside = (self.flat < self._low) | (self.flat > self._high)
        if outside.any():
            part, element = self._blame(outside)
            at = int(np.argmax(outside))
            text = f"{element} is {self.flat[at]:.4g}, possible are {self._low[at]:.4g} to {self._high[at]:.4g}"
            raise Fault("out_of_range", part.name, f"{text} {self._entries[part.name]['unit']}")

    def check_age(self, now: float) -> None:
        """Raise Fault where something is older than its deadline, or comes from the future."""
        age = now - self.stamps
        with np.errstate(invalid="ignore"):
            stale = (age > self.deadline) | (age < -self._period)
        if not stale.any():
            return
        at = int(np.argmax(np.where(stale, np.abs(age), -np.inf)))
        if age[at] < 0.0:
            text = f"stamped {-age[at]:.3g} s in the future; stamps are on the controller's clock"
            raise Fault("stale", self.names[at], text)
        others = [self.names[i] for i in np.flatnonzero(stale) if i != at]
        more = f"; so are {', '.join(others)}" if others else ""
        text = f"{age[at] * 1e3:.0f} ms old, at most {self.deadline[at] * 1e3:.0f} ms are allowed{more}"
        raise Fault("stale", self.names[at], text)

    def by_name(self) -> dict[str, Array]:
        """The observation's components."""
        return {part.name: self.flat[part.start : part.stop] for part in self._layout.observation}

    @property
    def oldest(self) -> float:
        """When the oldest of what was measured was measured; NaN where nothing is."""
        known = self.stamps[~np.isnan(self.stamps)]
        return float(known.min()) if len(known) else float("nan")

    def _values(self, part: Part, values: ArrayLike) -> NDArray[Any]:
        try:
            array = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{part.name!r}: expected numbers: {one_line(error)}") from None
        if array.shape != (part.stop - part.start,):
            raise ValueError(f"{part.name!r}: expected {part.stop - part.start} values, got shape {list(array.shape)}")
        return array

    def _missing(self, name: str) -> str:
        entry, size = self._entries[name], self.sizes[name]
        if not entry.get("measured", True):
            return f"is not there: give inputs={{{name!r}: ...}}, {size} values in {entry['unit']}"
        derived = entry.get("derived_from")
        more = f", computed from {', '.join(derived)}" if derived else ""
        return f"the robot does not give it: expected {size} values in {entry['unit']}{more}"

    def _blame(self, where: NDArray[np.bool_]) -> tuple[Part, str]:
        column = int(np.argmax(where))
        part = next(part for part in self._layout.observation if column < part.stop)
        element = part.elements[column - part.start] if part.elements else str(column - part.start)
        return part, f"element {element!r}"
