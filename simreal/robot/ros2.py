"""A robot of ROS 2: reads joint states and an IMU, tells a ros2_control controller its targets."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs.common.messages import listed, nearest
from simreal.common.errors import UserError
from simreal.deploy import Reading
from simreal.deploy.control.robot import SafeAction
from simreal.robot.clock import RemoteClock
from simreal.robot.dds import Bus, Publisher, Sample, Subscription, expect_publisher, expect_subscriber, wait_until
from simreal.robot.sources import ImuState, Joint, Measurements

CommandKind = Literal["array", "trajectory"]
TOPICS = ("joint_states", "commands", "imu")
_POSITIONS, _SPEEDS, _TORQUES = ("rad", "m"), ("rad/s", "m/s"), ("N m", "N", "1")


class Ros2Robot:
    """A `Robot` behind ROS 2 messages.

    Args:
        contract: of the policy.
        topics: "joint_states", "commands", and "imu" where the policy needs one -> names in ROS 2.
        bus: of the graph's domain.
        order: joints in the order in which the forward command controller is configured; None: as in the contract.
        kind: of the commands; None: what their subscriber wants.
        shared_clock: whether stamps are on a clock that agrees with this machine's, see `RemoteClock`.
        mount: see `Measurements`.
        given: observation components that come by other ways.
        period_s: within which a trajectory's targets are to be reached, s.
        wait_s: how long to wait for publishers, subscribers and first messages.

    Attributes:
        safe_actions: what `safe` can do over these messages.

    Raises:
        UserError: a topic is not there or of another type or quality of service, or the robot has other joints. Nothing
            has been sent then.
    """

    def __init__(
        self, contract: Mapping[str, Any], topics: Mapping[str, str], bus: Bus, *, order: Sequence[str] | None = None,
        kind: CommandKind | None = None, shared_clock: bool = False, mount: ArrayLike | None = None,
        given: Sequence[str] = (), period_s: float | None = None, wait_s: float = 5.0,
    ) -> None:  # fmt: skip
        from simreal.robot import ros_messages as ros

        self._ros, self._bus = ros, bus
        self._seen = Measurements(contract, given, mount)
        _check_topics(topics, bool(self._seen.sources.imu))
        self._driven = [name for names in self._seen.driven.values() for name in names]
        self._order = _permutation(order, self._driven)
        self._names = [self._driven[i] for i in self._order]
        self._units = [str(entry["unit"]) for entry in contract["action"] for _ in self._seen.driven[entry["name"]]]
        self.safe_actions = safe_actions(set(self._units))
        self._period_s = float(contract["control_period_s"] if period_s is None else period_s)
        self._clocks: dict[tuple[str, int], RemoteClock] = {}
        self._make_clock = lambda: RemoteClock(shared_clock)
        self._said, self._held = dict(topics), None
        self._held: NDArray[np.float64] | None = None
        self.faulty = 0  # messages that could not be read
        self._subscriptions = {"joint_states": bus.subscription(ros.dds_topic(topics["joint_states"]), ros.JointState)}
        if self._seen.sources.imu:
            self._subscriptions["imu"] = bus.subscription(ros.dds_topic(topics["imu"]), ros.Imu)
        self._connect(kind, wait_s)

    def _connect(self, kind: CommandKind | None, wait_s: float) -> None:
        """Find everybody, look at first messages. Raises UserError."""
        for key, subscription in self._subscriptions.items():
            expect_publisher(self._bus, subscription, wait_s, self._name(key))
        self._first_messages(wait_s)
        topic = self._ros.dds_topic(self._said["commands"])
        wait_until(lambda: topic in self._bus.subscribed(), wait_s)
        wanted = self._bus.subscribed().get(topic, set())
        if kind is None:
            kind = "trajectory" if wanted & {_type(self._ros.JointTrajectory)} else "array"
        self._kind: CommandKind = kind
        if kind == "trajectory" and set(self._units) - set(_POSITIONS):
            raise UserError(f"commands: a trajectory tells positions, but the policy's targets are in {self._units[0]}")
        message = self._ros.JointTrajectory if kind == "trajectory" else self._ros.Float64MultiArray
        self._commands: Publisher = self._bus.publisher(topic, message)
        expect_subscriber(self._bus, self._commands, wait_s, self._name("commands"))

    def _first_messages(self, wait_s: float) -> None:
        """Raise UserError where messages lack something that the policy needs."""

        def complete() -> bool:
            self._take()
            return not self._seen.missing() and (self._seen.imu is not None or "imu" not in self._subscriptions)

        if not wait_until(complete, wait_s):
            if not self._seen.joints:
                more = f": {self.faulty} messages could not be read" if self.faulty else ", but no message came"
                raise UserError(f"{self._name('joint_states')}: is published{more} within {wait_s:g} s")
            if missing := self._seen.missing():
                has = list(self._seen.joints)
                raise UserError(
                    f"{self._name('joint_states')}: the robot has other joints than the policy: no {missing[0]!r}"
                    f"{nearest(missing[0], has)}; it has: {listed(has)}"
                )
            raise UserError(f"{self._name('imu')}: is published, but no message came within {wait_s:g} s")
        reading = self._read_values()
        for name, value in reading.values.items():
            if np.isnan(np.asarray(value)).all():
                raise UserError(f"{self._name('joint_states')}: messages do not say what {name!r} needs")

    def _read_values(self) -> Reading:
        try:
            return self._seen.reading()
        except ValueError as error:
            raise UserError(f"{self._name('imu')}: {error}") from None

    def _name(self, key: str) -> str:
        return f"{key}:={self._said[key]}"

    @property
    def joints(self) -> dict[str, tuple[str, ...]]:
        """The joints of each action component, in the order of its targets."""
        return self._seen.driven

    @property
    def command_order(self) -> list[str]:
        """The order in which values of an array are sent."""
        return list(self._names)

    @property
    def command_kind(self) -> CommandKind:
        """What commands are."""
        return self._kind

    def read(self) -> Reading:
        """The newest messages. Raises ValueError where they make no sense."""
        self._take()
        return self._seen.reading()

    def write(self, targets: Mapping[str, NDArray[np.float64]]) -> None:
        """Publish targets."""
        self._held = None
        self._send(np.concatenate([np.asarray(targets[name], dtype=np.float64) for name in self._seen.driven]))

    def safe(self, action: SafeAction) -> None:
        """Hold the positions of now, or stop pushing: what the interface of the commands can say.

        Raises:
            ValueError: it cannot say that: a position controller has its own gains.
        """
        if action not in self.safe_actions:
            raise ValueError(f"commands in {self._units[0]} cannot {action}; they can {' or '.join(self.safe_actions)}")
        if self._units[0] not in _POSITIONS:
            return self._send(np.zeros(len(self._driven)))  # no torque, or no speed
        if self._held is None:
            self._take()
            self._held = np.array([self._seen.joints[name].position for name in self._driven])
        self._send(self._held)

    def _send(self, values: NDArray[np.float64]) -> None:
        ordered = values[self._order]
        if not np.isfinite(ordered).all():
            raise ValueError("a target is not finite: nothing is sent")
        if self._kind == "trajectory":
            message = self._ros.JointTrajectory.of(self._names, ordered, self._period_s)
        else:
            message = self._ros.Float64MultiArray.of(self._names, ordered)
        self._commands.write(message)

    def _take(self) -> None:
        """Take what has come."""
        now = time.monotonic()
        for key, subscription in self._subscriptions.items():
            self._newest(key, subscription, now, self._joint_state if key == "joint_states" else self._imu)

    def _newest(self, key: str, subscription: Subscription, now: float, take: Callable[[Any, float], None]) -> None:
        """The newest message of each publisher: several may speak of different joints."""
        newest: dict[int, Sample] = {sample.writer: sample for sample in subscription.take()}
        for writer, sample in newest.items():
            try:
                message = subscription.kind.parse(sample.raw)
            except ValueError:
                self.faulty += 1
                continue
            clock = self._clocks.setdefault((key, writer), self._make_clock())
            stamp = message.header.stamp.seconds
            take(message, clock.local(stamp if stamp > 0.0 else sample.source_s, now))

    def _joint_state(self, message: Any, stamp: float) -> None:
        lists = [message.position, message.velocity, message.effort]
        for i, name in enumerate(message.name):
            position, velocity, effort = (values[i] if i < len(values) else float("nan") for values in lists)
            self._seen.joints[name] = Joint(position, velocity, effort, stamp)

    def _imu(self, message: Any, stamp: float) -> None:
        q, w, a = message.orientation, message.angular_velocity, message.linear_acceleration
        # REP 145: a covariance of -1 says that there is no estimate
        orientation = None if message.orientation_covariance[0] == -1.0 else np.array([q.w, q.x, q.y, q.z])
        acceleration = None if message.linear_acceleration_covariance[0] == -1.0 else np.array([a.x, a.y, a.z])
        self._seen.imu = ImuState(orientation, np.array([w.x, w.y, w.z]), acceleration, stamp)


def _type(kind: type[Any]) -> str:
    return str(kind.__idl_typename__)


def _check_topics(topics: Mapping[str, str], imu: bool) -> None:
    """Raise UserError unless the topics are those that are needed."""
    for key in topics:
        if key not in TOPICS:
            raise UserError(f"{key}:={topics[key]}: unknown{nearest(key, TOPICS)}; there are: {', '.join(TOPICS)}")
    for key in TOPICS[:2] if not imu else TOPICS:
        if key not in topics:
            raise UserError(f"{key}:=TOPIC is missing: the policy needs it")
        if not topics[key].strip("/"):
            raise UserError(f"{key}:=: expected the name of a topic")


def _permutation(order: Sequence[str] | None, driven: Sequence[str]) -> list[int]:
    """Where each joint of `order` stands among the driven ones. Raises UserError."""
    if order is None:
        return list(range(len(driven)))
    for name in order:
        if name not in driven:
            raise UserError(
                f"--joints: no target for {name!r}{nearest(name, driven)}; the policy drives {listed(driven)}"
            )
    if len(order) != len(set(order)) or len(order) != len(driven):
        left = [name for name in driven if name not in order]
        raise UserError(f"--joints: expected each of the {len(driven)} driven joints once; left out: {listed(left)}")
    return [list(driven).index(name) for name in order]


def safe_actions(units: set[str]) -> tuple[SafeAction, ...]:
    """What can be said in a unit. Raises UserError where components would be told different things."""
    if units <= set(_POSITIONS) or units <= set(_SPEEDS):
        return ("hold",)
    if units <= set(_TORQUES):
        return ("zero_torque",)
    raise UserError(f"commands of one topic have one unit; the policy's are in {', '.join(sorted(units))}")
