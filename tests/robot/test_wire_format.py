"""Messages byte for byte as independent implementations write them: rosbags for ROS 2, Unitree's SDK for LowCmd."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.typesys import Stores, get_typestore

from simreal.robot import ros_messages as ros
from simreal.robot import unitree_messages as unitree
from simreal.robot.unitree_messages import MOTORS, Packet, low_cmd

STORE = get_typestore(Stores.ROS2_HUMBLE)
VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "unitree_vectors.json").read_text())


def theirs(message: Any) -> tuple[Any, str]:
    """The message of rosbags with the values of ours, and its type."""
    kind = str(message.__idl_typename__).replace("::dds_::", "/").replace("::", "/").rstrip("_")
    values: dict[str, Any] = {}
    for name, value in vars(message).items():
        if isinstance(value, ros.Message):
            values[name] = theirs(value)[0]
        elif isinstance(value, (list, tuple)) and value and isinstance(value[0], ros.Message):
            values[name] = [theirs(one)[0] for one in value]
        elif isinstance(value, (list, tuple)) and name not in ("name", "joint_names", "dim", "points"):
            values[name] = np.array(value, dtype=np.float64)
        else:
            values[name] = value
    return STORE.types[kind](**values), kind


HEADER = ros.Header(ros.Time(1_700_000_000, 123_456_789), "trunk")
MESSAGES = [
    ros.JointState(HEADER, ["a", "knee", "träge"], [0.1, -2.0, 3.5], [1.0, 2.0, 3.0], [-4.0, 0.0, 1e-300]),
    ros.JointState(HEADER, ["a"], [0.5], [], []),
    ros.Imu(HEADER, ros.Quaternion(0.1, 0.2, 0.3, 0.9), angular_velocity=ros.Vector3(1.0, -2.0, 3.0),
            orientation_covariance=(-1.0, *map(float, range(1, 9))), linear_acceleration=ros.Vector3(0.0, 0.0, 9.81)),
    ros.Float64MultiArray.of(["a", "knee"], [1, -2]),
    ros.Float64MultiArray(),
    ros.JointTrajectory.of(["knee", "a"], np.array([0.25, -1.5]), 0.02),
]  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_bytes_of_ros_2_are_those_that_rosbags_writes(message: Any) -> None:
    expected, kind = theirs(message)
    assert message.serialize() == bytes(STORE.serialize_cdr(expected, kind))
    parsed = type(message).parse(message.serialize())
    assert repr(parsed).replace("[", "(").replace("]", ")") == repr(message).replace("[", "(").replace("]", ")")


def test_bytes_that_are_no_message_are_named_and_not_trusted() -> None:
    raw = MESSAGES[0].serialize()
    for spoilt in (raw[:40], b"\x00\x01\x00\x00", raw[:12] + b"\xff" * 8 + raw[20:]):
        with pytest.raises(ValueError, match="not a sensor_msgs::msg::dds_::JointState_"):
            ros.JointState.parse(spoilt)
    with pytest.raises(ValueError, match=r"expected 812 bytes of little-endian CDR, got 12"):
        Packet.parse("LowCmd_", b"\x00\x01\x00\x00 2 bytes")


def test_integers_become_the_numbers_that_they_are() -> None:
    assert ros.Float64MultiArray.parse(ros.Float64MultiArray.of(["a", "b"], np.array([1, -2])).serialize()).data == [
        1,
        -2,
    ]


@pytest.mark.parametrize("kind", ["LowCmd_", "LowState_"])
def test_unitree_s_messages_are_those_that_its_sdk_has_written(kind: str) -> None:
    known = VECTORS[kind]
    packet = Packet.parse(kind, bytes.fromhex(known["raw"]))
    assert packet.pack().hex() == known["raw"]
    assert packet["crc"] == [known["crc"]] == [packet.layout.crc(packet.values)]
    assert {path: packet[path] for path in known if path not in ("raw", "crc")} == {
        path: value for path, value in known.items() if path not in ("raw", "crc")
    }


def test_one_wrong_bit_is_noticed_by_the_checksum() -> None:
    raw = bytearray.fromhex(VECTORS["LowCmd_"]["raw"])
    assert Packet.parse("LowCmd_", bytes(raw)).signed
    raw[100] ^= 4
    assert not Packet.parse("LowCmd_", bytes(raw)).signed


@pytest.mark.parametrize("kind", ["LowCmd_", "LowState_"])
def test_random_messages_are_as_the_installed_sdk_writes_and_signs_them(kind: str) -> None:
    pytest.importorskip("cv2", reason="unitree-sdk2py imports OpenCV")
    crc = pytest.importorskip("unitree_sdk2py.utils.crc").CRC()
    dds = pytest.importorskip("unitree_sdk2py.idl.unitree_go.msg.dds_")
    chance = random.Random(1)
    draw = {"f": lambda: chance.randrange(-999, 999) / 8, "i": lambda: chance.randrange(-(2**31), 2**31)}
    for _ in range(5):
        letters = [letter for _, letter, _ in unitree._flat(kind)]
        values = [draw.get(letter, lambda: chance.randrange(128))() for letter in letters]
        packet = Packet(kind, values).sign()
        other = getattr(dds, kind).deserialize(packet.pack())
        assert other.serialize() == packet.pack()
        assert crc.Crc(other) == packet["crc"][0]


def test_a_new_command_tells_no_motor_anything() -> None:
    packet = low_cmd()
    assert (packet["head"], packet["level_flag"]) == ([0xFE, 0xEF], [0xFF])
    assert [set(packet[f"motor_cmd.{key}"]) for key in ("mode", "kp", "kd", "tau")] == [{1}, {0}, {0}, {0}]
    assert MOTORS[:4] == ("FR_hip_joint", "FR_thigh_joint", "FR_calf_joint", "FL_hip_joint")
    assert MOTORS[9:] == ("RL_hip_joint", "RL_thigh_joint", "RL_calf_joint")
