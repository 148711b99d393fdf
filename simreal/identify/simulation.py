"""Plays pieces of logs in many worlds at once: each piece from its own start, in each world that is asked for."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray

from envs.engines.cpu import CpuEngine
from envs.task import Task
from randomization.physics.writer import PhysicsWriter, simple_bodies

from .measured.coordinates import Coordinates
from .measured.recording import Recording, Track
from .unknowns import Unknown

Numbers = NDArray[np.float64]
_ROWS = 256  # simulations at once: more cost memory and gain nothing
_STATES = 200_000  # kept at once, likewise


@dataclass(frozen=True)
class Piece:
    """A window of a log that is played from a start of its own.

    Attributes:
        recording: the log.
        begin_s: where it begins.
        position, velocity: [nv] coordinates and velocities there, as well as the log shows them.
        samples: per track, the rows of its values that lie in the window [m].
    """

    recording: Recording
    begin_s: float
    position: Numbers
    velocity: Numbers
    samples: tuple[NDArray[np.int64], ...]


class Player:
    """Plays pieces of one length.

    Args:
        task: whose model it is.
        unknowns: what may differ between worlds, P.
        steps: physics steps of a piece.
        threads: of the engine; None for all processors.
        finer: into how many each physics step is divided.
        contacts: whether bodies touch; where they do not, not looking for it saves half of the time.
    """

    def __init__(
        self,
        task: Task,
        unknowns: Sequence[Unknown],
        steps: int,
        threads: int | None = None,
        finer: int = 1,
        contacts: bool = True,
    ) -> None:
        self.unknowns, self.steps = tuple(unknowns), steps * finer
        self._physics = [i for i, u in enumerate(unknowns) if u.role == "physics"]
        self._delay = next((i for i, u in enumerate(unknowns) if u.role == "delay"), None)
        self._offsets = {u.joint: i for i, u in enumerate(unknowns) if u.role == "offset"}
        parameters = [p for i in self._physics if (p := unknowns[i].parameter) is not None]
        if bodies := simple_bodies(task, parameters):
            task.compile_full(bodies)
        self._task, self._parameters, self._threads = task, parameters, threads
        self.model: mujoco.MjModel = copy.copy(task.model)
        self.model.opt.timestep /= finer
        if not contacts:
            self.model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_CONTACT)
        self.timestep_s = float(self.model.opt.timestep)
        self.coordinates = Coordinates(self.model)
        self._rows = min(_ROWS, max(8, 1 << int(math.log2(_STATES / self.steps))))
        self._engines: dict[int, tuple[CpuEngine, PhysicsWriter]] = {}

    def _engine(self, rows: int) -> tuple[CpuEngine, PhysicsWriter]:
        if rows not in self._engines:
            engine = CpuEngine(self.model, rows, self._threads)
            self._engines[rows] = engine, PhysicsWriter(self._task, engine, self._parameters)
        return self._engines[rows]

    def play(self, pieces: Sequence[Piece], values: Numbers, starts: Numbers) -> list[list[Numbers]]:
        """What tracks would have shown.

        Args:
            pieces: R of them, the same one may come again.
            values: [R, P] of the unknowns.
            starts: [R, 2 nv] coordinates and velocities at their beginnings.

        Returns:
            For each row, for each of its piece's tracks, [m, n]. NaN where the simulation became unstable.
        """
        shown: list[list[Numbers]] = []
        for at in range(0, len(pieces), self._rows):
            rows = slice(at, at + self._rows)
            positions, speeds = self._run(pieces[rows], values[rows], starts[rows])
            for k, piece in enumerate(pieces[rows]):
                states = {"position": positions[k], "velocity": speeds[k]}
                shown.append([
                    self._shown(track, where, piece.begin_s, states[track.kind], values[at + k])
                    for track, where in zip(piece.recording.tracks, piece.samples, strict=True)
                ])  # fmt: skip
        return shown

    def model_of(self, values: Numbers) -> mujoco.MjModel:
        """The model of a world [P]; delays and offsets are not part of it."""
        engine, writer = self._engine(1)
        if self._physics:
            writer.write(torch.ones(1, dtype=torch.bool), torch.from_numpy(values[None, self._physics]))
            engine.set_const()
        return engine.export_to_mujoco(0)[0]

    def _run(self, pieces: Sequence[Piece], values: Numbers, starts: Numbers) -> tuple[Numbers, Numbers]:
        """Coordinates and velocities [R, L + 1, nv] of every piece."""
        count, model = len(pieces), self.model
        engine, writer = self._engine(count)
        everyone = torch.ones(count, dtype=torch.bool)
        engine.reset()
        if self._physics:
            writer.write(everyone, torch.from_numpy(np.ascontiguousarray(values[:, self._physics])))
            if writer.needs_set_const:
                engine.set_const(everyone)
        qpos, qvel = engine.data("qpos"), engine.data("qvel")
        qpos.copy_(torch.from_numpy(self.coordinates.outward(starts[:, : model.nv])))
        qvel.copy_(torch.from_numpy(starts[:, model.nv :]))
        begun = qpos.numpy().copy(), qvel.numpy().copy()
        positions, speeds = (
            np.concatenate((first[:, None], later), axis=1)
            for first, later in zip(begun, engine.trajectories(self._commands(pieces, values)), strict=True)
        )
        broken = engine.diverged().numpy()
        positions[broken], speeds[broken] = np.nan, np.nan
        return self.coordinates.inward(positions), speeds

    def _commands(self, pieces: Sequence[Piece], values: Numbers) -> Numbers:
        """Controls [R, L, C] of every physics step, as late as each world says."""
        grid = np.arange(self.steps) * self.timestep_s
        late = values[:, self._delay] * 1e-3 if self._delay is not None else np.zeros(len(pieces))
        commands = np.empty((len(pieces), self.steps, self.model.nu))
        begins = np.array([piece.begin_s for piece in pieces]) - late
        for recording in {id(piece.recording): piece.recording for piece in pieces}.values():
            mine = [k for k, piece in enumerate(pieces) if piece.recording is recording]
            commands[mine] = recording.held(begins[mine, None] + grid, self.timestep_s)
        return commands

    def _shown(
        self, track: Track, where: NDArray[np.int64], begin_s: float, states: Numbers, values: Numbers
    ) -> Numbers:
        """What a track shows [m, n] of states [L + 1, ...], between physics steps by a line."""
        place = np.clip((track.time[where] - begin_s) / self.timestep_s, 0.0, self.steps)
        first = np.minimum(place.astype(np.int64), self.steps - 1)
        share = (place - first)[:, None]
        chosen = states[:, track.columns]
        shown = (1.0 - share) * chosen[first] + share * chosen[first + 1]
        if track.kind == "position" and self._offsets:
            shown = shown + np.array([values[self._offsets[j]] if j in self._offsets else 0.0 for j in track.joints])
        return shown
