"""What an environment keeps outside of MuJoCo, as plain data: generators, and attributes of plain types.

No general way exists to save an arbitrary Python object without code (pickle runs it when loading). Saved are, of the
environment, its wrappers and objects within them, every attribute that is a number, text, None, a NumPy array, a NumPy
generator, or a list, tuple, set, deque or dict of such. Arrays that are views of MuJoCo's memory are left to it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.envs.registration import EnvSpec

_PLAIN = (bool, int, float, str, type(None))
_SAME_FOR_LIFE = (gymnasium.Space, EnvSpec, np.random.Generator, type(np), type)


class Unsaved(Exception):
    """A value of a type that cannot be saved."""


def save_attributes(env: Any) -> dict[str, Any]:
    """Every attribute that can be saved, by its path, such as "env.np_random"; tensors and plain types."""
    saved: dict[str, Any] = {}
    for path, owner, name in _attributes(env):
        value = owner.__dict__[name]
        try:
            saved[path] = encode(value.bit_generator.state if isinstance(value, np.random.Generator) else value)
        except Unsaved:
            continue
    return saved


def load_attributes(env: Any, saved: dict[str, Any]) -> None:
    """Give an environment the attributes of another of the same kind, also those that its steps make.

    Raises:
        ValueError: it holds other wrappers or objects than the other one did.
    """
    attributes = list(_attributes(env))
    owners = {path.removesuffix(name): owner for path, owner, name in attributes}
    known = {_prefix(path) for path in saved}
    for path, owner, name in attributes:
        if path in saved:
            present = owner.__dict__[name]
            if isinstance(present, np.random.Generator):
                present.bit_generator.state = decode(saved[path])
            else:
                owner.__dict__[name] = decode(saved[path])
        elif _prefix(path) not in known and _is_saved(owner.__dict__[name]):
            raise ValueError("its environments were saved with other wrappers, or by an earlier version")
    for path in saved.keys() - {path for path, _, _ in attributes}:
        if _prefix(path) in owners:
            owners[_prefix(path)].__dict__[path.removeprefix(_prefix(path))] = decode(saved[path])


def _prefix(path: str) -> str:
    """The path of an attribute's owner, with its last dot."""
    return path[: path.rfind(".") + 1]


def _is_saved(value: Any) -> bool:
    try:
        encode(value)
    except Unsaved:
        return False
    return True


def unsaved_attributes(env: Any) -> list[str]:
    """Attributes that a resumed run has as they were when the environment was made, as "path: type"."""
    names = []
    for path, owner, name in _attributes(env):
        value = owner.__dict__[name]
        if not _is_constant(value) and not _is_saved(value):
            names.append(f"{path}: {type(value).__name__}")
    return names


def _attributes(env: Any, prefix: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, Any, str]]:
    """Path, owner and name of the attributes of an environment and of objects that it holds, each object once."""
    seen = set() if seen is None else seen
    if id(env) in seen:
        return
    seen.add(id(env))
    for name, value in list(vars(env).items()):
        if _is_walked(value):
            yield from _attributes(value, f"{prefix}{name}.", seen)
        elif not _is_view(value):
            yield f"{prefix}{name}", env, name


def _is_walked(value: Any) -> bool:
    """Whether a value is an object whose attributes are looked at one by one, such as running statistics."""
    if isinstance(value, (*_SAME_FOR_LIFE, np.random.RandomState)) or callable(value) or _is_mujocos(value):
        return False
    return isinstance(getattr(value, "__dict__", None), dict) and bool(vars(value))


def _is_view(value: Any) -> bool:
    """Whether an array shows memory that is not NumPy's own, such as `data.qpos`."""
    while isinstance(value, np.ndarray) and value.base is not None:
        value = value.base
        if not isinstance(value, np.ndarray):
            return True
    return False


def _is_constant(value: Any) -> bool:
    """Whether a value is what the constructor makes of it for good: spaces, functions, and lists of such."""
    if type(value) in (list, tuple):
        return all(_is_constant(item) for item in value)
    return isinstance(value, _SAME_FOR_LIFE) or callable(value) or _is_mujocos(value)


def _is_mujocos(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "mujoco"


def encode(value: Any) -> Any:
    """A value as tensors and plain types that know what they were. Raises Unsaved."""
    if isinstance(value, np.str_):
        return str(value)
    if isinstance(value, np.generic):
        return {"number": _tensor(np.asarray(value))}
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, np.ndarray):
        return {"array": _tensor(value)}
    if type(value) is deque:
        return {"deque": [encode(list(value)), value.maxlen]}
    if type(value) in (list, tuple, set):
        items = sorted(value, key=repr) if isinstance(value, set) else value
        return {type(value).__name__: [encode(item) for item in items]}
    if type(value) is dict:
        return {"dict": [[encode(key), encode(item)] for key, item in value.items()]}
    raise Unsaved(type(value).__name__)


def decode(value: Any) -> Any:
    """What `encode` was given."""
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "dict":
        return {decode(key): decode(item) for key, item in content}
    if kind == "deque":
        return deque(decode(content[0]), content[1])
    if kind == "array":
        return content.numpy().copy()
    if kind == "number":
        return content.numpy()[()]
    return {"list": list, "tuple": tuple, "set": set}[kind](decode(item) for item in content)


def _tensor(array: np.ndarray) -> torch.Tensor:
    if array.dtype.kind not in "biuf":
        raise Unsaved(str(array.dtype))
    try:
        return torch.from_numpy(np.array(array, order="C"))
    except TypeError:
        raise Unsaved(str(array.dtype)) from None
