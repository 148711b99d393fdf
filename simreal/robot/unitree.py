"""A Unitree quadruped of SDK2: reads LowState, tells its motors with LowCmd."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs.common.messages import listed, nearest
from simreal.common.errors import UserError
from simreal.deploy import Reading
from simreal.deploy.control.robot import SAFE_ACTIONS, SafeAction
from simreal.robot import unitree_messages as unitree
from simreal.robot.clock import RemoteClock
from simreal.robot.dds import Bus, expect_publisher, expect_subscriber, wait_until
from simreal.robot.sources import ImuState, Joint, Measurements
from simreal.robot.unitree_messages import MOTORS, Packet

Numbers = NDArray[np.float64]


class UnitreeRobot:
    """A `Robot` behind LowState and LowCmd.

    Args:
        contract: of the policy; its action states gains.
        bus: of the robot's domain.
        shared_clock, mount, given, wait_s: as for `Ros2Robot`.

    Attributes:
        safe_actions: what `safe` can do: all.
        rejected: messages whose checksum was wrong.

    Raises:
        UserError: nobody publishes LowState or subscribes to LowCmd, or the policy is of another robot. Nothing has
            been sent then.
    """

    safe_actions: tuple[SafeAction, ...] = SAFE_ACTIONS

    def __init__(
        self, contract: Mapping[str, Any], bus: Bus, *, shared_clock: bool = False, mount: ArrayLike | None = None,
        given: Sequence[str] = (), wait_s: float = 5.0,
    ) -> None:  # fmt: skip
        self._seen = Measurements(contract, given, mount)
        for name in self._seen.needed:
            if name not in MOTORS:
                raise UserError(
                    f"a Unitree quadruped has no joint {name!r}{nearest(name, MOTORS)}; it has: {listed(MOTORS)}"
                )
        self._motors = [MOTORS.index(name) for names in self._seen.driven.values() for name in names]
        self._kp, self._kd, self._torques = _gains(contract, self._seen.driven)
        self._clock = RemoteClock(shared_clock)
        self._ticks_s, self._tick = 0.0, -1
        self._shared = shared_clock
        self.rejected = 0
        self._held: Numbers | None = None
        self._states = bus.subscription(unitree.STATE_TOPIC, unitree.wire_type("LowState_"))
        expect_publisher(bus, self._states, wait_s, unitree.STATE_TOPIC)
        if not wait_until(lambda: self._take() or bool(self._seen.joints), wait_s):
            more = f": the checksum of {self.rejected} is wrong" if self.rejected else ", but no message came"
            raise UserError(f"{unitree.STATE_TOPIC}: is published{more} within {wait_s:g} s")
        self._commands = bus.publisher(unitree.CMD_TOPIC, unitree.wire_type("LowCmd_"))
        expect_subscriber(bus, self._commands, wait_s, unitree.CMD_TOPIC)

    @property
    def joints(self) -> dict[str, tuple[str, ...]]:
        """The joints of each action component, in the order of its targets."""
        return self._seen.driven

    def read(self) -> Reading:
        """The newest LowState. Raises ValueError where it makes no sense."""
        self._take()
        return self._seen.reading()

    def write(self, targets: Mapping[str, Numbers]) -> None:
        """Send targets with the contract's gains, or torques."""
        self._held = None
        values = np.concatenate([np.asarray(targets[name], dtype=np.float64) for name in self._seen.driven])
        here = self._positions()
        zeros = np.zeros(len(values))
        self._send(
            np.where(self._torques, here, values), np.where(self._torques, values, zeros),
            np.where(self._torques, zeros, self._kp), np.where(self._torques, zeros, self._kd),
        )  # fmt: skip

    def safe(self, action: SafeAction) -> None:
        """Hold the positions of now with the contract's gains, damp with its damping, or let go."""
        here, zeros = self._positions(), np.zeros(len(self._motors))
        if action == "hold":
            if self._held is None:
                self._held = here
            self._send(self._held, zeros, self._kp, self._kd)
        else:
            self._send(here, zeros, zeros, self._kd if action == "damp" else zeros)

    def _positions(self) -> Numbers:
        return np.array([self._seen.joints[MOTORS[i]].position for i in self._motors])

    def _send(self, position: Numbers, torque: Numbers, kp: Numbers, kd: Numbers) -> None:
        packet = unitree.low_cmd()
        for path, values in (("q", position), ("dq", np.zeros(len(kp))), ("tau", torque), ("kp", kp), ("kd", kd)):
            if not np.isfinite(values).all():
                raise ValueError(f"{path} of a motor is not finite: nothing is sent")
            places = packet.layout.places[f"motor_cmd.{path}"]
            for motor, value in zip(self._motors, values.tolist(), strict=True):
                packet.values[places[motor]] = value
        self._commands.write(self._commands.kind(packet.sign().pack()))

    def _take(self) -> None:
        """Take the newest LowState that is whole."""
        now = time.monotonic()
        for sample in reversed(self._states.take()):
            try:
                state = Packet.parse("LowState_", sample.raw)
            except ValueError:
                self.rejected += 1
                continue
            if state["crc"] != [0] and not state.signed:  # some firmware leaves it at 0
                self.rejected += 1
                continue
            self._state(state, self._clock.local(self._stamp(state["tick"][0], sample.source_s), now))
            return

    def _stamp(self, tick: int, source_s: float) -> float:
        """When a state was measured: its `tick` counts ms; where clocks are shared, when it was written."""
        return source_s if self._shared or tick == 0 else tick * 1e-3

    def _state(self, state: Packet, stamp: float) -> None:
        q, dq, torque = (state[f"motor_state.{key}"] for key in ("q", "dq", "tau_est"))
        for motor, name in enumerate(MOTORS):
            self._seen.joints[name] = Joint(q[motor], dq[motor], torque[motor], stamp)
        turn, gyro, acceleration = (np.array(state[f"imu_state.{key}"], dtype=np.float64) for key in
                                    ("quaternion", "gyroscope", "accelerometer"))  # fmt: skip
        self._seen.imu = ImuState(turn, gyro, acceleration, stamp)


def _gains(
    contract: Mapping[str, Any], driven: Mapping[str, tuple[str, ...]]
) -> tuple[Numbers, Numbers, NDArray[np.bool_]]:
    """Stiffness and damping of each target, and which targets are torques. Raises UserError."""
    kp, kd, torques = list[float](), list[float](), list[bool]()
    for entry in contract["action"]:
        size, unit = len(driven[entry["name"]]), entry.get("unit")
        gains = [entry.get(key) for key in ("stiffness", "damping")]
        stated = [isinstance(g, list) and len(g) in (1, size) and all(v is not None for v in g) for g in gains]
        if unit == "rad" and all(stated):
            kp += np.broadcast_to(gains[0], size).tolist()
            kd += np.broadcast_to(gains[1], size).tolist()
        elif unit == "N m":
            kp += [0.0] * size
            kd += np.broadcast_to(gains[1], size).tolist() if stated[1] else [0.0] * size
        else:
            raise UserError(
                f"{entry['name']!r}: a Unitree motor takes positions in rad with gains, or torques in N m; the "
                f"contract has {unit} and states {'gains' if all(stated) else 'no gains'}"
            )
        torques += [unit == "N m"] * size
    return np.array(kp), np.array(kd), np.array(torques)
