#!/usr/bin/env bash
# mcap-ros2-support 0.6.0: a ROS 2 `char` beyond 127 is read as a negative number, and cannot be written.
#
# Expected: `char` is an unsigned byte in ROS 2 (uint8_t in C++, an int of 0 to 255 in Python): a status of 200 in a recording by
# other software is 200; a driver's raw bytes come back as they were.
# Seen: rosbags writes 200 and reads 200, mcap-ros2-support reads -56 from the same bytes, in arrays too, without a warning; `uint8` is
# right in both. Its writer refuses 200 and takes -56.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check mcap-ros2-support==0.6.0 mcap==1.6.0 rosbags==0.11.9 numpy==2.4.1 2> /dev/null
"$place/venv/bin/python" - 2> "$place/said" <<'PYTHON' || { cat "$place/said"; exit 1; }
import io
import struct

import numpy as np
from mcap.writer import Writer
from mcap_ros2.reader import read_ros2_messages
from mcap_ros2.writer import Writer as Ros2Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

KIND, DEFINITION = "driver_msgs/msg/Raw", "char status\nchar[] data\nuint8 plain"
store = get_typestore(Stores.ROS2_HUMBLE)
store.register(get_types_from_msg(DEFINITION, KIND))
data = np.array([0, 127, 128, 255], dtype=np.uint8)
packed = bytes(store.serialize_cdr(store.types[KIND](status=200, data=data, plain=200), KIND))
again = store.deserialize_cdr(packed, KIND)
file = io.BytesIO()
writer = Writer(file)
writer.start(profile="ros2")
schema = writer.register_schema(KIND, "ros2msg", DEFINITION.encode())
writer.add_message(writer.register_channel("/raw", "cdr", schema), log_time=0, data=packed, publish_time=0)
writer.finish()
file.seek(0)
read = next(iter(read_ros2_messages(file))).ros_msg


def refused(status):
    writer = Ros2Writer(io.BytesIO())
    try:
        writer.write_message("/raw", writer.register_msgdef(KIND, DEFINITION), {"status": status, "data": [], "plain": 0}, 0, 0, 0)
    except struct.error:
        return True
    return False


print(f"char 200 and uint8 200: rosbags {again.status} and {again.plain}, mcap-ros2-support {read.status} and {read.plain}")
print(f"char[] {data.tolist()}: rosbags {again.data.tolist()}, mcap-ros2-support {list(read.data)}; its writer refuses 200: {refused(200)}, -56: {refused(-56)}")
print("expected: 200 and 0 127 128 255 from both; seen: -56 and 0 127 -128 -1 from mcap-ros2-support")
right = (again.status, again.plain, read.plain) == (200, 200, 200) and np.array_equal(again.data, data)
wrong = read.status == -56 and list(read.data) == [0, 127, -128, -1] and refused(200) and not refused(-56)
raise SystemExit(0 if right and wrong else 1)
PYTHON
if [ -s "$place/said" ]; then
    echo "it now says:"
    cat "$place/said"
    exit 1
fi
