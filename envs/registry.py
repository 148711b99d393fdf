"""Task ids and how to build them. Importing this module imports no task, no torch and no MuJoCo."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from envs.task import Task


class UnknownTaskError(ValueError):
    """A task id that does not exist; the message names the nearest one."""


class UnknownOptionError(UnknownTaskError):
    """A task option that does not exist; the message names the nearest one."""


# A builder is a callable, or "module:callable" to be imported when the task is made; options are its arguments.
_TASKS: dict[str, tuple[str | Callable[..., Any], dict[str, Any]]] = {}


def register_task(task_id: str, build: str | Callable[..., Any], **options: Any) -> None:
    """Make a task available.

    Args:
        task_id: its id.
        build: a Task class or function that returns a Task, or "module:name" of one.
        options: arguments of `build`.

    Raises:
        ValueError: the id is taken.
    """
    if task_id in _TASKS:
        raise ValueError(f"task {task_id!r} is registered already")
    _TASKS[task_id] = (build, options)


def task_ids() -> list[str]:
    """Every task id, in order of registration."""
    return list(_TASKS)


def check_task_id(task_id: str) -> None:
    """Raise UnknownTaskError unless `task_id` exists."""
    if task_id not in _TASKS:
        close = difflib.get_close_matches(task_id, _TASKS, n=1, cutoff=0.3)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise UnknownTaskError(f"task: unknown task {task_id!r}: {hint}`simreal envs` lists all tasks")


def make_task(task_id: str, **options: Any) -> Task:
    """Build a task; options override those it was registered with.

    Raises:
        UnknownTaskError: the id does not exist; names the nearest.
        UnknownOptionError: an option does not exist; names the nearest.
    """
    check_task_id(task_id)
    build, registered = _TASKS[task_id]
    if isinstance(build, str):
        module, _, name = build.partition(":")
        build = getattr(importlib.import_module(module), name)
    known = inspect.signature(build).parameters
    for name in options.keys() - known.keys():
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.3)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise UnknownOptionError(f"{task_id}: unknown option {name!r}: {hint}there are: {', '.join(known) or 'none'}")
    task: Task = build(**(registered | options))  # pyright: ignore[reportCallIssue]
    return task


for _family in ("FetchReach", "FetchPush", "FetchSlide", "FetchPickAndPlace"):
    for _dense in (False, True):
        register_task(
            f"{_family}{'Dense' if _dense else ''}-v4",
            "envs.manipulation.fetch:FetchTask",
            family=_family,
            dense=_dense,
        )

_GYMNASIUM_V5 = {
    "planar": ("HalfCheetah", "Hopper", "Walker2d", "Swimmer"),
    "free": ("Ant", "Humanoid", "HumanoidStandup"),
    "arms": ("Reacher", "Pusher", "InvertedPendulum", "InvertedDoublePendulum"),
}
for _kind, _names in _GYMNASIUM_V5.items():
    for _name in _names:
        register_task(f"{_name}-v5", f"envs.locomotion.gymnasium_v5_{_kind}:{_name}Task")

register_task("Go1Velocity-v0", "envs.locomotion.go1:Go1VelocityTask")
