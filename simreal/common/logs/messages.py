"""ROS 2 messages as rows of numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

Row = tuple[str, float, list[float], tuple[str, ...]]  # name of the signal, time s, values, elements

_JOINT_FIELDS = ("position", "velocity", "effort")
_VECTOR, _QUATERNION = ("x", "y", "z"), ("w", "x", "y", "z")


def rows_of(topic: str, stamp: float, message: Any) -> Iterator[Row]:
    """The rows of one message, recorded at `stamp` s.

    A quaternion always comes out as w, x, y, z, by the names of its fields; joints by the names in the message.
    """
    kind = str(getattr(message, "__msgtype__", "")).rsplit("/", 1)[-1]
    time = _time(message, stamp)
    if kind == "JointState":
        joints = tuple(map(str, message.name))
        for field in _JOINT_FIELDS:
            values = [float(x) for x in getattr(message, field)]
            if values and len(values) == len(joints):
                yield f"{topic}:{field}", time, values, joints
    elif kind == "JointTrajectory":
        if len(message.points):
            joints = tuple(map(str, message.joint_names))
            for field, name in (("positions", "position"), ("velocities", "velocity"), ("effort", "effort")):
                values = [float(x) for x in getattr(message.points[0], field)]
                if values and len(values) == len(joints):
                    yield f"{topic}:{name}", time, values, joints
    elif kind in ("Float64MultiArray", "Float32MultiArray"):
        values = [float(x) for x in message.data]
        if values:
            yield topic, time, values, _labels(message, len(values))
    else:
        yield from _fields(topic, time, message)


def _time(message: Any, stamp: float) -> float:
    """The time of a message's header, s; of the recording, where it has none or nobody set it."""
    header = getattr(message, "header", None)
    if header is None:
        return stamp
    time = header.stamp.sec + 1e-9 * header.stamp.nanosec
    return time if time > 0.0 else stamp


def _labels(message: Any, count: int) -> tuple[str, ...]:
    """Names of an array's values: its label "component|element,element", or numbers."""
    dims = message.layout.dim
    _, _, names = str(dims[0].label).partition("|") if len(dims) else ("", "", "")
    elements = tuple(name.strip() for name in names.split(",")) if names else ()
    return elements if len(elements) == count else tuple(str(i) for i in range(count))


def _fields(name: str, time: float, message: Any) -> Iterator[Row]:
    """One signal for each group of numbers in a message of any type, however deep."""
    fields = getattr(message, "__dataclass_fields__", {})
    plain: dict[str, float] = {}
    for key in fields:
        value = getattr(message, key)
        if key.startswith("__") or key == "header" or isinstance(value, str):
            continue
        if isinstance(value, (bool, int, float, np.number)):
            plain[key] = float(value)
        elif isinstance(value, np.ndarray) and value.dtype.kind in "fiub" and value.size:
            yield f"{name}:{key}", time, value.astype(float).tolist(), tuple(str(i) for i in range(value.size))
        elif hasattr(value, "__dataclass_fields__"):
            separator = ":" if ":" not in name else "."
            yield from _fields(f"{name}{separator}{key}", time, value)
    if set(plain) == set(_QUATERNION):
        yield name, time, [plain[axis] for axis in _QUATERNION], _QUATERNION
    elif plain:
        yield name, time, list(plain.values()), tuple(plain)
