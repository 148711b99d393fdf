"""From actions to what is sent to the robot: scaled, limited and smoothed as in training.

Part of `simreal.deploy`, which imports nothing else of simreal.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .bundle_reader import ActionPart, Part
from .files import one_line, unknown_name

Numbers = NDArray[np.float64]


class Targets:
    """What is sent for each action, as docs/deploy.md states it.

        target = base + offset + scale * action     limited to target_limits
        sent   = last + smoothing * (target - last)

    `last` is what was sent for the action before; it is kept here, for every row of a batch. Where it starts is known
    from the contract, seen in the first observation of an episode, or told to `reset`. `base` is 0, `last`, or what the
    last observation shows. Values of components with inverse kinematics become steps of joints before that.

    Args:
        action: the components, in order.
        observation: those of the observation, to say from which one a start is taken.
    """

    def __init__(self, action: tuple[ActionPart, ...], observation: tuple[Part, ...]) -> None:
        self._parts, self.size = action, action[-1].sent.stop
        self._offset, self._scale, self._low, self._high = (
            np.concatenate([getattr(part, key) for part in action]) for key in ("offset", "scale", "low", "high")
        )
        self._smoothing = np.concatenate([np.full(len(part.low), part.smoothing) for part in action])
        self._onto_last = np.concatenate([np.full(len(part.low), part.onto_last) for part in action])
        looks_back = (self._smoothing < 1.0) | self._onto_last  # whose next command depends on the last
        self._keeps = bool(looks_back.any())
        # What every episode starts from; NaN where that is told, or `_seen` in `_columns` of its first observation.
        self._start = np.full(self.size, np.nan)
        self._columns, self._onto = np.zeros(self.size, dtype=np.int64), np.zeros(self.size, dtype=np.int64)
        self._seen, self._onto_seen = np.zeros(self.size, dtype=bool), np.zeros(self.size, dtype=bool)
        for part in action:
            if part.initial is not None:
                self._start[part.sent] = part.initial
            if part.initial_columns is not None:
                self._columns[part.sent], self._seen[part.sent] = part.initial_columns, True
            if part.onto_columns is not None:
                self._onto[part.sent], self._onto_seen[part.sent] = part.onto_columns, True
        self._start[~looks_back] = 0.0  # never looked at
        self._seen &= looks_back
        self._looks = bool(self._seen.any())
        self._sources = {
            part.name: next(p.name for p in observation if p.start <= columns[0] < p.stop)
            for part in action
            if (columns := part.initial_columns if part.onto_columns is None else part.onto_columns) is not None
        }
        self._begin: Numbers = self._start  # [S] or [B, S] of an episode that has just been announced
        self._last: Numbers | None = None  # [B, S] what was sent last; None until a batch is seen
        self._shown: Numbers | None = None  # [B, S] what the last observation shows; None where nothing is added to it

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
        if mask is None:
            self._shown = None
        if not self._keeps:
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
        """Take what targets are added to, and the starts that are still missing, from observations [B, nobs]."""
        if self._onto_seen.any():
            self._shown = observation[:, self._onto].astype(np.float64)
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
        """Targets [B, S] of actions [B, A], within their limits, not smoothed.

        Raises:
            ValueError: it is not known what they are added to.
        """
        value = self._offset + self._scale * np.clip(action, -1.0, 1.0)
        steps, base = value, self._base(len(action))
        if base is not None:
            parts = [
                value[:, part.start : part.stop] if part.inverse is None
                else part.inverse.steps(base[:, part.sent], value[:, part.start : part.stop])
                for part in self._parts
            ]  # fmt: skip
            steps = base + np.concatenate(parts, axis=1)
        return np.minimum(np.maximum(steps, self._low), self._high)

    def _base(self, rows: int) -> Numbers | None:
        """What targets are added to, [B, S]; None where that is nothing."""
        if not self._onto_last.any() and not self._onto_seen.any():
            return None
        base = np.zeros((rows, self.size))
        if self._onto_seen.any():
            if self._shown is None or len(self._shown) != rows:
                part = next(p for p in self._parts if p.onto_columns is not None)
                raise ValueError(
                    f"targets of {part.name!r} are added to what {self._sources[part.name]!r} shows: call the policy "
                    f"with {rows} observation{'s'[: int(rows > 1)]} before"
                )
            base = np.where(self._onto_seen, self._shown, base)
        return np.where(self._onto_last, self._known(rows), base) if self._onto_last.any() else base

    def _known(self, rows: int) -> Numbers:
        """What was sent last [B, S]. Raises ValueError where that is not known."""
        if self._last is None:
            if not self._fits(rows):
                raise ValueError(f"targets: {rows} rows, but reset was told {len(self._begin)}")
            self._last = np.array(np.broadcast_to(self._begin, (rows, self.size)))
        if len(self._last) != rows:
            raise ValueError(f"action: {rows} rows after {len(self._last)} in one episode; call reset() first")
        if np.isnan(self._last).any():
            raise ValueError(self._not_known())
        return self._last

    def advance(self, action: Numbers) -> Numbers:
        """What is sent [B, S] for actions [B, A] of the next step.

        Raises:
            ValueError: another number of rows than before, or it is not known from where to start.
        """
        if not self._keeps:
            return self.asked(action)
        last = self._known(len(action))
        target = self.asked(action)
        # Components without smoothing keep their exact targets.
        sent = np.where(self._smoothing == 1.0, target, last + self._smoothing * (target - last))
        self._last = sent
        return sent.copy()

    def correct(self, sent: Numbers) -> None:
        """Go on from other values [B, S] than those that were sent last."""
        if self._keeps:
            self._last = np.array(sent)

    def replay(self, observations: NDArray[np.float32], actions: NDArray[np.float32]) -> Numbers:
        """What is sent [K, S] for actions [K, A] of the first K steps of one episode with observations [K, nobs].

        Raises:
            ValueError: it is not known from where to start.
        """
        sent: list[Numbers] = []
        for observation, action in zip(observations, actions, strict=True):
            self.observe(observation[None])
            sent.append(self.advance(action[None].astype(np.float64)))
        return np.concatenate(sent)

    def split(self, values: Numbers) -> dict[str, Numbers]:
        """Values [..., S] by component."""
        return {part.name: values[..., part.sent] for part in self._parts}

    def _fits(self, rows: int) -> bool:
        return self._begin.ndim == 1 or len(self._begin) == rows

    def _told(self, given: Mapping[str, ArrayLike] | ArrayLike) -> Numbers:
        """What the robot holds as [S] or [B, S], where it is said; what the contract knows elsewhere."""
        if not isinstance(given, Mapping):
            return _finite(given, "targets", self.size)
        begin: Numbers = self._start
        names = [part.name for part in self._parts]
        for name, values in given.items():
            if name not in names:
                raise ValueError(unknown_name("targets: unknown action component", str(name), names))
            part = next(p for p in self._parts if p.name == name)
            value = _finite(values, f"targets: action component {name!r}", len(part.low))
            if value.ndim == 2 and begin.ndim == 1:
                begin = np.repeat(begin[None], len(value), axis=0)
            if value.ndim == 2 and len(value) != len(begin):
                raise ValueError(f"targets: action component {name!r}: expected {len(begin)} rows, got {len(value)}")
            begin = begin.copy()
            begin[..., part.sent] = value
        return begin

    def _not_known(self) -> str:
        assert self._last is not None
        column = int(np.argwhere(np.isnan(self._last))[0, 1])
        part = next(p for p in self._parts if column < p.sent.stop)
        tell = f"reset(targets={{{part.name!r}: [...]}})"
        if part.initial_columns is not None:
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
