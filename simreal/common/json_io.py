"""JSON documents that commands write."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from envs.common import safe_yaml
from simreal.common.errors import UserError


def to_json(document: dict[str, Any]) -> str:
    """A document with its lists of numbers on one line each. Raises ValueError for NaN and infinity."""
    text = json.dumps(document, indent=2, allow_nan=False) + "\n"
    # A string in JSON has no line breaks, so none is touched.
    return re.sub(r"\[\n\s+([^\[\]{}]*)\n\s+\]", lambda m: "[" + re.sub(r"\n\s+", " ", m[1]) + "]", text)


def without_samples(evaluation: dict[str, Any]) -> dict[str, Any]:
    """An evaluation without its single episodes, as a bundle states it."""
    worlds = [{key: value for key, value in world.items() if key != "samples"} for world in evaluation["worlds"]]
    return evaluation | {"worlds": worlds}


def write_target(path: Path, suffix: str) -> Path:
    """A file to be written whose folder exists. Raises UserError otherwise, and where another kind of file is."""
    if path.is_dir() or not path.parent.is_dir():
        raise UserError(f"{path}: cannot be written; expected a file name in an existing folder")
    if path.is_file() and path.suffix != suffix:
        raise UserError(f"{path}: exists and is no {suffix} file; expected a new name, or one that ends in {suffix}")
    return path


def read_json(path: Path) -> dict[str, Any] | None:
    """A document that a command wrote, or None if there is none. Raises UserError if it is damaged."""
    if not path.is_file():
        return None
    try:
        document = safe_yaml.read_json(path)
    except safe_yaml.FileError:
        document = None
    if not isinstance(document, dict):
        raise UserError(f"{path}: damaged; expected the JSON that simreal wrote")
    return document
