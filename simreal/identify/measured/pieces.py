"""Cuts logs into pieces that are short enough for errors not to grow, each with the state in which it begins."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np
from numpy.typing import NDArray

from simreal.identify.simulation import Piece

from .coordinates import Coordinates
from .recording import Recording, Track

Numbers = NDArray[np.float64]
_APART_S = 0.02  # of postures that are looked at
_AROUND_S = 0.04  # samples this far to either side say where a joint was and how fast it moved


def cut(recordings: Sequence[Recording], model: mujoco.MjModel, length_s: float, skip_s: float) -> list[Piece]:
    """Pieces of `length_s`, one after the other.

    Args:
        recordings: the logs.
        model: of the robot.
        length_s: of a piece.
        skip_s: left out at the beginning of a log: the longest delay, so that what was commanded is known.
    """
    timestep = float(model.opt.timestep)
    steps = max(2, round(length_s / timestep))
    pieces: list[Piece] = []
    for recording in recordings:
        begin = recording.begin_s + skip_s
        while begin + steps * timestep <= recording.end_s:
            samples = tuple(
                np.flatnonzero((track.time >= begin) & (track.time <= begin + steps * timestep))
                for track in recording.tracks
            )
            if all(len(where) for where in samples):
                pieces.append(Piece(recording, begin, *state_at(recording, model, begin), samples))
            begin += steps * timestep
    return pieces


def touching(recordings: Sequence[Recording], model: mujoco.MjModel) -> bool:
    """Whether anything touches in the postures that logs show."""
    data, coordinates = mujoco.MjData(model), Coordinates(model)
    for recording in recordings:
        last = -np.inf
        shown = [track for track in recording.tracks if track.kind == "position"]
        posture = coordinates.inward(model.qpos0)
        for time_s in shown[0].time:
            if time_s < last + _APART_S:
                continue
            last = time_s
            for track in shown:
                posture[track.columns] = track.values[min(np.searchsorted(track.time, time_s), len(track.time) - 1)]
            data.qpos[:] = coordinates.outward(posture)
            mujoco.mj_fwdPosition(model, data)
            if data.ncon:
                return True
    return False


def state_at(recording: Recording, model: mujoco.MjModel, time_s: float) -> tuple[Numbers, Numbers]:
    """Coordinates and velocities [nv] at a time: parabolas through what joints showed around it; others as in the
    model."""
    position, velocity = Coordinates(model).inward(model.qpos0), np.zeros(model.nv)
    for track in recording.tracks:
        level, slope = _parabola(track, time_s)
        if track.kind == "position":
            position[track.columns], velocity[track.columns] = level, slope
        else:
            velocity[track.columns] = level
    return position, velocity


def _parabola(track: Track, time_s: float) -> tuple[Numbers, Numbers]:
    """Value and slope [n] at a time of the parabola through the samples around it."""
    near = np.flatnonzero(np.abs(track.time - time_s) <= _AROUND_S)
    if len(near) < 6:
        near = np.argsort(np.abs(track.time - time_s), kind="stable")[:6]
    t = track.time[near] - time_s
    powers = np.stack((np.ones_like(t), t, t * t), axis=1)
    found, *_ = np.linalg.lstsq(powers, track.values[near], rcond=None)
    return found[0], found[1]


def noise_of(track: Track) -> Numbers:
    """Standard deviation [n] of a track's noise: of third differences, which motion hardly has (their variance is 20 of
    the noise's), by their median, which a few jumps do not move."""
    third = np.diff(track.values, n=3, axis=0)
    return np.median(np.abs(third), axis=0) / (0.6745 * np.sqrt(20.0))
