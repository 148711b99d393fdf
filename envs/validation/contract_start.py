"""Where the commands of an action component start in an episode, and which component shows what it is about."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from envs.task import ActionComponent, Component, Task
from envs.validation.contract_model import problem
from envs.validation.drives import sent_name, sent_unit

SAME = 1e-5  # relative difference that float32 arithmetic may leave


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
    return shown_positions(task, part, part.initial_target, "initial_target")


def find_start(task: Task, part: ActionComponent, start: np.ndarray, seen: np.ndarray) -> Start | None:
    """What explains the starts [K, size] of K episodes with first observations [K, nobs]: numbers if they never differ,
    else a component; a measured one, if one shows it.

    Raises:
        TaskError: the component says otherwise.
    """
    stated = stated_start(task, part)
    if stated is not None:
        said = stated.of(task, seen)
        if not equal(said, start):
            k, i = np.unravel_index(np.argmax(np.abs(said - start)), start.shape)
            element = sent_name(part, int(i))
            where = f"action {part.name!r}: initial_target: element {element!r}"
            raise problem(task, where, f"expected what the task starts from, {start[k, i]:.4g}", f"{said[k, i]:.4g}")
        return stated
    if equal(start, start[:1]):
        return Start(values=tuple(start[0].tolist()))
    for source in sorted(task.components("policy"), key=lambda c: (not c.measured, bool(c.derived_from))):
        fits = source.unit == sent_unit(part) and not source.relative_to
        index = _columns(part, source) if fits else None
        if index is not None:
            found = Start(component=source.name, index=index)
            if equal(found.of(task, seen), start):
                return found
    return None


def equal(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether numbers are the same but for rounding of float32."""
    return bool((np.abs(a - b) <= SAME * (1.0 + np.abs(b))).all())


def shown_positions(task: Task, part: ActionComponent, name: str, key: str) -> Start:
    """A component of the policy's observation as one that shows the positions that an action component is about.

    Raises:
        TaskError: it has other joints or another unit; `key` of the action component names it.
    """
    source = next(c for c in task.components("policy") if c.name == name)
    index, unit = _columns(part, source), sent_unit(part)
    if index is None or source.unit != unit or source.relative_to:
        got = f"{source.name!r} in {source.unit} with {source.size} values"
        got += " relative to others" if source.relative_to else ""
        where = f"action {part.name!r}: {key}"
        raise problem(task, where, f"expected a component that shows its {part.sent_size} values in {unit}", got)
    return Start(component=source.name, index=index)


def _columns(part: ActionComponent, source: Component) -> tuple[int, ...] | None:
    """Which values of an observed component belong to those of an action component; by joints where both name them."""
    size = part.sent_size
    if len(part.joints) == size and len(source.joints) == source.size:
        if not set(part.joints) <= set(source.joints):
            return None
        return tuple(source.joints.index(joint) for joint in part.joints)
    return tuple(range(size)) if size == source.size else None
