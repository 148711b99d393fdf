"""From where smoothed targets start in an episode: the same numbers each time, or what an observed component shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from envs.contract_model import problem
from envs.task import ActionComponent, Component, Task

_SAME = 1e-5


@dataclass(frozen=True)
class Start:
    """Where the smoothing of an action component starts.

    Attributes:
        values: the same in every episode; or
        component: of the policy's observation, which shows it at first;
        index: which of that component's values, one for each.
    """

    values: tuple[float, ...] | None = None
    component: str | None = None
    index: tuple[int, ...] = ()

    def of(self, task: Task, seen: np.ndarray) -> np.ndarray:
        """The start [K, size] in episodes with first observations [K, nobs]."""
        if self.values is not None:
            return np.tile(self.values, (len(seen), 1))
        assert self.component is not None
        return seen[:, task.slices()[self.component]][:, list(self.index)]


def stated_start(task: Task, part: ActionComponent) -> Start | None:
    """What the component says. Raises TaskError where the observed component has other joints or another unit."""
    if part.initial_target is None:
        return None
    if not isinstance(part.initial_target, str):
        return Start(values=tuple(float(value) for value in part.initial_target))
    source = next(c for c in task.components("policy") if c.name == part.initial_target)
    index = _columns(part, source)
    if index is None or source.unit != part.unit:
        got = f"{source.name!r} in {source.unit} with {source.size} values"
        where = f"action {part.name!r}: initial_target"
        raise problem(task, where, f"expected a component that shows its {part.size} values in {part.unit}", got)
    return Start(component=source.name, index=index)


def find_start(task: Task, part: ActionComponent, start: np.ndarray, seen: np.ndarray) -> Start | None:
    """What explains the starts [K, size] of K episodes with first observations [K, nobs]: numbers if they never differ,
    else a component; a measured one, if one shows it.

    Raises:
        TaskError: the component says otherwise.
    """
    stated = stated_start(task, part)
    if stated is not None:
        said = stated.of(task, seen)
        if not _equal(said, start):
            k, i = np.unravel_index(np.argmax(np.abs(said - start)), start.shape)
            element = part.elements[i] if part.elements else str(i)
            where = f"action {part.name!r}: initial_target: element {element!r}"
            raise problem(task, where, f"expected what the task starts from, {start[k, i]:.4g}", f"{said[k, i]:.4g}")
        return stated
    if _equal(start, start[:1]):
        return Start(values=tuple(start[0].tolist()))
    for source in sorted(task.components("policy"), key=lambda c: (not c.measured, bool(c.derived_from))):
        index = _columns(part, source) if source.unit == part.unit else None
        if index is not None:
            found = Start(component=source.name, index=index)
            if _equal(found.of(task, seen), start):
                return found
    return None


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return bool((np.abs(a - b) <= _SAME * (1.0 + np.abs(b))).all())


def _columns(part: ActionComponent, source: Component) -> tuple[int, ...] | None:
    """Which values of an observed component belong to those of an action component; by joints where both name them."""
    if len(part.joints) == part.size and len(source.joints) == source.size:
        if not set(part.joints) <= set(source.joints):
            return None
        return tuple(source.joints.index(joint) for joint in part.joints)
    return tuple(range(part.size)) if part.size == source.size else None
