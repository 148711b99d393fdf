"""Task ids and how to build them."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import partial

from envs.manipulation.fetch import VARIANTS, FetchTask
from envs.task import Task


class UnknownTaskError(ValueError):
    """A task id that does not exist; the message names the nearest one."""


_TASKS: dict[str, Callable[[], Task]] = {}


def register_task(task_id: str, build: Callable[[], Task]) -> None:
    """Make `build` available as `task_id`. Raises ValueError if the id is taken."""
    if task_id in _TASKS:
        raise ValueError(f"task {task_id!r} is registered already")
    _TASKS[task_id] = build


def task_ids() -> list[str]:
    """Every task id, in order of registration."""
    return list(_TASKS)


def check_task_id(task_id: str) -> None:
    """Raise UnknownTaskError unless `task_id` exists."""
    if task_id not in _TASKS:
        close = difflib.get_close_matches(task_id, _TASKS, n=1, cutoff=0.3)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise UnknownTaskError(f"unknown task {task_id!r}: {hint}`simreal envs` lists all tasks")


def make_task(task_id: str) -> Task:
    """Build a task. Raises UnknownTaskError, which names the nearest id."""
    check_task_id(task_id)
    return _TASKS[task_id]()


for _family in VARIANTS:
    for _dense in (False, True):
        register_task(f"{_family}{'Dense' if _dense else ''}-v4", partial(FetchTask, _family, _dense))
