"""Unitree's LowCmd and LowState (the Go2's layout, which SDK2 also speaks to other quadrupeds), with their checksum.

Definitions: unitree_sdk2, idl/unitree_go. Motors 0 to 11 are FR, FL, RR, RL with hip, thigh, calf each; 12 to 19 are
not used. Messages have a fixed size, so they are packed at once: Cyclone's own serializer takes ten times as long.
"""

from __future__ import annotations

import array
import struct
import zlib
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, Self

LEGS = ("FR", "FL", "RR", "RL")
MOTORS = tuple(f"{leg}_{joint}_joint" for leg in LEGS for joint in ("hip", "thigh", "calf"))
HEAD, LOW_LEVEL = (0xFE, 0xEF), 0xFF  # of commands to motors: head, level_flag
SERVO = 1  # mode of a motor that is driven
POSITION_STOP, VELOCITY_STOP = 2.146e9, 16000.0  # of motors that are told nothing (the SDK's PosStopF, VelStopF)
CMD_TOPIC, STATE_TOPIC = "rt/lowcmd", "rt/lowstate"

# Fields as in the IDL files: how many of what; letters are those of Python's `struct`.
_STRUCTS: dict[str, str] = {
    "MotorCmd_": "mode:B q:f dq:f tau:f kp:f kd:f reserve:3I",
    "BmsCmd_": "off:B reserve:3B",
    "LowCmd_": "head:2B level_flag:B frame_reserve:B sn:2I version:2I bandwidth:H motor_cmd:20MotorCmd_ "
    "bms_cmd:BmsCmd_ wireless_remote:40B led:12B fan:2B gpio:B reserve:I crc:I",
    "IMUState_": "quaternion:4f gyroscope:3f accelerometer:3f rpy:3f temperature:B",
    "MotorState_": "mode:B q:f dq:f ddq:f tau_est:f q_raw:f dq_raw:f ddq_raw:f temperature:B lost:I reserve:2I",
    "BmsState_": "version_high:B version_low:B status:B soc:B current:i cycle:H bq_ntc:2B mcu_ntc:2B cell_vol:15H",
    "LowState_": "head:2B level_flag:B frame_reserve:B sn:2I version:2I bandwidth:H imu_state:IMUState_ "
    "motor_state:20MotorState_ bms_state:BmsState_ foot_force:4h foot_force_est:4h tick:I wireless_remote:40B "
    "bit_flag:B adc_reel:f temperature_ntc1:B temperature_ntc2:B power_v:f power_a:f fan_frequency:4H reserve:I crc:I",
}
_SIZES = {"B": 1, "b": 1, "H": 2, "h": 2, "I": 4, "i": 4, "f": 4}
_IDL = {"B": "uint8", "b": "int8", "H": "uint16", "h": "int16", "I": "uint32", "i": "int32", "f": "float32"}
_HEADER = b"\x00\x01\x00\x00"  # of CDR: little-endian, plain
_REVERSED = bytes(int(f"{i:08b}"[::-1], 2) for i in range(256))


def _fields(kind: str) -> Iterator[tuple[str, int, str]]:
    """Name, count (0: not an array) and letter or struct of the fields of a struct."""
    for field in _STRUCTS[kind].split():
        name, _, what = field.partition(":")
        digits = what[: len(what) - len(what.lstrip("0123456789"))]
        yield name, int(digits or 0), what[len(digits) :]


def _alignment(kind: str) -> int:
    """What the C compiler aligns a field of this kind to."""
    return _SIZES[kind] if kind in _SIZES else max(_alignment(what) for _, _, what in _fields(kind))


def _flat(kind: str, prefix: str = "") -> Iterator[tuple[str, str, int]]:
    """Path, letter, and what C aligns it to, of each value in a struct."""
    for name, count, what in _fields(kind):
        for _ in range(count or 1):
            if what in _SIZES:
                yield prefix + name, what, _SIZES[what]
                continue
            start = _alignment(what)  # of a struct inside a struct; CDR aligns numbers only
            for path, letter, align in _flat(what, f"{prefix}{name}."):
                yield path, letter, max(align, start)
                start = 1


class Layout:
    """How a message lies in memory and on the wire.

    Args:
        kind: "LowCmd_" or "LowState_".

    Attributes:
        places: path of a field, as "motor_cmd.q" -> its places among all values, in order.
        size: number of values.
    """

    def __init__(self, kind: str) -> None:
        self.kind, self.places = kind, dict[str, list[int]]()
        cdr, c, at_cdr, at_c = "<", "<", 0, 0
        for number, (path, letter, aligned) in enumerate(_flat(kind)):
            self.places.setdefault(path, []).append(number)
            size = _SIZES[letter]
            pad_cdr, pad_c = -at_cdr % size, -at_c % aligned
            cdr, c = f"{cdr}{pad_cdr}x{letter}", f"{c}{pad_c}x{letter}"
            at_cdr, at_c = at_cdr + pad_cdr + size, at_c + pad_c + size
        self.size = sum(map(len, self.places.values()))
        self.cdr, self.c = struct.Struct(cdr), struct.Struct(c)

    def crc(self, values: Sequence[Any]) -> int:
        """The SDK's checksum: CRC-32/MPEG-2 of the message in C's memory, each of its words with the highest byte
        first, without the last word, which holds it."""
        words = array.array("I", self.c.pack(*values)[:-4])
        words.byteswap()
        # zlib's is the same polynomial with all bits the other way round, and inverted at the end
        reflected = zlib.crc32(words.tobytes().translate(_REVERSED)) ^ 0xFFFFFFFF
        return int(f"{reflected:032b}"[::-1], 2)


@cache
def layout(kind: str) -> Layout:
    """The layout of "LowCmd_" or "LowState_"."""
    return Layout(kind)


class Packet:
    """A LowCmd or LowState: all of its values, by the path of their field.

    Args:
        kind: "LowCmd_" or "LowState_".
        values: all of them, in the order of the definition; zeros where left out, which is no command that motors obey.
    """

    def __init__(self, kind: str, values: Sequence[Any] | None = None) -> None:
        self.layout = layout(kind)
        self.values: list[Any] = [0] * self.layout.size if values is None else list(values)

    def __getitem__(self, path: str) -> list[Any]:
        return [self.values[i] for i in self.layout.places[path]]

    def __setitem__(self, path: str, values: Sequence[Any]) -> None:
        places = self.layout.places[path]
        if len(places) != len(values):
            raise ValueError(f"{path}: expected {len(places)} values, got {len(values)}")
        for place, value in zip(places, values, strict=True):
            self.values[place] = value

    def sign(self) -> Self:
        """Write its checksum."""
        self["crc"] = [self.layout.crc(self.values)]
        return self

    @property
    def signed(self) -> bool:
        """Whether its checksum is right."""
        return self["crc"] == [self.layout.crc(self.values)]

    def pack(self) -> bytes:
        """CDR, with the four bytes of its header."""
        return _HEADER + self.layout.cdr.pack(*self.values)

    @classmethod
    def parse(cls, kind: str, raw: bytes) -> Packet:
        """The message of CDR bytes with their header.

        Raises:
            ValueError: they are not such a message.
        """
        wanted = layout(kind).cdr
        body = raw[4 : 4 + wanted.size]
        if raw[:2] != _HEADER[:2] or len(body) != wanted.size:
            raise ValueError(f"not a {kind}: expected {4 + wanted.size} bytes of little-endian CDR, got {len(raw)}")
        return cls(kind, wanted.unpack(body))


def low_cmd() -> Packet:
    """A LowCmd that tells no motor anything yet: no stiffness, no damping, no torque."""
    packet = Packet("LowCmd_")
    packet["head"], packet["level_flag"] = HEAD, [LOW_LEVEL]
    packet["motor_cmd.mode"] = [SERVO] * 20
    packet["motor_cmd.q"], packet["motor_cmd.dq"] = [POSITION_STOP] * 20, [VELOCITY_STOP] * 20
    return packet


def _made_of(cls: Any, data: bytes, *_: Any, **__: Any) -> Any:
    return cls(data)


@cache
def wire_type(kind: str) -> type[Any]:
    """The type that Cyclone DDS announces; its samples are made of bytes: `wire_type("LowCmd_")(packet.pack())`."""
    from cyclonedds.idl import make_idl_struct, types

    members: dict[str, Any] = {}
    for name, count, what in _fields(kind):
        one = getattr(types, _IDL[what]) if what in _IDL else wire_type(what)
        members[name] = types.array[one, count] if count else one  # pyright: ignore[reportInvalidTypeArguments]
    made: Any = make_idl_struct(kind, f"unitree_go.msg.dds_.{kind}", members)
    if kind not in ("LowCmd_", "LowState_"):
        return made

    def start(self: Any, raw: bytes) -> None:
        self.raw = raw

    made.__init__ = start
    made.serialize = lambda self, **_: self.raw
    # the second is of a sample that says that its writer is gone
    made.deserialize = made.deserialize_key = classmethod(_made_of)
    return made
