"""How configurations name objects: what there is to name, and what a name or a pattern means.

A label belongs to one object alone (see `envs.common.names`), so that labels in a configuration, a checkpoint or a
bundle say which object is meant.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from typing import Any

from envs.common.names import labels_of
from envs.task import Task
from randomization.catalogue.quantity import Target
from randomization.targets.appearance import appearance_names
from randomization.targets.objects import BODIES

_AXES = {"x": 0, "y": 1, "z": 2}
_WILD = "*?["


def object_places(task: Task, target: Target) -> dict[str, int]:
    """What a quantity of a kind may name, in order, and where it is: the index in the model of objects, the place
    among the task's components, the number of an axis."""
    if target == "none":
        return {}
    if target == "axis":
        return dict(_AXES)
    if target in ("camera", "light", "material"):
        return _numbered(appearance_names(task.model, target))
    if target == "component":
        return _numbered([c.name for c in task.measured_components()])
    if target == "action":
        return _numbered([c.name for c in task.action])
    if target in BODIES:
        labels = labels_of(task.model, "body")
        return {labels[i]: i for i in BODIES[target](task.model)}
    places = _numbered(labels_of(task.model, target))
    if target == "body":
        places.pop(next(iter(places)))  # the world does not move
    return places


def _numbered(labels: Sequence[str]) -> dict[str, int]:
    places = {label: i for i, label in enumerate(labels)}
    if len(places) < len(labels):
        raise ValueError(f"expected different names, got {', '.join(labels)}")
    return places


def is_pattern(text: str, names: Iterable[str]) -> bool:
    """Whether a text is a pattern: it has wildcards, and nothing is called exactly that."""
    return any(c in text for c in _WILD) and text not in names


def matching(text: str, names: Sequence[str]) -> list[str]:
    """The names that a text means: the one that is exactly that, or those that match it as a pattern.

    Upper and lower case count on every platform.
    """
    return [text] if text in names else [name for name in names if fnmatch.fnmatchcase(name, text)]


def patterns_of(value: Any) -> list[str]:
    """Names or patterns as configurations give them: one, or a list.

    Raises:
        ValueError: what was expected and what came instead, in one line.
    """
    patterns = [value] if isinstance(value, str) else value
    if isinstance(patterns, (list, tuple)) and patterns and all(isinstance(p, str) for p in patterns):
        return list(patterns)
    raise ValueError(f"expected a name, a pattern or a list of them, got {value!r}{quoting_hint(value)}")


def quoting_hint(value: Any) -> str:
    """What to say of a value that YAML may have read otherwise than it was meant, or an empty string."""
    values = value if isinstance(value, (list, tuple)) and value else [value]
    if all(isinstance(v, str) or v is None or isinstance(v, (bool, int, float)) for v in values):
        return "; put a name in quotes that YAML reads as something else: '0', 'no', 'off', 'null'"
    return ""
