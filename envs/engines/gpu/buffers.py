"""Room for contacts and constraints on the GPU: how much a model needs, and an error where it was not enough."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np
import torch
from torch import Tensor

from envs.common.errors import EngineError
from envs.engines.gpu.options import GpuOptions

_GEOM, _EQUALITY = mujoco.mjtGeom, mujoco.mjtEq
_ROWS = {int(_EQUALITY.mjEQ_CONNECT): 3, int(_EQUALITY.mjEQ_WELD): 6}  # of an equality constraint; others have 1
_ROUND = {int(_GEOM.mjGEOM_PLANE), int(_GEOM.mjGEOM_CAPSULE)}
_CONTACTS, _CONSTRAINTS = "gpu.contacts_per_env", "gpu.constraints_per_env"
# Bits of mujoco_warp's OverflowType after which a step is wrong, and what to enlarge. The other bits say that a solver
# used up its iterations, as it may on the CPU.
_MENDS = {
    0: _CONSTRAINTS, 1: _CONSTRAINTS, 2: _CONTACTS, 3: _CONTACTS, 4: _CONTACTS,
    5: "the cells of the height field", 6: "the model's numeric contact_sensor_maxmatch",
}  # fmt: skip


@dataclass(frozen=True)
class Buffers:
    """Room for contacts (on average) and rows of constraints (at most) in one environment."""

    contacts: int
    constraints: int


def buffers(model: mujoco.MjModel, options: GpuOptions) -> Buffers:
    """Room for contacts and constraints.

    By default as many contacts as all pairs of shapes can make, but no more than 24 + nv: a robot that has fallen onto
    everything around it makes about one per degree of freedom. Broad-phase candidates share the contacts' room, hence
    twice as much there.
    """
    possible = sum(_most_contacts(model, a, b) for a, b in contact_pairs(model))
    contacts = min(possible, 24 + int(model.nv))
    equalities = sum(_ROWS.get(int(kind), 1) for kind in model.eq_type)
    frictions = int(model.nv + model.ntendon)  # all of them: where there is none, randomization may add it
    limits = int(model.jnt_limited.sum()) + 2 * int(model.tendon_limited.sum())
    largest = max([1, *model.geom_condim.tolist(), *model.pair_dim.tolist()])
    pyramid = model.opt.cone == int(mujoco.mjtCone.mjCONE_PYRAMIDAL)
    rows = 2 * (largest - 1) if pyramid and largest > 1 else largest
    constraints = equalities + frictions + limits + rows * contacts
    return Buffers(
        max(2 * contacts, 1) if options.contacts_per_env is None else options.contacts_per_env,
        max(constraints, 1) if options.constraints_per_env is None else options.constraints_per_env,
    )


def contact_pairs(model: mujoco.MjModel) -> list[tuple[int, int]]:
    """Pairs of geoms that may touch, by MuJoCo's rules (Computation, Collision, Selection)."""
    first, second = np.triu_indices(model.ngeom, k=1)
    types, affinities = model.geom_contype, model.geom_conaffinity
    chosen = ((types[first] & affinities[second]) | (types[second] & affinities[first])) != 0
    weld = model.body_weldid[model.geom_bodyid]
    parent = model.body_weldid[model.body_parentid[weld]]
    a, b = weld[first], weld[second]
    chosen &= a != b
    chosen &= (model.body_dofnum[a] > 0) | (model.body_dofnum[b] > 0)
    if not model.opt.disableflags & int(mujoco.mjtDisableBit.mjDSBL_FILTERPARENT):
        chosen &= ~((a != 0) & (b != 0) & ((a == parent[second]) | (b == parent[first])))
    bodies = model.geom_bodyid
    chosen &= ~np.isin((bodies[first] << 16) + bodies[second], model.exclude_signature)
    free = list(zip(first[chosen].tolist(), second[chosen].tolist(), strict=True))
    return free + list(zip(model.pair_geom1.tolist(), model.pair_geom2.tolist(), strict=True))


def _most_contacts(model: mujoco.MjModel, a: int, b: int) -> int:
    """Contacts that two geoms can make."""
    kinds = sorted((int(model.geom_type[a]), int(model.geom_type[b])))
    if int(_GEOM.mjGEOM_HFIELD) in kinds:
        return 50  # mjMAXCONPAIR
    if int(_GEOM.mjGEOM_SPHERE) in kinds:
        return 1
    return 2 if set(kinds) <= _ROUND else 8


class BufferWatch:
    """Raises when there was not enough room.

    Looking at the device would stall it, so on CUDA the flags are copied while it works and read some steps later.

    Args:
        flags: [1] int32 on the device, the overflow bits of all worlds so far.
        room: what there is.
    """

    def __init__(self, flags: Tensor, room: Buffers) -> None:
        self._flags, self._room = flags, room
        self._host = torch.zeros(1, dtype=torch.int32, pin_memory=flags.is_cuda)
        self._copied: torch.cuda.Event | None = None

    def check(self) -> None:
        """Raise EngineError if a step overflowed a buffer; it names the setting to enlarge."""
        if not self._flags.is_cuda:
            self._judge(int(self._flags[0]))
            return
        if self._copied is not None:
            if not self._copied.query():
                return
            self._judge(int(self._host[0]))
        self._host.copy_(self._flags, non_blocking=True)
        self._copied = torch.cuda.Event()
        self._copied.record(torch.cuda.current_stream(self._flags.device))

    def _judge(self, bits: int) -> None:
        present = {_CONTACTS: f", now {self._room.contacts}", _CONSTRAINTS: f", now {self._room.constraints}"}
        for bit, setting in _MENDS.items():
            if bits >> bit & 1:
                raise EngineError(
                    "engine: there is no more room for contacts or constraints on the GPU, so the physics is no longer "
                    f"right: enlarge {setting}{present.get(setting, '')}"
                )
