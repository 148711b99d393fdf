"""Messages for users: warnings, said once, and names: the nearest of those that exist, and lists of them."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable
from pathlib import Path

_ALIKE, _PART = 0.6, 3  # share of letters, and letters of a name that is part of another


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that is most like an unknown one, as " (did you mean 'x'?)" for a message; "" if none is alike.

    Alike are names of which one holds the other, or that share most of their letters in order.
    """
    others = [k for k in known if k != name]
    close = difflib.get_close_matches(name, others, n=1, cutoff=_ALIKE)
    within = [k for k in others if min(len(k), len(name)) >= _PART and (k in name or name in k)]
    close = close or difflib.get_close_matches(name, within, n=1, cutoff=0.0)
    return f" (did you mean {close[0]!r}?)" if close else ""


def near_file(path: Path, also: Iterable[str] = ()) -> str:
    """The entry of a path's folder, or of other names, that is most like it, as `nearest` says it."""
    try:
        entries = [str(entry) for entry in path.parent.iterdir()]
    except OSError:
        entries = []
    return nearest(str(path), [*entries, *also])


def listed(names: Iterable[str], most: int = 12) -> str:
    """Names for a message, shortened."""
    names = list(names)
    shown = ", ".join(names[:most])
    return f"{shown}, ... ({len(names)} in all)" if len(names) > most else shown or "none"


_warned: set[str] = set()


def warn_once(message: str) -> None:
    """Warn of something that is looked at several times, once since `warn_again`."""
    if message not in _warned:
        _warned.add(message)
        logging.getLogger("simreal").warning("warning: %s", message)


def warn_again() -> None:
    """A command, a training or an evaluation begins: what an earlier one was warned of is said again."""
    _warned.clear()
