"""Whether a change of a model changes how it moves between contacts and limits: found by trying it in random states.

Compared are the inertia matrix and all smooth forces (gravity, velocity, springs, dampers, the medium, actuators). What
constraints do (contacts, limits, dry friction, equalities) is left out.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import mujoco
import numpy as np

from randomization.physics.edit import field_values
from randomization.targets.objects import locked_dofs

_STATES = 3
_RELATIVE = 1e-9  # of the largest term; rounding is 1e-16 of it, and the changes tried are large
_READ = (
    "body_mass", "body_inertia", "body_ipos", "body_iquat", "body_pos", "body_quat", "body_gravcomp", "jnt_axis",
    "jnt_pos", "jnt_stiffness", "dof_damping", "dof_armature", "geom_size", "geom_fluid", "actuator_gainprm",
    "actuator_biasprm", "qpos0", "qpos_spring", "tendon_stiffness", "tendon_damping",
)  # fmt: skip
_OPTIONS = ("density", "viscosity", "disableflags", "enableflags", "disableactuator", "integrator")


class Probe:
    """Tries changes on a copy of a model.

    Args:
        model: is not modified.

    Attributes:
        rest: the model's poses as it is defined.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        self.rest = mujoco.MjData(model)
        mujoco.mj_kinematics(model, self.rest)
        self._model = copy.copy(model)
        self._model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_CONSTRAINT)
        self._model.opt.enableflags &= ~int(mujoco.mjtEnableBit.mjENBL_SLEEP)
        # The kinematics of a body whose frames coincide would not look at its centre of mass.
        self._model.body_sameframe[self._model.body_simple == 0] = int(mujoco.mjtSameFrame.mjSAMEFRAME_NONE)
        self._data = mujoco.MjData(self._model)
        rng = np.random.default_rng(0)
        self._states = [_state(self._model, rng) for _ in range(_STATES)] if model.nv else []
        self._free = ~locked_dofs(model)
        self._seen: dict[tuple[object, ...], bool] = {}

    def acts(self, changes: Sequence[tuple[str, Sequence[int], Sequence[float]]], given: bool = False) -> bool:
        """Whether the values (field, flat elements, values) move anything that can move.

        Args:
            given: the model as it stands is one in a medium: of air, or of something thicker.
        """
        key = (tuple((f, tuple(e), tuple(v)) for f, e, v in changes), given)
        if key not in self._seen:
            medium = [("opt.density", (0,), (1.2,)), ("opt.viscosity", (0,), (0.02,))] if given else []
            before = self._with(medium)
            after = self._with([*medium, *changes])
            self._seen[key] = any(_differs(a, b) for a, b in zip(before, after, strict=True))
        return self._seen[key]

    def _with(self, changes: Sequence[tuple[str, Sequence[int], Sequence[float]]]) -> list[tuple[np.ndarray, ...]]:
        saved = {field: np.array(field_values(self._model, field)) for field, _, _ in changes}
        for field, elements, values in changes:
            flat = saved[field].copy().reshape(-1)
            flat[list(elements)] = values
            _set(self._model, field, flat)
        if any(field in mujoco.MjModel._setconst_inputs for field in saved):
            mujoco.mj_setConst(self._model, self._data)
        found = [self._response(*state) for state in self._states]
        for field, values in saved.items():
            _set(self._model, field, values.reshape(-1))
        if any(field in mujoco.MjModel._setconst_inputs for field in saved):
            mujoco.mj_setConst(self._model, self._data)
        return found

    def _response(
        self, qpos: np.ndarray, qvel: np.ndarray, ctrl: np.ndarray, act: np.ndarray
    ) -> tuple[np.ndarray, ...]:
        """Inertia matrix and forces of the dofs that are free to move, with the size of the forces' terms."""
        m, d = self._model, self._data
        mujoco.mj_resetData(m, d)
        d.qpos[:], d.qvel[:], d.ctrl[:], d.act[:] = qpos, qvel, ctrl, act
        mujoco.mj_forward(m, d)
        inertia = np.zeros((m.nv, m.nv))
        for row in range(m.nv):
            where = slice(m.M_rowadr[row], m.M_rowadr[row] + m.M_rownnz[row])
            inertia[row, m.M_colind[where]] = d.M[where]
        terms = (d.qfrc_bias, d.qfrc_passive, d.qfrc_actuator)
        force, size = terms[1] + terms[2] - terms[0], sum(np.abs(term) for term in terms)
        scale = np.sqrt(np.outer(inertia.diagonal(), inertia.diagonal()))
        free = self._free
        return inertia[np.ix_(free, free)], scale[np.ix_(free, free)], force[free], np.asarray(size)[free]


def _differs(a: tuple[np.ndarray, ...], b: tuple[np.ndarray, ...]) -> bool:
    inertia = np.abs(a[0] - b[0]) > _RELATIVE * np.maximum(a[1], b[1])
    force = np.abs(a[2] - b[2]) > _RELATIVE * np.maximum(a[3], b[3])
    return bool(inertia.any() or force.any())


def _state(model: mujoco.MjModel, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    qpos = model.qpos0.copy()
    mujoco.mj_integratePos(model, qpos, rng.uniform(-1.0, 1.0, model.nv), 1.0)
    return qpos, rng.normal(size=model.nv), rng.uniform(-1.0, 1.0, model.nu), rng.uniform(0.0, 1.0, model.na)


def _set(model: mujoco.MjModel, field: str, flat: np.ndarray) -> None:
    owner, name = (model.opt, field.removeprefix("opt.")) if field.startswith("opt.") else (model, field)
    present = getattr(owner, name)
    if isinstance(present, np.ndarray):
        present[...] = flat.reshape(present.shape)
    else:
        setattr(owner, name, float(flat[0]))


_cache: dict[tuple[bytes | float, ...], Probe] = {}


def probe_of(model: mujoco.MjModel) -> Probe:
    """The probe of a model; one for equal models."""
    option = model.opt
    arrays = [getattr(model, name).tobytes() for name in _READ]
    key = (*arrays, option.gravity.tobytes(), option.wind.tobytes(), *(getattr(option, name) for name in _OPTIONS))
    if key not in _cache:
        if len(_cache) > 4:
            _cache.clear()
        _cache[key] = Probe(model)
    return _cache[key]
