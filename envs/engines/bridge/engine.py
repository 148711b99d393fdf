"""N simulations that another simulator steps, behind the tensors of the CPU engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from envs.common.errors import EngineError
from envs.engines.base import Engine, Stage
from envs.engines.bridge.forces import Forces, steps_needed
from envs.engines.bridge.mechanism import Mechanism, mechanism
from envs.engines.bridge.rotors import Rotors
from envs.engines.bridge.sensing import SEEN, acceleration_sensors, observe
from envs.engines.bridge.simulator import KINDS, Simulator, Touch, simulator_class
from envs.engines.bridge.statement import statement
from envs.engines.cpu import CpuEngine

Array = NDArray[np.float64]
Rows = NDArray[np.bool_]  # [N]

# Fields that a mechanism is made of: where they change, it is made anew. What begins with one of `_OF_FORCES` is read
# by MuJoCo's equations of forces. Other fields have no counterpart.
_OF_MECHANISM = (
    "body_mass", "body_inertia", "body_ipos", "body_iquat", "body_pos", "body_quat", "geom_friction", "geom_size",
    "geom_pos", "geom_quat", "geom_solref", "geom_solimp", "jnt_pos", "jnt_axis", "jnt_range", "dof_damping",
    "dof_armature", "dof_frictionloss", "qpos0", "opt.gravity", "opt.timestep",
)  # fmt: skip
_OF_FORCES = ("actuator_", "tendon_", "jnt_stiffness", "jnt_actfrc", "jnt_actgravcomp", "qpos_spring", "dof_damping",
              "body_gravcomp", "opt.wind", "opt.density", "opt.viscosity")  # fmt: skip
_WITHOUT_EFFECT = ("body_invweight0", "body_subtreemass", "dof_invweight0", "dof_M0", "opt.disableflags", "cam_",
                   "light_")  # fmt: skip


@dataclass
class _Simulation:
    """One simulation: what steps it, and the state that it was left in."""

    simulator: Simulator
    forces: Forces
    rotors: Rotors | None  # where the simulator has none
    qpos: Array
    qvel: Array
    timestep_s: float  # of a physics step
    steps: int  # of the simulator in each


class BridgeEngine(CpuEngine):
    """N simulations of one model whose physics steps another simulator makes.

    It gets links, joints, shapes and who may touch whom; in each of its steps the forces on joints by MuJoCo's
    equations (actuators, springs, pushes). The state that it comes to is written back, and MuJoCo computes all that
    follows from it, so that observations and rewards are the task's own. As after MuJoCo's steps, derived fields are
    those of the beginning of the last physics step. Accelerations, contact forces and the sensors that show them are
    the other simulator's (`envs.engines.bridge.sensing`).

    Args:
        kind: a name of `KINDS`.
        model: the nominal model; it is not modified.
        num_envs: N, the number of simulations; they are stepped one after the other.
        threads: of what MuJoCo computes.

    Raises:
        EngineError: the simulator is not installed, or the model has what is not translated.
    """

    def __init__(self, kind: str, model: mujoco.MjModel, num_envs: int, threads: int | None = None) -> None:
        self.kind, self._make = kind, simulator_class(kind)
        nominal = self._translated(model)
        super().__init__(model, num_envs, threads)
        self._nominal: Mechanism = nominal
        self._simulations: list[_Simulation | None] = [None] * num_envs
        self._rows: list[dict[str, bytes]] = [{} for _ in range(num_envs)]  # fields as each simulation has them
        self._of_acceleration = acceleration_sensors(model)
        self._seen: dict[str, Array] = {}  # fields of `SEEN` that somebody reads, as the last steps left them
        self._stepped = np.zeros(num_envs, dtype=bool)  # since their reset
        inputs = ("qpos", "qvel", "ctrl", "qfrc_applied", "xfrc_applied", "time")
        self._live = {name: self._batch.bind(name) for name in inputs}

    def _translated(self, model: mujoco.MjModel) -> Mechanism:
        return mechanism(model, steps_needed(model, KINDS[self.kind].own_damping))

    def statement(self) -> list[str]:
        """What of the model the simulator lacks or does otherwise, one line each."""
        extra = [name for name in (*self._fields, *self._constants()) if not _translates(name)]
        return statement(self.kind, self.model, self._nominal, extra)

    def data(self, name: str) -> Tensor:
        known, tensor = name in self._data, super().data(name)
        if not known and name in SEEN and name in self._outputs:
            self._seen[name] = self._outputs[name].copy()
        return tensor

    def use_commands(self, fields: tuple[str, ...]) -> int:
        if any(name.startswith("mocap") for name in fields):
            raise EngineError(f"engine: {self.kind}: commands move mocap bodies, which is not translated")
        return super().use_commands(fields)

    def step(self, nstep: int, commands: Tensor | None = None) -> None:
        self._advance(np.ones(self.num_envs, dtype=bool), nstep, commands)

    def advance_some(self, nstep: int, mask: Tensor) -> None:
        self._advance(mask.numpy(), nstep, None)

    def forward(self, mask: Tensor | None = None, stage: Stage = "acceleration") -> None:
        super().forward(mask, stage)
        if stage == "acceleration":
            self._show(self._stepped & (True if mask is None else mask.numpy()))

    def reset(self, mask: Tensor | None = None) -> None:
        super().reset(mask)
        self._stepped[slice(None) if mask is None else mask.numpy()] = False

    def diverged(self) -> Tensor:
        mask = super().diverged()
        for index in np.flatnonzero(mask.numpy()):  # what the simulator remembers of it is worth nothing
            self._drop(int(index))
        return mask

    def _drop(self, index: int) -> None:
        simulation, self._simulations[index] = self._simulations[index], None
        if simulation is not None:
            simulation.simulator.close()

    def _advance(self, rows: Rows, nstep: int, commands: Tensor | None) -> None:
        """Advance the simulations of rows [N] (bool) by nstep physics steps."""
        live, found = self._live, np.flatnonzero(rows)
        ends: dict[int, tuple[Array, Array, Array]] = {}
        touches: dict[int, list[Touch]] = {}
        for index in found.tolist():
            simulation = self._simulation(index)
            before, spent = None, 0.0
            try:
                for substep in range(nstep):
                    if commands is not None:
                        self._write_one(index, commands[index, substep])
                    before = self._physics_step(simulation, index)
                    spent += simulation.timestep_s
                qpos, qvel = simulation.qpos, simulation.qvel
                if before is None or not (np.isfinite(qpos).all() and np.isfinite(qvel).all()):
                    raise RuntimeError("not finite")
            except RuntimeError:
                self._failed[index] = self._any_failed = True
                self._drop(index)
                continue
            ends[index] = qpos, qvel, (qvel - before[1]) / simulation.timestep_s
            touches[index] = simulation.simulator.touches()
            live["qpos"][index], live["qvel"][index] = before
            live["time"][index] += spent
        moved = np.zeros(self.num_envs, dtype=bool)
        moved[list(ends)] = True
        if not moved.any():
            return
        self._call(self._batch.forward, moved)
        self._stepped |= moved
        for index, (qpos, qvel, acceleration) in ends.items():
            if self._seen:
                self._look(index, acceleration, touches[index])
            live["qpos"][index], live["qvel"][index] = qpos, qvel
        self._show(moved)
        np.copyto(self._qpos_seen, self._qpos, where=moved[:, None])

    def _physics_step(self, simulation: _Simulation, index: int) -> tuple[Array, Array]:
        """One physics step under the present inputs; returns the state before it."""
        live, simulator, forces = self._live, simulation.simulator, simulation.forces
        before = simulation.qpos, simulation.qvel
        forces.set_inputs(live["ctrl"][index], live["qfrc_applied"][index], live["xfrc_applied"][index])
        rotors, length_s = simulation.rotors, simulation.timestep_s / simulation.steps
        for _ in range(simulation.steps):
            force, qvel = forces.at(simulation.qpos, simulation.qvel), simulation.qvel
            simulator.step(force if rotors is None else force + rotors.correction(forces.data))
            simulation.qpos, simulation.qvel = simulator.read()
            if rotors is not None:
                rotors.saw((simulation.qvel - qvel) / length_s)
        return before

    def _write_one(self, index: int, command: Tensor) -> None:
        start = 0
        for values in self._inputs:
            size = values.shape[1]
            values[index] = command[start : start + size]
            start += size

    def _simulation(self, index: int) -> _Simulation:
        """A simulation as the engine's tensors have it: its model's fields, and its state if that was written."""
        simulation, qpos, qvel = self._simulations[index], self._live["qpos"][index], self._live["qvel"][index]
        changed = self._changed(index)
        if simulation is None or any(name in _OF_MECHANISM for name in changed):
            self._drop(index)
            simulation = self._simulations[index] = self._made(index)
        elif changed:
            for name in changed:
                _assign(simulation.forces.model, name, self._batch.expand(name)[index])
        if not (np.array_equal(simulation.qpos, qpos) and np.array_equal(simulation.qvel, qvel)):
            simulation.qpos, simulation.qvel = qpos.copy(), qvel.copy()
            simulation.simulator.write(simulation.qpos, simulation.qvel)
            if simulation.rotors is not None:
                simulation.rotors.forget()
        return simulation

    def _changed(self, index: int) -> list[str]:
        """Fields that differ from when this was last asked of a simulation."""
        known, changed = self._rows[index], []
        for name, values in self._fields.items():
            row = values[index].numpy().tobytes()
            if known.get(name) != row:
                known[name] = row
                changed.append(name)
        return changed

    def _made(self, index: int) -> _Simulation:
        model = self._batch.get_model(index) if self._fields else self.model
        found = self._translated(model) if self._fields else self._nominal
        steps = round(float(model.opt.timestep) / found.timestep_s)
        empty = np.full(model.nq, np.nan)
        kind, timestep_s = KINDS[self.kind], float(model.opt.timestep)
        forces, rotors = Forces(model, kind.own_damping), None if kind.own_rotors else Rotors(model, found)
        if rotors is not None and not rotors.any:
            rotors = None
        return _Simulation(self._make(found), forces, rotors, empty, np.zeros(model.nv), timestep_s, steps)

    def _look(self, index: int, acceleration: Array, touches: list[Touch]) -> None:
        """Note what the fields of `SEEN` are after the step of a simulation whose state is that of its beginning."""
        simulation = self._simulations[index]
        assert simulation is not None
        data = observe(simulation.forces, self._live["qpos"][index], self._live["qvel"][index], acceleration, touches)
        for name, values in self._seen.items():
            values[index] = getattr(data, name)

    def _show(self, rows: Rows) -> None:
        """Put what `_look` noted in place of what MuJoCo computed, in rows [N] (bool)."""
        for name, values in self._seen.items():
            where: Rows = rows.reshape(-1, *[1] * (values.ndim - 1))
            if name == "sensordata":
                where = where & self._of_acceleration
            np.copyto(self._outputs[name], values, where=where)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._stepped[:] = False


def _translates(field: str) -> bool:
    return field in _OF_MECHANISM or field.startswith((*_OF_FORCES, *_WITHOUT_EFFECT))


def _assign(model: mujoco.MjModel, name: str, value: Array) -> None:
    owner, key = (model.opt, name.removeprefix("opt.")) if name.startswith("opt.") else (model, name)
    if np.ndim(getattr(owner, key)):
        getattr(owner, key)[...] = value
    else:
        setattr(owner, key, value.item())


def statement_of(engine: Engine) -> list[str]:
    """What the simulator of an engine lacks or does otherwise than MuJoCo; nothing where it is MuJoCo."""
    inner = getattr(engine, "beneath", engine)
    return inner.statement() if isinstance(inner, BridgeEngine) else []
