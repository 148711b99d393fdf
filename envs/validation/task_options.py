"""Options of a task, held against what its constructor is annotated to take."""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from envs.common.errors import TaskError

_NONE = object()


def checked_options(task_id: str, build: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the types that `build` asks for: from YAML a pair is a list, and "1e-3" a text.

    What is not annotated, or with types that cannot be checked, stays as it is.

    Raises:
        TaskError: a value is of another type, is not a number, or a required one is missing.
    """
    hints, signature = _hints(build), inspect.signature(build)
    defaults = {name: parameter.default for name, parameter in signature.parameters.items()}
    checked = {
        name: value if value is defaults.get(name, _NONE) else _checked(task_id, name, value, hints.get(name))
        for name, value in options.items()
    }
    try:
        signature.bind(**checked)
    except TypeError as error:
        raise TaskError(f"{task_id}: task_options: {error}") from None
    return checked


def _hints(build: Callable[..., Any]) -> dict[str, Any]:
    """Annotations of the arguments; none where they name what only a type checker knows."""
    while isinstance(build, partial):
        build = build.func
    try:
        return typing.get_type_hints(build.__init__ if isinstance(build, type) else build)
    except (NameError, TypeError, AttributeError):
        return {}


def _checked(task_id: str, name: str, value: Any, hint: Any) -> Any:
    if any(math.isnan(number) for number in _numbers(value)):
        raise TaskError(f"{task_id}: option {name!r}: expected numbers, got {value!r}")
    if hint is None:
        return value
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(hint)
    except PydanticUserError:
        return value
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"[{part!r}]" for part in first["loc"] if part in _places(value))
        said = first["msg"][:1].lower() + first["msg"][1:]
        message = "a value is missing" if first["type"] == "missing" else said.replace("input should be", "expected")
        raise TaskError(f"{task_id}: option {name!r}{where}: {message}, got {first['input']!r}") from None


def _places(value: Any) -> list[Any]:
    """Keys or positions that lead into a value."""
    if isinstance(value, Mapping):
        return list(value)
    return list(range(len(value))) if isinstance(value, (list, tuple)) else []


def _numbers(value: Any) -> Iterator[float]:
    """Every float in a value."""
    if isinstance(value, float):
        yield value
    elif isinstance(value, (list, tuple, Mapping)):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _numbers(part)
