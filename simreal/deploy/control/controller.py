"""Runs a policy on a robot at its rate, and protects the robot.

Part of `simreal.deploy`, which imports nothing else of simreal. `docs/robot.md` shows it at work.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import ArrayLike

from ..files import one_line
from ..policy import Policy
from .events import Event, EventLog, Fault, Kind, Spell
from .inner import INTERPOLATIONS, Interpolation, ticks_of
from .limits import PERIODS, Limits
from .pilot import Pilot
from .recording import Recorder, Tracks
from .robot import SAFE_ACTIONS, Reading, Robot, SafeAction, same_robot
from .sensors import Inputs, check_inputs
from .signals import Interrupts
from .timing import Times

State = Literal["idle", "starting", "running", "stopped"]
_STATES: tuple[State, ...] = ("idle", "starting", "running", "stopped")
_TIMES = ("late", "read", "decide", "write", "read_decide_write", "sensor_age", "latency", "record")
_GOODBYES = 5  # how often the safe action is said when `run` ends: a message may be lost


class Controller:
    """A loop that owns time: it reads a robot, runs its policy, sends what is within all limits, and stops where
    something is wrong.

    States: "idle", nothing has been sent; "starting", the joints are led to the policy's stance; "running"; "stopped":
    the robot is told the safe action in every period, until `arm` is called.

    Args:
        policy: or its bundle, which is checked as `Policy.load` does.
        robot: see `Robot`.
        limits: of what is sent and of what is measured.
        inputs: what no sensor measures (a command, a goal), see `Inputs`; may be changed at any time. The policy's
            last action, and what was sent last, are known.
        record: path of a log of every cycle: a rosbag2 directory, a file that ends in .mcap, or one in .npz.
        safe: what the robot is told when something is wrong.
        inner_hz: how often commands are sent, a multiple of the policy's rate; None: once for each of its actions.
        interpolation: of commands between two actions: "hold", or "linear", which arrives as the next one is decided.
        torques: whether the robot takes torques: PD with the contract's gains, at `inner_hz`.
        on_event: called with each event as it happens.
        clock, sleep: s, of the time that `Reading.stamps` are on; tests put others in their place.

    Attributes:
        state: see above.
        inputs: as above.
        events: all so far.
        period_s: time between two calls of `step`, s.

    Raises:
        BundleError: the bundle cannot be trusted.
        ValueError: a component is unknown, the robot has other joints or gains than the contract, or an argument does
            not fit. Nothing has been sent then.
    """

    def __init__(
        self, policy: Policy | str | os.PathLike[str], robot: Robot, *, limits: Limits | None = None,
        inputs: Inputs | None = None, record: str | os.PathLike[str] | None = None, safe: SafeAction = "damp",
        inner_hz: float | None = None, interpolation: Interpolation = "hold", torques: bool = False,
        on_event: Callable[[Event], None] | None = None, clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        self._policy = policy if isinstance(policy, Policy) else Policy.load(policy)
        if self._policy.layout.pictures is not None:
            raise ValueError(
                "policy: looks at pictures, which a Controller does not carry; call Policy in your own loop"
            )
        self._robot, limits = robot, limits or Limits()
        self.inputs: Inputs = {} if inputs is None else inputs
        for what, value, known in (("safe", safe, SAFE_ACTIONS), ("interpolation", interpolation, INTERPOLATIONS)):
            if value not in known:
                raise ValueError(f"{what}: expected {' or '.join(known)}, got {value!r}")
        self._safe: SafeAction = safe
        period = self._policy.control_period_s
        self._ticks = ticks_of(inner_hz, period)
        self.period_s = period / self._ticks
        self._pilot = Pilot(self._policy, limits, self._ticks, interpolation, torques)
        self._wait_s, self._stall_s = limits.wait_s, PERIODS * period if limits.stall_s is None else limits.stall_s
        same_robot(robot, self._pilot.joints)
        check_inputs(self.inputs, [part.name for part in self._policy.layout.observation])
        self._clock, self._sleep, begin = clock, sleep, clock()
        pd, contract = self._pilot.pd, self._policy.contract
        self._tracks = Tracks(self._policy.layout, contract, self._pilot.joints, pd.units if pd else {})
        self._record = None if record is None else Recorder(Path(record), self._tracks, contract, clock, begin)
        told = [] if on_event is None else [on_event]
        self._log = EventLog(clock, told if self._record is None else [self._record.add, *told])
        self._times = Times(_TIMES)
        self.state: State = "idle"
        self._armed_at: float | None = None
        self._due: float | None = None
        self._tick, self._block = -1, -1
        self._reading: Reading | None = None
        self._commanded, self._observed = False, False
        self._cycles = self._overruns = self._skipped = 0
        self._slow, self._unsafe, self._log_failed = Spell(), Spell(calm=1), False

    @property
    def events(self) -> list[Event]:
        """What happened so far."""
        return list(self._log.events)

    def arm(self) -> None:
        """Let the policy start, at first or after the robot was made safe: as soon as all sensors are there, fresh and
        possible, and the joints within the start envelope. May be called from another thread than `run`."""
        if self.state in ("starting", "running"):
            raise ValueError(f"arm: the controller is {self.state}")
        self._log.add("armed", "waits for complete and fresh measurements")
        self._armed_at = self._clock()

    def run(self, seconds: float | None = None) -> dict[str, Any]:
        """Run until SIGINT or SIGTERM, or for a time, at the policy's rate; arms itself at first.

        It ends with the safe action. After a fault it goes on telling the robot that, until it is armed again.

        Args:
            seconds: from when the policy takes over (or the robot is stopped), s; None: without end.

        Returns:
            What `report` does.

        Raises:
            ValueError: nothing can be started: a component is missing or unknown, or a joint is outside the start
                envelope. Nothing has been sent.
            KeyboardInterrupt, SystemExit: it was interrupted; the robot has been made safe.
        """
        if self.state == "idle" and self._armed_at is None:
            self.arm()
        self._due, end = None, np.inf
        with Interrupts() as interrupts:
            try:
                while not interrupts.signal and self._clock() < end:
                    self.step()
                    if seconds is not None and end == np.inf and self.state in ("running", "stopped"):
                        end = self._clock() + seconds
                    self._wait(interrupts)
            finally:
                self._leave(interrupts)
        interrupts.act()
        return self.report()

    def step(self) -> State:
        """One cycle, now; for loops that keep the time themselves, every `period_s`.

        Raises:
            ValueError: nothing can be started, see `run`.
        """
        try:
            self._cycle()
        except BaseException:
            if self.state in ("starting", "running"):  # nothing of the robot's: an interrupt between two statements
                self.state = "stopped"
            if self.state == "stopped":
                self._make_safe()
            raise
        return self.state

    def close(self) -> None:
        """Make a moving robot safe, and end the log."""
        if self.state in ("starting", "running"):
            self._stop("stopped", "closed")
            self._make_safe()
        if self._record is not None:
            self._record.close()

    def __enter__(self) -> Controller:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def report(self) -> dict[str, Any]:
        """What happened, as JSON has it: cycles, overruns, times (p50, p99, max, s), clamps, events."""
        record = self._record
        return {
            "task": self._policy.contract.get("task"), "state": self.state, "cycles": self._cycles,
            "control_period_s": self._policy.control_period_s, "overruns": self._overruns, "skipped": self._skipped,
            "clamped": self._pilot.clamps, "times_s": self._times.summary(),
            "trained_latency_s": self._pilot.about_latency(),
            "record": None if record is None else vars(record.counts()),
            "events": [vars(event) for event in self._log.events],
        }  # fmt: skip

    def _cycle(self) -> None:
        """Read, decide, send; or make safe."""
        now = self._clock()
        if self._due is not None and now < self._due - 0.5 * self.period_s:
            return  # called too soon: another rate would be another policy
        fresh, lost = self._on_time(now)
        if self.state == "idle" and self._armed_at is None:
            return
        marks = [now, np.nan, np.nan, np.nan]
        self._observed = False
        try:
            reading, marks[1] = self._read(now)
            if self.state in ("idle", "stopped"):
                self._look(reading, marks[1], fresh)
            if self.state in ("starting", "running"):
                if lost > self._stall_s:
                    raise _stalled(lost, self._stall_s)
                self._command(reading, marks, fresh)
        except Fault as fault:
            self._fault(fault)
        except Exception as error:
            if self.state not in ("starting", "running"):
                raise
            self._fault(Fault("decide_failed", "", f"{type(error).__name__}: {one_line(error)}"))
        if self.state == "stopped":
            self._make_safe()
        self._finish(marks, fresh, lost)

    def _on_time(self, now: float) -> tuple[bool, float]:
        """Keep the schedule: whether an action of the policy is due, and how late it is, s."""
        due = now if self._due is None else self._due
        late = max(0.0, now - due)
        missed = int(late / self.period_s + 1e-6)
        if self._due is not None and self.state != "idle":
            self._skipped += missed
        self._tick += 1 + missed
        self._due = due + (1 + missed) * self.period_s
        block, before = self._tick // self._ticks, self._block
        self._block = block
        return block != before, late

    def _read(self, now: float) -> tuple[Reading, float]:
        """The newest reading, and when it was there. Raises Fault."""
        try:
            got: Any = self._robot.read()
        except Exception as error:
            raise Fault("read_failed", "", _raised("read", error)) from error
        there = self._clock()
        if there - now > self._stall_s and self.state in ("starting", "running"):
            raise _stalled(there - now, self._stall_s)
        if got is None and self._reading is not None:
            return self._reading, there  # nothing new: it grows old
        got = Reading(cast(Mapping[str, ArrayLike], got)) if isinstance(got, Mapping) else got
        groups = (got.values, got.stamps, got.positions, got.velocities) if isinstance(got, Reading) else (None,)
        if not isinstance(got, Reading) or not all(isinstance(group, Mapping) for group in groups):
            what = "one without mappings" if isinstance(got, Reading) else type(got).__name__
            raise Fault("lost", "", f"robot.read: expected a Reading or a mapping, got {what}")
        # What has no stamp was measured now, and only then.
        self._reading = replace(got, stamps={**dict.fromkeys(got.values, there), **got.stamps})
        return self._reading, there

    def _look(self, reading: Reading, there: float, fresh: bool) -> None:
        """While nothing but the safe action is sent: start, if that is asked for and may be."""
        armed, pilot = self._armed_at, self._pilot
        if armed is None:
            pilot.observe(reading, there, self.inputs)
            self._observed = True
            return
        if not fresh:
            return
        try:
            seconds = pilot.begin(reading, there, self.inputs)
        except (ValueError, TypeError) as error:
            return self._refuse(one_line(error))
        self._armed_at, self._observed, self._commanded = None, True, True
        self._set("starting", f"{seconds:.1f} s to the policy's stance")

    def _refuse(self, text: str) -> None:
        self._armed_at = None
        self._log.add("refused", text)
        if self.state == "idle":
            raise ValueError(f"the robot cannot be started: {text}")

    def _command(self, reading: Reading, marks: list[float], fresh: bool) -> None:
        """Decide and send; `marks` gets when that was done. Raises Fault."""
        pilot, clock = self._pilot, self._clock
        if not self._observed:
            pilot.observe(reading, marks[1], self.inputs, whole=fresh)
        self._observed = True
        command = pilot.command(fresh, self._tick % self._ticks)
        decided = marks[2] = clock()
        # Time that was lost since the robot was read: what was decided then may not be sent now.
        if decided - marks[0] > self._stall_s:
            raise _stalled(decided - marks[0], self._stall_s)
        pilot.sensors.check_age(decided)
        try:
            self._robot.write(command)
        except Exception as error:
            raise Fault("write_failed", "", _raised("write", error)) from error
        written = marks[3] = clock()
        if written - decided > self._stall_s:
            raise _stalled(written - decided, self._stall_s)
        if self.state == "starting" and not pilot.starting:
            self._set("running", "the policy has taken over")
        if fresh:
            pilot.look(self._log, written)

    def _set(self, state: State, text: str) -> None:
        self.state = state
        self._log.add(state, text)  # pyright: ignore[reportArgumentType] - never "idle"

    def _fault(self, fault: Fault) -> None:
        """Stop, if there is something to stop; a start that waits goes on waiting, but not for ever."""
        if self.state in ("starting", "running"):
            self._stop(fault.kind, fault.text, fault.component)
        elif self._armed_at is not None and self._clock() - self._armed_at > self._wait_s:
            what = f"{fault.component!r} " if fault.component else ""
            self._refuse(f"{what}{fault.text}; waited {self._wait_s:g} s for complete and fresh measurements")

    def _stop(self, kind: Kind, text: str, component: str = "") -> None:
        self._log.add(kind, text, component)
        self._set("stopped", f"safe action {self._safe!r}, until armed again")
        self._pilot.forget()

    def _make_safe(self) -> None:
        try:
            self._robot.safe(self._safe)
            self._unsafe.begins(False)
        except Exception as error:
            if self._unsafe.begins(True):
                self._log.add("safe_failed", f"{_raised('safe', error)}; it is called again in every period")

    def _finish(self, marks: list[float], fresh: bool, lost: float) -> None:
        """Count, tell and record."""
        assert self._due is not None
        end, (now, read, decided, written) = self._clock(), marks
        self._cycles += fresh
        over = end > self._due
        self._overruns += over
        if self._slow.begins(over or lost > self.period_s):
            text = f"took {(end - now) * 1e3:.1f} ms" if over else f"began {lost * 1e3:.1f} ms late"
            self._log.add("overrun", f"a cycle {text} of {self.period_s * 1e3:g} ms; all are counted in the report")
        if not fresh:
            return
        age, oldest = np.nan, self._pilot.sensors.oldest
        if self._observed:
            age = read - oldest
        stages = (read - now, decided - read, written - decided)
        if self._record is not None:
            self._put(self._record, now, (lost, *stages, age))
        self._times.add((lost, *stages, written - now, age, written - oldest, self._clock() - end))

    def _put(self, record: Recorder, now: float, cycle: tuple[float, ...]) -> None:
        """A row of the log."""
        tracks, pilot = self._tracks, self._pilot
        row = np.full(tracks.width, np.nan)
        row[0] = now
        if self._observed:
            row[tracks.stamps], row[tracks.observation] = pilot.sensors.stamps, pilot.sensors.flat
            row[tracks.positions], row[tracks.velocities] = pilot.sensors.position, pilot.sensors.velocity
        if self.state in ("starting", "running"):
            row[tracks.sent] = pilot.told
        if self.state == "running":
            row[tracks.action], row[tracks.target] = pilot.action, pilot.asked
        row[tracks.cycle] = (*cycle, _STATES.index(self.state))
        record.add(row)
        if record.failed and not self._log_failed:
            self._log_failed = True
            self._log.add("log", f"{record.path}: {record.failed}; the rest is not recorded")

    def _wait(self, interrupts: Interrupts) -> None:
        assert self._due is not None
        while not interrupts.signal and (left := self._due - self._clock()) > 0.0:
            self._sleep(left)

    def _leave(self, interrupts: Interrupts) -> None:
        """End in the safe action, and end the log."""
        if self.state in ("starting", "running"):
            kind: Kind = "interrupted" if interrupts.signal else "finished"
            self._log.add(kind, f"{interrupts.name if interrupts.signal else 'the time is over'}")
            self._set("stopped", f"safe action {self._safe!r}")
            self._pilot.forget()
            again: State = "idle"
        else:
            again = self.state
        for _ in range(_GOODBYES if self._commanded else 0):
            self._make_safe()
            self._sleep(self.period_s)
        self.state, self._armed_at, self._commanded = again, None, again == "stopped"
        if self._record is not None:
            self._record.close()


def _stalled(lost: float, most: float) -> Fault:
    return Fault("stalled", "", f"the controller lost {lost * 1e3:.0f} ms, at most {most * 1e3:.0f} ms are allowed")


def _raised(method: str, error: BaseException) -> str:
    return f"robot.{method} raised {type(error).__name__}: {one_line(error)}"
