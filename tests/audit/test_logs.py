"""Reading logs: the same numbers from every kind of file, and one line for what cannot be read."""

from __future__ import annotations

import builtins
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from plain_robot import JOINTS, contract, log, signals
from simreal.audit.recording import recording
from simreal.common.errors import UserError
from simreal.common.logs import Log, read_log

STORE = get_typestore(Stores.ROS2_HUMBLE)
MESSAGE = STORE.types
SHORT = {name: values[:80] for name, values in signals(5, 120).items()}
START_NS = 1_700_000_000_000_000_000


def header(k: int) -> Any:
    stamp = START_NS + 20_000_000 * k
    time = MESSAGE["builtin_interfaces/msg/Time"](sec=stamp // 10**9, nanosec=stamp % 10**9)
    return MESSAGE["std_msgs/msg/Header"](stamp=time, frame_id="")


def joint_state(k: int, names: tuple[str, ...]) -> Any:
    at = [JOINTS.index(name) for name in names]
    position, velocity = (SHORT[name][k][at] for name in ("joint_pos", "joint_vel"))
    return MESSAGE["sensor_msgs/msg/JointState"](header(k), list(names), position, velocity, np.zeros(0))


def imu(k: int) -> Any:
    vector, quaternion = MESSAGE["geometry_msgs/msg/Vector3"], MESSAGE["geometry_msgs/msg/Quaternion"]
    tilt = 0.1 * k / 80
    return MESSAGE["sensor_msgs/msg/Imu"](
        header(k), quaternion(x=np.sin(tilt / 2), y=0.0, z=0.0, w=np.cos(tilt / 2)), np.zeros(9),
        vector(*SHORT["gyro"][k]), np.zeros(9), vector(0.0, 0.0, 9.81), np.zeros(9),
    )  # fmt: skip


def command(k: int) -> Any:
    layout = MESSAGE["std_msgs/msg/MultiArrayLayout"](dim=[], data_offset=0)
    return MESSAGE["std_msgs/msg/Float64MultiArray"](layout, SHORT["joint_target"][k])


def bag(path: Path, plugin: StoragePlugin = StoragePlugin.MCAP, names: tuple[str, ...] = JOINTS[::-1]) -> Path:
    """A recording of another stack: joints in their own order, an Imu, commands without names."""
    makers: dict[str, tuple[str, Callable[[int], Any]]] = {
        "/joint_states": ("sensor_msgs/msg/JointState", lambda k: joint_state(k, names)),
        "/imu/data": ("sensor_msgs/msg/Imu", imu),
        "/commands": ("std_msgs/msg/Float64MultiArray", command),
    }
    with Writer(path, version=9, storage_plugin=plugin) as writer:
        for topic, (kind, make) in makers.items():
            connection = writer.add_connection(topic, kind, typestore=STORE)
            for k in range(80):
                writer.write(connection, START_NS + 20_000_000 * k, STORE.serialize_cdr(make(k), kind))
    return path


def same_as_written(found: Log) -> None:
    record = recording(found, contract(), {"joint_target": "/commands"})
    for name in ("joint_pos", "joint_vel", "gyro"):
        assert np.array_equal(record.seen[name].values, SHORT[name])
    assert np.array_equal(record.sent["joint_target"], SHORT["joint_target"])
    # Turned about x by an angle a, down is (0, -sin a, -cos a) in the body's frame.
    tilt = 0.1 * np.arange(80) / 80
    down = np.stack((0.0 * tilt, -np.sin(tilt), -np.cos(tilt)), axis=1)
    assert record.seen["projected_gravity"].values == pytest.approx(down, abs=1e-12)
    assert record.step_s == pytest.approx(0.02)


@pytest.mark.parametrize("plugin", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_a_bag_of_another_stack_is_read_by_names_of_joints(tmp_path: Path, plugin: StoragePlugin) -> None:
    same_as_written(read_log(bag(tmp_path / "bag", plugin)))


def test_a_single_mcap_file_is_read_and_one_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    file = next(bag(tmp_path / "bag").glob("*.mcap"))
    same_as_written(read_log(file))
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(file.read_bytes()[:-1000])
    refused(cut, "cut.mcap: is damaged, cut off")


def test_csv_and_npz_hold_the_same(tmp_path: Path) -> None:
    columns = {f"{name}/{e}": SHORT[name][:, i] for name in ("joint_pos", "joint_vel") for i, e in enumerate(JOINTS)}
    columns |= {f"{name}/{e}": SHORT[name][:, i] for name in ("gyro", "projected_gravity") for i, e in enumerate("xyz")}
    table = np.column_stack([0.02 * np.arange(80), *columns.values()])
    np.savetxt(tmp_path / "log.csv", table, "%.17g", ",", header=",".join(["time", *columns]), comments="")
    arrays: dict[str, Any] = {f"{name}/values": values for name, values in SHORT.items()}
    arrays |= {f"{name}/time": 0.02 * np.arange(80) for name in SHORT}
    arrays |= {f"{name}/names": np.array(JOINTS if v.shape[1] == 6 else ("x", "y", "z")) for name, v in SHORT.items()}
    np.savez(tmp_path / "log.npz", **arrays, meta=json.dumps({}))
    for name in ("log.csv", "log.npz"):
        record = recording(read_log(tmp_path / name), contract(), {})
        for component in ("joint_pos", "joint_vel", "gyro", "projected_gravity"):
            assert np.array_equal(record.seen[component].values, SHORT[component])


def refused(path: Path, *expected: str) -> None:
    with pytest.raises(UserError) as error:
        read_log(path)
    assert "\n" not in str(error.value)
    for text in expected:
        assert text in str(error.value)


def test_what_cannot_be_read_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(tmp_path / "none.mcap", "no such log", ".csv")
    for name in ("a.mcap", "a.csv", "a.npz", "a.db3"):
        (tmp_path / name).write_bytes(b"")
        refused(tmp_path / name, "is empty")
        (tmp_path / name).write_bytes(b"\x00\x01 no log at all")
        refused(tmp_path / name, name)
    (tmp_path / "a.bag").write_text("x")
    refused(tmp_path / "a.bag", "unknown kind of file")
    (tmp_path / "folder").mkdir()
    refused(tmp_path / "folder", "without metadata.yaml")
    (tmp_path / "back.csv").write_text("time,q/a\n0.0,1\n0.2,1\n0.1,1\n")
    refused(tmp_path / "back.csv", "time goes backwards, by 0.1 s at message 2")
    (tmp_path / "cut.csv").write_text("time,q/a,q/b\n0.0,1,2\n0.1,1,2\n0.2,1\n")
    refused(tmp_path / "cut.csv", "cut off: line 4 has 2 fields, expected 3")
    (tmp_path / "words.csv").write_text("time,q/a\n0.0,1\n0.1,fast\n")
    refused(tmp_path / "words.csv", "line 3, column 'q/a'", "'fast'")
    real = builtins.__import__

    def without_rosbags(name: str, *given: Any, **more: Any) -> Any:
        if name.startswith("rosbags"):
            raise ImportError(name)
        return real(name, *given, **more)

    monkeypatch.setattr(builtins, "__import__", without_rosbags)
    (tmp_path / "b.mcap").write_bytes(b"x")
    refused(tmp_path / "b.mcap", "pip install 'simreal[robot]'")


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({"joint_poss": "/joint_states:position"}, "no such component (did you mean 'joint_pos'?)"),
        ({"joint_pos": "/joint_state:position"}, "did you mean '/joint_states:position'?"),
        ({"gyro": "/commands"}, "expected 3 values of 'gyro', got 6"),
    ],
)
def test_a_wrong_map_is_one_line(tmp_path: Path, chosen: dict[str, str], expected: str) -> None:
    found = read_log(bag(tmp_path / "bag"))
    with pytest.raises(UserError) as error:
        recording(found, contract(), chosen)
    assert expected in str(error.value)


def test_a_log_of_another_robot_is_refused(tmp_path: Path) -> None:
    other = bag(tmp_path / "bag", names=JOINTS[:5])
    with pytest.raises(UserError, match="none of joint_pos"):
        recording(Log({}, None, other), contract(), {})
    with pytest.raises(UserError, match="no joint 'j5'"):
        recording(read_log(other), contract(), {"joint_pos": "/joint_states:position"})
    theirs = contract()
    theirs["task"], theirs["observation"][0]["joints"] = "other", [f"k{i}" for i in range(6)]
    mine = log(SHORT)
    with pytest.raises(UserError, match="log of another robot") as error:
        recording(Log(mine.signals, theirs, mine.source), contract(), {})
    assert "'other'" in str(error.value)
