"""From actions to what is sent to the robot: scaled, limited and smoothed as in training.

Part of `simreal.deploy`, which imports nothing else of simreal.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .bundle_reader import ActionPart, Part, one_line, unknown_name

Numbers = NDArray[np.float64]


class Targets:
    """What is sent for each action: last + smoothing * (target - last), target = offset + scale * action in its limits.

    `last` is what was sent for the action before; it is kept here, for every row of a batch. Where it starts is known
    from the contract, seen in the first observation of an episode, or told to `reset`.

    Args:
        action: the components, in order.
        observation: those of the observation, to say from which one a start is taken.
    """

    def __init__(self, action: tuple[ActionPart, ...], observation: tuple[Part, ...]) -> None:
        self._parts, self.size = action, action[-1].stop
        self._offset, self._scale, self._low, self._high = (
            np.concatenate([getattr(part, key) for part in action]) for key in ("offset", "scale", "low", "high")
        )
        self._smoothing = np.concatenate([np.full(len(part.scale), part.smoothing) for part in action])
        self._smooths = bool((self._smoothing < 1.0).any())
        # What every episode starts from; NaN where that is told, or `_seen` in `_columns` of its first observation.
        self._start = np.full(self.size, np.nan)
        self._columns = np.zeros(self.size, dtype=np.int64)
        self._seen = np.zeros(self.size, dtype=bool)
        for part in action:
            where = slice(part.start, part.stop)
            if part.initial is not None:
                self._start[where] = part.initial
            if part.initial_columns is not None:
                self._columns[where], self._seen[where] = part.initial_columns, True
        self._start[self._smoothing == 1.0] = 0.0  # never looked at
        self._seen &= self._smoothing < 1.0
        self._looks = bool(self._seen.any())
        self._sources = {
            part.name: next(p.name for p in observation if p.start <= part.initial_columns[0] < p.stop)
            for part in action
            if part.initial_columns is not None
        }
        self._begin: Numbers = self._start  # [A] or [B, A] of an episode that has just been announced
        self._last: Numbers | None = None  # [B, A] what was sent last; None until a batch is seen

    @property
    def complete(self) -> bool:
        """Whether every start is known, or is seen in an observation."""
        return not bool((np.isnan(self._start) & ~self._seen).any())

    def reset(self, mask: NDArray[np.bool_] | None, given: Mapping[str, ArrayLike] | ArrayLike | None) -> None:
        """Start new episodes in `mask` [B] (None: all), from what the robot holds (`given`; None: see the class).

        Raises:
            ValueError: `given` names an unknown component, or has another size.
        """
        begin = self._start if given is None else self._told(given)
        if not self._smooths:
            return
        if mask is None or mask.all():
            if mask is not None and begin.ndim == 2 and len(begin) != len(mask):
                raise ValueError(f"targets: expected {len(mask)} rows, as in the mask, got {len(begin)}")
            self._begin, self._last = begin, None
            return
        before = self._begin if self._last is None else self._last
        if (before.ndim == 2 and len(before) != len(mask)) or (begin.ndim == 2 and len(begin) != len(mask)):
            rows = len(before) if before.ndim == 2 else len(mask)
            raise ValueError(f"reset: expected mask and targets of {rows} rows, as in the calls before")
        after = np.where(mask[:, None], begin, before)
        if self._last is None:
            self._begin = after
        else:
            self._last = after

    def observe(self, observation: NDArray[np.float32]) -> None:
        """Take the starts that are still missing from observations [B, nobs]."""
        if not self._looks:
            return
        if self._last is None and self._fits(len(observation)):
            self._last = np.array(np.broadcast_to(self._begin, (len(observation), self.size)))
        if self._last is None or len(self._last) != len(observation):
            return  # `advance` says so, to whoever asks for targets
        missing = np.isnan(self._last) & self._seen
        if missing.any():
            self._last = np.where(missing, observation[:, self._columns].astype(np.float64), self._last)

    def asked(self, action: Numbers) -> Numbers:
        """Targets [..., A] of actions [..., A], within their limits, not smoothed."""
        target = self._offset + self._scale * np.clip(action, -1.0, 1.0)
        return np.minimum(np.maximum(target, self._low), self._high)

    def advance(self, action: Numbers) -> Numbers:
        """What is sent [B, A] for actions [B, A] of the next step.

        Raises:
            ValueError: another number of rows than before, or it is not known from where to start.
        """
        target = self.asked(action)
        if not self._smooths:
            return target
        if self._last is None:
            if not self._fits(len(action)):
                raise ValueError(f"targets: {len(action)} rows, but reset was told {len(self._begin)}")
            self._last = np.array(np.broadcast_to(self._begin, target.shape))
        if len(self._last) != len(action):
            raise ValueError(f"action: {len(action)} rows after {len(self._last)} in one episode; call reset() first")
        if np.isnan(self._last).any():
            raise ValueError(self._not_known())
        # Components without smoothing keep their exact targets.
        sent = np.where(self._smoothing == 1.0, target, self._last + self._smoothing * (target - self._last))
        self._last = sent
        return sent.copy()

    def replay(self, observations: NDArray[np.float32], actions: NDArray[np.float32]) -> Numbers:
        """What is sent [K, A] for actions [K, A] of the first K steps of one episode with observations [K, nobs].

        Raises:
            ValueError: it is not known from where to start.
        """
        self.observe(observations[:1])
        return np.concatenate([self.advance(action[None].astype(np.float64)) for action in actions])

    def split(self, values: Numbers) -> dict[str, Numbers]:
        """Values [..., A] by component."""
        return {part.name: values[..., part.start : part.stop] for part in self._parts}

    def _fits(self, rows: int) -> bool:
        return self._begin.ndim == 1 or len(self._begin) == rows

    def _told(self, given: Mapping[str, ArrayLike] | ArrayLike) -> Numbers:
        """What the robot holds as [A] or [B, A], where it is said; what the contract knows elsewhere."""
        if not isinstance(given, Mapping):
            return _finite(given, "targets", self.size)
        begin: Numbers = self._start
        names = [part.name for part in self._parts]
        for name, values in given.items():
            if name not in names:
                raise ValueError(unknown_name("targets: unknown action component", str(name), names))
            part = next(p for p in self._parts if p.name == name)
            value = _finite(values, f"targets: action component {name!r}", len(part.scale))
            if value.ndim == 2 and begin.ndim == 1:
                begin = np.repeat(begin[None], len(value), axis=0)
            if value.ndim == 2 and len(value) != len(begin):
                raise ValueError(f"targets: action component {name!r}: expected {len(begin)} rows, got {len(value)}")
            begin = begin.copy()
            begin[..., part.start : part.stop] = value
        return begin

    def _not_known(self) -> str:
        assert self._last is not None
        column = int(np.argwhere(np.isnan(self._last))[0, 1])
        part = next(p for p in self._parts if column < p.stop)
        tell = f"reset(targets={{{part.name!r}: [...]}})"
        if part.name in self._sources:
            seen = self._sources[part.name]
            return (
                f"where {part.name!r} starts is seen in {seen!r} of the episode's first observation: call the policy "
                f"with it before targets, or {tell} with what the robot holds, in {part.unit}"
            )
        return f"where {part.name!r} starts is not known: call {tell} with what the robot holds, in {part.unit}"


def _finite(values: ArrayLike, what: str, size: int) -> Numbers:
    """Values [size] or [B, size]. Raises ValueError naming `what` they are."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what}: expected numbers: {one_line(error)}") from None
    if array.ndim not in (1, 2) or array.shape[-1] != size or not len(array):
        raise ValueError(f"{what}: expected shape [{size}] or [B, {size}], got {list(array.shape)}")
    if not np.isfinite(array).all():
        raise ValueError(f"{what}: expected finite numbers, got {array[~np.isfinite(array)].flat[0]}")
    return array
