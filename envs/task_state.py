"""The state that a task keeps by itself, and blocks of code that leave it alone.

A task's hooks may keep things between control steps: a filter in `command`, a history in `observe`. Some hooks have to
run when that must not count: `observe` when some environments begin an episode, `command` to learn where a robot
rests. `preserved` undoes what such a call left behind.

Everything is copied first, and then compared: a hook may change a thing for the first time at any call, in place and
through NumPy, which leaves no mark on a tensor. Tasks hold little, and resets are rare where environments are few.
"""

from __future__ import annotations

import random
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from envs.task import Fixed, Task

_NOT_OWN = ("engine", "rng", "model", "observation", "action")  # of a task: what it was given, and constants
_ATOMS = frozenset({int, float, bool, complex, str, bytes, type(None), FunctionType, MethodType, ModuleType, type})
_DEEPEST = 12  # containers within containers
_LIBRARIES = frozenset(sys.stdlib_module_names - {"test"}) | {
    "torch", "numpy", "mujoco", "mujoco_warp", "warp", "gymnasium", "gymnasium_robotics",
}  # fmt: skip
_PLAIN_BASES = frozenset({"builtins", "abc", "typing", "collections"})  # of the standard library, to inherit from
_plain: dict[type, bool] = {}


@contextmanager
def preserved(task: Task, rows: Tensor | None = None) -> Iterator[None]:
    """Undo what a block changes in the task's own state: everywhere, or in all environments but those of `rows`.

    Own state are the tensors, arrays and plain values that the task's attributes lead to, through lists, tuples,
    dicts, deques and helper objects; and random generators. What belongs to environments is found by its shape: the
    environments are the first dimension of size N, of a tensor, an array or a list. Anything else belongs to no
    environment and is put back: a number that a hook counts up counts control steps.

    With `rows`, sequences of different lengths are matched at their ends, so that what was appended counts, and what
    the block adds to attributes and dicts stays. Without, nothing of that stays; what the block wrote to the engine's
    tensors is undone too, and what it drew from the random generators of torch, NumPy and Python.

    Args:
        task: attached to its engine.
        rows: environments [N] (bool) in which changes stand; None for none.
    """
    before = _Snapshot(task)
    if rows is None:
        engine = _Copies(task.engine.handed_out())
        with random_numbers_kept(task.engine.device):
            try:
                yield
            finally:
                with torch.no_grad():
                    engine.put_back()
                    before.put_back()
        return
    try:
        yield
    finally:
        with torch.no_grad():
            _Merge(before, rows).apply()


@contextmanager
def random_numbers_kept(device: torch.device | None = None) -> Iterator[None]:
    """Leave the random generators that a process has from the start (torch's on CPU and `device`, NumPy's, Python's)
    as they were, for tasks that draw from them."""
    state, numbers = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=[device] if device is not None and device.type == "cuda" else []):
            yield
    finally:
        random.setstate(state)
        np.random.set_state(numbers)  # noqa: NPY002


class _Copies:
    """Tensors and what they held."""

    def __init__(self, tensors: list[Tensor]) -> None:
        self._tensors = tensors
        self.versions = [_version(tensor) for tensor in tensors]
        self.values = [torch.empty_like(tensor.detach()) for tensor in tensors]
        kinds: dict[Any, tuple[list[Tensor], list[Tensor]]] = {}
        for tensor, value in zip(tensors, self.values, strict=True):
            values, sources = kinds.setdefault((tensor.dtype, tensor.device), ([], []))
            values.append(value)
            sources.append(tensor.detach())
        for values, sources in kinds.values():
            torch._foreach_copy_(values, sources)

    def put_back(self) -> None:
        """Write what the tensors held where torch has counted a change."""
        for tensor, version, value in zip(self._tensors, self.versions, self.values, strict=True):
            if version is None or _version(tensor) != version:
                tensor.copy_(value)


class _Snapshot:
    """Everything that a task's attributes lead to, with copies of it.

    Attributes:
        task: whose state it is.
        objects: by identity, each thing that can change or hold others; being here keeps its identity its own.
        contents: by identity, what it held: a list or a dict of references, a copy of a tensor or an array, the
            state of a generator.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.objects: dict[int, Any] = {id(task): task}
        self.contents: dict[int, Any] = {id(task): _attributes(task)}
        given = {name: getattr(task, name, None) for name in _NOT_OWN}
        self._given = {id(value) for value in given.values()}
        self._foreign = {tensor.untyped_storage().data_ptr() for tensor in task.engine.handed_out()}
        tensors: list[Tensor] = []
        stack = [(value, 1) for name, value in self.contents[id(task)].items() if name not in given]
        while stack:
            value, depth = stack.pop()
            if type(value) in _ATOMS or id(value) in self.objects or id(value) in self._given or depth > _DEEPEST:
                continue
            if isinstance(value, Tensor):
                if value.layout is torch.strided and value.untyped_storage().data_ptr() not in self._foreign:
                    self.objects[id(value)] = value
                    tensors.append(value)
                continue
            content = _content_of(value)
            if content is None:
                continue
            self.objects[id(value)], self.contents[id(value)] = value, content
            stack.extend((child, depth + 1) for child in _held(value, content))
        copies, keys = _Copies(tensors), [id(tensor) for tensor in tensors]
        self.contents |= dict(zip(keys, copies.values, strict=True))
        self._versions = dict(zip(keys, copies.versions, strict=True))

    def changed(self, thing: Any) -> bool:
        """Whether a tensor of the snapshot has other values now; True of anything else. On a GPU nothing waits to
        compare them: there torch's count of changes decides."""
        if not isinstance(thing, Tensor):
            return True
        version = self._versions[id(thing)]
        if version is None or version != _version(thing):
            return True
        return thing.device.type == "cpu" and not torch.equal(thing, self.contents[id(thing)])

    def put_back(self) -> None:
        """Everything as it was."""
        for key, thing in self.objects.items():
            if self.changed(thing):
                _restore(thing, self.contents[key])


class _Merge:
    """Puts together what a task holds now, in some environments, and what it held before, in the others.

    Args:
        before: what the task held.
        rows: environments [N] whose present values stay.
    """

    def __init__(self, before: _Snapshot, rows: Tensor) -> None:
        self._before, self._rows, self._n = before, rows, len(rows)
        self._host: np.ndarray | None = None
        self._seen: dict[tuple[int, int], Any] = {}  # results, so that what was one thing stays one thing
        self._alive: list[Any] = []  # keeps the identities in `_seen`
        self._writes: list[tuple[Any, Any]] = []  # made in the end: until then everything shows its present values

    def apply(self) -> None:
        """Leave the merged state in the task."""
        self._merge(self._before.task, self._before.task)
        for thing, content in self._writes:
            _restore(thing, content)

    def _merge(self, old: Any, new: Any) -> Any:
        if old is None or (old is new and id(old) not in self._before.objects):
            return new  # made by the block, or nothing that can change
        key = (id(old), id(new))
        if key not in self._seen:
            self._alive += (old, new)
            self._seen[key] = new  # what leads back to itself
            self._seen[key] = self._merged(old, new)
        return self._seen[key]

    def _merged(self, old: Any, new: Any) -> Any:
        if id(old) not in self._before.objects:
            return old
        content = self._before.contents[id(old)]
        if isinstance(old, (Tensor, np.ndarray)):
            return self._values(old, content, new)
        if type(new) is not type(old) or _is_generator(old):
            self._writes.append((old, content))
            return old
        if isinstance(content, dict):
            return self._mapping(content, new)
        return self._sequence(content, new)

    def _values(self, old: Any, before: Any, new: Any) -> Any:
        """A tensor or an array: row by row where its environments can be told, else as it was before."""
        is_tensor, axis = isinstance(before, Tensor), _axis(before.shape, self._n)
        alike = isinstance(new, Tensor if is_tensor else np.ndarray) and new.shape == before.shape
        if axis is None or not alike or (is_tensor and new.dtype != before.dtype):
            if self._before.changed(old):
                self._writes.append((old, before))
            return old
        if new is old and not self._before.changed(old):
            return new
        shape = (-1, *[1] * (before.ndim - axis - 1))
        if isinstance(new, Tensor):
            value = torch.where(self._rows.to(before.device).view(shape), new.detach(), before)
        else:
            value = np.where(self._chosen().reshape(shape), new, before).astype(before.dtype, copy=False)
        if new is not old:
            return value
        self._writes.append((new, value))
        return new

    def _mapping(self, before: dict[Any, Any], new: Any) -> Any:
        """A dict's items, or an object's attributes."""
        now = dict(new) if isinstance(new, dict) else _attributes(new)
        merged = {key: self._merge(before[key], value) if key in before else value for key, value in now.items()}
        self._writes.append((new, {**{k: v for k, v in before.items() if k not in now}, **merged}))
        return new

    def _sequence(self, before: Any, new: Any) -> Any:
        if isinstance(before, set):
            self._writes.append((new, before))
            return new
        now = list(new)
        if len(now) == len(before) == self._n and not any(self._has_axis(item) for item in (*before, *now)):
            for item, stays in zip(before, self._chosen(), strict=True):
                if not stays:
                    self._undo(item)
            merged = [b if stays else a for a, b, stays in zip(before, now, self._chosen(), strict=True)]
        elif len(now) < len(before):
            merged = list(before)
        else:
            merged = [self._merge(a, b) for a, b in zip(before, now[len(now) - len(before) :], strict=True)]
        if not isinstance(new, tuple):
            self._writes.append((new, merged))
            return new
        if all(a is b for a, b in zip(merged, now, strict=True)):
            return new
        return type(new)(*merged) if hasattr(new, "_fields") else type(new)(merged)

    def _undo(self, value: Any) -> None:
        """Put back one environment's own thing and all that it leads to."""
        if id(value) not in self._before.objects or (id(value), 0) in self._seen:
            return
        self._seen[id(value), 0] = None
        content = self._before.contents[id(value)]
        self._writes.append((value, content))
        for child in _held(value, content):
            self._undo(child)

    def _has_axis(self, value: Any) -> bool:
        return isinstance(value, (Tensor, np.ndarray)) and _axis(value.shape, self._n) is not None

    def _chosen(self) -> np.ndarray:
        """`rows` for what is not on the device."""
        if self._host is None:
            self._host = self._rows.cpu().numpy()
        return self._host


def _axis(shape: tuple[int, ...], n: int) -> int | None:
    """Which dimension are the environments."""
    return shape.index(n) if n in shape else None


def _version(tensor: Tensor) -> int | None:
    return None if tensor.is_inference() else tensor._version


def _is_generator(value: Any) -> bool:
    """Whether a thing makes random numbers, and holds nothing but that."""
    return isinstance(value, (np.random.Generator, np.random.RandomState, Generator, random.Random))


def _content_of(value: Any) -> Any:
    """A copy of what a thing holds, one level deep; None for what holds nothing of a task's state."""
    if isinstance(value, Fixed):
        return None
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
    return _attributes(value) if _is_plain(type(value)) else None


def _held(value: Any, content: Any) -> Iterable[Any]:
    """The things that a thing with this content leads to."""
    if isinstance(value, (Tensor, np.ndarray)) or _is_generator(value):
        return ()
    return content.values() if isinstance(content, dict) else content


def _restore(thing: Any, content: Any) -> None:
    """Give a thing back what `_content_of` said that it holds."""
    if isinstance(thing, Tensor):
        # An expanded tensor is left to the one that it shows.
        if not any(stride == 0 and size > 1 for stride, size in zip(thing.stride(), thing.shape, strict=True)):
            thing.detach().copy_(content)
    elif isinstance(thing, tuple):
        return
    elif isinstance(thing, np.ndarray):
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
        present = _attributes(thing)
        for name in present.keys() - content.keys():
            object.__delattr__(thing, name)
        for name, value in content.items():
            if name not in present or present[name] is not value:
                object.__setattr__(thing, name, value)


def _attributes(value: Any) -> dict[str, Any]:
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
