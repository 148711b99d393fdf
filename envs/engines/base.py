"""What every physics engine offers: N simulations of one model behind torch tensors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol, runtime_checkable

import mujoco
import numpy as np
import torch
from torch import Tensor

from envs.common.errors import EngineError as EngineError  # its public place
from envs.engines.histories import control_samples, sensor_samples

Stage = Literal["kinematics", "position", "velocity", "acceleration"]

# Inputs that a control step may write, in the order in which MuJoCo packs them into a control vector.
COMMAND_FIELDS: dict[str, int] = {
    "ctrl": int(mujoco.mjtState.mjSTATE_CTRL),
    "mocap_pos": int(mujoco.mjtState.mjSTATE_MOCAP_POS),
    "mocap_quat": int(mujoco.mjtState.mjSTATE_MOCAP_QUAT),
}
_KEPT_ELSEWHERE = {  # flags whose bookkeeping is not part of a simulation's state: it cannot be reset or resumed
    "sleep": int(mujoco.mjtEnableBit.mjENBL_SLEEP),
    "ipc": int(mujoco.mjtEnableBit.mjENBL_IPC),
}
_CALLBACKS = ("act_bias", "act_dyn", "act_gain", "contactfilter", "control", "passive", "sensor", "time")


class Engine(Protocol):
    """N simulations stepped together. Tensors are live: reading sees the state, writing changes it.

    A task never asks which engine it is on. Masks [N] (bool) select simulations; None means all.
    """

    model: mujoco.MjModel  # nominal
    num_envs: int
    device: torch.device
    dtype: torch.dtype  # of real-valued fields: float64 on CPU, float32 on GPU

    def data(self, name: str) -> Tensor:
        """Live values [N, ...] of an mjData field; state fields (qpos, ctrl, ...) are writable."""
        ...

    def field(self, name: str) -> Tensor:
        """Live per-simulation values [N, ...] of an mjModel field, expanded on first use."""
        ...

    def handed_out(self) -> list[Tensor]:
        """The live tensors that `data` and `field` have returned so far."""
        ...

    def nominal(self, name: str) -> Tensor:
        """Values [...] of an mjModel field in the nominal model, a copy."""
        ...

    def step(self, nstep: int, commands: Tensor | None = None) -> None:
        """Advance nstep physics steps. commands [N, nstep, C] is written before each, see `command_size`."""
        ...

    def advance_some(self, nstep: int, mask: Tensor) -> None:
        """Advance the simulations of mask [N] by nstep physics steps under what their `ctrl` holds. Nothing of the
        others changes, derived fields included."""
        ...

    def forward(self, mask: Tensor | None = None, stage: Stage = "acceleration") -> None:
        """Compute derived fields of the present state, up to a stage; "kinematics" leaves out contacts."""
        ...

    def reset(self, mask: Tensor | None = None) -> None:
        """Reset state to the model's defaults; derived fields follow at the next forward()."""
        ...

    def start_histories(self, mask: Tensor) -> None:
        """After a reset, fill the histories of delayed actuators and sensors (mjData.history) in mask [N]: with the
        present controls and with what sensors show of the present state. Once per reset; `advance_some` does it too."""
        ...

    def set_const(self, mask: Tensor | None = None) -> None:
        """Recompute the model constants that depend on expanded fields (mj_setConst)."""
        ...

    def use_commands(self, fields: tuple[str, ...]) -> int:
        """Choose the input fields that a command vector holds; returns its length C."""
        ...

    def write_command(self, command: Tensor) -> None:
        """Write a command [N, C] to its input fields, to hold from now on."""
        ...

    def refresh_written(self) -> None:
        """Recompute derived fields where state was written from outside since the last call."""
        ...

    def diverged(self) -> Tensor:
        """Simulations [N] (bool) that became unstable since the last call of this method."""
        ...

    def export_to_mujoco(self, index: int) -> tuple[mujoco.MjModel, mujoco.MjData]:
        """One simulation as an mjModel and an mjData with derived fields computed, e.g. to render it."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All that later steps depend on, as tensors and plain values."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        ...


@runtime_checkable
class WarpEngine(Protocol):
    """An `Engine` on mujoco_warp, whose model and data can be read on the device, as cameras do."""

    num_envs: int
    device: torch.device

    def differing(self, name: str) -> Tensor | None:
        """A field of mjModel [N, ...] that somebody has asked for; None where all simulations have the model's."""
        ...

    def pose_context(self) -> AbstractContextManager[tuple[Any, Any]]:
        """mujoco_warp's model and data with the kinematics of the present state, until the context ends."""
        ...


class BatchedEngine:
    """What simreal's own engines share: commands that are written to input fields, and histories of delays.

    Args:
        model: the nominal model.
        num_envs: N, the number of simulations.
        device, dtype: of tensors.
    """

    def __init__(self, model: mujoco.MjModel, num_envs: int, device: torch.device, dtype: torch.dtype) -> None:
        self.model, self.num_envs, self.device, self.dtype = model, num_envs, device, dtype
        self._data: dict[str, Tensor] = {}  # fields of mjData that were asked for
        self._fields: dict[str, Tensor] = {}  # fields of mjModel that differ between simulations
        self._inputs: list[Tensor] = []  # [N, k] each: what a command is written to, in its order
        self._controls, self._sensors = control_samples(model, device), sensor_samples(model, device)
        self._unstarted = torch.zeros(num_envs, dtype=torch.bool, device=device)  # reset, histories not yet filled

    def data(self, name: str) -> Tensor:
        """See `Engine`."""
        raise NotImplementedError

    def _sensor_timing(self) -> list[Tensor]:
        """The live delays and intervals of sensors, as the simulations have them."""
        raise NotImplementedError

    def _evaluate(self, mask: Tensor) -> None:
        """Compute derived fields of the simulations in mask [N]."""
        raise NotImplementedError

    def handed_out(self) -> list[Tensor]:
        return [*self._data.values(), *self._fields.values()]

    def differing(self, name: str) -> Tensor | None:
        """A field of mjModel [N, ...] that somebody has asked for; None where all simulations have the model's."""
        return self._fields.get(name)

    def nominal(self, name: str) -> Tensor:
        owner = self.model.opt if name.startswith("opt.") else self.model
        return torch.as_tensor(np.array(getattr(owner, name.removeprefix("opt."))))

    def use_commands(self, fields: tuple[str, ...]) -> int:
        ordered = sorted(fields, key=lambda name: COMMAND_FIELDS[name])
        self._inputs = [self.data(name).flatten(1) for name in ordered]
        return sum(values.shape[1] for values in self._inputs)

    def write_command(self, command: Tensor) -> None:
        for values, part in zip(self._inputs, command.split([v.shape[1] for v in self._inputs], dim=1), strict=True):
            values.copy_(part)

    def start_histories(self, mask: Tensor) -> None:
        if not self.model.nhistory:
            return
        rows, history = mask & self._unstarted, self.data("history")
        self._unstarted = self._unstarted & ~rows
        self._controls.fill(history, self.data("ctrl"), rows)
        if not len(self._sensors.places):
            return
        sensordata, filled, timing = self.data("sensordata"), history.clone(), self._sensor_timing()
        before = [values.clone() for values in timing]
        for values in timing:  # so that sensors show the present
            values.zero_()
        self._evaluate(rows)
        for values, nominal in zip(timing, before, strict=True):
            values.copy_(nominal)
        self._sensors.fill(filled, sensordata, rows)
        history.copy_(filled)


def model_problems(model: mujoco.MjModel) -> Iterator[str]:
    """Options of a model with which no engine can run it, and how to switch them off; one line each."""
    for flag, bit in _KEPT_ELSEWHERE.items():
        if model.opt.enableflags & bit:
            yield (
                f'the flag {flag}="enable" keeps more than a simulation\'s state, which cannot be reset: switch it off '
                f'(<option><flag {flag}="disable"/></option>)'
            )


def callback_problems() -> Iterator[str]:
    """Functions of Python that MuJoCo is to call in every simulation, which it cannot do on threads of its own."""
    for name in _CALLBACKS:
        if getattr(mujoco, f"get_mjcb_{name}")() is not None:
            yield (
                f"a callback is installed with mujoco.set_mjcb_{name}, which batched simulations cannot call: take it "
                f"back (mujoco.set_mjcb_{name}(None)) and write what it does in the task's hooks"
            )


def write_rows(target: Tensor, values: Tensor, mask: Tensor) -> None:
    """target = values in place, in the rows of mask [N]; values [N, ...], or anything that expands to it."""
    target.copy_(torch.where(mask.view(-1, *[1] * (target.dim() - 1)), values, target))
