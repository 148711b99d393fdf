"""Messages for users: warnings, said once, and names: the nearest of those that exist, and lists of them."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that is most like an unknown one, as " (did you mean 'x'?)" for a message; "" if none is alike."""
    close = difflib.get_close_matches(name, [k for k in known if k != name], n=1, cutoff=0.4)
    return f" (did you mean {close[0]!r}?)" if close else ""


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
