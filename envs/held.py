"""What one thing of a task holds, one level deep: to keep it, and to give it back."""

from __future__ import annotations

import random
import sys
from collections import deque
from types import SimpleNamespace
from typing import Any

import numpy as np
from torch import Generator

_LIBRARIES = frozenset(sys.stdlib_module_names - {"test"}) | {
    "torch", "numpy", "mujoco", "mujoco_warp", "warp", "gymnasium", "gymnasium_robotics",
}  # fmt: skip
_PLAIN_BASES = frozenset({"builtins", "abc", "typing", "collections"})  # of the standard library, to inherit from
_plain: dict[type, bool] = {}


def is_generator(value: Any) -> bool:
    """Whether a thing makes random numbers, and holds nothing but that."""
    return isinstance(value, (np.random.Generator, np.random.RandomState, Generator, random.Random))


def content_of(value: Any) -> Any:
    """A copy of what a thing holds, one level deep; None for what holds nothing of a task's state."""
    if isinstance(value, dict):
        return dict(value)
    if isinstance(value, set):
        return set(value)
    if isinstance(value, (list, tuple, deque)):
        return list(value)
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, np.random.Generator):
        return value.bit_generator.state
    if isinstance(value, (np.random.RandomState, Generator)):
        return value.get_state()
    if isinstance(value, random.Random):
        return value.getstate()
    return attributes(value) if _is_plain(type(value)) else None


def restore(thing: Any, content: Any) -> None:
    """Give a thing back what `content_of` said that it holds."""
    if isinstance(thing, tuple):
        return
    if isinstance(thing, np.ndarray):
        if thing.flags.writeable:
            np.copyto(thing, content)
    elif isinstance(thing, np.random.Generator):
        thing.bit_generator.state = content
    elif isinstance(thing, (np.random.RandomState, Generator)):
        thing.set_state(content)
    elif isinstance(thing, random.Random):
        thing.setstate(content)
    elif isinstance(thing, set):
        if thing != content:
            thing.clear()
            thing.update(content)
    elif isinstance(thing, dict):
        if list(thing) != list(content) or any(thing[key] is not value for key, value in content.items()):
            thing.clear()
            thing.update(content)
    elif isinstance(thing, (list, deque)):
        if len(thing) != len(content) or any(a is not b for a, b in zip(thing, content, strict=True)):
            thing.clear()
            thing.extend(content)
    else:
        present = attributes(thing)
        for name in present.keys() - content.keys():
            object.__delattr__(thing, name)
        for name, value in content.items():
            if name not in present or present[name] is not value:
                object.__setattr__(thing, name, value)


def attributes(value: Any) -> dict[str, Any]:
    """What an object holds, in its dict and in its slots."""
    found = dict(getattr(value, "__dict__", {}))
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            private = slot.startswith("__") and not slot.endswith("__")
            name = f"_{kind.__name__.lstrip('_')}{slot}" if private else slot
            if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                found[name] = getattr(value, name)
    return found


def _is_plain(kind: type) -> bool:
    """Whether objects of a class are somebody's own helpers, and not a library's."""
    if kind not in _plain:
        roots = {base.__module__.partition(".")[0] for base in kind.__mro__ if base is not object} - _PLAIN_BASES
        _plain[kind] = kind is SimpleNamespace or (bool(roots) and not roots & _LIBRARIES)
    return _plain[kind]
