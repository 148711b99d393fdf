"""The CPU engine: `mujoco.batch.Batch` behind zero-copy torch views, stepped on C threads."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Any

import mujoco
import numpy as np
import torch
from mujoco.batch import MODEL_FIELDS, Batch, SimulationError
from torch import Tensor

from envs.common.errors import EngineError
from envs.engines.base import COMMAND_FIELDS, BatchedEngine, Stage, callback_problems, model_problems
from envs.engines.field_stages import later_columns
from envs.engines.stability import speed_limits
from envs.platform.processors import available_threads

_STAGES: dict[Stage, int] = {
    "kinematics": int(mujoco.mjtStage.mjSTAGE_POS),
    "position": int(mujoco.mjtStage.mjSTAGE_POS),
    "velocity": int(mujoco.mjtStage.mjSTAGE_VEL),
    "acceleration": int(mujoco.mjtStage.mjSTAGE_ACC),
}
_NO_CONTACTS = int(mujoco.mjtDisableBit.mjDSBL_CONTACT) | int(mujoco.mjtDisableBit.mjDSBL_CONSTRAINT)
_NO_STAGE = int(mujoco.mjtStage.mjSTAGE_NONE)
# Warnings after which a simulation is no longer this episode's: MuJoCo has reset it by itself, or has taken all of its
# controls as 0 because one was not finite.
_WARNING = mujoco.mjtWarning
_UNSTABLE = [
    int(w) for w in (_WARNING.mjWARN_BADQPOS, _WARNING.mjWARN_BADQVEL, _WARNING.mjWARN_BADQACC, _WARNING.mjWARN_BADCTRL)
]


class CpuEngine(BatchedEngine):
    """N simulations of one model in float64. Results do not depend on the number of threads.

    Args:
        model: the nominal model; it is not modified.
        num_envs: N, the number of simulations.
        threads: physics threads; None takes as many as this process may use.

    Raises:
        EngineError: the model has an option with which it cannot be run.
    """

    def __init__(self, model: mujoco.MjModel, num_envs: int, threads: int | None = None) -> None:
        super().__init__(model, num_envs, torch.device("cpu"), torch.float64)
        self._batch = _made(model, num_envs, threads or available_threads())
        self._outputs: dict[str, np.ndarray] = {}
        self._later_fields: dict[Stage, dict[str, Any]] = {}
        self._command_spec = 0  # MuJoCo's names for the inputs that a command holds
        self._failed = np.zeros(num_envs, dtype=bool)
        self._warnings = self._batch.warning[:, min(_UNSTABLE) : max(_UNSTABLE) + 1, 1]  # counts, live
        self._any_failed = False
        self._state = torch.from_numpy(self._batch.state)
        self._qpos = self._batch.bind("qpos")
        self._qpos_seen = self._qpos.copy()
        self._qvel, self._speed_limits = self._batch.bind("qvel"), speed_limits(model)

    @property
    def threads(self) -> int:
        """Physics threads in use."""
        return self._batch.nthread

    def data(self, name: str) -> Tensor:
        if name not in self._data:
            bound = {key: array.copy() for key, array in self._outputs.items()}
            array = self._batch.bind(name)
            if not array.flags.writeable:  # a derived field: zero until a call computes it
                array.flags.writeable = True
                self._outputs[name] = array
                self._later_fields.clear()
                seen = self._qpos_seen.copy()
                self._call(self._batch.forward, None)
                # The forward just made must not refresh fields that a task reads one substep late.
                for key, saved in bound.items():
                    self._outputs[key][...] = saved
                self._qpos_seen[...] = seen
            self._data[name] = torch.from_numpy(array)
        return self._data[name]

    def field(self, name: str) -> Tensor:
        if name not in self._fields:
            if name not in MODEL_FIELDS:
                raise ValueError(f"{name!r} is not an mjModel field that can differ between simulations")
            self._fields[name] = torch.from_numpy(self._batch.expand(name))
        return self._fields[name]

    def use_commands(self, fields: tuple[str, ...]) -> int:
        self._command_spec = sum(COMMAND_FIELDS[name] for name in fields)
        return super().use_commands(fields)

    def step(self, nstep: int, commands: Tensor | None = None) -> None:
        if commands is None:
            self._call(self._batch.step, None, nstep)
            return
        counts = self._batch.warning[:, :, 1]
        start, before = self._batch.bind("time").copy(), counts.copy()
        self._call(self._batch.rollout, None, nstep, commands.numpy(), self._command_spec, ())
        if np.array_equal(counts, before):
            return
        warned = (counts > before).any(axis=1) & ~(self._warnings != 0).any(axis=1)
        for index in np.flatnonzero(warned & ~self._failed):
            self._finish(int(index), nstep, commands[index].numpy(), start[index])

    def trajectories(self, controls: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """qpos [N, T, nq] and qvel [N, T, nv] after each of T physics steps with controls [N, T, nu].

        A simulation of which MuJoCo warns stands still from there on.
        """
        steps, begun = controls.shape[1], self._batch.warning[:, :, 1].sum(axis=1)
        size = {"qpos": self.model.nq, "qvel": self.model.nv}
        shown: dict[Any, np.ndarray] = {key: np.zeros((self.num_envs, steps, n)) for key, n in size.items()}
        try:
            self._batch.rollout(steps, controls, record=tuple(shown), out=shown)
        except SimulationError as error:
            self._failed[error.ids] = True
        self._failed |= self._batch.warning[:, :, 1].sum(axis=1) > begun
        self._any_failed = bool(self._failed.any())
        np.copyto(self._qpos_seen, self._qpos)
        return shown["qpos"], shown["qvel"]

    def advance_some(self, nstep: int, mask: Tensor) -> None:
        self.start_histories(mask)
        self._call(self._batch.step, _numpy(mask), nstep)

    def _finish(self, index: int, nstep: int, commands: np.ndarray, start_s: float) -> None:
        """Make the steps that `rollout` left out of a simulation when MuJoCo warned, as `step` would have.

        It stops there for any warning, such as a full contact buffer, which `step` does not.
        """
        timesteps = self._batch.expanded("opt.timestep")
        timestep_s = float(self.model.opt.timestep if timesteps is None else timesteps[index])
        mask = np.zeros(self.num_envs, dtype=bool)
        mask[index] = True
        done = round((float(self._batch.bind("time")[index]) - start_s) / timestep_s)
        while done < nstep and not self._failed[index] and not self._warnings[index].any():
            left = commands[None, done:]
            self._call(self._batch.rollout, mask, 1, left[:, :1], self._command_spec, ())
            done += 1

    def forward(self, mask: Tensor | None = None, stage: Stage = "acceleration") -> None:
        later = self._later(stage)
        kept = [self._outputs[name][where].copy() for name, where in later.items()]
        if stage == "kinematics":
            # Without contacts and constraints the position stage costs a third, and poses come out the same.
            flags = self._batch.expand("opt.disableflags")
            before = flags.copy()
            flags |= _NO_CONTACTS
            self._call(self._batch.forward, _numpy(mask), _STAGES[stage])
            flags[...] = before
        else:
            self._call(self._batch.forward, _numpy(mask), _STAGES[stage])
        for (name, where), values in zip(later.items(), kept, strict=True):
            self._outputs[name][where] = values

    def _later(self, stage: Stage) -> dict[str, Any]:
        """Where bound fields hold what a forward to this stage does not compute: an index into each.

        The batch copies it out all the same, from the memory of the thread that ran it: there it is that of whichever
        simulation this thread has computed last.
        """
        if stage not in self._later_fields:
            found: dict[str, Any] = {}
            for name, array in self._outputs.items():
                size = array.shape[1] if array.ndim > 1 else 1
                columns = later_columns(self.model, name, size, _STAGES[stage], stage != "kinematics")
                if len(columns):
                    found[name] = (slice(None), columns) if len(columns) < size else ...
            self._later_fields[stage] = found
        return self._later_fields[stage]

    def reset(self, mask: Tensor | None = None) -> None:
        self._run(self._batch.reset, _numpy(mask), -1, _NO_STAGE)
        self._unstarted[slice(None) if mask is None else mask] = True

    def _sensor_timing(self) -> list[Tensor]:
        return [self.field("sensor_delay"), self.field("sensor_interval")]

    def _evaluate(self, mask: Tensor) -> None:
        self._call(self._batch.forward, mask.numpy())

    def set_const(self, mask: Tensor | None = None) -> None:
        self._run(self._batch.set_const, _numpy(mask))

    def refresh_written(self) -> None:
        """Recompute derived fields of simulations whose qpos was written from outside since the last call."""
        if not np.array_equal(self._qpos, self._qpos_seen):
            self._call(self._batch.forward, (self._qpos != self._qpos_seen).any(axis=1))

    def diverged(self) -> Tensor:
        fast = np.abs(self._qvel) > self._speed_limits
        if not self._any_failed and not self._warnings.any() and not fast.any():
            return torch.zeros(self.num_envs, dtype=torch.bool)
        mask = self._failed | (self._warnings != 0).any(axis=1) | fast.any(axis=1)
        self._failed[:] = False
        self._any_failed = False
        self._warnings[...] = 0
        return torch.from_numpy(mask)

    def state_rows(self) -> np.ndarray:
        """The live integration states [N, nstate] of all simulations, as MuJoCo packs them."""
        return self._batch.state

    def export_to_mujoco(self, index: int) -> tuple[mujoco.MjModel, mujoco.MjData]:
        model, data = self._batch.get_model(index), self._batch.get_data(index)
        mujoco.mj_forward(model, data)
        return model, data

    def poses(
        self, rows: Iterable[int], model: mujoco.MjModel, data: mujoco.MjData
    ) -> Generator[tuple[mujoco.MjModel, mujoco.MjData]]:
        """Simulations `rows` as a renderer needs them, one after the other: bodies, cameras and lights in their places,
        no contacts and no forces. `export_to_mujoco` copies the model and computes all of it.

        Args:
            rows: indices of simulations.
            model: a copy of the engine's, which gets the values of each one's fields.
            data: of that copy.
        """
        moved = [name for name in self._constants() if name.startswith(("cam_", "light_"))]
        fields = {name: self._batch.expand(name) for name in (*self._fields, *moved) if "." not in name}
        for row in rows:
            for name, values in fields.items():
                getattr(model, name)[...] = values[row]
            self._batch.get_data(row, data)
            mujoco.mj_kinematics(model, data)
            mujoco.mj_comPos(model, data)
            mujoco.mj_camlight(model, data)
            mujoco.mj_flex(model, data)
            mujoco.mj_tendon(model, data)
            yield model, data

    def state_dict(self) -> dict[str, Any]:
        return {
            "state": self._state.clone(),
            "outputs": {name: torch.from_numpy(array.copy()) for name, array in self._outputs.items()},
            "fields": {name: field.clone() for name, field in sorted(self._fields.items())},
            "constants": {name: torch.from_numpy(self._batch.expand(name).copy()) for name in self._constants()},
            "failed": torch.from_numpy(self._failed.copy()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, values in state["fields"].items():
            self.field(name).copy_(values)
        # Not computed again: when they were, the fields that a task's reset writes may have been others, and a
        # difference in the last digit would grow.
        constants = state["constants"]
        for name in {*self._constants(), *constants}:
            field = torch.from_numpy(self._batch.expand(name))
            field.copy_(constants[name] if name in constants else self.nominal(name))
        for name in state["outputs"]:
            self.data(name)
        self._state.copy_(state["state"])
        # Derived fields lag one substep behind the state and are not part of its row.
        for name, values in state["outputs"].items():
            self._outputs[name][...] = values.numpy()
        self._failed[:] = state["failed"].numpy()
        self._any_failed = bool(self._failed.any())
        np.copyto(self._qpos_seen, self._qpos)

    def _constants(self) -> list[str]:
        """Fields that differ between simulations because `set_const` has computed them."""
        return [name for name in MODEL_FIELDS if name not in self._fields and self._batch.expanded(name) is not None]

    def _call(self, function: Any, mask: np.ndarray | None, *args: Any) -> None:
        """Run a batch call after which derived fields are those of qpos."""
        self._run(function, mask, *args)
        np.copyto(self._qpos_seen, self._qpos, where=True if mask is None else mask[:, None])

    def _run(self, function: Any, mask: np.ndarray | None, *args: Any) -> None:
        """Run a batch call; simulations in which MuJoCo raised are marked, the others are not disturbed."""
        try:
            if function == self._batch.rollout:
                function(*args, ids=mask)
            else:
                function(mask, *args)
        except SimulationError as error:
            self._failed[error.ids] = True
            self._any_failed = True


def _made(model: mujoco.MjModel, num_envs: int, threads: int) -> Batch:
    for problem in (*model_problems(model), *callback_problems()):
        raise EngineError(f"engine: {problem}")
    try:
        return Batch(model, num_envs, threads)
    except (ValueError, mujoco.FatalError) as error:
        raise EngineError(f"engine: MuJoCo does not run {num_envs} simulations of the model: {error}") from None


def _numpy(mask: Tensor | None) -> np.ndarray | None:
    return None if mask is None else mask.numpy()
