"""What installed packages announce: entry points, looked for again only where something may have been installed."""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from importlib import metadata
from importlib.metadata import EntryPoint

_State = tuple[tuple[str, int, int], ...]


def entry_points(group: str) -> tuple[EntryPoint, ...]:
    """Entry points of a group. Reading those of all packages takes some 10 ms, and every name that is checked asks."""
    return _found(group, tuple(_state(path) for path in sys.path))


@lru_cache(maxsize=32)
def _found(group: str, _paths: _State) -> tuple[EntryPoint, ...]:
    return tuple(metadata.entry_points(group=group))


def _state(path: str) -> tuple[str, int, int]:
    """A folder that modules are found in, and what changes when a package is installed there."""
    try:
        state = os.stat(path or ".")
    except OSError:
        return path, 0, 0
    return path, state.st_ino, state.st_mtime_ns
