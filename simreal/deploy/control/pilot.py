"""From a reading to what is sent: the soft start, then the policy, both within all limits. Knows no time of its own.

Part of `simreal.deploy`, which imports nothing else of simreal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..files import one_line
from ..policy import Policy
from ..targets import Numbers
from .events import EventLog, Fault, Spell
from .inner import PD, Between, Interpolation, joints_by_part
from .limits import Bounds, Limits, deadlines, sensor_ranges
from .robot import Reading
from .sensors import Inputs, Sensors, resolved
from .start import SoftStart
from .trained import TrainedLatency, TrainedRange


class Pilot:
    """Decides what a robot is told.

    Args:
        policy: see `Controller`, as the others.
        limits: of what is sent and measured.
        ticks: commands per action of the policy.
        interpolation: of these commands.
        torques: whether they are torques.

    Attributes:
        joints: what the contract says of the joints of each action component.
        pd: makes torques of targets; None where targets are sent.
        sensors: the observation.
        latency: of the sensors, beside training.
        action: [A] the last one.
        asked: [S] what the policy asked for last; NaN before it did.
        last: [S] the targets that were sent last; NaN where none were.
        told: [S] what was sent last, torques where those are sent.
        starting: whether the soft start is on its way.
        clamps: commands that a limit changed.

    Raises:
        ValueError: a limit does not fit the contract, or the contract has no gains.
    """

    def __init__(
        self, policy: Policy, limits: Limits, ticks: int, interpolation: Interpolation, torques: bool
    ) -> None:  # fmt: skip
        self._policy, self._limits, period = policy, limits, policy.control_period_s
        layout, contract, self._tick_s = policy.layout, policy.contract, period / ticks
        names = [part.name for part in layout.observation]
        self.joints = joints_by_part(policy)
        self.pd = PD(policy) if torques else None
        self._bounds = Bounds(limits, layout, self.joints)
        self.latency, self._trained = TrainedLatency(contract, names, period), TrainedRange(layout, contract)
        old = deadlines(limits, layout, period, self.latency.sensor_high)
        self.sensors = Sensors(layout, contract, *sensor_ranges(limits, layout, contract), old, period)
        self._between = Between(ticks, interpolation)
        self._start: SoftStart | None = None
        self._clamping, self.clamps = Spell(), 0
        self.forget()

    def forget(self) -> None:
        """Whatever was sent before counts no more."""
        size = self._policy.layout.action[-1].sent.stop
        self.action = np.zeros(self._policy.action_size, dtype=np.float32)
        self.asked, self.last, self.told = (np.full(size, np.nan) for _ in range(3))
        self.starting, self._stance = False, np.full(size, np.nan)

    def observe(self, reading: Reading, now: float, inputs: Inputs, whole: bool = True) -> None:
        """Take what was read at `now`, or its joints alone. Raises Fault."""
        try:
            if whole:
                self._take(reading, now, inputs)
            else:
                self.sensors.joints(reading)
        except Fault:
            raise
        except Exception as error:  # what a robot may give in the place of numbers
            raise Fault("lost", "", one_line(error)) from error

    def _take(self, reading: Reading, now: float, inputs: Inputs) -> None:
        given = resolved(inputs, reading.values)
        for name in given:
            if name not in self.sensors.sizes:
                raise Fault("inputs_failed", str(name), "no such component of the observation")
        self.sensors.take(reading, now, given, self._own())
        self.sensors.check(now)

    def _own(self) -> dict[str, ArrayLike]:
        """What no one else can know: the last action, zeros at first, and what was sent last."""
        own: dict[str, ArrayLike] = dict.fromkeys(self.sensors.last_action, self.action)
        last = np.where(np.isnan(self.last), self._stance, self.last)
        for name, part in self.sensors.last_sent.items():
            values = last[part.sent]
            if np.isnan(values).any():
                values = np.zeros(len(part.low)) if part.initial is None else part.initial
            own[name] = values
        return own

    def begin(self, reading: Reading, now: float, inputs: Inputs) -> float:
        """Start from what was read at `now`; returns how long the soft start takes, s.

        Raises:
            Fault: something is missing, stale or impossible as yet.
            ValueError: this robot cannot be started: it gives what the contract does not know, or is outside the start
                envelope.
        """
        self.forget()
        self.sensors.check_names(reading)
        self._take(reading, now, inputs)
        sensors, layout = self.sensors, self._policy.layout
        needed = self._bounds.needs_measured if self.pd is None else list(self.joints)
        for part in layout.action:
            here = np.concatenate((sensors.position[part.sent], sensors.velocity[part.sent]))
            if part.name in needed and np.isnan(here).any():
                what = "torques" if self.pd is not None else "Limits.effort"
                raise ValueError(f"{what} of {part.name!r} need Reading.positions and Reading.velocities of it")
        start = SoftStart(
            layout, self.joints, self._bounds, sensors.position, sensors.flat, self._tick_s, self._limits.start_s
        )
        known = np.concatenate([np.full(len(p.low), self.joints[p.name].position) for p in layout.action])
        self.last = np.where(known & ~np.isnan(sensors.position), start.begin, np.nan)
        self._start, self._stance, self.starting = start, start.stance, True
        return start.seconds

    def _take_over(self) -> None:
        """The soft start is done: an episode of the policy begins."""
        self.starting = False
        untold = {
            part.name: self._stance[part.sent]
            for part in self._policy.layout.action
            if (part.smoothing < 1.0 or part.onto_last) and part.initial is None and part.initial_columns is None
        }
        self._policy.reset(targets=untold or None)
        self._trained.reset()

    def command(self, fresh: bool, number: int) -> dict[str, Numbers]:
        """What is sent now, by action component.

        Args:
            fresh: whether an action of the policy is due.
            number: of this command, from 0, since the last action was due.

        Raises:
            Fault: the policy cannot decide, or no command keeps all limits.
        """
        assert self._start is not None
        if self.starting and fresh and self._start.done:
            self._take_over()
        if self.starting:
            now = self._stance if self._start.done else self._start.advance()
        else:
            if fresh:
                self._decide()
            now = self._between.at(number)
        sensors = self.sensors
        sent = self._bounds.clamp(now, self.last, sensors.position, sensors.velocity, self._tick_s, self.starting)
        self._clamped = not np.array_equal(sent, now)
        self.last = self.told = sent
        if self.pd is None:
            return self._split(sent.copy())
        torques = self.pd.torques(self._split(sent), self._split(sensors.position), self._split(sensors.velocity))
        self.told = np.concatenate([torques[part.name] for part in self._policy.layout.action])
        return torques

    def _decide(self) -> None:
        policy = self._policy
        try:
            if not (np.isnan(self.asked).any() or np.array_equal(self.last, self.asked)):
                policy.sent_instead(self._split(self.last))
            self.action = policy(self.sensors.flat)
            targets = policy.targets(self.action)
        except Exception as error:
            raise Fault("decide_failed", "", f"the policy raised {type(error).__name__}: {one_line(error)}") from error
        self.asked = np.concatenate([targets[part.name] for part in policy.layout.action])
        self._between.towards(self.asked, self.last)

    def look(self, log: EventLog, written: float) -> None:
        """Tell what is unlike training, and what was clamped, once the command is sent. Raises Fault where that is to
        stop the robot."""
        self.clamps += self._clamped
        if self._clamping.begins(self._clamped):
            at = int(np.argmax(self.last != self.asked))
            part = next(part for part in self._policy.layout.action if at < part.sent.stop)
            names, column = self.joints[part.name].names, at - part.sent.start
            who = names[column] if names else f"value {column}"
            asked = "a step of the soft start" if self.starting else f"{self.asked[at]:.4g} {part.unit}"
            log.add("clamped", f"{who}: {asked} was asked for, {self.last[at]:.4g} sent", part.name)
        if self.starting:
            return
        for name, unlike, text in self.latency.update(written - self.sensors.stamps):
            log.add("latency" if unlike else "latency_as_trained", text, name)
        for name, outside, text in self._trained.update(self.sensors.flat):
            if outside and self._limits.stop_out_of_training:
                raise Fault("out_of_training", name, text)
            log.add("out_of_training" if outside else "back_in_training", text, name)

    def _split(self, values: Numbers) -> dict[str, Numbers]:
        return {part.name: values[part.sent] for part in self._policy.layout.action}

    def about_latency(self) -> Mapping[str, Any] | None:
        """The latency of training by observation component, [least, largest] s; None where that is not known."""
        latency = self.latency
        if latency.low is None or latency.high is None:
            return None
        entries = enumerate(self._policy.contract["observation"])
        measured = [(i, entry["name"]) for i, entry in entries if entry.get("measured", True)]
        return {name: [float(latency.low[i]), float(latency.high[i])] for i, name in measured}
