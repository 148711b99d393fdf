"""How the process robot is spoken to: ROS 2's topics, or Unitree's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from envs.common.messages import listed
from simreal.common.errors import UserError
from simreal.robot import unitree_messages as unitree
from simreal.robot.dds import Bus
from simreal.robot.process.simulation import Drive, Simulation, State
from simreal.robot.sources import matrix
from simreal.robot.unitree_messages import MOTORS, Packet

Numbers = NDArray[np.float64]


class Port(Protocol):
    """Messages to and from a robot.

    Attributes:
        topics: what is published and subscribed to, for people.
    """

    topics: str

    def commands(self) -> list[Drive | str]:
        """Commands since the last time, oldest first; of one that is refused, why."""
        ...

    def publish(self, state: State, wall_s: float, time_s: float) -> None:
        """Tell what sensors show, at `wall_s` since 1970 and `time_s` since the robot was switched on."""
        ...


def make_port(kind: str, robot: Simulation, bus: Bus) -> Port:
    """The port "ros2" or "unitree" of a robot.

    Raises:
        UserError: another one, or the robot cannot speak it.
    """
    if kind == "ros2":
        return Ros2Port(robot, bus)
    if kind == "unitree":
        return UnitreePort(robot, bus)
    raise UserError(f"--port: expected ros2 or unitree, got {kind!r}")


class Ros2Port:
    """`/joint_states` and `/imu`; `/commands` (Float64MultiArray) or `/joint_trajectory` for the driven joints.

    Joints are published in alphabetical order, as joint_state_broadcaster may, and commands are taken in the order that
    the array's label names; without one, in that of `robot.driven`.
    """

    def __init__(self, robot: Simulation, bus: Bus) -> None:
        from simreal.robot import ros_messages as ros

        self._ros, self._robot = ros, robot
        self._order = sorted(range(len(robot.joints)), key=lambda i: robot.joints[i])
        self._names = [robot.joints[i] for i in self._order]
        self._states = bus.publisher(ros.dds_topic("joint_states"), ros.JointState)
        self._imu = bus.publisher(ros.dds_topic("imu"), ros.Imu) if robot.floating else None
        self._arrays = bus.subscription(ros.dds_topic("commands"), ros.Float64MultiArray)
        self._trajectories = bus.subscription(ros.dds_topic("joint_trajectory"), ros.JointTrajectory)
        imu = ", /imu" if robot.floating else ""
        self.topics = f"publishes /joint_states{imu}; takes /commands or /joint_trajectory"

    def commands(self) -> list[Drive | str]:
        """See `Port`."""
        found = [(s.source_s, self._array(s.raw)) for s in self._arrays.take()]
        found += [(s.source_s, self._trajectory(s.raw)) for s in self._trajectories.take()]
        return [command for _, command in sorted(found, key=lambda pair: pair[0])]

    def publish(self, state: State, wall_s: float, time_s: float) -> None:
        """See `Port`."""
        ros = self._ros
        stamp = ros.Time.of(wall_s)
        joints = (ros.numbers(values[self._order]) for values in (state.position, state.velocity, state.torque))
        self._states.write(ros.JointState(ros.Header(stamp, ""), self._names, *joints))
        if self._imu is None or state.orientation is None:
            return
        w, x, y, z = state.orientation.tolist()
        turn = ros.Quaternion(x, y, z, w)
        gyro, felt = (ros.Vector3(*ros.numbers(values)) for values in (state.gyro, state.acceleration))
        header = ros.Header(stamp, self._robot.trunk)
        self._imu.write(ros.Imu(header, turn, angular_velocity=gyro, linear_acceleration=felt))

    def _array(self, raw: bytes) -> Drive | str:
        try:
            message = self._ros.Float64MultiArray.parse(raw)
        except ValueError as error:
            return str(error)
        label = message.layout.dim[0].label if message.layout.dim else ""
        return self._drive(label.split(",") if "," in label else list(self._robot.driven), message.data)

    def _trajectory(self, raw: bytes) -> Drive | str:
        try:
            message = self._ros.JointTrajectory.parse(raw)
        except ValueError as error:
            return str(error)
        if not message.points:
            return "a trajectory without points"
        return self._drive(message.joint_names, message.points[-1].positions)

    def _drive(self, names: Sequence[str], values: Sequence[float]) -> Drive | str:
        driven = self._robot.driven
        if len(values) != len(names) or sorted(names) != sorted(driven):
            return f"{len(values)} values for {listed(names)}; expected one for each of {listed(driven)}"
        by_name = dict(zip(names, values, strict=True))
        position = np.array([by_name[name] for name in driven])
        if not np.isfinite(position).all():
            return "a target is not finite"
        return Drive(position, np.zeros(len(driven)), np.zeros(len(driven)))


class UnitreePort:
    """`rt/lowstate` and `rt/lowcmd` of SDK2, with the motors in its order."""

    topics = f"publishes {unitree.STATE_TOPIC}; takes {unitree.CMD_TOPIC}"

    def __init__(self, robot: Simulation, bus: Bus) -> None:
        if sorted(robot.driven) != sorted(MOTORS) or not robot.servo.all():
            raise UserError(
                f"--port unitree: is for quadrupeds with servos at {listed(MOTORS)}; {robot.task_id} drives "
                f"{listed(robot.driven)}"
            )
        self._robot = robot
        self._joints = [robot.joints.index(name) for name in MOTORS]
        self._motors = [MOTORS.index(name) for name in robot.driven]
        self._states = bus.publisher(unitree.STATE_TOPIC, unitree.wire_type("LowState_"))
        self._commands = bus.subscription(unitree.CMD_TOPIC, unitree.wire_type("LowCmd_"))
        self._packet = Packet("LowState_")
        self._packet["head"], self._packet["level_flag"] = unitree.HEAD, [unitree.LOW_LEVEL]
        self._packet["motor_state.mode"] = [unitree.SERVO] * 12 + [0] * 8

    def commands(self) -> list[Drive | str]:
        """See `Port`."""
        return [self._command(sample.raw) for sample in self._commands.take()]

    def publish(self, state: State, wall_s: float, time_s: float) -> None:
        """See `Port`."""
        packet, unused = self._packet, [0.0] * 8
        for key, values in (("q", state.position), ("dq", state.velocity), ("tau_est", state.torque)):
            packet[f"motor_state.{key}"] = values[self._joints].tolist() + unused
        if state.orientation is not None:
            turn = matrix(state.orientation)
            roll_pitch_yaw = (np.arctan2(turn[2, 1], turn[2, 2]), -np.arcsin(np.clip(turn[2, 0], -1.0, 1.0)),
                              np.arctan2(turn[1, 0], turn[0, 0]))  # fmt: skip
            packet["imu_state.quaternion"], packet["imu_state.rpy"] = state.orientation.tolist(), roll_pitch_yaw
            packet["imu_state.gyroscope"] = state.gyro.tolist()
            packet["imu_state.accelerometer"] = state.acceleration.tolist()
        packet["tick"] = [round(time_s * 1e3) % 2**32]
        self._states.write(self._states.kind(packet.sign().pack()))

    def _command(self, raw: bytes) -> Drive | str:
        try:
            packet = Packet.parse("LowCmd_", raw)
        except ValueError as error:
            return str(error)
        if tuple(packet["head"]) != unitree.HEAD or packet["level_flag"] != [unitree.LOW_LEVEL]:
            return "head and level_flag are not those of a low-level command (FE EF, FF)"
        if not packet.signed:
            return "the checksum is wrong"
        modes = packet["motor_cmd.mode"]
        if any(modes[motor] != unitree.SERVO for motor in self._motors):
            return f"a motor's mode is not {unitree.SERVO}"
        q, dq, tau, kp, kd = (self._values(packet, key) for key in ("q", "dq", "tau", "kp", "kd"))
        if not np.isfinite((q, dq, tau, kp, kd)).all() or min(kp.min(), kd.min()) < 0.0:
            return "a value is not finite, or a gain is negative"
        return Drive(q, np.where(np.abs(dq) >= unitree.VELOCITY_STOP, 0.0, dq), tau, kp, kd)

    def _values(self, packet: Packet, key: str) -> Numbers:
        values: list[Any] = packet[f"motor_cmd.{key}"]
        return np.array([values[motor] for motor in self._motors], dtype=np.float64)
