"""The GPU engine: `mujoco_warp` behind torch tensors that share memory with its arrays, stepped as a CUDA graph.

On a machine without CUDA it runs on Warp's CPU device: for checks, many times slower than the CPU engine.

Everything means the same as on the CPU engine: derived fields (xpos, site_xpos, sensordata, ...) are those of the last
evaluation of the dynamics, up to one physics step behind qpos; a simulation that becomes unstable is reset to the
model's defaults and reported by `diverged`. What differs: numbers are float32; the constraint solver stops at a
tolerance of 1e-6 at best; on CUDA the order of sums, and so the last bits, differ between runs unless
`GpuOptions.deterministic` is set.

No method waits for the device. Everything runs on torch's present stream.
"""

from __future__ import annotations

import copy
import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import mujoco
import numpy as np
import torch
from torch import Tensor

from envs.common.errors import EngineError
from envs.engines.base import BatchedEngine, Stage, write_rows
from envs.engines.gpu.buffers import BufferWatch, buffers
from envs.engines.gpu.options import GpuOptions, has_height_field, with_options
from envs.engines.gpu.pipeline import STAGES, StaticGeoms
from envs.engines.stability import speed_limits

mjw: Any = importlib.import_module("mujoco_warp")
wp: Any = importlib.import_module("warp")
_kernels: Any = importlib.import_module("envs.engines.gpu.kernels")
wp.config.log_level = max(wp.config.log_level, wp.LOG_ERROR)  # silent about every kernel that it compiles or loads

# What a simulation is made of (mjSTATE_INTEGRATION): reset, saved and restored.
_STATE = (
    "time", "qpos", "qvel", "act", "history", "plastic", "qacc_warmstart", "ctrl", "qfrc_applied", "xfrc_applied",
    "eq_active", "mocap_pos", "mocap_quat", "userdata",
)  # fmt: skip
# What mj_setConst writes. All of it has to differ between simulations as soon as one of its inputs does: kernels that
# write a shared array from many worlds would give all of them the constants of one.
_CONSTANTS = (
    "body_subtreemass", "body_invweight0", "dof_invweight0", "tendon_length0", "tendon_invweight0", "actuator_acc0",
    "eq_data", "geom_aabb", "geom_rbound", "cam_pos0", "cam_poscom0", "cam_mat0", "light_pos0", "light_poscom0",
    "light_dir0",
)  # fmt: skip
_GROUPS: dict[str, int] = {  # of those constants, what follows from an input; all, from others
    **dict.fromkeys(("geom_pos", "geom_margin", "geom_gap", "tendon_stiffness"), int(mjw.SetConstGroup.NONE)),
    "geom_size": int(mjw.SetConstGroup.FIXED),
}
_POSTCONSTRAINT = ("cacc", "cfrc_int", "cfrc_ext")  # computed only when asked for
_FLUID = ("opt.wind", "opt.density", "opt.viscosity")


@contextmanager
def _silent() -> Iterator[None]:
    """Without what native code writes to stderr: Warp's warns of a missing CUDA driver, which simreal has said."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


class GpuEngine(BatchedEngine):
    """N simulations of one model in float32; see `envs.engines.base.Engine`.

    Args:
        model: the nominal model; it is not modified.
        num_envs: N, the number of simulations.
        device: "cuda", "cuda:1", ... or "cpu"; None takes CUDA where there is one.
        options: buffer sizes and solver.

    Attributes:
        room: for contacts and constraints.

    Raises:
        EngineError: the model needs something that does not run on the GPU.
    """

    def __init__(
        self, model: mujoco.MjModel, num_envs: int, device: str | None = None, options: GpuOptions | None = None
    ) -> None:
        options = options or GpuOptions()
        model = with_options(model, options)
        where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if where.type == "cuda" and where.index is None:
            where = torch.device("cuda", torch.cuda.current_device())
        super().__init__(model, num_envs, where, torch.float32)
        with nullcontext() if torch.cuda.is_available() else _silent():
            wp.init()
        self._wp_device = wp.device_from_torch(self.device)
        self._recorder = _kernels.Recorder(self._wp_device)
        self.room = buffers(self.model, options)
        self._m, self._d = self._allocate(options)
        with _kernels.on_torch_stream(self._wp_device):
            self._failed, self._overflowed = wp.zeros(num_envs, dtype=bool), wp.zeros(1, dtype=int)
        self._watch = BufferWatch(wp.to_torch(self._overflowed), self.room)
        self._shapes = mujoco.MjData(self.model)
        self._outputs: dict[str, Tensor] = {}  # derived fields that somebody reads
        self._constants: dict[str, Tensor] = {}  # what follows from the model fields that differ between simulations
        self._targets: list[Any] = []  # `_inputs`, for Warp
        self._schedule = self._empty_schedule(0)
        with _kernels.on_torch_stream(self._wp_device):
            self._static = StaticGeoms(self.model, self._wp_device)
        self._state = {name: view for name in _STATE if (view := self.data(name)).numel()}
        self._default = {name: view[:1].clone() for name, view in self._state.items()}
        if "history" in self._state:  # of delayed sensors: an evaluation may write it
            self._outputs["history"] = self._state["history"]
        self._qpos = self.data("qpos")
        self._qpos_seen, self._version = self._qpos.clone(), self._qpos._version
        self._speed_limits = torch.as_tensor(speed_limits(self.model), dtype=self.dtype, device=self.device)
        self._weighed = (self.nominal("body_invweight0") > 0).to(self.device, self.dtype)
        self._resetting = False  # what is written between reset() and forward() is part of the reset
        self._evaluated = False

    def _allocate(self, options: GpuOptions) -> tuple[Any, Any]:
        """Model and data on the device."""
        room = {"nconmax": self.room.contacts, "njmax": self.room.constraints}
        try:
            with _kernels.on_torch_stream(self._wp_device):
                m = mjw.put_model(self.model)
                d = mjw.make_data(self.model, nworld=self.num_envs, **room)
        except (NotImplementedError, ValueError) as error:
            raise EngineError(f"engine: the model does not run on the GPU, use the CPU engine: {error}") from None
        m.opt.warn_overflow = 0  # `BufferWatch` raises, instead of printing from the device
        m.opt.deterministic = options.deterministic
        m.opt.graph_conditional = wp.is_conditional_graph_supported()
        return m, d

    def data(self, name: str) -> Tensor:
        if name not in self._data:
            array = getattr(self._d, name, None)
            if not isinstance(array, wp.array) or not hasattr(self._shapes, name):
                raise ValueError(f"{name!r} is not an mjData field that the GPU engine has")
            view = wp.to_torch(array).view(self.num_envs, *np.shape(getattr(self._shapes, name)))
            if name not in _STATE:
                self._bind(name, view)
            self._data[name] = view
        return self._data[name]

    def _bind(self, name: str, view: Tensor) -> None:
        """Keep a derived field from now on; as on the CPU engine its first values belong to the present state.

        Before anything has been evaluated they are zero: an engine that is made only to see whether a model runs need
        not compile all that running it takes.
        """
        if name in _POSTCONSTRAINT and not self._m.opt.run_rne_postconstraint:
            self._m.opt.run_rne_postconstraint = True
            self._recorder.forget()
        if self._evaluated:
            with self._kept(~self._everywhere()):  # fields that are one physics step behind stay so
                self._run_stage("acceleration")
        self._outputs[name] = view

    def field(self, name: str) -> Tensor:
        if (name in mujoco.MjModel._setconst_inputs or name in _CONSTANTS) and not self._constants:
            for constant in _CONSTANTS:
                self._constants[constant] = self._expand(constant)
        if name in self._constants:
            return self._constants[name]
        if name not in self._fields:
            self._fields[name] = self._expand(name)
            if name in _FLUID:
                self._m.has_fluid = True
        return self._fields[name]

    def _expand(self, name: str) -> Tensor:
        """Give every simulation its own values of a model field."""
        host, owner = (self.model.opt, self._m.opt) if name.startswith("opt.") else (self.model, self._m)
        key = name.removeprefix("opt.")
        shared: Any = getattr(owner, key, None)
        if not hasattr(host, key):
            raise ValueError(f"{name!r} is not an mjModel field")
        on_field = name in ("geom_margin", "pair_margin") and has_height_field(self.model)  # see `with_options`
        if on_field or not getattr(shared, "_is_batched", False):
            raise EngineError(f"engine: {name!r} cannot differ between simulations on the GPU: use the CPU engine")
        with _kernels.on_torch_stream(self._wp_device):
            own = wp.empty((self.num_envs, *shared.shape[1:]), dtype=shared.dtype)
            own._is_batched = True
            view = wp.to_torch(own)
            view.copy_(wp.to_torch(shared).expand_as(view))
            setattr(owner, key, own)
        self._recorder.forget()
        return view.view(self.num_envs, *np.shape(getattr(host, key)))

    def handed_out(self) -> list[Tensor]:
        return [*super().handed_out(), *self._constants.values()]

    def use_commands(self, fields: tuple[str, ...]) -> int:
        size = super().use_commands(fields)
        self._targets = [wp.from_torch(values) for values in self._inputs]
        self._schedule = self._empty_schedule(0)
        self._recorder.forget()
        return size

    def _empty_schedule(self, nstep: int) -> Tensor:
        """Where commands [N, nstep, C] lie while a recorded graph reads them."""
        size = sum(values.shape[1] for values in self._inputs)
        return torch.zeros(self.num_envs, nstep, size, dtype=self.dtype, device=self.device)

    def step(self, nstep: int, commands: Tensor | None = None) -> None:
        scheduled = commands is not None
        if commands is not None:
            if self._schedule.shape[1] != nstep:
                self._schedule = self._empty_schedule(nstep)
                self._recorder.forget()
            self._schedule.copy_(commands)
        self._evaluated = True
        self._recorder.run(("step", nstep, scheduled), lambda: self._launch_steps(nstep, scheduled))
        self._saw(None)
        if not self._recorder.part_of_another:
            self.check_room()

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Within, all that runs becomes part of a CUDA graph that the caller records on torch's stream.

        Every replay is preceded by `refresh_written` and followed by `check_room`, which look at the host's side.
        """
        with self._recorder.inlined():
            yield

    def check_room(self) -> None:
        """Raise EngineError if a step had not enough room, as soon as that is known without waiting."""
        self._watch.check()

    def advance_some(self, nstep: int, mask: Tensor) -> None:
        if not bool(mask.any()):  # steps of all simulations for nothing cost more than to wait for the device
            return
        self.start_histories(mask)
        before = {name: view.clone() for name, view in self._state.items()}
        failed = wp.to_torch(self._failed).clone()
        with self._kept(mask):
            self.step(nstep)
        for name, values in before.items():
            write_rows(self._state[name], values, ~mask)
        write_rows(wp.to_torch(self._failed), failed, ~mask)
        self._saw(None)

    def _launch_steps(self, nstep: int, scheduled: bool) -> None:
        m, d, n = self._m, self._d, self.num_envs
        schedule = wp.from_torch(self._schedule) if scheduled else None
        state = (d.time, d.qpos, d.qvel, d.act, d.ctrl, d.qacc, d.qacc_warmstart, d.qfrc_applied)
        self._static.place(m, d, self._fields)
        for substep in range(nstep):
            start = 0
            for target in self._targets if scheduled else ():
                wp.launch(_kernels.write_command, target.shape, inputs=[schedule, substep, start, target])
                start += target.shape[1]
            mjw.step(m, d)
            wp.launch(_kernels.check_worlds, n, inputs=[m.qpos0, *state, self._failed])
        wp.launch(_kernels.gather_overflow, n, inputs=[self._failed, d.overflow, self._overflowed])

    def forward(self, mask: Tensor | None = None, stage: Stage = "acceleration") -> None:
        if mask is None or not self._evaluated:
            self._run_stage(stage)
        else:
            with self._kept(mask):
                self._run_stage(stage)
        self._saw(mask)

    def _run_stage(self, stage: Stage) -> None:
        m, d = self._m, self._d
        self._evaluated = True

        def launch() -> None:
            self._static.place(m, d, self._fields)
            STAGES[stage](m, d)

        self._recorder.run(stage, launch)

    @contextmanager
    def pose_context(self) -> Iterator[tuple[Any, Any]]:
        """mujoco_warp's model and data with the kinematics of the present state, until the context ends.

        Derived fields that somebody reads are then as they were before, up to one physics step behind.
        """
        with self._kept(~self._everywhere()):
            self._run_stage("kinematics")
            yield self._m, self._d

    def _everywhere(self) -> Tensor:
        return torch.ones(self.num_envs, dtype=torch.bool, device=self.device)

    @contextmanager
    def _kept(self, mask: Tensor) -> Iterator[None]:
        """Run something that writes the derived fields of all simulations; in the end only those in `mask` change."""
        saved = {name: view.clone() for name, view in self._outputs.items()}
        yield
        for name, before in saved.items():
            write_rows(self._outputs[name], before, ~mask)

    def reset(self, mask: Tensor | None = None) -> None:
        self.refresh_written()
        mask = self._everywhere() if mask is None else mask
        for name, view in self._state.items():
            default = self._fields["qpos0"] if name == "qpos" and "qpos0" in self._fields else self._default[name]
            write_rows(view, default, mask)
        self._resetting = True
        self._unstarted = self._unstarted | mask

    def _sensor_timing(self) -> list[Tensor]:
        return [wp.to_torch(self._m.sensor_delay), wp.to_torch(self._m.sensor_interval)]

    def _evaluate(self, mask: Tensor) -> None:
        with self._kept(mask):
            self._run_stage("acceleration")

    def set_const(self, mask: Tensor | None = None) -> None:
        groups = self._stale_groups()
        weight = self._constants.get("body_invweight0")
        if groups is None or weight is None:
            return
        m, d = self._m, self._d
        before = {name: view.clone() for name, view in self._constants.items()}
        with self._kept(~self._everywhere()):
            self._recorder.run(("constants", groups), lambda: mjw.set_const(m, d, groups, restore=False))
            # mujoco_warp gives bodies that only move, or only turn, the one weight for the other; MuJoCo gives them 0.
            weight.mul_(self._weighed)
        if mask is not None:
            for name, values in before.items():
                write_rows(self._constants[name], values, ~mask)

    def _stale_groups(self) -> int | None:
        """Groups of constants that follow from fields which differ between simulations; None if there are none."""
        inputs = [name for name in self._fields if name in mujoco.MjModel._setconst_inputs]
        if not inputs:
            return None
        wraps = bool((self.model.wrap_type >= int(mujoco.mjtWrap.mjWRAP_SPHERE)).any())  # tendons around geoms
        every, groups = int(mjw.SetConstGroup.ALL), 0
        for name in inputs:
            groups |= every if wraps else _GROUPS.get(name, every)
        return groups

    def refresh_written(self) -> None:
        """Recompute derived fields of simulations whose qpos was written from outside since the last call.

        What tells is the version that torch counts in tensors: writing through NumPy or Warp goes unnoticed.
        """
        if self._qpos._version != self._version:
            self.forward((self._qpos != self._qpos_seen).any(dim=1))
            self._version = self._qpos._version

    def _saw(self, mask: Tensor | None) -> None:
        """Derived fields belong to the present qpos, in `mask` [N] or everywhere."""
        if mask is None:
            self._qpos_seen.copy_(self._qpos)
        else:
            write_rows(self._qpos_seen, self._qpos, mask)
        if mask is None or self._resetting:
            self._version = self._qpos._version
        self._resetting = False

    def diverged(self) -> Tensor:
        flags = wp.to_torch(self._failed)
        mask = flags | (self.data("qvel").abs() > self._speed_limits).any(dim=1)
        flags.zero_()
        return mask

    def export_to_mujoco(self, index: int) -> tuple[mujoco.MjModel, mujoco.MjData]:
        model = copy.deepcopy(self.model)
        for name, view in self._fields.items():
            owner = model.opt if name.startswith("opt.") else model
            _assign(owner, name.removeprefix("opt."), view[index])
        if self._stale_groups() is not None:
            mujoco.mj_setConst(model, mujoco.MjData(model))
        data = mujoco.MjData(model)
        for name, view in self._state.items():
            _assign(data, name, view[index])
        mujoco.mj_forward(model, data)
        return model, data

    def state_dict(self) -> dict[str, Any]:
        copies = lambda views: {name: view.clone() for name, view in views.items()}  # noqa: E731
        return {
            "state": copies(self._state),
            "outputs": copies(self._outputs),
            "fields": copies(self._fields),
            "constants": copies(self._constants),
            "failed": wp.to_torch(self._failed).clone(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, values in state["fields"].items():
            self.field(name).copy_(values)
        for name, values in state["constants"].items():
            self.field(name).copy_(values)
        for name in state["outputs"]:
            self.data(name)
        for name, values in state["state"].items():
            self._state[name].copy_(values)
        self._run_stage("acceleration")  # what is not saved follows from the state
        for name, values in state["outputs"].items():
            self._outputs[name].copy_(values)
        wp.to_torch(self._failed).copy_(state["failed"])
        self._saw(None)


def _assign(owner: Any, name: str, value: Tensor) -> None:
    """Write a field of an mjModel or mjData."""
    if np.ndim(getattr(owner, name)):
        getattr(owner, name)[...] = value.cpu().numpy()
    else:
        setattr(owner, name, value.item())
