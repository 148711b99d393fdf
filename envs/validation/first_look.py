"""A first look at what a task's hooks do, in its first reset and steps: what shapes and types do not show.

An error within a hook becomes one line that names the hook and the place in its file. A task that has lost the engine's
tensors, so that what it writes reaches nothing and what it reads never changes, would otherwise train on.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import mujoco
import torch
from torch import Tensor

from envs.common.errors import TaskError
from envs.engines.base import Engine
from envs.task import Task

_LOOKS = 3  # the first reset and two steps
_OURS = ("envs.", "randomization.", "simreal.")


class FirstLook:
    """Watches a task that has just been attached to its engine.

    Args:
        task, engine: what is watched; nothing more is once the first reset and the first steps are over.
    """

    def __init__(self, task: Task, engine: Engine) -> None:
        self._task, self._engine, self._looks, self._steps = task, engine, 0, 0
        given = {_memory(tensor) for tensor in engine.handed_out()}
        tensors = {name: value for name, value in vars(task).items() if _is_plain(value)}
        self._views = {name: _memory(value) for name, value in tensors.items() if _memory(value) in given}
        self._copies = {
            name: (value, value._version)
            for name, value in tensors.items()
            if name not in self._views and self._shows(name, value)
        }

    @contextmanager
    def at(self, steps: int) -> Iterator[None]:
        """Watch a block in which the engine makes a number of control steps. Raises TaskError."""
        if self._looks >= _LOOKS:
            yield
            return
        asked: set[int] = set()
        data = self._engine.data

        def asking(name: str) -> Tensor:
            tensor = data(name)
            asked.add(_memory(tensor))
            return tensor

        setattr(self._engine, "data", asking)  # noqa: B010  # for this block
        try:
            with blaming(self._task):
                yield
        finally:
            delattr(self._engine, "data")
        self._steps += steps
        self._check_views(asked)
        self._looks += 1

    def _check_views(self, asked: set[int]) -> None:
        now = {name: value for name, value in vars(self._task).items() if _is_plain(value)}
        held = {_memory(value) for value in now.values()} | asked
        for name, memory in self._views.items():
            if name in now and _memory(now[name]) != memory and memory not in held:
                raise TaskError(
                    f"task: {self._task.id}: self.{name} was the engine's tensor and is a new one now, which the "
                    f"engine does not see: write into it, self.{name}[...] = ... or self.{name}.copy_(...)"
                )
        for name, (value, version) in self._copies.items():
            same = now.get(name) is value and value._version == version
            if self._steps and same and not self._shows(name, value):
                raise TaskError(
                    f"task: {self._task.id}: self.{name} is a copy of the engine's {name.strip('_')} and does not "
                    f"follow it: keep the tensor that self.engine.data({name.strip('_')!r}) returns"
                )

    def _shows(self, name: str, value: Tensor) -> bool:
        """Whether an attribute that is called as a field of mjData holds what that holds now."""
        field = name.strip("_")
        if not hasattr(mujoco.MjData, field):
            return False
        try:
            present = self._engine.data(field)
        except ValueError:  # no field that engines have
            return False
        return value.shape == present.shape and torch.equal(value.to(present.dtype), present)


@contextmanager
def blaming(task: Task) -> Iterator[None]:
    """Errors that come out of a task's own methods, as one line that names the method and the place."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        place = None if type(error).__module__.startswith(_OURS) else _place(task, error.__traceback__)
        if place is None:
            raise
        message = " ".join(str(error).split())
        raise TaskError(f"task: {task.id}: {place}: {type(error).__name__}: {message}") from error


def _place(task: Task, trace: TracebackType | None) -> str | None:
    """The task's method in which an error arose, and the line in its file; None where it was no method of its own."""
    frames = [(frame, line) for frame, line in traceback.walk_tb(trace) if frame.f_locals.get("self") is task]
    frames = [(frame, line) for frame, line in frames if frame.f_code.co_qualname != "Task.attach"]
    if not frames:
        return None
    (hook, _), (inner, line) = frames[0], frames[-1]
    return f"{hook.f_code.co_name} ({Path(inner.f_code.co_filename).name}, line {line})"


def _is_plain(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout is torch.strided


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
