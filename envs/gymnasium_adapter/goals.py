"""Asks an environment's `compute_reward` and `compute_terminated` about goals, which hindsight chooses itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_ROWS = 5  # of a trial; differs from the size of a goal below
# Says False to any goal, one at a time: asking it for every row of a batch would take long.
_NEVER = "gymnasium_robotics.envs.robot_env", "BaseRobotEnv.compute_terminated"


class _Watched(dict[str, Any]):
    """An `info` that remembers which of its keys was asked for first."""

    asked: str | None = None

    def _note(self, key: object) -> None:
        self.asked = self.asked or str(key)

    def __getitem__(self, key: str) -> Any:
        self._note(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self._note(key)
        return super().__contains__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self._note(key)
        return super().get(key, default)

    def __iter__(self) -> Iterator[str]:
        self._note("...")
        return super().__iter__()


class GoalFunction:
    """A method `(achieved_goal, desired_goal, info)` of an environment, for batches of goals.

    Attributes:
        obstacle: why hindsight cannot use it, in words; None where it can.
        vectorized: whether it takes many goals at once.
    """

    def __init__(self, name: str, shape: tuple[int, ...], dtype: type) -> None:
        self.name, self.shape, self.dtype = name, shape, dtype
        self.obstacle: str | None = None
        self.vectorized = self.constant = False

    def inspect(self, raw: Any, info: dict[str, Any]) -> None:
        """Try it on an environment whose last step returned `info`."""
        method = getattr(raw, self.name, None)
        if not callable(method):
            self.obstacle = f"the environment has no {self.name}"
            return
        self.constant = (getattr(method, "__module__", ""), getattr(method, "__qualname__", "")) == _NEVER
        size = int(np.prod(self.shape, dtype=np.int64))
        rows = _ROWS if size != _ROWS else _ROWS + 1
        random = np.random.default_rng(0)
        achieved, desired = random.normal(size=(2, rows, *self.shape))
        desired[0] = achieved[0]
        watched = _Watched(info)
        try:
            one_by_one = [self._one(method, a, d, watched) for a, d in zip(achieved, desired, strict=True)]
        except Exception as error:  # whatever it makes of goals and infos that it does not expect
            one_by_one, said = [], f"its {self.name} raises {type(error).__name__}: {' '.join(str(error).split())}"
            self.obstacle = said
        if watched.asked is not None:
            self.obstacle = f"its {self.name} reads info[{watched.asked!r}], which belongs to a step, not to a goal"
        if self.obstacle is None:
            self.vectorized = self._agrees(method, achieved, desired, one_by_one)

    def _agrees(self, method: Callable[..., Any], achieved: Array, desired: Array, one_by_one: list[Any]) -> bool:
        """Whether many goals at once give what they give one by one."""
        try:
            values = np.asarray(method(achieved.copy(), desired.copy(), {}), dtype=self.dtype)
        except Exception:  # whatever it makes of arrays that it does not expect
            return False
        return values.shape == (len(one_by_one),) and np.allclose(values, one_by_one, equal_nan=True)

    def _one(self, method: Callable[..., Any], achieved: Array, desired: Array, info: dict[str, Any]) -> Any:
        return self.dtype(np.asarray(method(achieved.copy(), desired.copy(), info)).reshape(()))

    def __call__(self, raw: Any, achieved: Array, desired: Array) -> Array:
        """Values [B] for goals [B, G] and [B, G]."""
        if self.constant:
            return np.zeros(len(achieved), self.dtype)
        a, d = (goal.reshape(-1, *self.shape) for goal in (achieved, desired))
        method = getattr(raw, self.name)
        if self.vectorized:
            return np.asarray(method(a, d, {}), self.dtype)
        return np.array([self._one(method, x, y, {}) for x, y in zip(a, d, strict=True)], self.dtype)
