"""Plays pieces of logs in many worlds at once: each piece from its own start, in each world that is asked for."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray

from envs.engines.base import Engine
from envs.engines.cpu import CpuEngine
from envs.task import Task
from randomization.physics.writer import PhysicsWriter, simple_bodies

from .measured.recording import Recording, Track
from .unknowns import Unknown

Numbers = NDArray[np.float64]
_ROWS = 256  # simulations at once: more cost memory and gain nothing


@dataclass(frozen=True)
class Piece:
    """A window of a log that is played from a start of its own.

    Attributes:
        recording: the log.
        begin_s: where it begins.
        qpos, qvel: [nq], [nv] the state there, as well as the log shows it.
        samples: per track, the rows of its values that lie in the window [m].
    """

    recording: Recording
    begin_s: float
    qpos: Numbers
    qvel: Numbers
    samples: tuple[NDArray[np.int64], ...]


class Player:
    """Plays pieces of one length.

    Args:
        task: whose model it is.
        unknowns: what may differ between worlds, P.
        steps: physics steps of a piece.
        threads: of the engine; None for all processors.
        finer: into how many each physics step is divided.
    """

    def __init__(
        self, task: Task, unknowns: Sequence[Unknown], steps: int, threads: int | None = None, finer: int = 1
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
        self.timestep_s = float(self.model.opt.timestep)
        self._engines: dict[int, tuple[Engine, PhysicsWriter]] = {}

    def _engine(self, rows: int) -> tuple[Engine, PhysicsWriter]:
        if rows not in self._engines:
            engine = CpuEngine(self.model, rows, self._threads)
            self._engines[rows] = engine, PhysicsWriter(self._task, engine, self._parameters)
        return self._engines[rows]

    def play(self, pieces: Sequence[Piece], values: Numbers, starts: Numbers) -> list[list[Numbers]]:
        """What tracks would have shown.

        Args:
            pieces: R of them, the same one may come again.
            values: [R, P] of the unknowns.
            starts: [R, nq + nv] states at their beginnings.

        Returns:
            For each row, for each of its piece's tracks, [m, n]. NaN where the simulation became unstable.
        """
        shown: list[list[Numbers]] = []
        for at in range(0, len(pieces), _ROWS):
            rows = slice(at, at + _ROWS)
            qpos, qvel = self._run(pieces[rows], values[rows], starts[rows])
            for k, piece in enumerate(pieces[rows]):
                states = {"position": qpos[k], "velocity": qvel[k]}
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
        """qpos [R, L + 1, nq] and qvel [R, L + 1, nv] of every piece."""
        count, model = len(pieces), self.model
        rows = _ROWS if count > _ROWS // 2 else max(1, 1 << (count - 1).bit_length())
        engine, writer = self._engine(rows)
        padded = [*range(count), *([0] * (rows - count))]
        everyone = torch.ones(rows, dtype=torch.bool)
        engine.reset()
        if self._physics:
            writer.write(everyone, torch.from_numpy(np.ascontiguousarray(values[padded][:, self._physics])))
            if writer.needs_set_const:
                engine.set_const(everyone)
        qpos, qvel, control = engine.data("qpos"), engine.data("qvel"), engine.data("ctrl")
        qpos.copy_(torch.from_numpy(starts[padded][:, : model.nq]))
        qvel.copy_(torch.from_numpy(starts[padded][:, model.nq :]))
        commands = self._commands(pieces, values)[padded]
        control.copy_(torch.from_numpy(commands[:, 0]))
        positions = np.empty((rows, self.steps + 1, model.nq))
        speeds = np.empty((rows, self.steps + 1, model.nv))
        positions[:, 0], speeds[:, 0] = qpos.numpy(), qvel.numpy()
        for step in range(self.steps):
            control.copy_(torch.from_numpy(commands[:, step]))
            engine.step(1)
            positions[:, step + 1], speeds[:, step + 1] = qpos.numpy(), qvel.numpy()
        broken = engine.diverged().numpy()
        positions[broken], speeds[broken] = np.nan, np.nan
        return positions[:count], speeds[:count]

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
