"""The process robot's own time and safety: real time, messages, and damping where commands stay out."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from simreal.common.errors import UserError
from simreal.deploy.control.signals import Interrupts
from simreal.robot.process.ports import Port
from simreal.robot.process.simulation import TRUTH, Simulation

_CATCH_UP_S = 0.1  # of lateness that is caught up; what is more is lost, and said
_WARM_UP = 5
_WAITING, _DRIVEN, _DAMPED = 0, 1, 2
MODES = ("waiting", "driven", "damped")


@dataclass
class Report:
    """How a robot's time went.

    Attributes:
        wall_s, simulated_s: time that passed, here and in the simulation.
        lost_s: time that was not simulated because the machine was busy.
        late_share, latest_s: share of steps that began more than one step late; the latest of all.
        commands, refused, lost_commands, lost_states: messages.
        why_refused: the first reason.
        damped: times that its own safety acted.
        falls: times that it fell.
    """

    wall_s: float = 0.0
    simulated_s: float = 0.0
    lost_s: float = 0.0
    late_share: float = 0.0
    latest_s: float = 0.0
    commands: int = 0
    refused: int = 0
    lost_commands: int = 0
    lost_states: int = 0
    why_refused: str = ""
    damped: int = 0
    falls: int = 0

    def lines(self) -> list[str]:
        """For people."""
        share = self.simulated_s / self.wall_s if self.wall_s else 1.0
        found = [
            f"real time: {self.simulated_s:.2f} s simulated in {self.wall_s:.2f} s ({share:.1%}), "
            f"{self.lost_s:.2f} s lost; {self.late_share:.1%} of the steps began late, "
            f"the latest by {self.latest_s * 1e3:.1f} ms",
            f"commands: {self.commands}, of which {self.refused} refused and {self.lost_commands} lost by the world; "
            f"{self.lost_states} states lost by the world",
            f"its own safety acted {_times(self.damped)}; fell {_times(self.falls)}",
        ]
        return found + ([f"refused: {self.why_refused}"] if self.refused else [])


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


@dataclass
class Loop:
    """Keeps a robot going in real time.

    Args:
        robot: what is simulated.
        port: how it is spoken to.
        timeout_s: age of the last command at which the robot damps its motors by itself, until the next one.
        seed: of messages that get lost.
        tell: called with a line for people where something happens.
        record: keep what really happens, in every step.
        clock, wall, sleep: s, monotonic and since 1970; tests put others in their place.
    """

    robot: Simulation
    port: Port
    timeout_s: float = 0.1
    seed: int = 0
    tell: Callable[[str], None] = print
    record: bool = False
    clock: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    report: Report = field(default_factory=Report)

    def __post_init__(self) -> None:
        self._mode, self._last, self._down = _WAITING, 0.0, False
        self._chance, self._late = random.Random(self.seed), 0
        self._rows: list[tuple[float, ...]] = []

    def run(self, seconds: float | None = None) -> Report:
        """Run until SIGINT or SIGTERM, or for a time.

        Raises:
            KeyboardInterrupt, SystemExit: it was interrupted; the report is made.
            RuntimeError: the simulation became unstable.
        """
        for _ in range(_WARM_UP):
            self.robot.step()  # the first ones take far longer than the others
        step_s, start = self.robot.timestep_s, self.clock()
        due, steps = start, 0
        gc.collect()
        gc.freeze()  # nothing of the model is looked at again by the collector, which takes milliseconds
        with Interrupts() as interrupts:
            while not interrupts.signal and (seconds is None or steps * step_s < seconds - 1e-9):
                now = self.clock()
                late = now - due
                if late > _CATCH_UP_S:
                    self.report.lost_s += late
                    due = now
                elif late < 0.0:
                    self.sleep(-late)
                self._late += late > step_s
                self.report.latest_s = max(self.report.latest_s, late)
                self.step()
                steps, due = steps + 1, due + step_s
        self.report.wall_s, self.report.simulated_s = self.clock() - start, steps * step_s
        self.report.late_share = self._late / max(steps, 1)
        self._signal = interrupts
        return self.report

    def leave(self) -> None:
        """Do what the signal that ended `run` asks for, if one did."""
        self._signal.act()

    def step(self) -> None:
        """One step of the robot's clock."""
        now, robot = self.clock(), self.robot
        for command in self.port.commands():
            self.report.commands += 1
            if isinstance(command, str):
                if not self.report.refused:
                    self.report.why_refused = command
                    self.tell(f"{self._at()} refuses a command: {command}")
                self.report.refused += 1
            elif self._chance.random() < robot.lost["commands"]:
                self.report.lost_commands += 1
            else:
                robot.drive(command)
                self._last = now
                self._enter(_DRIVEN)
        if self._mode == _DRIVEN and now - self._last > self.timeout_s:
            robot.damp()
            self.report.damped += 1
            self._enter(_DAMPED, f": no command for {self.timeout_s * 1e3:.0f} ms")
        robot.step()
        wall = self.wall()
        if self._chance.random() < robot.lost["states"]:
            self.report.lost_states += 1
        else:
            self.port.publish(robot.state(), wall, robot.time_s)
        self._look(wall)

    def _enter(self, mode: int, why: str = "") -> None:
        if mode != self._mode:
            self._mode = mode
            self.tell(f"{self._at()} {MODES[mode]}{why}")

    def _look(self, wall: float) -> None:
        if self.robot.fell != self._down:
            self._down = self.robot.fell
            self.report.falls += self._down
            self.tell(f"{self._at()} {'fell' if self._down else 'is up again'}")
        if self.record:
            self._rows.append((wall, *self.robot.truth().values(), float(self._mode), float(self._down)))

    def _at(self) -> str:
        return f"{self.robot.time_s:9.3f} s "

    def save(self, path: Path) -> None:
        """Write what really happened: for each of `wall`, `TRUTH`, `mode` (of `MODES`) and `fell` one value per step.

        Raises:
            UserError: it cannot be written.
        """
        names = ("wall", *TRUTH, "mode", "fell")
        columns: dict[str, Any] = dict(zip(names, np.array(self._rows).reshape(-1, len(names)).T, strict=True))
        report: Any = [f"{key}={value}" for key, value in asdict(self.report).items()]
        try:
            np.savez_compressed(path, **columns, report=report)
        except OSError as error:
            raise UserError(f"{path}: cannot be written: {error.strerror}") from None
