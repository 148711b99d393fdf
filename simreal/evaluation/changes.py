"""The `changes:` of a world's file: what happens to the world within an episode."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, FiniteFloat

from envs.task import Task
from randomization.changes import Change, Changing
from randomization.samplers.base import Sampler
from simreal.common.errors import UserError
from simreal.training.run_config import Strict

Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[FiniteFloat, Field(ge=0)]


class ChangeSpec(Strict):
    """One change within an episode, in seconds or in shares of the longest one."""

    at_s: Seconds | None = Field(None, description="s since the beginning of the episode")
    at_share: Share | None = Field(None, description="the same as a share of the longest episode")
    over_s: Seconds | None = Field(None, description="s that it takes; at once where left out")
    over_share: Share | None = Field(None, description="the same as a share of the longest episode")
    set: dict[str, FiniteFloat | tuple[FiniteFloat, FiniteFloat]] = Field(
        min_length=1, description="label of a parameter: the value that it ends at, or [lower, upper] to draw it from"
    )

    def over(self, length_s: float) -> Change:
        """The change in episodes of at most a length, s.

        Raises:
            ValueError: a time is given twice or not at all, nobody would see the change, or a range is upside down.
        """
        at_s, over_s = _time("at", self.at_s, self.at_share, length_s), 0.0
        if self.over_s is not None or self.over_share is not None:
            over_s = _time("over", self.over_s, self.over_share, length_s)
        if at_s >= length_s - 1e-9:
            raise ValueError(f"{_given('at', self.at_s)}: episodes last {length_s:g} s, it would never come")
        if at_s == 0.0 and over_s == 0.0:
            raise ValueError(f"{_given('at', self.at_s)}: episodes would begin so: state the ranges themselves")
        values: dict[str, tuple[float, float]] = {}
        for label, value in self.set.items():
            low, high = value if isinstance(value, tuple) else (value, value)
            if low > high:
                raise ValueError(f"set.{label}: lower end {low:g} is above upper end {high:g}")
            values[label] = (low, high)
        return Change(at_s, over_s, values)


def _given(key: str, seconds: float | None) -> str:
    return f"{key}_share" if seconds is None else f"{key}_s"


def _time(key: str, seconds: float | None, share: float | None, length_s: float) -> float:
    if (seconds is None) == (share is None):
        raise ValueError(f"{key}_s: expected either it or {key}_share")
    return seconds if seconds is not None else (share or 0.0) * length_s


def changing(path: Path, specs: Sequence[ChangeSpec], begins: Sampler, task: Task) -> Sampler:
    """The worlds of a sampler, which change within an episode as a file says; the sampler itself if nothing changes.

    Raises:
        UserError: naming the entry and what is wrong with it.
        RandomizationError: see `Changing`.
    """
    length_s, changes = task.max_episode_steps * task.control_period_s, []
    for i, spec in enumerate(specs):
        try:
            changes.append(spec.over(length_s))
        except ValueError as error:
            raise UserError(f"{path}: changes.{i}.{error}") from None
    return Changing(begins, changes) if changes else begins
