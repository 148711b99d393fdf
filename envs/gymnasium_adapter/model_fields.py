"""Per-environment model fields where every environment has an mjModel of its own."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
import torch
from mujoco.batch import MODEL_FIELDS
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]
# Read and written by mj_setConst: an environment may have chosen a value that it would replace, as gymnasium-robotics
# does with the pose of the Fetch arm's weld.
_CHOSEN = frozenset(mujoco.MjModel._setconst_inputs) & frozenset(mujoco.MjModel._setconst_outputs)


def read_field(model: mujoco.MjModel, name: str) -> Array:
    """Live values of an mjModel field, or (`opt.`) of one of mjOption, where a scalar is a copy of shape [1]."""
    owner = model.opt if name.startswith("opt.") else model
    return np.atleast_1d(getattr(owner, name.removeprefix("opt.")))


def write_field(model: mujoco.MjModel, name: str, entries: NDArray[np.int64], values: Array) -> None:
    """Write flat entries of a field."""
    array = read_field(model, name)
    array.reshape(-1)[entries] = values
    if name.startswith("opt.") and isinstance(getattr(model.opt, name[4:]), (int, float)):
        setattr(model.opt, name[4:], array[0].item())


@dataclass
class _Field:
    """One field: what the randomization wants, and what the models were last given."""

    tensor: Tensor  # [N, ...] live, what randomization writes to
    wanted: Array  # [N, size] the same memory
    given: Array  # [N, size]
    owned: NDArray[np.bool_]  # [size] entries that were ever written; the others belong to the environment


class ModelFields:
    """Fields [N, ...] that are written into N models, entry by entry.

    An environment may write its own model too (AdroitHandDoor places its door so at every reset): only entries that
    were changed here are written, and they stay ours.

    Args:
        nominal: the model as environments make it.
        models: of the environments.
    """

    def __init__(self, nominal: mujoco.MjModel, models: Sequence[mujoco.MjModel]) -> None:
        self._nominal, self._models = nominal, list(models)
        self._fields: dict[str, _Field] = {}
        self._scratch: tuple[mujoco.MjModel, mujoco.MjData] | None = None  # where constants are derived
        self._moved: dict[str, NDArray[np.bool_]] = {}  # entries of derived fields that differed from nominal somewhere

    def tensor(self, name: str) -> Tensor:
        """Live values [N, ...] of a field; `write` brings them into the models."""
        if name not in self._fields:
            if name not in MODEL_FIELDS:
                raise ValueError(f"{name!r} is not an mjModel field that can differ between simulations")
            row = read_field(self._nominal, name)
            values = np.repeat(row[None], len(self._models), axis=0)
            flat = values.reshape(len(values), -1)
            self._fields[name] = _Field(torch.from_numpy(values), flat, flat.copy(), np.zeros(flat.shape[1], bool))
        return self._fields[name].tensor

    def handed_out(self) -> list[Tensor]:
        """What `tensor` has returned so far."""
        return [field.tensor for field in self._fields.values()]

    def write(self) -> None:
        """Give every model the entries that were changed since the last call."""
        for name, field in self._fields.items():
            if np.array_equal(field.wanted, field.given):
                continue
            changed = field.wanted != field.given
            field.owned |= changed.any(axis=0)
            for i in np.flatnonzero(changed.any(axis=1)):
                entries = np.flatnonzero(changed[i])
                write_field(self._models[i], name, entries, field.wanted[i, entries])
            np.copyto(field.given, field.wanted)

    def restore(self, index: int) -> None:
        """Write all entries of ours into a model again, whatever the environment has done to them since."""
        for name, field in self._fields.items():
            entries = np.flatnonzero(field.owned)
            write_field(self._models[index], name, entries, field.given[index, entries])

    def overwritten(self, index: int, model: mujoco.MjModel) -> str | None:
        """A field of which an environment has changed entries of ours, or has taken a new model; else None."""
        for name, field in self._fields.items():
            present = read_field(model, name).reshape(-1)
            if field.owned.any() and not np.array_equal(present[field.owned], field.given[index][field.owned]):
                return name
        return None

    def derive(self, index: int) -> None:
        """Recompute the constants of a model that depend on what was written (mj_setConst).

        On a scratch model: neither what the environment has written itself nor its state plays a part.
        """
        scratch, data = self._scratch = self._scratch or self._make_scratch()
        for name in _CHOSEN:
            read_field(scratch, name)[...] = read_field(self._nominal, name)
        for name, field in self._fields.items():
            entries = np.flatnonzero(field.owned)
            write_field(scratch, name, entries, field.given[index, entries])
        mujoco.mj_setConst(scratch, data)
        for name in mujoco.MjModel._setconst_outputs:
            differs = _differing(scratch, self._nominal, name)
            if name in self._kept:
                differs &= ~self._kept[name]
            if name in self._moved or differs.any():
                moved = self._moved[name] = self._moved.get(name, differs) | differs
                derived = read_field(scratch, name).reshape(-1)
                write_field(self._models[index], name, np.flatnonzero(moved), derived[moved])

    def _make_scratch(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
        scratch = copy.copy(self._nominal)
        data = mujoco.MjData(scratch)
        mujoco.mj_setConst(scratch, data)
        self._kept = {name: _differing(scratch, self._nominal, name) for name in _CHOSEN}
        return scratch, data

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        return {
            "fields": {name: field.tensor.clone() for name, field in sorted(self._fields.items())},
            "moved": {name: torch.from_numpy(moved.copy()) for name, moved in sorted(self._moved.items())},
        }

    def load_state_dict(self, state: dict[str, dict[str, Tensor]]) -> None:
        """Take over the wanted values of `state_dict`; the models themselves are restored by the engine."""
        self._moved = {name: moved.numpy().copy() for name, moved in state["moved"].items()}
        for name, values in state["fields"].items():
            self.tensor(name).copy_(values)
            field = self._fields[name]
            nominal = read_field(self._nominal, name).reshape(-1)
            field.owned |= (field.wanted != nominal).any(axis=0)
            np.copyto(field.given, field.wanted)


def _differing(model: mujoco.MjModel, nominal: mujoco.MjModel, name: str) -> NDArray[np.bool_]:
    """Entries of a field that differ between two models."""
    return (read_field(model, name) != read_field(nominal, name)).reshape(-1)


def model_changes(model: mujoco.MjModel, nominal: mujoco.MjModel) -> dict[str, Array]:
    """Fields of a model that differ from the nominal one."""
    changes = {}
    for name in MODEL_FIELDS:
        values = read_field(model, name)
        if not np.array_equal(values, read_field(nominal, name)):
            changes[name] = values.copy()
    return changes


def apply_changes(model: mujoco.MjModel, nominal: mujoco.MjModel, changes: dict[str, Array]) -> None:
    """Make a model differ from the nominal one in these fields and in no other."""
    for name in {*model_changes(model, nominal), *changes}:
        values = np.asarray(changes.get(name, read_field(nominal, name)))
        write_field(model, name, np.arange(values.size), values.reshape(-1))
