"""Reads YAML and JSON that somebody else may have written: nothing runs, and memory and time stay bounded."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

_LARGEST_YAML = 250_000  # bytes
_LARGEST_JSON = 16_000_000
_DEEPEST = 40  # nested lists and mappings
_LARGEST_INTEGER = 2**63

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C is ten times as fast


class _Loader(_Base):
    """Reads 1e-3 and -.5 as numbers, as YAML 1.2 does (to YAML 1.1, which wants 1.0e-3 and -0.5, they are text), and no
    key twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """A mapping. Raises FileError for a key that stands twice, of which YAML would keep the last without a word."""
        keys: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in keys:
                    line = key.start_mark.line + 1 if key.start_mark else "?"
                    raise FileError(f"line {line}: the key {key.value[:60]!r} stands twice in one mapping")
                keys.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^([-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+|[-+]\.\d+)$"), list("-+.0123456789")
)


def _number(loader: Any, node: yaml.ScalarNode) -> int | float | str:
    """YAML 1.1 reads 010 as 8 and 1:30 as 90; here the one is refused and the other is text, as to YAML 1.2."""
    if ":" in node.value:
        return node.value
    if node.tag.endswith("float"):
        return loader.construct_yaml_float(node)
    text = node.value.replace("_", "").lstrip("+-")
    if len(text) > 1 and text[0] == "0" and text[1:].isdigit():
        line = node.start_mark.line + 1 if node.start_mark else "?"
        raise FileError(f"line {line}: {node.value[:60]!r} begins with 0, which YAML 1.1 reads as octal; leave it out")
    return loader.construct_yaml_int(node)


for _tag in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _number)


class FileError(ValueError):
    """A file that cannot be used; one line that says what is wrong with it, without its name."""


def read_text(path: Path, most: int) -> str:
    """A text file of at most `most` bytes. Raises FileError."""
    try:
        if not path.is_file():
            raise FileError("no such file")
        with path.open("rb") as file:
            raw = file.read(most + 1)
    except OSError as error:
        raise FileError(f"cannot be read: {error.strerror}") from None
    if len(raw) > most:
        raise FileError(f"larger than {most} bytes")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise FileError("not valid UTF-8") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping. Raises FileError."""
    document = parse_yaml(read_text(path, _LARGEST_YAML))
    if not isinstance(document, Mapping):
        raise FileError(f"expected a mapping of keys, got {type(document).__name__}")
    return {str(key): value for key, value in document.items()}


def read_json(path: Path, most: int = _LARGEST_JSON) -> Any:
    """A JSON file. Raises FileError."""
    try:
        return json.loads(read_text(path, most))
    except FileError:
        raise
    except (ValueError, RecursionError) as error:
        raise FileError(f"not a whole JSON document: {one_line(error)}") from None


def parse_yaml(text: str) -> Any:
    """A YAML document of plain data: mappings, lists, text, numbers, true, false and null.

    Aliases are refused, which a few lines can multiply without bound, and tags that make anything else.

    Raises:
        FileError: not YAML, nested too deeply, or holding more than that.
    """
    try:
        _refuse_expansion(text)
        document = yaml.load(text, Loader=_Loader)
    except FileError:
        raise
    except Exception as error:  # a malformed scalar raises whatever its constructor stumbles over
        raise FileError(f"not valid YAML: {one_line(error)}") from None
    _refuse_foreign(document)
    return document


def _refuse_expansion(text: str) -> None:
    """Refuse aliases, and what is nested too deeply for the composer, which recurses; events come without recursion."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            raise FileError(f"holds an alias (*{event.anchor}), expected every value written out")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _DEEPEST:
                raise FileError(f"nested more than {_DEEPEST} levels deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _refuse_foreign(value: Any) -> None:
    """Raise FileError unless a value is plain data."""
    if value is None or isinstance(value, (bool, str, float)):
        return
    if isinstance(value, int):
        if abs(value) >= _LARGEST_INTEGER:
            raise FileError("holds an integer beyond 64 bits")
    elif isinstance(value, dict):
        for key, item in value.items():
            if isinstance(key, tuple) or key is None:
                raise FileError(f"holds a key that is no text: {str(key)[:40]!r}")
            _refuse_foreign(key)
            _refuse_foreign(item)
    elif isinstance(value, list):
        for item in value:
            _refuse_foreign(item)
    else:
        raise FileError(f"holds a {type(value).__name__}, expected text, numbers, lists and mappings")


def one_line(error: BaseException, most: int = 200) -> str:
    """An exception's message in one short line."""
    return " ".join(str(error).split())[:most] or type(error).__name__
