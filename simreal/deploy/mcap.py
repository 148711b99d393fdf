"""Writes ROS 2 messages into an MCAP file that is whole after every flush, without any dependency.

MCAP: https://mcap.dev/spec; messages as CDR (OMG DDS-RTPS 2.5, 10.2), as rosbag2 stores them. Each flush writes a chunk
and, behind it, the records that end a file; the next one begins in their place, so a process that dies leaves a file
that every reader takes. Part of `simreal.deploy`, which imports nothing else of simreal.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

from .targets import Numbers

_MAGIC = b"\x89MCAP0\r\n"
_HEADER, _FOOTER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _MESSAGE_INDEX, _CHUNK_INDEX = 1, 2, 3, 4, 5, 6, 7, 8
_STATISTICS, _DATA_END = 11, 15
_ENDIAN = b"\x00\x01\x00\x00"  # CDR, little

JOINT_STATE, MULTI_ARRAY, STRING = "sensor_msgs/msg/JointState", "std_msgs/msg/Float64MultiArray", "std_msgs/msg/String"
_RULE = "=" * 80
DEFINITIONS = {
    JOINT_STATE: f"""std_msgs/Header header
string[] name
float64[] position
float64[] velocity
float64[] effort
{_RULE}
MSG: std_msgs/Header
builtin_interfaces/Time stamp
string frame_id
{_RULE}
MSG: builtin_interfaces/Time
int32 sec
uint32 nanosec
""",
    MULTI_ARRAY: f"""std_msgs/MultiArrayLayout layout
float64[] data
{_RULE}
MSG: std_msgs/MultiArrayLayout
std_msgs/MultiArrayDimension[] dim
uint32 data_offset
{_RULE}
MSG: std_msgs/MultiArrayDimension
string label
uint32 size
uint32 stride
""",
    STRING: "string data\n",
}


def _text(text: str) -> bytes:
    """A string as MCAP has it."""
    raw = text.encode()
    return struct.pack("<I", len(raw)) + raw


def _record(opcode: int, body: bytes) -> bytes:
    return struct.pack("<BQ", opcode, len(body)) + body


class _Cdr(bytearray):
    """Bytes of a message after the four that say how it is encoded."""

    def align(self, size: int) -> None:
        self.extend(bytes(-len(self) % size))

    def uint32(self, number: int) -> None:
        self.align(4)
        self += struct.pack("<I", number)

    def string(self, text: str) -> None:
        raw = text.encode() + b"\0"
        self.uint32(len(raw))
        self += raw

    def doubles(self, number: int) -> int:
        """Room for a sequence; returns where its values begin."""
        self.uint32(number)
        if number:
            self.align(8)
        at = len(self)
        self.extend(bytes(8 * number))
        return at


class JointMessage:
    """sensor_msgs/JointState of always the same joints.

    Args:
        names: of the joints.
        fields: which of "position", "velocity", "effort" are filled; None stands for one that is left empty.
    """

    type = JOINT_STATE

    def __init__(self, names: Sequence[str], fields: Sequence[str]) -> None:
        cdr = _Cdr(bytes(8))  # the stamp
        cdr.string("")
        cdr.uint32(len(names))
        for name in names:
            cdr.string(name)
        self._places = {
            field: cdr.doubles(len(names) if field in fields else 0) for field in ("position", "velocity", "effort")
        }
        self._size, self._raw = 8 * len(names), cdr

    def bytes_of(self, stamp_ns: int, values: dict[str, Numbers]) -> bytes:
        """The message for values [joints] by field."""
        struct.pack_into("<iI", self._raw, 0, *divmod(stamp_ns, 1_000_000_000))
        for field, array in values.items():
            at = self._places[field]
            self._raw[at : at + self._size] = array.tobytes()
        return _ENDIAN + self._raw


class ArrayMessage:
    """std_msgs/Float64MultiArray of always the same length, with a label."""

    type = MULTI_ARRAY

    def __init__(self, label: str, size: int) -> None:
        cdr = _Cdr()
        cdr.uint32(1)
        cdr.string(label)
        for number in (size, size, 0):  # size, stride; offset of the data
            cdr.uint32(number)
        self._at, self._size, self._raw = cdr.doubles(size), 8 * size, cdr

    def bytes_of(self, values: Numbers) -> bytes:
        """The message for values [size]."""
        self._raw[self._at : self._at + self._size] = values.tobytes()
        return _ENDIAN + self._raw


def string_message(text: str) -> bytes:
    """std_msgs/String."""
    cdr = _Cdr()
    cdr.string(text)
    return _ENDIAN + bytes(cdr)


class McapWriter:
    """One file.

    Args:
        path: of the file, which must not be there.
        topics: name -> message type.

    Attributes:
        counts: messages by topic.
        begin_ns, end_ns: times of the first and the last message.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, path: Path, topics: dict[str, str]) -> None:
        kinds = sorted(set(topics.values()))
        schemas = [_record(_SCHEMA, struct.pack("<H", i) + _text(k) + _text("ros2msg") + _text(DEFINITIONS[k]))
                   for i, k in enumerate(kinds, 1)]  # fmt: skip
        channels = [
            _record(_CHANNEL, struct.pack("<HH", i, kinds.index(k) + 1) + _text(name) + _text("cdr") + _text(""))
            for i, (name, k) in enumerate(topics.items(), 1)
        ]
        self._numbers = {name: i for i, name in enumerate(topics, 1)}
        self.counts = dict.fromkeys(topics, 0)
        self.begin_ns, self.end_ns = 0, 0
        self._schemas, self._channels = schemas, channels
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o644)
        self._indices: list[bytes] = []
        self._chunk, self._index = bytearray(b"".join([*schemas, *channels])), dict[int, list[tuple[int, int]]]()
        head = _MAGIC + _record(_HEADER, _text("ros2") + _text("simreal"))
        self._end = len(head)
        self._put(head + _ending(b"", 0), 0)

    def add(self, topic: str, time_ns: int, message: bytes) -> None:
        """A message, which reaches the file with the next flush."""
        number = self._numbers[topic]
        self._index.setdefault(number, []).append((time_ns, len(self._chunk)))
        self._chunk += struct.pack("<BQHIQQ", _MESSAGE, 22 + len(message), number, 0, time_ns, time_ns)
        self._chunk += message
        self.begin_ns = min(self.begin_ns or time_ns, time_ns)
        self.end_ns = max(self.end_ns, time_ns)
        self.counts[topic] += 1

    def flush(self) -> None:
        """Write what has been added. Raises OSError."""
        if self._index:
            chunk = self._take_chunk()
            self._put(chunk + _ending(b"", 0), self._end)
            self._end += len(chunk)
        os.fsync(self._file)

    def close(self) -> None:
        """Write what has been added, and an index by which readers find parts of the file. Raises OSError."""
        if self._index:
            chunk = self._take_chunk()
            self._put(chunk, self._end)
            self._end += len(chunk)
        counts = b"".join(struct.pack("<HQ", self._numbers[name], count) for name, count in self.counts.items())
        statistics = struct.pack("<QHIIIIQQI", sum(self.counts.values()), len(self._schemas), len(self._channels), 0, 0,
                                 len(self._indices), self.begin_ns, self.end_ns, len(counts))  # fmt: skip
        summary = [*self._schemas, *self._channels, *self._indices, _record(_STATISTICS, statistics + counts)]
        self._put(_ending(b"".join(summary), self._end), self._end)
        os.fsync(self._file)
        os.close(self._file)

    def _take_chunk(self) -> bytes:
        """The records of what has been added, which begin at `_end`."""
        times = [time for rows in self._index.values() for time, _ in rows]
        raw = bytes(self._chunk)
        about = struct.pack("<QQQI", min(times), max(times), len(raw), zlib.crc32(raw)) + _text("")
        chunk = _record(_CHUNK, about + struct.pack("<Q", len(raw)) + raw)
        places, index = b"", b""
        for number, rows in self._index.items():
            places += struct.pack("<HQ", number, self._end + len(chunk) + len(index))
            body = struct.pack("<HI", number, 16 * len(rows)) + b"".join(struct.pack("<QQ", *row) for row in rows)
            index += _record(_MESSAGE_INDEX, body)
        where = struct.pack("<QQQQI", min(times), max(times), self._end, len(chunk), len(places)) + places
        self._indices.append(
            _record(
                _CHUNK_INDEX, where + struct.pack("<Q", len(index)) + _text("") + struct.pack("<QQ", len(raw), len(raw))
            )
        )
        self._chunk, self._index = bytearray(), {}
        return chunk + index

    def _put(self, raw: bytes, at: int) -> None:
        while raw:
            done = os.pwrite(self._file, raw, at)
            raw, at = raw[done:], at + done


def _ending(summary: bytes, data_end: int) -> bytes:
    """The records that end a file whose data end at `data_end`."""
    end = _record(_DATA_END, bytes(4))
    start = data_end + len(end) if summary else 0
    return end + summary + _record(_FOOTER, struct.pack("<QQI", start, 0, 0)) + _MAGIC
