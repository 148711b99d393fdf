"""A clock that stands still, and a robot of a few joints that follows its targets and breaks when it is told to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simreal.deploy import Policy, Reading

Numbers = NDArray[np.float64]


class Clock:
    """Time that passes when somebody sleeps."""

    def __init__(self, now: float = 50.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def times(self) -> dict[str, Any]:
        """What a controller is given."""
        return {"clock": self, "sleep": self.sleep}


class ToyRobot:
    """Every sensor shows noise around the middle of training, joints go most of the way to their targets in 20 ms.

    Args:
        policy: whose contract it fulfils.
        clock: of its stamps.
        at: where the joints are, by action component.
        follow: share of the way to a target that joints go with each command.

    Attributes:
        written, made_safe: (time, what) of every call.
        change: called with every reading before it is given; may return another, or raise.
    """

    def __init__(
        self, policy: Policy, clock: Callable[[], float], at: Mapping[str, Any] | None = None, follow: float = 0.8
    ) -> None:
        self.policy, self.clock, self._follow = policy, clock, follow
        parts = policy.layout.action
        self.q: dict[str, Numbers] = {part.name: np.zeros(len(part.low)) for part in parts}
        self.q |= {name: np.array(values, dtype=np.float64) for name, values in (at or {}).items()}
        self.v = {name: np.zeros_like(values) for name, values in self.q.items()}
        self.written: list[tuple[float, dict[str, Numbers]]] = []
        self.made_safe: list[tuple[float, str]] = []
        self.change: Callable[[Reading], Any] = lambda reading: reading
        self._random = np.random.default_rng(0)
        self._measured = [
            (part, entry["limits"] or (-np.inf, np.inf))
            for part, entry in zip(policy.layout.observation, policy.contract["observation"], strict=True)
            if entry["measured"]
        ]

    def read(self) -> Any:
        values: dict[str, Any] = {
            part.name: np.clip(self._noise(part), limits[0], limits[1]) for part, limits in self._measured
        }
        stamps = dict.fromkeys(values, self.clock())
        return self.change(Reading(values, stamps, _copy(self.q), _copy(self.v)))

    def _noise(self, part: Any) -> Numbers:
        return part.offset + 0.3 * part.scale * self._random.standard_normal(len(part.scale))

    def write(self, targets: Mapping[str, Numbers]) -> None:
        self.written.append((self.clock(), _copy(targets)))
        for name, values in targets.items():
            step = self._follow * (values - self.q[name])
            self.q[name], self.v[name] = self.q[name] + step, step / self.policy.control_period_s

    def safe(self, action: str) -> None:
        self.made_safe.append((self.clock(), action))
        self.v = {name: np.zeros_like(values) for name, values in self.v.items()}


def _copy(values: Mapping[str, Any]) -> dict[str, Numbers]:
    return {name: np.array(array, dtype=np.float64) for name, array in values.items()}
