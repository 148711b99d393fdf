"""Names, texts and numbers as C99 has them."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PER_LINE = 8


class Identifiers:
    """Names for macros and enumerators: letters, digits and underscores, each given once.

    Args:
        taken: names that are in use already.
    """

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)

    def name(self, prefix: str, *parts: str) -> str:
        """`prefix` and what C allows of the parts, in capitals; with a number where that is in use."""
        words = [re.sub(r"[^A-Z0-9]+", "_", _plain(part).upper()).strip("_") or "X" for part in parts]
        base = "_".join([prefix, *words])
        name, number = base, 2
        while name in self._taken:
            name, number = f"{base}_{number}", number + 1
        self._taken.add(name)
        return name


def _plain(text: str) -> str:
    """Without accents."""
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode() or text


def string(text: str | None) -> str:
    """A string constant; UTF-8 beyond ASCII."""
    safe = {chr(c) for c in range(32, 127)} - set('"\\?')  # ? might begin a trigraph
    return '"' + "".join(chr(b) if chr(b) in safe else f"\\{b:03o}" for b in (text or "").encode()) + '"'


def comment(text: str) -> str:
    """A text that may stand in a comment."""
    line = "".join(c if " " <= c <= "~" else "_" for c in " ".join(text.split()))
    return line.replace("*/", "* /").replace("/*", "/ *").replace("??", "? ?").replace("\\", "/")


def number(value: float | None) -> str:
    """A double to the last bit; NAN for what is not known."""
    if value is None or math.isnan(value):
        return "NAN"
    if math.isinf(value):
        return "HUGE_VAL" if value > 0 else "-HUGE_VAL"
    text = repr(float(value))
    return text if any(c in text for c in ".e") else f"{text}.0"


def single(value: float) -> str:
    """A float to the last bit."""
    if math.isinf(value):
        return "INFINITY" if value > 0 else "-INFINITY"
    text = f"{value:.9g}"
    return f"{text}f" if "." in text or "e" in text else f"{text}.0f"


def array(kind: str, name: str, values: NDArray[Any] | Sequence[Any]) -> str:
    """The definition of a constant array; of float, double, int8_t or int."""
    flat = np.asarray(values)
    shape = "".join(f"[{size}]" for size in flat.shape)
    items = flat.reshape(-1).tolist()
    texts = [single(v) for v in items] if kind == "float" else [number(v) for v in items] if kind == "double" else None
    texts = texts or [str(v) for v in items]
    if flat.ndim == 2:
        rows = [texts[i : i + flat.shape[1]] for i in range(0, len(texts), flat.shape[1])]
        body = ",\n".join(f"    {{{_lines(row)}}}" for row in rows)
    else:
        body = f"    {_lines(texts)}"
    return f"static const {kind} {name}{shape} = {{\n{body}\n}};\n"


def _lines(texts: Sequence[str]) -> str:
    parts = [", ".join(texts[i : i + _PER_LINE]) for i in range(0, len(texts), _PER_LINE)]
    return ",\n    ".join(parts)
