"""Motion that shows parameters: drawn, kept within limits in many worlds, the one that tells most is taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.task import Task
from envs.validation.drives import Drive
from envs.validation.health.subject import Subject
from randomization.parameters import Parameter
from simreal.common.errors import UserError
from simreal.identify.excite.rehearsal import multisine, rehearse
from simreal.identify.fitting.fit import Fitter
from simreal.identify.knowledge import Knowledge, knowledge
from simreal.identify.measured.pieces import cut
from simreal.identify.measured.recording import Recording
from simreal.identify.simulation import Player
from simreal.identify.unknowns import Scales, unknown_of

Numbers = NDArray[np.float64]
WORLDS = 4  # drawn from the prior ranges, in which a motion has to stay within its limits too
_SHRINK, _SMALLEST = 0.8, 0.02  # of the amplitude, until it does
_MARGIN = 0.05  # of a joint's range that is left at its ends
_LINES = 8


@dataclass(frozen=True)
class Limits:
    """What a motion may not pass, on the robot.

    Attributes:
        speed: of joints, rad/s or m/s.
        force: share of the largest force of an actuator that has one.
        travel: share of a command's range to either side of the start.
    """

    speed: float
    force: float = 0.7
    travel: float = 0.25


@dataclass(frozen=True)
class Excitation:
    """A motion to command.

    Attributes:
        time: [K] s.
        commands: [K, C], columns of the model's ctrl.
        joints: which show it.
        actuators: names of the columns that move.
        columns: theirs.
        amplitude: share of `Limits.travel` that kept it within the limits.
        fastest, strongest: what it comes to, in rad/s or m/s and as a share of the largest force.
        promise: what a log of it would tell.
    """

    time: Numbers
    commands: Numbers
    joints: tuple[str, ...]
    actuators: tuple[str, ...]
    columns: tuple[int, ...]
    amplitude: float
    fastest: float
    strongest: float
    promise: Knowledge


class Excitations:
    """Draws motions for a task.

    Args:
        task: with the robot's model.
        subject: where it stands at the start.
        parameters: that are to be told.
        limits: of the motion.
        seconds: its length.
        period_s: between commands.
        noise: standard deviation of measured positions, and of velocities, assumed.

    Raises:
        UserError: no actuator acts on a joint.
    """

    def __init__(
        self,
        task: Task,
        subject: Subject,
        parameters: Sequence[Parameter],
        limits: Limits,
        seconds: float,
        period_s: float,
        noise: tuple[float, float],
    ) -> None:
        self._task, self._limits, self._noise = task, limits, noise
        self._drives = [d for d in subject.drives() if d.joint is not None]
        if not self._drives:
            raise UserError(f"{task.id}: no actuator acts on a hinge or slide, nothing can be moved")
        start = subject.starts[0]
        self._start, self._middle = start.qpos.copy(), subject.still(start)
        self._unknowns = [unknown_of(p) for p in parameters]
        self._scales = Scales(self._unknowns)
        self._one = Player(task, self._unknowns, 2)
        self._time = np.arange(0.0, seconds, period_s)
        self._amplitude = np.zeros(task.model.nu)
        for drive in self._drives:
            self._amplitude[drive.column] = limits.travel * self._span(drive)
        model = task.model
        self._joints = tuple(dict.fromkeys(model.joint(d.joint).name for d in self._drives if d.joint is not None))

    def best(self, draws: int, band_hz: tuple[float, float], seed: int, say: Callable[[str], None]) -> Excitation:
        """The motion that tells most (the largest determinant of the information, D-optimal) of some that are drawn.

        Raises:
            UserError: none stays within the limits, however small.
        """
        generator = np.random.default_rng(seed)
        found: list[tuple[float, Excitation]] = []
        for k in range(draws):
            waves = multisine(self._time, np.zeros(self._task.model.nu), self._amplitude, band_hz, _LINES, generator)
            amplitude, fastest, strongest = self._within_limits(waves, generator)
            commands = self._clipped(self._middle + amplitude * waves)
            score, promise = self._promised(commands)
            moving = tuple(d.name for d in self._drives)
            columns = tuple(d.column for d in self._drives)
            found.append((score, Excitation(
                self._time, commands, self._joints, moving, columns, amplitude, fastest, strongest, promise
            )))  # fmt: skip
            say(f"motion {k + 1} of {draws}: amplitude {amplitude:.2f}, {sum(p.told for p in promise.of)} told")
        return max(found, key=lambda pair: pair[0])[1]

    def _span(self, drive: Drive) -> float:
        """How far a command may go from the middle: what is left to the nearer end of its range and of its joint's."""
        model, middle = self._task.model, float(self._middle[drive.column])
        low, high = drive.clips(model) or (-np.inf, np.inf)
        if drive.follows == "position" and drive.joint is not None and model.jnt_limited[drive.joint]:
            ends = model.jnt_range[drive.joint] * drive.gear
            low, high = max(low, float(min(ends))), min(high, float(max(ends)))
        span = high - low
        if not np.isfinite(span):
            return 1.0
        return float(np.clip(min(high - middle, middle - low) / max(self._limits.travel, 1e-9), 0.0, span))

    def _clipped(self, commands: Numbers) -> Numbers:
        for drive in self._drives:
            if (ends := drive.clips(self._task.model)) is not None:
                commands[:, drive.column] = np.clip(commands[:, drive.column], *ends)
        return commands

    def _within_limits(self, waves: Numbers, generator: np.random.Generator) -> tuple[float, float, float]:
        """Amplitude, largest speed and largest share of a force, in the nominal world and in some others."""
        worlds = [self._scales.nominal, *generator.uniform(-1.0, 1.0, (WORLDS, len(self._unknowns)))]
        amplitude, fastest, strongest = 1.0, 0.0, 0.0
        while amplitude > _SMALLEST:
            commands = self._clipped(self._middle + amplitude * waves)
            figures = [self._extremes(commands, z) for z in worlds]
            fastest, strongest, inside = (max(f[i] for f in figures) for i in range(3))
            if fastest <= self._limits.speed and strongest <= self._limits.force and inside <= 1.0:
                return amplitude, fastest, strongest
            amplitude *= _SHRINK
        raise UserError(
            f"{self._task.id}: no motion stays within {self._limits.speed:g} rad/s (m/s), {self._limits.force:.0%} of "
            f"the forces and the joints' ranges: {fastest:.2g} rad/s and {strongest:.0%} even at {_SMALLEST:.0%} of "
            "the travel"
        )

    def _extremes(self, commands: Numbers, z: Numbers) -> tuple[float, float, float]:
        """Largest speed, largest share of a force, and how far into the margins of its range a joint comes (1: to
        them)."""
        model = self._one.model_of(self._scales.outward(z))
        data = mujoco.MjData(model)
        data.qpos[:] = self._start
        period = float(self._time[1] - self._time[0])
        steps = max(1, round(period / model.opt.timestep))
        joints = [d.joint for d in self._drives if d.joint is not None]
        dofs = [int(model.jnt_dofadr[j]) for j in joints]
        limited = [(int(model.jnt_qposadr[j]), *model.jnt_range[j]) for j in joints if model.jnt_limited[j]]
        strong = [d.actuator for d in self._drives if model.actuator_forcelimited[d.actuator]]
        largest = np.abs(model.actuator_forcerange[strong]).max(axis=1)
        fastest, share, inside = 0.0, 0.0, 0.0
        for command in commands:
            data.ctrl[:] = command
            for _ in range(steps):
                mujoco.mj_step(model, data)
                fastest = max(fastest, float(np.abs(data.qvel[dofs]).max()))
                if strong:
                    share = max(share, float((np.abs(data.actuator_force[strong]) / largest).max()))
            for address, low, high in limited:
                middle, half = (low + high) / 2.0, (high - low) / 2.0
                inside = max(inside, abs(float(data.qpos[address]) - middle) / (half * (1.0 - _MARGIN)))
        bad = not np.isfinite(data.qpos).all() or any(w.number for w in data.warning)
        return (np.inf, np.inf, np.inf) if bad else (fastest, share, inside)

    def _promised(self, commands: Numbers) -> tuple[float, Knowledge]:
        """What a log of a motion would tell, if the robot were as the model is."""
        model = self._one.model_of(self._scales.outward(self._scales.nominal))
        recording: Recording = rehearse(model, self._start, self._time, commands, self._joints, noise=self._noise)
        length_s = 0.5
        steps = max(2, round(length_s / float(self._task.model.opt.timestep)))
        player = Player(self._task, self._unknowns, steps)
        late = next((u.limits[1] for u in self._unknowns if u.role == "delay"), 0.0) * 1e-3
        pieces = cut([recording], player.model, length_s, late)
        fit = Fitter(player, pieces, self._scales).look(self._scales.nominal)
        information = fit.information.sum(axis=0) + np.eye(len(self._unknowns))
        return float(np.linalg.slogdet(information)[1]), knowledge(fit, self._unknowns, self._scales)
