"""Random schedules of faults: no command outside the limits, the safe action within one period, until armed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from simreal.deploy import Controller, Limits, Policy, Reading
from toy_arm import NAME, PERIOD, arm_bundles
from toy_robot import Clock, ToyRobot

RATE, EFFORT = np.array([2.0, 2.0, 3.0]), np.array([18.0, 25.0, 48.0])
LOW, HIGH = np.array([-1.2, -1.0, -1.1]), np.array([1.2, 1.0, 1.3])
START_LOW, START_HIGH = np.full(3, -1.6), np.full(3, 1.6)
LIMITS = Limits(
    position={NAME: (LOW, HIGH)}, rate={NAME: RATE}, effort={NAME: EFFORT}, start={NAME: (START_LOW, START_HIGH)},
    sensors={"joint_pos": (-8.0, 8.0)}, start_s=0.1, start_speed={NAME: 4.0}, deadline_s=0.05, wait_s=100.0,
)  # fmt: skip
STALL_S = 0.06  # three periods
WORDS = {  # of a schedule -> kinds of events that may follow
    "silence": {"stale"}, "nothing": {"stale"}, "late stamps": {"stale"}, "future": {"stale"},
    "nan": {"not_finite"}, "nan joint": {"not_finite"}, "impossible": {"out_of_range"},
    "missing": {"lost"}, "short": {"lost"}, "text": {"lost"}, "garbage": {"lost"}, "read raises": {"read_failed"},
    "write raises": {"write_failed"}, "kick": {"limits"}, "stall asleep": {"stalled"}, "stall in read": {"stalled"},
    "stall in write": {"stalled"}, "stall in policy": {"stalled"},
}  # fmt: skip


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> list[Policy]:
    """Restless policies: targets that smoothing follows, and ones that are added to the last."""

    folder = arm_bundles(tmp_path_factory, restless=6.0)
    return [Policy.load(folder / kind) for kind in ("smooth", "steps")]


class Breaking(ToyRobot):
    """A robot that checks every command as it comes, and notes when what is wrong began.

    Attributes:
        faults: when each fault that lasts began: from then on no command may come until the robot is armed again.
    """

    def __init__(self, policy: Policy, clock: Clock, random: np.random.Generator) -> None:
        super().__init__(policy, clock, {NAME: random.uniform(-0.4, 0.4, 3)})
        self.time, self.random = clock, random
        self.plan = ""
        self.starting: Callable[[], bool] = lambda: True
        self.faults: list[float] = []
        self.wrong: list[str] = []  # what the controller did and must not do; it catches what a robot raises
        self.waiting = True  # nothing has been sent since the controller was armed
        self._given: Reading | None = None
        self._last, self._read_at = np.full(3, np.nan), clock.now

    def fault(self, at: float | None = None) -> None:
        self.faults.append(self.time.now if at is None else at)

    def read(self) -> Any:
        self._read_at = self.time.now
        if self.plan == "read raises":
            self.fault()
            raise OSError("cable")
        if self.plan == "stall in read":
            self.time.now += 0.3
            self.fault()
        if self.plan in ("silence", "nothing") and self._given is not None:
            if self.time.now - min(self._given.stamps.values()) > 0.05:
                self.fault()
            return self._given if self.plan == "silence" else None
        self._given = self.spoilt(super().read())
        return self._given

    def spoilt(self, reading: Reading) -> Any:
        """What the robot says while a fault lasts."""
        name = str(self.random.choice(["joint_pos", "joint_vel"]))
        values: dict[str, Any] = dict(reading.values)
        at = int(self.random.integers(3))
        if self.plan in ("late stamps", "future"):
            self.fault()
            shift = 0.051 + self.random.exponential(0.1)
            return replace(
                reading, stamps={**reading.stamps, name: self.time.now + shift * (1 if self.plan == "future" else -1)}
            )
        if self.plan == "nan":
            values[name][at] = self.random.choice([np.nan, np.inf, -np.inf])
        elif self.plan == "impossible":
            values["joint_pos"][at] = self.random.choice([-1.0, 1.0]) * (8.01 + self.random.exponential(5.0))
        elif self.plan == "missing":
            del values[name]
        elif self.plan == "short":
            values[name] = values[name][:2]
        elif self.plan == "text":
            values[name] = ["a", "b", "c"]
        elif self.plan == "nan joint":
            self.fault()
            return replace(reading, positions={NAME: np.array([0.0, np.nan, 0.0])})
        elif self.plan == "kick":
            self.fault()
            self.q[NAME] = self.q[NAME] + np.array([3.0, 0.0, 0.0]) * self.random.choice([-1.0, 1.0])
            return replace(reading, positions={NAME: self.q[NAME].copy()})
        elif self.plan == "garbage":
            self.fault()
            nothing: Any = None
            wrong = [{"values": nothing}, {"stamps": {"joint_pos": "soon"}}, {"positions": {NAME: object()}},
                     {"positions": [0.0]}, {"values": {"joint_pos": nothing, "joint_vel": nothing}}]  # fmt: skip
            return self.random.choice(["text", 7]) if at == 0 else replace(reading, **self.random.choice(wrong))
        else:
            return reading
        self.fault()
        return replace(reading, values=values)

    def must(self, true: Any, what: str) -> None:
        if not np.all(true):
            self.wrong.append(f"{self.time.now:.3f} s, {self.plan}: {what}")

    def write(self, targets: Any) -> None:
        now, sent = self.time.now, targets[NAME]
        self.must(self.faults == [], "a command after a fault")
        assert self._given is not None
        self.must(now - min(self._given.stamps.values()) <= 0.05, "a command from stale measurements")
        self.must(now - self._read_at <= STALL_S, "a command after a stall")
        if self.waiting:
            self.must((self.q[NAME] >= START_LOW) & (self.q[NAME] <= START_HIGH), "a start outside the envelope")
            self._last, self.waiting = np.array(self._given.positions[NAME]), False
        if self.plan == "write raises":
            self.fault()
            raise ConnectionError("bus")
        self.check(sent)
        super().write(targets)
        self._last = sent.copy()
        if self.plan == "stall in write":
            self.time.now += 0.2
            self.fault()

    def check(self, sent: np.ndarray) -> None:
        """Limits, worked out here."""
        self.must(np.isfinite(sent), "not finite")
        low, high = (START_LOW, START_HIGH) if self.starting() else (LOW, HIGH)
        self.must(sent >= low, "too low")
        self.must(sent <= high, "too high")
        self.must(np.abs(sent - self._last) <= RATE * PERIOD + 1e-9, "too fast")
        entry = self.policy.contract["action"][0]
        assert self._given is not None
        q, v = self._given.positions[NAME], self._given.velocities[NAME]
        torque = np.array(entry["stiffness"]) * (sent - q) - np.array(entry["damping"]) * v
        self.must(np.abs(torque) <= EFFORT + 1e-9, "too strong")

    def safe(self, action: str) -> None:
        self.must(action == "damp", action)
        if self.faults and not self.waiting:
            self.must(self.time.now - self.faults[0] <= PERIOD + 1e-9, "safe too late")
        self.waiting = True
        super().safe(action)


class Stalling(Policy):
    """A policy whose answer takes long when it is told to."""

    robot: Breaking

    def __call__(self, observation: Any) -> Any:
        if self.robot.plan == "stall in policy":
            self.robot.time.now += 0.1
            self.robot.fault()
        return super().__call__(observation)


def play(policy: Policy, seed: int) -> None:
    """One schedule: faults, each of which is mended and followed by arming."""
    random, clock = np.random.default_rng(seed), Clock()
    slow = Stalling(policy.contract, policy.layout, policy._session)
    slow.robot = robot = Breaking(policy, clock, random)
    controller = Controller(slow, robot, limits=LIMITS, inputs={"wanted": [0.3]}, **clock.times())
    robot.starting = lambda: controller._pilot.starting
    controller.arm()

    def cycles(count: int, until: Callable[[], bool] = lambda: False) -> None:
        for _ in range(count):
            controller.step()
            if until():
                return
            assert controller._due is not None
            clock.now = max(clock.now, controller._due)

    for _ in range(3):
        cycles(60, lambda: controller.state == "running")
        assert controller.state == "running", controller.events[-3:]
        cycles(int(random.integers(12)))
        if not random.integers(4):  # or during the soft start
            controller._stop("stopped", "for a test")
            controller.arm()
            cycles(2)
        plan, known = str(random.choice(list(WORDS))), len(controller.events)
        if plan == "stall asleep":
            clock.now += 0.3
            robot.fault()
        robot.plan = plan
        robot.q[NAME] = np.clip(robot.q[NAME], -1.5, 1.5)
        cycles(30, lambda: controller.state == "stopped")
        assert controller.state == "stopped", plan
        robot.plan = ""
        cycles(int(random.integers(1, 10)))
        assert clock.now - robot.made_safe[-1][0] <= PERIOD + 1e-9  # as in every period since
        assert robot.wrong == []
        happened = [
            event.kind for event in controller.events[known:] if event.kind not in ("running", "clamped", "overrun")
        ]
        assert len(happened) == 2, (plan, happened)
        assert happened[0] in WORDS[plan] | ({"stalled", "stale"} if "stall" in plan else set()), (plan, happened)
        assert happened[1] == "stopped"
        robot.faults.clear()
        robot.q[NAME] = random.uniform(-0.4, 0.4, 3)
        controller.arm()


@pytest.mark.parametrize("kind", [0, 1], ids=["smooth", "steps"])
def test_faults_at_random_times_lead_to_the_safe_action_and_nothing_else(policies: list[Policy], kind: int) -> None:
    for seed in range(50):
        play(policies[kind], seed)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [0, 1], ids=["smooth", "steps"])
def test_a_thousand_schedules(policies: list[Policy], kind: int) -> None:
    for seed in range(1000, 1500):
        play(policies[kind], seed)
