"""Records every cycle of a controller, without making it wait: a thread writes what the loop hands over.

A path without a suffix becomes a rosbag2 directory, `.mcap` a single file, `.npz` NumPy arrays; `docs/robot.md` says
what is in them. Part of `simreal.deploy`, which imports nothing else of simreal.
"""

from __future__ import annotations

import io
import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..bundle_reader import Layout
from ..mcap import STRING, ArrayMessage, JointMessage, McapWriter, string_message
from ..targets import Numbers
from .events import Event
from .limits import Joints

CYCLE = ("lateness_s", "read_s", "decide_s", "write_s", "age_of_oldest_sensor_s", "state")
_MOST_WAITING = 3000  # rows that wait for the writer; a minute at 50 Hz
_FLUSH_S = 0.5  # what a crash can lose
_FIELDS = {"rad": "position", "m": "position", "rad/s": "velocity", "m/s": "velocity", "N m": "effort", "N": "effort"}


@dataclass(frozen=True)
class Track:
    """One topic: columns [start, stop) of the rows that the loop hands over.

    Attributes:
        topic: its name.
        names: of the values.
        start, stop: of the columns; where two fields are filled, positions and then velocities.
        fields: of sensor_msgs/JointState; empty: a std_msgs/Float64MultiArray.
        stamp: column of the time of measurement; None: the time of the cycle.
    """

    topic: str
    names: tuple[str, ...]
    start: int
    stop: int
    fields: tuple[str, ...] = ()
    stamp: int | None = None


class Tracks:
    """Which topics there are, and where their values lie in a row.

    A row is time, stamps of the observation's components, observation, action, targets, what was sent, positions and
    velocities of the joints, and the cycle's own numbers; NaN where there is nothing.
    """

    def __init__(
        self, layout: Layout, contract: Mapping[str, Any], joints: Mapping[str, Joints], sent_units: Mapping[str, str]
    ) -> None:
        self.tracks: list[Track] = []
        at = 1
        components = list(zip(layout.observation, contract["observation"], strict=True))
        self.stamps = slice(at, at := at + len(components))
        for i, (part, entry) in enumerate(components):
            group = "observation" if entry.get("measured", True) else "inputs"
            names, size = tuple(entry.get("joints") or ()), part.stop - part.start
            field = _FIELDS.get(entry.get("unit", "")) if len(names) == size else None
            begin = self.stamps.stop + part.start
            self._add(f"{group}/{part.name}", names if field else _names(part.elements, size), begin, size, field,
                      self.stamps.start + i)  # fmt: skip
        self.observation = slice(at, at := at + layout.observation[-1].stop)
        self.action = slice(at, at := at + layout.action[-1].stop)
        elements = [f"{part.name}.{name}" for part in layout.action for name in _names(part.elements, len(part.scale))]
        self._add("action", tuple(elements), self.action.start, len(elements), None)
        size = layout.action[-1].sent.stop
        self.target, self.sent, self.positions, self.velocities = (
            slice(at + k * size, at + (k + 1) * size) for k in range(4)
        )
        for part in layout.action:
            known, count, first = joints[part.name], len(part.low), part.sent.start
            for group, block, unit in (
                ("target", self.target, known.unit), ("sent", self.sent, sent_units.get(part.name, known.unit))
            ):  # fmt: skip
                field = _FIELDS.get(unit) if known.names else None
                names = known.names if field else _names(known.names or part.elements, count)
                self._add(f"{group}/{part.name}", names, block.start + first, count, field)
            if known.names:
                self.tracks.append(
                    Track(f"/simreal/measured/{part.name}", known.names, self.positions.start + first,
                          self.positions.start + first + count, ("position", "velocity"))
                )  # fmt: skip
        at += 4 * size
        self.cycle = slice(at, at + len(CYCLE))
        self._add("cycle", CYCLE, at, len(CYCLE), None)
        self.width, self.velocity_shift = at + len(CYCLE), size

    def _add(
        self, name: str, names: tuple[str, ...], start: int, size: int, field: str | None, stamp: int | None = None
    ) -> None:
        fields = (field,) if field else ()
        self.tracks.append(Track(f"/simreal/{name}", names, start, start + size, fields, stamp))


def _names(elements: Sequence[str], size: int) -> tuple[str, ...]:
    return tuple(elements) if len(elements) == size else tuple(map(str, range(size)))


@dataclass(frozen=True)
class Counts:
    """What became of the rows: written, lost because the disk was too slow, and what went wrong in writing ("" if
    nothing)."""

    written: int
    dropped: int
    failed: str


class _Sink(Protocol):
    """Where rows and events go; called by the writer's thread only."""

    def row(self, row: Numbers, time_ns: Callable[[float], int]) -> None: ...
    def event(self, event: Event, time_ns: int) -> None: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...


class Recorder:
    """Takes rows and events at once, and writes them in a thread of its own.

    Args:
        path: of the log, which must not be there.
        tracks: what a row is.
        contract: of the policy.
        clock: the controller's, s.
        begin: when it was made.

    Attributes:
        path: of the log.
        failed: what went wrong in writing; "" where nothing did. The rest is then not recorded.
        dropped: rows that were lost because the disk was too slow, or the log had ended.

    Raises:
        ValueError: there is something already, or nothing can be written there.
    """

    def __init__(
        self, path: Path, tracks: Tracks, contract: Mapping[str, Any], clock: Callable[[], float], begin: float
    ) -> None:
        if path.exists():
            raise ValueError(f"{path}: is there already; a log is not written over another one")
        self.path, now, wall = path, clock(), time.time_ns()
        self._time_ns: Callable[[float], int] = lambda t: wall + round((t - now) * 1e9)
        self._begin, self._waiting = begin, deque[Numbers | Event]()
        self.failed, self.dropped, self.rows = "", 0, 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._sink: _Sink = (
                NpzLog(path, tracks, contract) if path.suffix == ".npz" else RosLog(path, tracks, contract, wall)
            )
        except OSError as error:
            raise ValueError(f"{path}: cannot be written: {error.strerror}") from None
        self._wake, self._done, self._closing = threading.Event(), threading.Event(), False
        self._thread = threading.Thread(target=self._work, name="simreal-log", daemon=True)
        self._thread.start()

    def add(self, entry: Numbers | Event) -> None:
        """A row [width], which is not changed afterwards, or an event."""
        if len(self._waiting) >= _MOST_WAITING or self._closing:
            self.dropped += 1
        elif not self.failed:
            self._waiting.append(entry)

    def counts(self) -> Counts:
        """So far."""
        return Counts(self.rows, self.dropped, self.failed)

    def close(self, within_s: float = 10.0) -> None:
        """Write everything and end the log."""
        self._closing = True
        self._wake.set()
        self._thread.join(within_s)

    def _work(self) -> None:
        try:
            while True:
                last = self._closing
                self._wake.wait(0.0 if last else _FLUSH_S)
                while self._waiting:
                    entry = self._waiting.popleft()
                    if isinstance(entry, Event):
                        self._sink.event(entry, self._time_ns(self._begin + entry.t))
                    else:
                        self._sink.row(entry, self._time_ns)
                        self.rows += 1
                    time.sleep(0)  # the loop may want to run
                if last:
                    return self._sink.close()
                self._sink.flush()
        except Exception as error:
            self.failed = f"{type(error).__name__}: {error}"
            self._waiting.clear()


class RosLog:
    """A rosbag2 directory with one MCAP file, or that file alone."""

    def __init__(self, path: Path, tracks: Tracks, contract: Mapping[str, Any], now_ns: int) -> None:
        self._tracks = [(track, self._message(track)) for track in tracks.tracks]
        self._shift = tracks.velocity_shift
        topics = {track.topic: message.type for track, message in self._tracks}
        self._topics = topics | {"/simreal/event": STRING, "/simreal/contract": STRING}
        self._folder = None if path.suffix == ".mcap" else path
        if self._folder is not None:
            self._folder.mkdir()
        self._file = path if self._folder is None else self._folder / f"{path.name}_0.mcap"
        self._writer = McapWriter(self._file, self._topics)
        self._writer.add("/simreal/contract", now_ns, string_message(json.dumps(contract)))
        self.flush()

    @staticmethod
    def _message(track: Track) -> JointMessage | ArrayMessage:
        if track.fields:
            return JointMessage(track.names, track.fields)
        label = f"{track.topic.rsplit('/', 1)[-1]}|{','.join(track.names)}"
        return ArrayMessage(label, len(track.names))

    def row(self, row: Numbers, time_ns: Callable[[float], int]) -> None:
        """One message of every topic for which there is something."""
        now = time_ns(row[0])
        for track, message in self._tracks:
            values = row[track.start : track.stop]
            if np.isnan(values[0]):
                continue
            if isinstance(message, ArrayMessage):
                raw = message.bytes_of(values)
            else:
                stamp = row[track.stamp] if track.stamp is not None else np.nan
                found = {track.fields[0]: values}
                if len(track.fields) > 1:
                    found[track.fields[1]] = row[track.start + self._shift : track.stop + self._shift]
                raw = message.bytes_of(now if np.isnan(stamp) else time_ns(stamp), found)
            self._writer.add(track.topic, now, raw)

    def event(self, event: Event, time_ns: int) -> None:
        """An event, as JSON."""
        self._writer.add("/simreal/event", time_ns, string_message(event.json()))

    def flush(self) -> None:
        """Make the log whole as it is. Raises OSError."""
        self._writer.flush()
        self._metadata()

    def close(self) -> None:
        """End the log. Raises OSError."""
        self._writer.close()
        self._metadata()

    def _metadata(self) -> None:
        """metadata.yaml as rosbag2 has it (version 5: ROS 2 Humble)."""
        if self._folder is None:
            return
        writer, total = self._writer, sum(self._writer.counts.values())
        begin, duration = f"nanoseconds_since_epoch: {writer.begin_ns}", writer.end_ns - writer.begin_ns
        span = lambda indent: [f"{indent}{line}" for line in  # noqa: E731
                               ("duration:", f"  nanoseconds: {duration}", "starting_time:", f"  {begin}")]  # fmt: skip
        lines = ["rosbag2_bagfile_information:", "  version: 5", "  storage_identifier: mcap", *span("  ")]
        lines += [f"  message_count: {total}", "  topics_with_message_count:"]
        for name, kind in self._topics.items():
            lines += ["    - topic_metadata:", f"        name: {json.dumps(name)}", f"        type: {kind}"]
            lines += ["        serialization_format: cdr", '        offered_qos_profiles: ""']
            lines.append(f"      message_count: {writer.counts[name]}")
        lines += ['  compression_format: ""', '  compression_mode: ""']
        lines += ["  relative_file_paths:", f"    - {self._file.name}", "  files:", f"    - path: {self._file.name}"]
        lines += [*span("      "), f"      message_count: {total}", ""]
        text = "\n".join(lines)
        _replace(self._folder / "metadata.yaml", text.encode())


class NpzLog:
    """Rows in `NAME.npz.part` while the controller runs; arrays in NAME.npz when it ends, or by `recover`."""

    def __init__(self, path: Path, tracks: Tracks, contract: Mapping[str, Any]) -> None:
        self._path, self._part = path, path.with_name(f"{path.name}.part")
        head = {
            "width": tracks.width, "velocity_shift": tracks.velocity_shift, "contract": contract,
            "tracks": [vars(track) for track in tracks.tracks],
        }  # fmt: skip
        self._file = open(self._part, "xb", buffering=1 << 20)  # noqa: SIM115 - as long as the controller runs
        self._file.write(json.dumps(head).encode() + b"\n")
        self.flush()

    def row(self, row: Numbers, time_ns: Callable[[float], int]) -> None:
        """Its bytes, with the time since 1970 in place of the clock's."""
        row = row.copy()
        row[0] = time_ns(row[0]) * 1e-9
        self._file.write(b"R" + row.tobytes())

    def event(self, event: Event, time_ns: int) -> None:
        """Its line of JSON."""
        del time_ns
        self._file.write(b"E" + event.json().encode() + b"\n")

    def flush(self) -> None:
        """Hand everything to the disk. Raises OSError."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Make the arrays. Raises OSError."""
        self._file.close()
        recover(self._part, self._path)
        self._part.unlink()


def recover(part: Path, path: Path) -> None:
    """Make an .npz log of the `.npz.part` that a controller which was killed left behind.

    Args:
        part: what it left.
        path: of the log.

    Raises:
        ValueError: that is no such file.
        OSError: it cannot be read, or the log not be written.
    """
    with open(part, "rb") as file:
        try:
            head = json.loads(file.readline())
            size = 8 * head["width"]
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{part}: not what a controller's log leaves behind") from None
        rows, events = list[bytes](), list[Any]()
        while kind := file.read(1):
            raw = file.read(size) if kind == b"R" else file.readline()
            if kind == b"R" and len(raw) == size:
                rows.append(raw)
            elif kind == b"E" and raw.endswith(b"\n"):
                events.append(json.loads(raw))
    table = np.frombuffer(b"".join(rows)).reshape(-1, head["width"])
    meta = {"format": "simreal-log", "contract": head["contract"], "events": events}
    arrays: dict[str, Any] = {"meta": np.array(json.dumps(meta))}
    for entry in head["tracks"]:
        track = Track(**entry)
        values, names = table[:, track.start : track.stop], list(track.names)
        there = ~np.isnan(values[:, 0])
        blocks = {track.topic: values}
        if len(track.fields) > 1:
            shift = head["velocity_shift"]
            both = (values, table[:, track.start + shift : track.stop + shift])
            blocks = {f"{track.topic}:{field}": block for field, block in zip(track.fields, both, strict=True)}
        for topic, block in blocks.items():
            arrays |= {f"{topic}/time": table[there, 0], f"{topic}/values": block[there]}
            arrays[f"{topic}/names"] = np.array(names)
    raw = io.BytesIO()
    np.savez_compressed(raw, **arrays)
    _replace(path, raw.getvalue())


def _replace(path: Path, raw: bytes) -> None:
    """Write a file in one go."""
    new = path.with_name(f"{path.name}.new")
    new.write_bytes(raw)
    os.replace(new, path)
