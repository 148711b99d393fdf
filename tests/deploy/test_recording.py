"""Logs hold what was read, decided and sent, as programs of others read them, and outlive the death of their writer."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from envs.parts.actions import JointPosition, JointVelocity
from envs.parts.observations import Command, Imu, JointState, LastAction
from shortcuts import made_once
from simreal.deploy import Controller, Policy
from simreal.deploy.control import recording
from simreal.deploy.control.inner import joints_by_part
from simreal.deploy.control.recording import Recorder, Tracks, recover
from simreal.export.bundle import export_bundle
from small_arm import ARM, SmallArm
from toy_robot import Clock, ToyRobot

JOINTS = ["yaw", "pitch", "elbow"]
NAMES = ("bag", "one.mcap", "arrays.npz")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Positions of two joints, and the velocity of the third."""

    def make(folder: Path) -> None:
        xml = ARM.replace('<position name="m_elbow" joint="elbow" kp="30"', '<velocity name="m_elbow" joint="elbow"')
        actions = [JointPosition(of=["yaw", "pitch"]), JointVelocity(scale=1.0, of="elbow")]
        seen = [JointState(), Imu("imu"), LastAction(), Command("wanted", (-1.0,), (1.0,), "m/s")]
        torch.manual_seed(0)
        export_bundle(nn.Linear(16, 3), SmallArm(actions, seen, xml), folder / "b", observations=torch.randn(2, 16))

    return made_once(tmp_path_factory, "recorded", make) / "b"


@pytest.fixture(scope="module")
def policy(bundle: Path) -> Policy:
    return Policy.load(bundle)


def recorded(policy: Policy, path: Path) -> tuple[Controller, ToyRobot, list[Any]]:
    """A log of a second and a half that ends in a fault."""
    clock = Clock()
    robot = ToyRobot(policy, clock, {"joint_target": [0.3, 0.2]})
    readings: list[Any] = []

    def change(reading: Any) -> Any:
        if len(readings) == 70:
            raise OSError("cable")
        readings.append(reading)
        return reading

    robot.change = change
    controller = Controller(policy, robot, inputs={"wanted": [0.5]}, record=path, **clock.times())
    controller.arm()
    for _ in range(75):
        controller.step()
        clock.now += 0.02
    controller.close()
    return controller, robot, readings


def rosbag(path: Path) -> dict[str, list[tuple[int, Any]]]:
    """Messages by topic, read by rosbags, which makes the same bytes of them."""
    highlevel, typesys = pytest.importorskip("rosbags.highlevel"), pytest.importorskip("rosbags.typesys")
    store = typesys.get_typestore(typesys.Stores.ROS2_HUMBLE)
    found: dict[str, list[tuple[int, Any]]] = defaultdict(list)
    with highlevel.AnyReader([path], default_typestore=store) as reader:
        for connection, stamp, raw in reader.messages():
            message = reader.deserialize(raw, connection.msgtype)
            assert bytes(store.serialize_cdr(message, connection.msgtype)) == bytes(raw)
            found[connection.topic].append((stamp, message))
        assert reader.message_count == sum(map(len, found.values()))
        for connection in reader.connections:
            assert connection.msgcount == len(found[connection.topic])
    return found


def test_a_rosbag_holds_what_was_read_decided_and_sent(policy: Policy, tmp_path: Path) -> None:
    controller, robot, readings = recorded(policy, tmp_path / "bag")
    assert controller.report()["record"] == {"written": 75, "dropped": 0, "failed": ""}
    found = rosbag(tmp_path / "bag")
    assert [event.kind for event in controller.events] == ["armed", "starting", "read_failed", "stopped"]
    assert [json.loads(m.data)["kind"] for _, m in found["/simreal/event"]] == [e.kind for e in controller.events]
    assert json.loads(found["/simreal/contract"][0][1].data) == policy.contract
    positions = found["/simreal/observation/joint_pos"]
    assert len(positions) == 70
    for (_, message), reading in zip(positions, readings, strict=True):
        assert message.name == JOINTS
        np.testing.assert_array_equal(message.position, np.float32(reading.values["joint_pos"]))
        assert (len(message.velocity), len(message.effort)) == (0, 0)
    assert len(found["/simreal/observation/joint_vel"][0][1].velocity) == 3
    gyro = found["/simreal/observation/gyro"][0][1]
    assert gyro.layout.dim[0].label == "gyro|x,y,z"
    np.testing.assert_array_equal(gyro.data, np.float32(readings[0].values["gyro"]))
    assert found["/simreal/inputs/wanted"][3][1].data.tolist() == [0.5]
    sent = found["/simreal/sent/joint_target"]
    assert sent[0][1].name == JOINTS[:2]
    np.testing.assert_array_equal([m.position for _, m in sent], [t["joint_target"] for _, t in robot.written])
    assert found["/simreal/sent/joint_velocity"][0][1].velocity.tolist() == [0.0]
    measured = found["/simreal/measured/joint_target"]
    np.testing.assert_array_equal([m.position for _, m in measured], [r.positions["joint_target"] for r in readings])
    np.testing.assert_array_equal([m.velocity for _, m in measured], [r.velocities["joint_target"] for r in readings])
    cycles = np.array([message.data for _, message in found["/simreal/cycle"]])
    assert cycles[:, 5].tolist() == [1.0] * 70 + [3.0] * 5
    times = np.diff([stamp for stamp, _ in found["/simreal/cycle"]])
    np.testing.assert_allclose(times, 20e6, atol=2e3)  # ns
    assert abs(found["/simreal/cycle"][0][0] - time.time_ns()) < 600e9


def test_the_policys_own_action_and_targets_are_there_once_it_runs(policy: Policy, tmp_path: Path) -> None:
    clock = Clock()
    robot = ToyRobot(policy, clock, {"joint_target": [0.0, 0.0]})
    controller = Controller(policy, robot, inputs={"wanted": [0.5]}, record=tmp_path / "one.mcap", **clock.times())
    report = controller.run(0.5)
    found = rosbag(tmp_path / "one.mcap")
    count = len(found["/simreal/action"])
    assert 20 < count < report["cycles"] - 90
    assert len(found["/simreal/target/joint_target"]) == count
    targets = [policy.unsmoothed_targets(m.data)["joint_target"] for _, m in found["/simreal/action"]]
    np.testing.assert_allclose([m.position for _, m in found["/simreal/target/joint_target"]], targets)


def test_the_mcap_packages_reader_finds_every_message_by_its_index(policy: Policy, tmp_path: Path) -> None:
    reader, ros2 = pytest.importorskip("mcap.reader"), pytest.importorskip("mcap_ros2.decoder")
    recorded(policy, tmp_path / "one.mcap")
    with open(tmp_path / "one.mcap", "rb") as file:
        made = reader.make_reader(file, decoder_factories=[ros2.DecoderFactory()], validate_crcs=True)
        summary = made.get_summary()
        assert summary.statistics.message_count == sum(summary.statistics.channel_message_counts.values())
        begin = summary.statistics.message_start_time
        later = list(made.iter_decoded_messages(topics=["/simreal/observation/joint_pos"], starting_at=begin + 10**9))
        assert 15 < len(later) < 25
        assert list(later[0][3].name) == JOINTS


def test_arrays_hold_the_same(policy: Policy, tmp_path: Path) -> None:
    recorded(policy, tmp_path / "bag")
    recorded(policy, tmp_path / "arrays.npz")
    found, arrays = rosbag(tmp_path / "bag"), np.load(tmp_path / "arrays.npz")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["arrays.npz", "bag"]
    for topic in ("/simreal/observation/gyro", "/simreal/cycle", "/simreal/inputs/last_action"):
        np.testing.assert_array_equal(arrays[f"{topic}/values"][:, :5], [m.data[:5] for _, m in found[topic]])
    sent = arrays["/simreal/sent/joint_target/values"]
    np.testing.assert_array_equal(sent, [m.position for _, m in found["/simreal/sent/joint_target"]])
    assert arrays["/simreal/sent/joint_target/names"].tolist() == JOINTS[:2]
    np.testing.assert_allclose(np.diff(arrays["/simreal/cycle/time"]), 0.02, atol=1e-6)
    meta = json.loads(str(arrays["meta"]))
    assert meta["contract"] == policy.contract
    assert [event["kind"] for event in meta["events"]] == ["armed", "starting", "read_failed", "stopped"]


_WRITER = """
import sys, time
import numpy as np
from simreal.deploy import Policy
from simreal.deploy.control import recording
from simreal.deploy.control.inner import joints_by_part
from simreal.deploy.control.recording import Recorder, Tracks
from pathlib import Path
policy = Policy.load(sys.argv[1])
tracks = Tracks(policy.layout, policy.contract, joints_by_part(policy), {})
logs = [Recorder(Path(name), tracks, policy.contract, time.monotonic, 0.0) for name in sys.argv[2:]]
for i in range(100000):
    row = np.full(tracks.width, float(i))
    row[0] = time.monotonic()
    for log in logs:
        log.add(row.copy())
    print(i, flush=True)
    time.sleep(0.005)
"""


def test_a_log_is_readable_after_its_process_was_killed(bundle: Path, tmp_path: Path) -> None:
    names = [str(tmp_path / name) for name in NAMES]
    writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(bundle), *names], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    count = 0
    for count, _ in enumerate(writer.stdout):
        if count == 250:
            os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    recover(tmp_path / "arrays.npz.part", tmp_path / "arrays.npz")
    arrays = np.load(tmp_path / "arrays.npz")
    for name in NAMES:
        if name == "arrays.npz":
            values = arrays["/simreal/observation/gyro/values"][:, 0]
        else:
            values = np.array([m.data[0] for _, m in rosbag(tmp_path / name)["/simreal/observation/gyro"]])
        np.testing.assert_array_equal(values, np.arange(len(values)))
        assert len(values) > count - 200, name  # of the last second at most; half a second on an idle machine


# What disks do


def test_a_log_is_not_written_over_another_one(policy: Policy, tmp_path: Path) -> None:
    (tmp_path / "bag").mkdir()
    clock = Clock()
    with pytest.raises(ValueError, match=r"bag: is there already; a log is not written over another one"):
        Controller(policy, ToyRobot(policy, clock), record=tmp_path / "bag", **clock.times())


@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk_ends_the_log_and_not_the_robot(
    name: str, policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "_FLUSH_S", 0.02)
    full = threading.Event()
    sync = os.fsync

    def fsync(file: int) -> None:
        if full.is_set():
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(file)

    monkeypatch.setattr(os, "fsync", fsync)
    clock = Clock()
    robot = ToyRobot(policy, clock, {"joint_target": [0.0, 0.0]})
    controller = Controller(policy, robot, inputs={"wanted": [0.5]}, record=tmp_path / name, **clock.times())
    controller.arm()
    full.set()
    for _ in range(200):
        controller.step()
        clock.now += 0.02
        record = controller._record
        if record is not None and record.failed:
            break
        time.sleep(0.01)  # the writer's thread has no clock of ours
    assert controller.step() in ("starting", "running")
    clock.now += 0.02
    controller.step()
    assert [(e.kind, "No space left" in e.text) for e in controller.events if e.kind == "log"] == [("log", True)]


def test_the_loop_does_not_wait_for_a_slow_disk(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    tracks = Tracks(policy.layout, policy.contract, joints_by_part(policy), {})
    log = Recorder(tmp_path / "arrays.npz", tracks, policy.contract, time.monotonic, 0.0)
    monkeypatch.setattr(os, "fsync", lambda file: go.wait(20.0))
    log._wake.set()
    while log._waiting or not log.rows:  # until the writer waits for the disk
        log.add(np.zeros(tracks.width))
        time.sleep(0.01)
    time.sleep(0.05)
    before = log.rows
    for _ in range(3100):
        log.add(np.zeros(tracks.width))  # would wait here
    assert log.dropped in range(98, 103)
    go.set()
    log.close()
    assert (log.failed, log.rows) == ("", before + 3100 - log.dropped)
