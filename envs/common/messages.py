"""Names in messages for users: the nearest of those that exist, and lists of them."""

from __future__ import annotations

import difflib
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
