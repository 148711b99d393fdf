"""How far MuJoCo's contacts yield, as springs and dampers that other simulators have."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_G = 9.81
_SHALLOW_M, _DEEP_M, _HALVINGS = 1e-7, 0.1, 40
DEPTHS = 24  # of a `Compliance`
_SHALLOWEST, _DEEPEST = 0.02, 2.0  # of the depth under the weight
_PLANE = int(mujoco.mjtGeom.mjGEOM_PLANE)
_PYRAMIDAL = int(mujoco.mjtConstraint.mjCNSTR_CONTACT_PYRAMIDAL)


@dataclass(frozen=True)
class Compliance:
    """A spring and a damper at each point of contact. MuJoCo's contacts get stiffer as they get deeper.

    Attributes:
        stiffness: N/m, force over depth under the point's share of half the weight of all that hangs together.
        depths: [k] m, in rising order.
        stiffnesses: [k] N/m, force over depth there.
        relaxations: [k] s, damping over stiffness there.
    """

    stiffness: float
    depths: Array
    stiffnesses: Array
    relaxations: Array


def compliances(model: mujoco.MjModel, pairs: dict[tuple[int, int], float], static: set[int]) -> dict[int, Compliance]:
    """Of each geom that may touch the static world, how its contacts with it yield.

    MuJoCo's own constraints say so: the static geom is moved until it touches in the model's initial pose, and the
    depth is looked for at which the forces at rest are half the weight (manual, Computation, Constraint model).
    """
    found: dict[int, Compliance] = {}
    partners: dict[int, int] = {}
    for first, second in pairs:
        geom, other = (second, first) if first in static else (first, second)
        if other in static and (geom not in partners or model.geom_type[other] == _PLANE):
            partners[geom] = other
    if not partners:
        return found
    probe = _Probe(model)
    for geom, other in partners.items():
        if (yielding := probe.yielding(geom, other)) is not None:
            found[geom] = yielding
    return found


class _Probe:
    """A copy of a model in which one pair of geoms touches."""

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model, self._of = copy.copy(model), model
        # Shortcuts for geoms that are where their bodies are, and boxes around those that do not move.
        self._model.geom_sameframe[:] = 0
        self._model.geom_margin[:] = self._model.geom_gap[:] = 0.0  # depth counts from where shapes meet
        self._model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_MIDPHASE)
        self._data = mujoco.MjData(self._model)
        self._weight = np.array(model.body_subtreemass) * _G

    def yielding(self, geom: int, other: int) -> Compliance | None:
        """None where the two do not meet however they are moved."""
        model, nominal, data = self._model, self._of, self._data
        load = 0.5 * float(self._weight[model.body_rootid[model.geom_bodyid[geom]]])
        model.geom_contype[:] = model.geom_conaffinity[:] = 0
        for g in (geom, other):
            model.geom_contype[g], model.geom_conaffinity[g] = nominal.geom_contype[g], nominal.geom_conaffinity[g]
        model.geom_pos[:] = nominal.geom_pos
        mujoco.mj_resetData(model, data)
        mujoco.mj_kinematics(model, data)
        distance, way = self._way(geom, other)
        if way is None or load <= 0.0:
            return None
        low, high = _SHALLOW_M, _DEEP_M
        depth, force, points = low, 0.0, 0
        for _ in range(_HALVINGS):  # in the logarithm
            depth = float(np.sqrt(low * high))
            force, points, _ = self._pressed(other, way * (distance + depth))
            low, high = (depth, high) if force < load else (low, depth)
        if points == 0 or force <= 0.0:
            return None
        depths = depth * np.geomspace(_SHALLOWEST, _DEEPEST, DEPTHS)
        law = [self._pressed(other, way * (distance + d)) for d in depths.tolist()]
        stiffnesses = np.array([f / max(n, 1) for f, n, _ in law]) / depths
        relaxations = np.array([t for *_, t in law])
        return Compliance(force / points / depth, depths, stiffnesses, relaxations)

    def _way(self, geom: int, other: int) -> tuple[float, Array | None]:
        """Distance from the static geom to the other one, and the direction [3] in which it has to go."""
        model, data, ends = self._model, self._data, np.zeros(6)
        distance = float(mujoco.mj_geomDistance(model, data, other, geom, 100.0, ends))
        if model.geom_type[other] == _PLANE:
            return distance, np.array(data.geom_xmat[other].reshape(3, 3)[:, 2])
        along = ends[3:] - ends[:3]
        length = float(np.linalg.norm(along))
        return distance, None if length < 1e-9 else along / length * np.sign(distance)

    def _pressed(self, other: int, move: Array) -> tuple[float, int, float]:
        """Normal force at rest where the static geom is moved, N; how many points touch; damping over stiffness, s."""
        model, data = self._model, self._data
        turn = data.xmat[model.geom_bodyid[other]].reshape(3, 3)
        model.geom_pos[other] = self._of.geom_pos[other] + turn.T @ move
        mujoco.mj_fwdPosition(model, data)
        mujoco.mj_fwdVelocity(model, data)
        force, points, relaxation = 0.0, 0, 0.0
        for i in range(data.ncon):
            start = int(data.contact.efc_address[i])
            if start < 0:
                continue
            pyramid = int(data.efc_type[start]) == _PYRAMIDAL
            rows = slice(start, start + (2 * (int(data.contact.dim[i]) - 1) if pyramid else 1))
            force += float((data.efc_aref[rows] / data.efc_R[rows]).sum())
            points += 1
            stiffness, damping, impedance = (float(x) for x in data.efc_KBIP[start, :3])
            relaxation = damping / (stiffness * impedance) if stiffness * impedance > 0.0 else 0.0
        return force, points, relaxation
