#!/usr/bin/env bash
# rosbags 0.11.9: an array of integers in a float64[] field of a ROS 2 message is written as it lies in memory.
#
# Expected: joint positions 0, 1, 2 given as integers are converted to float64, or refused, as an array of float32 is.
# Seen: they are taken for float64 bit by bit: positions of 0, 4.9e-324 and 9.9e-324 rad, without an error or a warning. The
# same array as integers of 32 bits is refused, as its size differs.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check rosbags==0.11.9 numpy==2.4.1
"$place/venv/bin/python" - <<'PYTHON'
import numpy as np
from rosbags.typesys import Stores, get_typestore

store, kind = get_typestore(Stores.ROS2_HUMBLE), "sensor_msgs/msg/JointState"
Header, Time = store.types["std_msgs/msg/Header"], store.types["builtin_interfaces/msg/Time"]
none = np.zeros(0)


def read_back(position):
    header = Header(stamp=Time(sec=0, nanosec=0), frame_id="")
    message = store.types[kind](header=header, name=["a", "b", "c"], position=position, velocity=none, effort=none)
    return store.deserialize_cdr(store.serialize_cdr(message, kind), kind).position


def refused(dtype):
    try:
        read_back(np.array([0, 1, 2], dtype=dtype))
    except ValueError:
        return True
    return False


real, whole = read_back(np.array([0.0, 1.0, 2.0])), read_back(np.array([0, 1, 2], dtype=np.int64))
print(f"positions written as float64: {real}, as int64: {whole}; refused: float32 {refused(np.float32)}, int32 {refused(np.int32)}")
print("expected: 0, 1, 2 for int64 or an error; seen: numbers near 0")
seen = np.array_equal(real, [0, 1, 2]) and 0 < whole[2] < 1e-300 and refused(np.float32) and refused(np.int32)
raise SystemExit(0 if seen else 1)
PYTHON
