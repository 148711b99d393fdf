"""What a log says of a robot, in real time: what its actuators were told, and what its joints showed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.common.messages import listed
from envs.validation.drives import find_drive
from simreal.common.errors import UserError

from .coordinates import Coordinates

Numbers = NDArray[np.float64]
Kind = Literal["position", "velocity"]
_FEWEST = 20  # samples below which a track says nothing
_FARTHEST_S = 0.5  # from a sample to the next; milliseconds taken for seconds are farther
_BEYOND = 1e-3  # of a control's range, in its unit
_STILL = 1e-9  # spread of a command that counts as constant, in its unit


@dataclass(frozen=True)
class Track:
    """What joints showed.

    Attributes:
        kind: of the values: rad or m, or these per second.
        joints: names [n], of `Coordinates`.
        columns: of coordinates and of velocities [n].
        time: [M] s, increasing.
        values: [M, n].
    """

    kind: Kind
    joints: tuple[str, ...]
    columns: NDArray[np.int64]
    time: Numbers
    values: Numbers


@dataclass(frozen=True)
class Recording:
    """One log.

    Attributes:
        name: of the log, for messages.
        command_time: [K] s, increasing: when a command was given; it held until the next.
        commands: [K, C], all controls of the model.
        tracks: what was measured, positions first.
    """

    name: str
    command_time: Numbers
    commands: Numbers
    tracks: tuple[Track, ...]

    @property
    def begin_s(self) -> float:
        """From when on all of it is known."""
        return max(float(self.command_time[0]), *(float(track.time[0]) for track in self.tracks))

    @property
    def end_s(self) -> float:
        """Until when all of it is known; a last command holds as long as the others did."""
        usual = float(np.median(np.diff(self.command_time))) if len(self.command_time) > 1 else 0.0
        return min(float(self.command_time[-1]) + usual, *(float(track.time[-1]) for track in self.tracks))

    def after(self, time_s: float) -> Recording:
        """What was measured from a time on; commands stay."""
        tracks = [
            replace(track, time=track.time[track.time >= time_s], values=track.values[track.time >= time_s])
            for track in self.tracks
        ]
        return replace(self, tracks=tuple(tracks))

    def held(self, begin_s: Numbers, step_s: float) -> Numbers:
        """Mean of what was commanded over steps of `step_s` that begin at `begin_s` [...]: [..., C].

        Commands hold until the next one, and need not arrive on a step: the mean over a step changes smoothly with
        their delay, which a fit by derivatives needs.
        """
        flat = begin_s.reshape(-1)
        before, after = self._integral(flat), self._integral(flat + step_s)
        return ((after - before) / step_s).reshape(*begin_s.shape, self.commands.shape[1])

    def _integral(self, time: Numbers) -> Numbers:
        """Integral of the commands from the first on [T, C]; before it the first one held."""
        areas = np.concatenate(
            (np.zeros((1, self.commands.shape[1])),
             np.cumsum(np.diff(self.command_time)[:, None] * self.commands[:-1], axis=0))
        )  # fmt: skip
        last = np.clip(np.searchsorted(self.command_time, time, side="right") - 1, 0, None)
        return areas[last] + (time - self.command_time[last])[:, None] * self.commands[last]


def check_recording(recording: Recording, model: mujoco.MjModel) -> None:
    """Refuse a log from which nothing can be told.

    Raises:
        UserError: no commands, constant ones, time that goes backwards, values that are not finite, too few samples.
    """
    name = recording.name
    controls = [f"control {i}" for i in range(recording.commands.shape[1])]
    series: list[tuple[str, Sequence[str], Numbers, Numbers]] = [
        ("commands", controls, recording.command_time, recording.commands)
    ]
    series += [(f"{track.kind} of joints", track.joints, track.time, track.values) for track in recording.tracks]
    if not recording.tracks or recording.tracks[0].kind != "position":
        raise UserError(f"{name}: no positions of joints; expected what joints showed, by name")
    for what, elements, time, values in series:
        if len(time) < _FEWEST:
            raise UserError(f"{name}: {what}: {len(time)} samples, expected at least {_FEWEST}")
        if not np.isfinite(time).all():
            raise UserError(f"{name}: {what}: a time is not finite")
        if not np.isfinite(values).all():
            k, column = (int(i) for i in np.argwhere(~np.isfinite(values))[0])
            raise UserError(
                f"{name}: {what}: {elements[column]} is {values[k, column]} at {time[k]:.6g} s; leave out such rows"
            )
        if not (np.diff(time) > 0.0).all():
            k = int(np.argmax(np.diff(time) <= 0.0)) + 1
            raise UserError(f"{name}: {what}: time goes back or stands still at sample {k} ({time[k]:.6f} s)")
    for track in recording.tracks:
        if (apart := float(np.median(np.diff(track.time)))) > _FARTHEST_S:
            raise UserError(
                f"{name}: {track.kind} of joints: samples are {apart:.3g} s apart, expected less than "
                f"{_FARTHEST_S:g} s; times have to be in s"
            )
    _check_angles(recording, model)
    if not (np.ptp(recording.commands, axis=0) > _STILL).any():
        raise UserError(f"{name}: its commands are constant, nothing can be told; see `simreal excite`")
    length = recording.end_s - recording.begin_s
    if length < 50 * float(model.opt.timestep):
        raise UserError(f"{name}: commands and measurements overlap for {length:.3f} s, expected a second or more")


def _check_angles(recording: Recording, model: mujoco.MjModel) -> None:
    """Raise UserError where a joint has turned so far beyond its range that it must be in other units."""
    for joint, values in zip(recording.tracks[0].joints, recording.tracks[0].values.T, strict=True):
        index = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_JOINT, joint)
        if index < 0 or not model.jnt_limited[index] or int(model.jnt_type[index]) != int(mujoco.mjtJoint.mjJNT_HINGE):
            continue
        seen, most = float(np.abs(values).max()), float(np.abs(model.jnt_range[index]).max())
        if seen > most + 2.0 * np.pi:
            raise UserError(
                f"{recording.name}: {joint} is at {seen:.3g} rad, and its range ends at {most:.3g}; expected rad"
            )


def notes(recording: Recording, model: mujoco.MjModel, controls: Sequence[str]) -> list[str]:
    """What of a log its owner may not know: controls, by name, that are told nothing or more than they take, and
    driven joints that it does not show."""
    found = []
    for i, control in enumerate(controls):
        told = recording.commands[:, i]
        low, high = model.actuator_ctrlrange[i]
        if not told.any():
            found.append(f"control {i} ({control}) is told 0 all the time, or nothing")
        elif model.actuator_ctrllimited[i] and (told.min() < low - _BEYOND or told.max() > high + _BEYOND):
            found.append(
                f"control {i} ({control}) is told {told.min():.3g} to {told.max():.3g}, and takes {low:g} to {high:g}"
            )
    drives = [find_drive(model, i) for i in range(model.nactuator)]
    driven = dict.fromkeys(model.joint(drive.joint).name for drive in drives if drive and drive.joint is not None)
    if unseen := [joint for joint in driven if joint not in recording.tracks[0].joints]:
        found.append(f"shows no position of {listed(unseen)}; where it moves is guessed from the others")
    return [f"{recording.name}: {line}" for line in found]


def tracks_of(
    model: mujoco.MjModel, kind: Kind, joints: Sequence[str], time: Numbers, values: Numbers, name: str
) -> Track:
    """A track of hinges, slides and parts of a floating base, by name.

    Raises:
        UserError: the model has no such coordinate.
    """
    single = Coordinates(model).names
    for joint in joints:
        if joint not in single:
            from envs.common.messages import nearest

            raise UserError(f"{name}: the model has no hinge or slide {joint!r}{nearest(joint, list(single))}")
    columns = np.array([single[joint] for joint in joints], dtype=np.int64)
    return Track(kind, tuple(joints), columns, np.asarray(time, float), np.asarray(values, float))
