"""Logs as tables: CSV with a column of times, and NumPy's .npz."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from envs.common.messages import listed
from simreal.common.errors import UserError
from simreal.common.logs.signals import Log, Numbers, Signal, checked

_TIMES = {"time": 1.0, "t": 1.0, "time_s": 1.0, "timestamp": 1.0, "stamp": 1.0, "time_ms": 1e-3, "time_ns": 1e-9}
_SEPARATORS = ("/", ":", ".")  # of component and element in the title of a column: "joint_pos/FR_hip_joint"


def read_csv(source: Path) -> Log:
    """A table: a column `time` in s (or `time_ms`, `time_ns`) and one column for each value, named COMPONENT/ELEMENT.

    An empty field means that no value came: a component has a sample in the rows where all its fields are filled.

    Raises:
        UserError: no such table, or a field is no number.
    """
    try:
        with source.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.reader(file))
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise UserError(f"{source}: is no CSV: {' '.join(str(error).split())}") from None
    titles = [title.strip() for title in rows[0]] if rows else []
    rows = [row for row in rows[1:] if row]
    if len(rows) < 2:
        raise UserError(f"{source}: is empty; expected a row of titles and rows of numbers")
    clock = next((i for i, title in enumerate(titles) if title.lower() in _TIMES), None)
    if clock is None:
        raise UserError(f"{source}: no column of times; expected one called time (s), got {listed(titles)}")
    if len(set(titles)) != len(titles):
        twice = next(title for title in titles if titles.count(title) > 1)
        raise UserError(f"{source}: column {twice!r} appears twice")
    values = _numbers(source, titles, rows)
    time = values[:, clock] * _TIMES[titles[clock].lower()]
    groups: dict[str, dict[str, int]] = {}
    for i, title in enumerate(titles):
        if i != clock:
            group, element = _split(title)
            groups.setdefault(group, {})[element] = i
    signals: dict[str, Signal] = {}
    for group, columns in groups.items():
        chosen = values[:, list(columns.values())]
        there = ~np.isnan(chosen).all(axis=1)
        signals[group] = checked(source, group, time[there], chosen[there], tuple(columns))
    return Log(signals, None, source)


def _numbers(source: Path, titles: list[str], rows: list[list[str]]) -> Numbers:
    """All fields [rows, columns]; empty ones are NaN. Raises UserError."""
    out = np.full((len(rows), len(titles)), np.nan)
    for r, row in enumerate(rows):
        if len(row) != len(titles):
            what = "is cut off: " if r == len(rows) - 1 and len(row) < len(titles) else ""
            raise UserError(f"{source}: {what}line {r + 2} has {len(row)} fields, expected {len(titles)}")
        for c, text in enumerate(row):
            if text.strip():
                try:
                    out[r, c] = float(text)
                except ValueError:
                    line = f"line {r + 2}, column {titles[c]!r}"
                    raise UserError(f"{source}: {line}: expected a number, got {text!r}") from None
    return out


def _split(title: str) -> tuple[str, str]:
    for separator in _SEPARATORS:
        group, found, element = title.rpartition(separator)
        if found and group and element:
            return group, element
    if title.endswith("]") and "[" in title:
        return title[: title.rindex("[")], title[title.rindex("[") + 1 : -1]
    return title, "0"


def read_npz(source: Path) -> Log:
    """Arrays TOPIC/time [T] s, TOPIC/values [T, n] and TOPIC/names [n]; `meta`, a JSON text, may hold the contract.

    Raises:
        UserError: it is damaged, or an array is missing.
    """
    try:
        with np.load(io.BytesIO(source.read_bytes()), allow_pickle=False) as file:
            arrays = {name: np.asarray(file[name]) for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{source}: is damaged or cut off, expected an .npz: {' '.join(str(error).split())}") from None
    signals: dict[str, Signal] = {}
    for key in arrays:
        if not key.endswith("/values"):
            continue
        name = key.removesuffix("/values")
        if f"{name}/time" not in arrays:
            raise UserError(f"{source}: {key!r} has no {name + '/time'!r} beside it")
        values = np.asarray(arrays[key])
        try:
            values = values.astype(np.float64).reshape(len(values), -1)
            time = np.asarray(arrays[f"{name}/time"]).astype(np.float64).reshape(-1)
        except (TypeError, ValueError):
            raise UserError(f"{source}: {key!r}: expected numbers [T, n]") from None
        names = arrays.get(f"{name}/names", np.arange(values.shape[1]).astype(str))
        signals[name] = checked(source, name, time, values, tuple(str(e) for e in names))
    if not signals:
        raise UserError(f"{source}: expected arrays TOPIC/time and TOPIC/values, got {listed(arrays)}")
    return Log(signals, _contract(arrays.get("meta")), source)


def _contract(meta: Any) -> dict[str, Any] | None:
    if meta is None:
        return None
    try:
        document = json.loads(str(meta))
    except ValueError:
        return None
    contract = document.get("contract") if isinstance(document, dict) else None
    return contract if isinstance(contract, dict) else None
