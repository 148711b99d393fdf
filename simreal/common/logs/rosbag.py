"""Logs of ROS 2: single MCAP or SQLite files and rosbag2 directories, read with `rosbags`; no ROS is needed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from simreal.common.errors import UserError
from simreal.common.logs.messages import rows_of
from simreal.common.logs.signals import Log, Signal, checked

_CONTRACT = "/simreal/contract"
_TOO_LONG = 20_000_000  # numbers in a log: a day of a quadruped at 50 Hz has 500 million, and no memory holds it


def read_bag(source: Path) -> Log:
    """All numbers of a bag's messages: of `sensor_msgs/JointState`, `Imu`, `Float64MultiArray` and `JointTrajectory` as
    robotics has them, of other messages every field that is a number.

    Times are those of the messages' headers, where they have one that is set; otherwise those of the recording.

    Raises:
        UserError: `rosbags` is missing, the bag is damaged, cut off or has no messages.
    """
    try:
        from rosbags.highlevel import AnyReader
        from rosbags.typesys import Stores, get_typestore
    except ImportError:
        raise UserError(f"{source}: reading it needs the package rosbags: pip install 'simreal[robot]'") from None
    times: dict[str, list[float]] = {}
    rows: dict[str, list[Any]] = {}
    names: dict[str, tuple[str, ...]] = {}
    contract: dict[str, Any] | None = None
    total = 0
    try:
        with AnyReader([source], default_typestore=get_typestore(Stores.ROS2_HUMBLE)) as reader:
            for topic, stamp, message in _messages(reader):
                if topic == _CONTRACT:
                    contract = json.loads(message.data)
                    continue
                for name, at, values, elements in rows_of(topic, stamp, message):
                    if names.setdefault(name, elements) != elements:
                        values = _in_order(source, name, values, elements, names[name])
                    times.setdefault(name, []).append(at)
                    rows.setdefault(name, []).append(values)
                    total += len(values)
                if total > _TOO_LONG:
                    raise UserError(f"{source}: is too long; expected {_TOO_LONG:,} numbers at most: cut a part out")
    except UserError:
        raise
    except Exception as error:  # what rosbags, zstandard, lz4, sqlite3, yaml and struct raise has no common base
        what = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{source}: is damaged, cut off or no bag of ROS 2: {what}") from None
    signals: dict[str, Signal] = {}
    for name, values in rows.items():
        time = np.array(times[name])
        signals[name] = checked(source, name, time, np.array(values, dtype=np.float64), names[name])
    return Log(signals, contract, source)


def _messages(reader: Any) -> Iterator[tuple[str, float, Any]]:
    """Topic, time in s and content of every message whose type is known."""
    known = [c for c in reader.connections if c.msgtype in reader.typestore.fielddefs]
    for connection, stamp, raw in reader.messages(connections=known) if known else ():
        yield connection.topic, stamp * 1e-9, reader.deserialize(raw, connection.msgtype)


def _in_order(
    source: Path, name: str, values: list[float], elements: tuple[str, ...], first: tuple[str, ...]
) -> list[float]:
    """Values of a message that names its elements in another order than the first did. Raises UserError."""
    if sorted(elements) != sorted(first):
        raise UserError(f"{source}: {name}: messages with different elements: {first}, later {elements}")
    return [values[elements.index(element)] for element in first]
