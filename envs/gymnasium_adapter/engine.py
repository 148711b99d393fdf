"""An engine whose simulations are Gymnasium environments, each with its own mjModel and mjData.

`step` calls the environments' own `step` on threads: MuJoCo releases Python's lock while it integrates, the
environments' Python code takes turns. Data tensors are copies that follow the environments; what is written to a state
field reaches them before their next step.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from envs.common.errors import TaskError
from envs.engines.base import Stage
from envs.engines.stability import speed_limits
from envs.gymnasium_adapter.make import GymnasiumEnv, quiet
from envs.gymnasium_adapter.model_fields import ModelFields, apply_changes, model_changes, read_field
from envs.gymnasium_adapter.probe import SUCCESS, as_action, is_number
from envs.gymnasium_adapter.python_state import load_attributes, save_attributes
from envs.gymnasium_adapter.spaces import Layout

Array = NDArray[Any]
_WRITABLE = frozenset(
    {"qpos", "qvel", "act", "ctrl", "mocap_pos", "mocap_quat", "xfrc_applied", "qfrc_applied", "userdata", "time"}
)
_WARNING = mujoco.mjtWarning
_UNSTABLE = [int(w) for w in (_WARNING.mjWARN_BADQPOS, _WARNING.mjWARN_BADQVEL, _WARNING.mjWARN_BADQACC)]
_STATE = mujoco.mjtState.mjSTATE_INTEGRATION


@dataclass(frozen=True)
class Reading:
    """How to read what an environment returns.

    Attributes:
        layout: of its observation.
        terms: keys of `info` that hold one number each; NaN where one does not.
        action_dtype: of its action space.
    """

    layout: Layout
    terms: tuple[str, ...]
    action_dtype: np.dtype[Any]


@dataclass
class Signals:
    """What N environments last returned."""

    observation: Array  # [N, nobs]
    achieved: Array  # [N, G]
    reward: Array  # [N]
    terminated: Array  # [N] bool
    truncated: Array  # [N] bool
    success: Array  # [N] bool
    terms: dict[str, Array] = field(default_factory=dict)  # each [N]

    @classmethod
    def empty(cls, num_envs: int, reading: Reading) -> Signals:
        """Zeros, for environments that have returned nothing yet."""
        zeros = lambda *shape: np.zeros((num_envs, *shape))  # noqa: E731
        flags = lambda: np.zeros(num_envs, bool)  # noqa: E731
        layout, terms = reading.layout, {name: zeros() for name in reading.terms}
        return cls(zeros(layout.size), zeros(layout.goal_size), zeros(), flags(), flags(), flags(), terms)


class GymnasiumEngine:
    """N Gymnasium environments behind the `Engine` protocol. Results do not depend on the number of threads.

    Args:
        envs: newly made and equal; never reset so far.
        nominal: the model as they make it.
        reading: how to read what they return.
        threads: that step them.
        label: names the task in errors.
    """

    def __init__(
        self, envs: Sequence[GymnasiumEnv], nominal: mujoco.MjModel, reading: Reading, threads: int, label: str
    ) -> None:
        self.envs = list(envs)
        self.model, self.num_envs, self.threads = nominal, len(envs), min(threads, len(envs))
        self.device, self.dtype = torch.device("cpu"), torch.float64
        self.signals = Signals.empty(len(envs), reading)
        self.told_success = False  # whether an info ever did
        self._reading, self._label = reading, label
        self._raw: list[Any] = [env.unwrapped for env in envs]
        models = [raw.model for raw in self._raw]
        if len({id(raw.data) for raw in self._raw}) < len(envs):
            raise TaskError(f"{label}: its instances share one mjData; expected one for each")
        self._shared = len({id(model) for model in models}) < len(envs)
        self._fields = ModelFields(nominal, models)
        self._data: dict[str, Tensor] = {}  # copies of what was asked for
        self._given: dict[str, Array] = {}  # of the writable ones: what the environments have
        self._action = np.zeros((len(envs), len(self._action_low())), reading.action_dtype)
        self._warned = np.zeros(len(envs), np.int64)  # MuJoCo's warnings of instability so far
        self._failed = np.zeros(len(envs), bool)
        self._speed_limits = speed_limits(nominal)
        self._pool = ThreadPoolExecutor(self.threads) if self.threads > 1 else None

    def _action_low(self) -> Array:
        space: Any = self.envs[0].action_space
        return space.low

    # Data and model fields

    def data(self, name: str) -> Tensor:
        if name not in self._data:
            rows = np.stack([np.asarray(getattr(raw.data, name)) for raw in self._raw])
            self._data[name] = torch.from_numpy(rows)
            if name in _WRITABLE:
                self._given[name] = rows.copy()
        return self._data[name]

    def field(self, name: str) -> Tensor:
        if self._shared:
            raise TaskError(f"{self._label}: its instances share one mjModel, so they cannot have different worlds")
        return self._fields.tensor(name)

    def handed_out(self) -> list[Tensor]:
        return [*self._data.values(), *self._fields.handed_out()]

    def nominal(self, name: str) -> Tensor:
        values = np.array(read_field(self.model, name))
        return torch.from_numpy(values)

    def _follow(self) -> None:
        """Copy what the environments' data hold now."""
        for name, tensor in self._data.items():
            rows = tensor.numpy()
            for i, raw in enumerate(self._raw):
                rows[i] = getattr(raw.data, name)
            if name in self._given:
                np.copyto(self._given[name], rows)

    def _give(self) -> Array:
        """Bring what was written to data tensors into the environments; returns where something was [N]."""
        written = np.zeros(self.num_envs, bool)
        for name, given in self._given.items():
            rows = self._data[name].numpy()
            if np.array_equal(rows, given):
                continue
            changed = (rows != given).reshape(self.num_envs, -1).any(axis=1)
            for i in np.flatnonzero(changed):
                _write(self._raw[i].data, name, rows[i])
            np.copyto(given, rows)
            written |= changed
        return written

    def refresh_written(self) -> None:
        written = np.flatnonzero(self._give())
        for i in written:
            mujoco.mj_forward(self._raw[i].model, self._raw[i].data)
        if len(written):
            self._follow()

    def forward(self, mask: Tensor | None = None, stage: Stage = "acceleration") -> None:
        """Environments compute derived fields themselves; only where something was written is there more to do."""
        self.refresh_written()

    # Commands: an action of the environments holds for a whole `step` of theirs

    def use_commands(self, fields: tuple[str, ...]) -> int:
        return self._action.shape[1]

    def write_command(self, command: Tensor) -> None:
        self._action[...] = as_action(command.numpy(), self._action.dtype)

    def step(self, nstep: int, commands: Tensor | None = None) -> None:
        """One `step` of every environment, which makes `nstep` physics steps."""
        if commands is not None:
            raise ValueError(f"{self._label}: an action holds for a whole control step")
        self._give()
        self._fields.write()
        self._run(self._step_one, range(self.num_envs))
        self._follow()

    def advance_some(self, nstep: int, mask: Tensor) -> None:
        """Physics steps of the simulations alone, without the environments' own `step`."""
        self._give()
        self._fields.write()
        for i in _indices(mask, self.num_envs):
            mujoco.mj_step(self._raw[i].model, self._raw[i].data, nstep)
            self._failed[i] |= self._unstable(i)
        self._follow()

    def _step_one(self, index: int) -> None:
        s = self.signals
        try:
            observation, reward, terminated, truncated, info = self.envs[index].step(self._action[index].copy())
        except Exception:
            if not self._unstable(index):
                raise
            self._failed[index] = True  # an environment may stumble over the NaN of its own simulation
            return
        s.reward[index], s.terminated[index], s.truncated[index] = _number(reward), terminated, truncated
        told = next((key for key in SUCCESS if key in info), None)
        self.told_success |= told is not None
        s.success[index] = told is not None and self._truth(told, info[told])
        for name, values in s.terms.items():
            value = info.get(name)
            values[index] = value if is_number(value) else np.nan
        self._read(index, observation)
        finite = np.isfinite(s.reward[index]) and np.isfinite(s.observation[index]).all()
        self._failed[index] |= not finite or self._unstable(index)

    def _truth(self, key: str, value: Any) -> bool:
        """What an info says of success: True, 1, an array of one; None and NaN say nothing."""
        array = np.asarray(value)
        if array.size != 1 or array.dtype.kind not in "biufO":
            raise TaskError(f"{self._label}: info[{key!r}]: expected True or False, got {value!r}")
        one = array.reshape(-1)[0]
        return bool(one) and one == one

    def _unstable(self, index: int) -> bool:
        fast = np.abs(self._raw[index].data.qvel) > self._speed_limits
        return bool(fast.any() or self._warnings(index) > self._warned[index])

    def _warnings(self, index: int) -> int:
        return int(self._raw[index].data.warning.number[_UNSTABLE].sum())

    def _read(self, index: int, observation: Any) -> None:
        s, layout, start = self.signals, self._reading.layout, 0
        for part in layout.parts:
            s.observation[index, start : start + part.size] = part.read(observation)
            start += part.size
        if layout.achieved is not None:
            s.achieved[index] = layout.achieved.read(observation)

    def diverged(self) -> Tensor:
        failed = self._failed.copy()
        if failed.any():
            self._failed[:] = False
            self._warned[:] = [self._warnings(i) for i in range(self.num_envs)]
        return torch.from_numpy(failed)

    # Beginning episodes

    def reset(self, mask: Tensor | None = None) -> None:
        """Take back forces from outside; `begin` does the rest, which is the environments' business."""
        rows = slice(None) if mask is None else mask.numpy()
        for name in ("xfrc_applied", "qfrc_applied"):
            if name in self._data:
                self._data[name].numpy()[rows] = 0.0
        self._give()

    def start_histories(self, mask: Tensor) -> None:
        """Nothing: environments fill histories in their own `reset`, if at all."""

    def set_const(self, mask: Tensor | None = None) -> None:
        self._fields.write()
        for i in _indices(mask, self.num_envs):
            self._fields.derive(i)

    def begin(self, mask: Tensor, seeds: Tensor) -> None:
        """Reset the environments of `mask` [N] by their own `reset`, with a seed each [N].

        Raises:
            TaskError: one of them writes what the randomization has written.
        """
        self._fields.write()
        self._run(lambda i: self._begin_one(i, int(seeds[i])), _indices(mask, self.num_envs))
        self._follow()

    def _begin_one(self, index: int, seed: int) -> None:
        self._fields.restore(index)
        observation, _ = self.envs[index].reset(seed=seed)
        raw = self._raw[index]
        name = self._fields.overwritten(index, raw.model)
        if name is not None:
            raise TaskError(f"{self._label}: its reset writes {name} itself, so those objects cannot be randomized")
        self._read(index, observation)
        self._failed[index], self._warned[index] = False, self._warnings(index)

    def _run(self, function: Callable[[int], None], indices: Sequence[int]) -> None:
        """Call a function for every index, spread over the threads."""
        with quiet():
            if self._pool is None or len(indices) < 2:
                for i in indices:
                    function(i)
                return

            def some(first: int) -> None:
                for i in indices[first :: self.threads]:
                    function(i)

            list(self._pool.map(some, range(min(self.threads, len(indices)))))

    # Pictures and state

    def export_to_mujoco(self, index: int) -> tuple[mujoco.MjModel, mujoco.MjData]:
        raw = self._raw[index]
        model = copy.copy(raw.model)
        data = mujoco.MjData(model)
        mujoco.mj_copyData(data, model, raw.data)
        mujoco.mj_forward(model, data)
        return model, data

    def state_dict(self) -> dict[str, Any]:
        envs = []
        for env, raw in zip(self.envs, self._raw, strict=True):
            state = np.zeros(mujoco.mj_stateSize(raw.model, _STATE))
            mujoco.mj_getState(raw.model, raw.data, state, _STATE)
            arrays = {name: getattr(raw.data, name) for name in _arrays(raw.model)}
            model = model_changes(raw.model, self.model)
            envs.append({
                "state": torch.from_numpy(state),
                "data": {name: torch.from_numpy(array.copy()) for name, array in arrays.items()},
                "model": {name: torch.from_numpy(values) for name, values in model.items()},
                "attributes": save_attributes(env),
            })  # fmt: skip
        failed, fields = torch.from_numpy(self._failed.copy()), self._fields.state_dict()
        return {"envs": envs, "told_success": self.told_success, "fields": fields, "failed": failed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for env, raw, saved in zip(self.envs, self._raw, state["envs"], strict=True):
            apply_changes(raw.model, self.model, {name: v.numpy() for name, v in saved["model"].items()})
            mujoco.mj_setState(raw.model, raw.data, saved["state"].numpy(), _STATE)
            mujoco.mj_forward(raw.model, raw.data)  # contacts and constraints, whose number varies
            mujoco.mj_setState(raw.model, raw.data, saved["state"].numpy(), _STATE)
            # Derived fields lag behind the state by a physics step; environments may read them before the next.
            for name, values in saved["data"].items():
                getattr(raw.data, name)[...] = values.numpy()
            load_attributes(env, saved["attributes"])
        self._fields.load_state_dict(state["fields"])
        self.told_success = state.get("told_success", False)
        self._failed[:] = state["failed"].numpy()
        self._warned[:] = [self._warnings(i) for i in range(self.num_envs)]
        self._follow()


def _arrays(model: mujoco.MjModel) -> list[str]:
    """Arrays of mjData whose size the model fixes: not those of contacts and constraints."""
    data, names = mujoco.MjData(model), []
    for name in dir(data):
        value = getattr(data, name) if not name.startswith(("_", "bvh_", "plugin")) else None
        if isinstance(value, np.ndarray) and value.size and value.base is not None and value.dtype.kind in "fib":
            names.append(name)
    return names


def _write(data: mujoco.MjData, name: str, value: Array) -> None:
    if name == "time":
        data.time = float(value)
    else:
        getattr(data, name)[...] = value


def _number(value: Any) -> float:
    """A number that may come as an array of one."""
    return float(np.asarray(value).reshape(()))


def _indices(mask: Tensor | None, num_envs: int) -> list[int]:
    return list(range(num_envs)) if mask is None else mask.nonzero()[:, 0].tolist()
