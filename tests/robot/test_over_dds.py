"""Robots behind real messages, on loopback, in a domain of each test process: by name, or refused in one line."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cyclonedds.qos import Policy as QosPolicy
from cyclonedds.qos import Qos
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic

from command import refused as refused_command
from command import simreal_command
from robots import GO1, needs
from simreal.common.errors import UserError
from simreal.robot import ros_messages as ros
from simreal.robot import unitree_messages as unitree
from simreal.robot.commands import joint_order
from simreal.robot.dds import Bus, Sample, wait_until
from simreal.robot.process.loop import Loop
from simreal.robot.process.ports import Ros2Port, UnitreePort, make_port
from simreal.robot.process.simulation import Simulation
from simreal.robot.ros2 import Ros2Robot
from simreal.robot.unitree import UnitreeRobot

TOPICS = {"joint_states": "/joint_states", "commands": "/commands", "imu": "/imu"}
LEG = ["hip", "knee"]
CONTRACT: dict[str, Any] = {
    "control_period_s": 0.02,
    "observation": [
        {"name": "pos", "shape": [2], "unit": "rad", "joints": LEG, "measured": True},
        {"name": "vel", "shape": [2], "unit": "rad/s", "joints": LEG, "measured": True},
        {"name": "projected_gravity", "shape": [3], "unit": "1", "frame": "trunk", "joints": [], "measured": True},
    ],
    "action": [
        {"name": "target", "shape": [2], "unit": "rad", "joints": LEG, "stiffness": [40.0] * 2, "damping": [1.0] * 2}
    ],
}


@pytest.fixture(scope="module")
def domain() -> int:
    """A domain that no other test process uses at the same time."""
    return 100 + os.getpid() % 130


@pytest.fixture
def bus(domain: int) -> Bus:
    """Of the controller."""
    return Bus(domain, "lo")


def close(got: Any, expected: Any, atol: float = 1e-12) -> None:
    """Numbers are those."""
    np.testing.assert_allclose(np.asarray(got), np.asarray(expected), atol=atol)


class Graph:
    """The other end: somebody else's joints, IMU and controller."""

    def __init__(self, domain: int) -> None:
        self.bus = Bus(domain, "lo")
        self.joints = self.bus.publisher("rt/joint_states", ros.JointState)
        self.imu = self.bus.publisher("rt/imu", ros.Imu)
        self.commands = self.bus.subscription("rt/commands", ros.Float64MultiArray)
        self.stop = False

    def tell(self, names: list[str], position: list[float], velocity: list[float]) -> None:
        header = ros.Header(ros.Time.of(time.time()), "base")
        self.joints.write(ros.JointState(header, names, position, velocity))
        self.imu.write(ros.Imu(header, ros.Quaternion(0.0, 1.0, 0.0, 0.0)))

    def got(self) -> ros.Float64MultiArray:
        found: list[Any] = []
        assert wait_until(lambda: bool(found.extend(self.commands.take()) or found), 2.0)
        return ros.Float64MultiArray.parse(found[-1].raw)


@pytest.fixture
def graph(domain: int) -> Graph:
    """Somebody else."""
    return Graph(domain)


@pytest.fixture
def speaking(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The graph says something whenever somebody waits."""
    message: dict[str, Any] = {
        "names": ["knee", "tail", "hip"],
        "position": [2.0, 9.0, 1.0],
        "velocity": [-2.0, 9.0, -1.0],
    }
    from simreal.robot import dds, ros2

    def wait(ready: Callable[[], bool], wait_s: float) -> bool:
        def asked() -> bool:
            graph.tell(**message)
            return ready()

        return wait_until(asked, wait_s)

    for module in (dds, ros2):
        monkeypatch.setattr(module, "wait_until", wait)
    return message


@pytest.mark.usefixtures("speaking")
def test_joints_and_targets_go_by_name(bus: Bus, graph: Graph) -> None:
    robot = Ros2Robot(CONTRACT, TOPICS, bus, order=["knee", "hip"])
    reading = robot.read()
    close(reading.values["pos"], [1.0, 2.0])
    close(reading.values["vel"], [-1.0, -2.0])
    close(reading.values["projected_gravity"], [0.0, 0.0, 1.0])  # upside down
    close(reading.positions["target"], [1.0, 2.0])
    assert 0.0 <= time.monotonic() - reading.stamps["pos"] < 5.0
    assert robot.read().stamps == reading.stamps  # nothing has come since
    robot.write({"target": np.array([0.25, 0.5])})
    message = graph.got()
    assert (message.layout.dim[0].label, message.data) == ("knee,hip", [0.5, 0.25])
    robot.safe("hold")
    assert graph.got().data == [2.0, 1.0]
    with pytest.raises(ValueError, match="cannot damp; they can hold"):
        robot.safe("damp")
    with pytest.raises(ValueError, match="not finite: nothing is sent"):
        robot.write({"target": np.array([np.nan, 0.5])})


@pytest.mark.usefixtures("speaking")
def test_a_trajectory_is_sent_to_who_takes_trajectories(bus: Bus, graph: Graph) -> None:
    taken = graph.bus.subscription("rt/trajectory", ros.JointTrajectory)
    robot = Ros2Robot(CONTRACT, TOPICS | {"commands": "trajectory"}, bus)
    robot.write({"target": np.array([0.25, 0.5])})
    found: list[Any] = []
    assert wait_until(lambda: bool(found.extend(taken.take()) or found), 2.0)
    message = ros.JointTrajectory.parse(found[-1].raw)
    assert (message.joint_names, message.points[0].positions) == (LEG, [0.25, 0.5])
    assert message.points[0].time_from_start == ros.Duration(0, 20_000_000)


def refused(bus: Bus, said: str, topics: dict[str, str] | None = None, **more: Any) -> None:
    """Making the robot fails in one line that says so."""
    with pytest.raises(UserError, match=said) as caught:
        Ros2Robot(CONTRACT, TOPICS if topics is None else topics, bus, **{"wait_s": 0.4, **more})
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("speaking")
def test_a_topic_that_nobody_publishes_is_named_with_what_is_there(bus: Bus, graph: Graph) -> None:
    refused(bus, r"joint_states:=/joint_state: nobody publishes it \(did you mean 'rt/joint_states'\?\); published in "
                 r"domain \d+: rt/imu, rt/joint_states", TOPICS | {"joint_states": "/joint_state"})  # fmt: skip
    refused(bus, "commands:=/command: nobody subscribes to it", TOPICS | {"commands": "/command"})
    refused(bus, "imu:=TOPIC is missing: the policy needs it", {k: v for k, v in TOPICS.items() if k != "imu"})
    refused(bus, r"imu:=/joint_states: is published as sensor_msgs::msg::dds_::JointState_, expected sensor",
            TOPICS | {"imu": "/joint_states"})  # fmt: skip
    assert graph.commands.received == 0


def test_a_robot_with_other_joints_is_refused(bus: Bus, speaking: dict[str, Any], graph: Graph) -> None:
    speaking["names"] = ["knee_joint", "tail", "hip"]
    refused(
        bus, r"other joints than the policy: no 'knee' \(did you mean 'knee_joint'\?\); it has: knee_joint, tail, hip"
    )
    speaking |= {"names": ["knee", "tail", "hip"], "velocity": []}
    refused(bus, "do not say what 'vel' needs")
    refused(bus, r"--joints: no target for 'kneee' \(did you mean 'knee'\?\)", order=["hip", "kneee"])
    assert graph.commands.received == 0


@pytest.mark.usefixtures("speaking")
def test_a_quality_of_service_that_does_not_match_is_told(bus: Bus, graph: Graph) -> None:
    durable = Qos(QosPolicy.Reliability.Reliable(0), QosPolicy.Durability.TransientLocal)
    topic = Topic(graph.bus.participant, "rt/durable", ros.Float64MultiArray)
    reader = DataReader(graph.bus.participant, topic, qos=durable)
    refused(bus, "durable: quality of service does not match: a subscriber asks for another durability",
            TOPICS | {"commands": "/durable"})  # fmt: skip
    assert reader.take(1) == []


@pytest.mark.usefixtures("speaking")
def test_broken_messages_are_counted_and_change_nothing(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    robot = Ros2Robot(CONTRACT, TOPICS, bus)
    before = robot.read()
    raw = ros.JointState(ros.Header(), LEG, [7.0, 7.0], [7.0, 7.0]).serialize()
    monkeypatch.setattr(robot._subscriptions["joint_states"], "take", lambda: [Sample(raw[:40], 1.0, 1)])
    close(robot.read().values["pos"], before.values["pos"])
    assert robot.faulty == 1


def test_the_order_of_a_controller_is_read_from_its_yaml(tmp_path: Path) -> None:
    path = tmp_path / "controllers.yaml"
    path.write_text("forward_position_controller:\n  ros__parameters:\n    joints: [knee, hip]\n")
    assert joint_order(str(path)) == ["knee", "hip"] == joint_order("knee, hip")
    path.write_text("a: {joints: [knee]}\nb: {joints: [hip]}\n")
    with pytest.raises(UserError, match="expected one list of `joints`"):
        joint_order(str(path))


@needs(GO1)
@pytest.mark.parametrize("kind", ["ros2", "unitree"])
def test_the_process_robot_is_known_through_either_kind_of_messages(kind: str, domain: int) -> None:
    robot = Simulation("go1", seed=2)
    port = make_port(kind, robot, Bus(domain, "lo"))
    contract = {"control_period_s": 0.02, **_go1_contract()}
    loop = Loop(robot, port, timeout_s=10.0, tell=lambda line: None)
    with Stepping(loop):
        bus = Bus(domain, "lo")
        other = UnitreeRobot(contract, bus) if kind == "unitree" else Ros2Robot(contract, TOPICS, bus)
    for _ in range(3):
        loop.step()
    wait_until(lambda: False, 0.05)
    reading = other.read()
    state = robot.state()
    close(reading.values["joint_pos"], state.position, atol=1e-6)
    close(reading.values["gyro"], state.gyro, atol=1e-6)
    target = np.array(contract["action"][0]["offset"]) + 0.05
    other.write({"joint_target": target})
    wait_until(lambda: False, 0.05)
    loop.step()
    assert loop.report.commands >= 1
    assert loop.report.refused == 0
    np.testing.assert_allclose(robot._control[0].numpy(), target, atol=1e-6)
    if kind == "unitree":
        other.safe("damp")
        wait_until(lambda: False, 0.05)
        loop.step()
        assert float(robot._bias[0, 1]) == 0.0  # no stiffness
        assert float(robot._bias[0, 2]) == pytest.approx(-0.8)


def _go1_contract() -> dict[str, Any]:
    from envs.registry import make_task

    task = make_task("Go1Velocity-v0")
    seen = [json.loads(json.dumps(vars(part))) | {"shape": [part.size]} for part in task.components("policy")]
    driven = [json.loads(json.dumps(vars(part))) | {"shape": [part.size]} for part in task.action]
    return {"observation": seen, "action": driven}


class Stepping:
    """Steps a loop while a robot is looked for, from every wait."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def __enter__(self) -> None:
        from simreal.robot import dds, ros2
        from simreal.robot import unitree as sdk

        def wait(ready: Callable[[], bool], wait_s: float) -> bool:
            def asked() -> bool:
                self._loop.step()
                return ready()

            return wait_until(asked, wait_s)

        self._patch = pytest.MonkeyPatch()
        for module in (dds, ros2, sdk):
            self._patch.setattr(module, "wait_until", wait)

    def __exit__(self, *_: object) -> None:
        self._patch.undo()


@needs(GO1)
def test_motors_obey_no_command_that_is_not_whole(domain: int) -> None:
    port = UnitreePort(Simulation("go1"), Bus(domain, "lo"))
    packet = unitree.low_cmd()
    packet["motor_cmd.q"] = [0.1] * 20
    assert port._command(packet.pack()) == "the checksum is wrong"
    assert not isinstance(port._command(packet.sign().pack()), str)
    for path, values, said in (
        ("motor_cmd.q", [float("nan")] * 20, "not finite"), ("motor_cmd.kp", [-1.0] * 20, "negative"),
        ("motor_cmd.mode", [0] * 20, "mode is not 1"), ("head", [0, 0], "FE EF"),
    ):  # fmt: skip
        spoilt = unitree.Packet("LowCmd_", packet.values)
        spoilt[path] = values
        assert said in str(port._command(spoilt.sign().pack()))


def test_arrays_without_names_are_taken_in_the_robots_order_and_others_by_theirs(domain: int) -> None:
    port = Ros2Port(Simulation("Hopper-v5"), Bus(domain, "lo"))
    drive = port._array(ros.Float64MultiArray.of(["foot_joint", "thigh_joint", "leg_joint"], [3, 1, 2]).serialize())
    assert not isinstance(drive, str)
    assert drive.position.tolist() == [1.0, 2.0, 3.0]
    plain = port._array(ros.Float64MultiArray(data=[1.0, 2.0, 3.0]).serialize())
    assert not isinstance(plain, str)
    assert plain.position.tolist() == [1.0, 2.0, 3.0]
    assert "expected one for each of" in str(port._array(ros.Float64MultiArray(data=[1.0]).serialize()))
    nan = ros.JointTrajectory.of(["foot_joint", "thigh_joint", "leg_joint"], [1.0, float("nan"), 2.0], 0.1)
    assert port._trajectory(nan.serialize()) == "a target is not finite"
    assert port._trajectory(ros.JointTrajectory().serialize()) == "a trajectory without points"


def test_wrong_input_of_the_commands_is_one_line(
    trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], domain: int
) -> None:
    altered, bundle = tmp_path / "altered", trained_run / "bundle"
    shutil.copytree(bundle, altered)
    text = (altered / "policy.json").read_text()
    (altered / "policy.json").write_text(text.replace('"unit": "m"', '"unit": "cm"', 1))
    where = ("--domain", domain, "--interface", "lo", "--wait", 0.2)
    for arguments, said in (
        (("run", bundle), "expected --ros2 or --unitree"),
        (("run", altered, "--ros2"), "policy.json: altered after the export"),
        (("run", bundle, "--ros2", "joint_state:=/a"), "(did you mean 'joint_states'?)"),
        (
            ("run", bundle, "--ros2", "joint_states:=/nobody", "commands:=/commands", *where),
            "'grip_pos' (3 values in m",
        ),
        (("run", bundle, "--unitree", *where), "is in no message of joints or of an IMU"),
        (("run", bundle, "--ros2", "--input", "commando=1"), "--input: expected NAME=VALUES"),
        (("robot", "InvertedPendulum-v5", "--port", "unitree", *where[:4]), "is for quadrupeds with servos"),
        (("robot", "InvertedPendulum-v5", "--port", "ros"), "(did you mean 'ros2'?)"),
        (("robot", "InvertedPendulum-v5", "--domain", 300), "--domain: expected a whole number from 0 to 232"),
    ):
        refused_command(simreal_command(capsys, *map(str, arguments)), said)


def test_the_extra_is_named_where_cyclone_dds_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cyclonedds", None)
    with pytest.raises(UserError, match=r"pip install 'simreal\[robot\]'"):
        Bus(3)


@needs(GO1)
def test_a_state_with_a_wrong_checksum_is_not_believed(domain: int, monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = Simulation("go1")
    loop = Loop(simulation, make_port("unitree", simulation, Bus(domain, "lo")), tell=lambda line: None)
    with Stepping(loop):
        robot = UnitreeRobot({"control_period_s": 0.02, **_go1_contract()}, Bus(domain, "lo"))
    before = robot.read().positions["joint_target"]
    packet = unitree.Packet("LowState_")
    packet["motor_state.q"], packet["tick"] = [1.0] * 20, [10_000]
    packet["imu_state.quaternion"] = [1.0, 0.0, 0.0, 0.0]
    for crc, believed in ((12345, False), (0, True)):
        packet["crc"] = [crc]
        sample = Sample(packet.pack(), 1.0, 1)
        monkeypatch.setattr(robot._states, "take", [sample].copy)
        close(robot.read().positions["joint_target"], np.ones(12) if believed else before)
    assert robot.rejected == 1
