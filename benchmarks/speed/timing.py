"""How durations are taken, and what a measurement says."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Row:
    """One measurement. A ratio is our speed over the reference's: above 1 is faster.

    Attributes:
        name: what was measured.
        reference: what it is compared with.
        ratio: of median speeds; None where there is no reference.
        ours_per_s, reference_per_s: what is counted (environment steps, updates, pictures, worlds) per second.
        ratio_with_resets: of mean speeds: blocks of steps in which many episodes begin count too.
        ratio_same_worlds: to `Batch.step` in the same randomized worlds: they may take longer to simulate.
        shares: of the wall time, by what it was spent on; taken in a run of its own.
    """

    name: str
    reference: str
    ratio: float | None
    ours_per_s: float
    reference_per_s: float | None = None
    ratio_with_resets: float | None = None
    ratio_same_worlds: float | None = None
    shares: dict[str, float] | None = None

    def as_dict(self) -> dict[str, Any]:
        """What goes into the JSON file: everything that was measured."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def median_seconds(functions: Sequence[Callable[[], None]], repeats: int) -> list[float]:
    """Median duration of each function, called in turn so that the machine's drift meets all alike."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(repeats):
        for function, kept in zip(functions, times, strict=True):
            began = time.perf_counter()
            function()
            kept.append(time.perf_counter() - began)
    return [float(np.median(kept)) for kept in times]


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Run a block with so many torch threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Clocked:
    """Adds up the time spent in methods of objects, by name. What one of them calls of the others counts once."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inside = False

    def watch(self, name: str, owner: Any, *methods: str) -> None:
        """From now on, count the time that methods of an object take under a name."""
        self.seconds.setdefault(name, 0.0)
        for method in methods:
            setattr(owner, method, self._counted(name, getattr(owner, method)))

    def _counted(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            if self._inside:
                return call(*args, **kwargs)
            self._inside, began = True, time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                self.seconds[name] += time.perf_counter() - began
                self._inside = False

        return counted

    def shares(self, total_s: float) -> dict[str, float]:
        """Of a total time, what was counted under each name; the remainder is called "rest"."""
        shares = {name: seconds / total_s for name, seconds in self.seconds.items()}
        return shares | {"rest": 1.0 - sum(shares.values())}
