"""A log of a simulated robot, as a real one would give it: late commands, noise, samples at uneven times."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import mujoco
import numpy as np
from numpy.typing import NDArray

from simreal.common.errors import UserError
from simreal.identify.measured.coordinates import Coordinates
from simreal.identify.measured.recording import Kind, Recording, Track, tracks_of

Numbers = NDArray[np.float64]

_WARNING = mujoco.mjtWarning
_UNSTABLE = (int(_WARNING.mjWARN_BADQPOS), int(_WARNING.mjWARN_BADQVEL), int(_WARNING.mjWARN_BADQACC))


def rehearse(
    model: mujoco.MjModel,
    start: Numbers,
    command_time: Numbers,
    commands: Numbers,
    joints: Sequence[str],
    *,
    rate_hz: float = 200.0,
    delay_s: float = 0.0,
    noise: tuple[float, float] = (0.0, 0.0),
    offsets: Numbers | None = None,
    jitter_s: float = 0.0,
    velocities: bool = True,
    feedback: Callable[[Numbers, Numbers], Numbers] | None = None,
    seed: int = 0,
    name: str = "rehearsal",
) -> Recording:
    """Play commands on a model and note what its joints show.

    Args:
        model: of the robot as it is said to be.
        start: [nq] where it begins, at rest.
        command_time, commands: [K] s and [K, C]; each holds until the next.
        joints: n names whose positions are measured.
        rate_hz: of measurements.
        delay_s: until a command reaches its actuator.
        noise: standard deviation of measured positions (rad or m) and velocities (per second).
        offsets: [n] added to what is shown of positions.
        jitter_s: standard deviation of the time of a measurement; its stamp is right.
        velocities: whether they are measured too.
        feedback: of a controller: what it adds to a command for a state qpos, qvel, when the command is given.
        seed: of noise and jitter.
        name: of the log.

    Raises:
        UserError: where the simulation is unstable; MuJoCo would begin anew in the middle of the log.
    """
    grid, positions, speeds, commands = _played(model, start, command_time, commands, delay_s, feedback)
    generator = np.random.default_rng(seed)
    ideal = np.arange(grid[0], grid[-1], 1.0 / rate_hz)
    time = np.clip(np.sort(ideal + jitter_s * generator.standard_normal(len(ideal))), grid[0], grid[-1])
    time = np.maximum.accumulate(time + 1e-9 * np.arange(len(time)))
    tracks: list[Track] = []
    shown_by: list[tuple[Kind, Numbers, float]] = [
        ("position", positions, noise[0]), ("velocity", speeds, noise[1]),
    ]  # fmt: skip
    for kind, states, deviation in shown_by:
        if kind == "velocity" and not velocities:
            continue
        track = tracks_of(model, kind, joints, time, np.empty((len(time), len(joints))), name)
        exact = np.stack([np.interp(time, grid, states[:, column]) for column in track.columns], axis=1)
        shown = exact + deviation * generator.standard_normal(exact.shape)
        if kind == "position" and offsets is not None:
            shown = shown + offsets
        tracks.append(tracks_of(model, kind, joints, time, shown, name))
    return Recording(name, command_time, commands, tuple(tracks))


def _played(
    model: mujoco.MjModel,
    start: Numbers,
    command_time: Numbers,
    commands: Numbers,
    delay_s: float,
    feedback: Callable[[Numbers, Numbers], Numbers] | None,
) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """Times [T], coordinates and velocities [T, nv] of all physics steps, and what was commanded [K, C]."""
    data = mujoco.MjData(model)
    data.qpos[:] = start
    timestep = float(model.opt.timestep)
    length = float(command_time[-1] - command_time[0])
    grid = command_time[0] + np.arange(round(length / timestep) + 1) * timestep
    # A command counts from the first physics step at which it has arrived, and is given at the first one of its time.
    which = np.clip(np.searchsorted(command_time, grid - delay_s + 1e-9, side="right") - 1, 0, None)
    given = np.searchsorted(command_time, grid + 1e-9, side="right")
    commands = np.array(commands, dtype=float)
    positions, speeds = np.empty((len(grid), model.nq)), np.empty((len(grid), model.nv))
    for k, command in enumerate(which):
        positions[k], speeds[k] = data.qpos, data.qvel
        if feedback is not None and given[k] > (given[k - 1] if k else 0):
            commands[given[k] - 1] += feedback(positions[k], speeds[k])
        data.ctrl[:] = commands[command]
        mujoco.mj_step(model, data)
    if any(data.warning[kind].number for kind in _UNSTABLE):
        raise UserError(f"the simulation of the log is unstable with steps of {1e3 * timestep:g} ms")
    return grid, Coordinates(model).inward(positions), speeds, commands


def multisine(
    time: Numbers,
    middle: Numbers,
    amplitude: Numbers,
    band_hz: tuple[float, float],
    lines: int,
    generator: np.random.Generator,
) -> Numbers:
    """Sums of sines [K, C] around `middle` [C] that reach `amplitude` [C], with frequencies of their own for each
    column.

    Phases and frequencies are drawn; lines are spread evenly over the logarithm of the band, so that slow motion
    (gravity, dry friction) and quick motion (inertia, delay) are both there (Swevers et al. 1997, IEEE T-RA 13(5),
    excitation by Fourier series).
    """
    columns = len(middle)
    edges = np.linspace(np.log(band_hz[0]), np.log(band_hz[1]), lines + 1)
    frequency = np.exp(edges[:-1, None] + np.diff(edges)[:, None] * generator.random((lines, columns)))
    phase = 2.0 * np.pi * generator.random((lines, columns))
    weight = 1.0 / np.sqrt(frequency)
    waves = (weight * np.sin(2.0 * np.pi * frequency * (time - time[0])[:, None, None] + phase)).sum(axis=1)
    # From rest: the first second rises from 0.
    waves = waves / np.abs(waves).max(axis=0) * np.minimum(time - time[0], 1.0)[:, None]
    return middle + amplitude * waves
