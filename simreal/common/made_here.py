"""Which runs and bundles this user has made on this machine, and from which folder: a record outside of them.

A run cannot say of itself that it is ours: it may come from someone else. So the record lies in the user's state
directory (XDG_STATE_HOME, else ~/.local/state), belongs to the user, and names each directory with its inode, so that
another one of the same name is not taken for it. Whoever cannot write there is asked for `--task` as before.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from pathlib import Path
from typing import Any

_MOST_BYTES = 4_000_000  # of the record that are read: about 20,000 runs


def record_path() -> Path:
    """The file of the record."""
    state = os.environ.get("XDG_STATE_HOME", "")
    base = Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state"
    return base / "simreal" / "made.jsonl"


def remember(made: Path, task: str) -> None:
    """Note that a directory was made by this user, from the current folder, for a task. Never fails."""
    with contextlib.suppress(OSError, RuntimeError):
        path = record_path()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "ab") as file:
            file.write((json.dumps(_entry(made, task)) + "\n").encode())


def was_made_here(made: Path, task: str) -> bool:
    """Whether a directory, or the run that it lies in, was noted so, from the current folder and for this task."""
    try:
        path = record_path()
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                return False  # somebody else may have written to it
            file.seek(max(0, status.st_size - _MOST_BYTES))
            lines = file.read().splitlines()
        wanted = [_entry(directory, task) for directory in (made, made.parent)]
    except (OSError, RuntimeError, AttributeError):  # no home, or a system without users
        return False
    return any(_read(line) in wanted for line in reversed(lines))


def _entry(made: Path, task: str) -> dict[str, Any]:
    status = made.stat()
    place = [status.st_dev, status.st_ino]
    return {"made": str(made.resolve()), "place": place, "from": str(Path.cwd().resolve()), "task": task}


def _read(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
