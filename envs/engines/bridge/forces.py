"""Forces on joints by MuJoCo's own equations, for another simulator that is at a given state: actuators, springs,
damping, compensation of gravity, fluids, and pushes from outside."""

from __future__ import annotations

import math

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.engines.bridge.mechanism import Mechanism, Shape
from envs.engines.stability import servo_damping

Array = NDArray[np.float64]
_DECAY, _TURN = 0.2, 0.5  # largest share of a damped speed that is lost, and angle of an oscillation, in a step
# For contacts that hold over a step: share of a speed that their damping takes, and the shortest step, s.
_TAKEN, _SHORTEST_S = 0.3, 1e-4
_LEAST = 1e-9  # mobility, 1/kg, of what only turns about its centre
_POINTS = {"sphere": 1, "capsule": 2}  # at which a shape may touch another; 4 else
_AFFINE = int(mujoco.mjtBias.mjBIAS_AFFINE)
_TO_JOINT = (int(mujoco.mjtTrn.mjTRN_JOINT), int(mujoco.mjtTrn.mjTRN_JOINTINPARENT))
_SINGLE = (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE))


def steps_needed(model: mujoco.MjModel, own_damping: bool) -> int:
    """Into how many steps a physics step has to be divided for another simulator.

    Forces hold over such a step, where MuJoCo's implicit integrators look ahead. So no step may be longer than a fifth
    of the time constant of the fastest damping, nor than half a radian of the fastest servo or spring, both in the
    model's initial pose.

    Args:
        model: the model.
        own_damping: the other simulator integrates the damping of joints itself.
    """
    if not model.nv:
        return 1
    data, inertia = mujoco.MjData(model), np.zeros((model.nv, model.nv))
    mujoco.mj_forward(model, data)
    mujoco.mj_fullM(model, data, inertia)
    inverse = np.linalg.inv(inertia)
    damping = servo_damping(model) + (0.0 if own_damping else model.dof_damping)
    fastest = _largest(inverse, damping) * model.opt.timestep / _DECAY
    swing = math.sqrt(_largest(inverse, _stiffness(model))) * model.opt.timestep / _TURN
    return max(1, math.ceil(fastest - 1e-9), math.ceil(swing - 1e-9))


def parts_for_contacts(found: Mechanism) -> int:
    """Into how many parts a step has to be divided where contacts are forces that hold over a part.

    Their damping at the usual depth may take three tenths of a speed in a part, but no part is shorter than 0.1 ms.
    """
    fastest = 0.0
    for shape in found.shapes:
        if (law := shape.compliance) is not None:
            usual = int(np.searchsorted(law.depths, 0.5 * law.depths[-1]))
            fastest = max(fastest, law.stiffness * float(law.relaxations[usual]) * mobility_of(found, shape))
    if fastest <= 0.0:
        return 1
    return math.ceil(found.timestep_s / max(_TAKEN / fastest, _SHORTEST_S) - 1e-9)


def mobility_of(found: Mechanism, shape: Shape) -> float:
    """The largest acceleration that 1 N at each of the points at which a shape touches another makes of these, 1/kg."""
    static = {one.geom for one in found.static}
    mutual = {geom for pair in found.pairs if not static.intersection(pair) for geom in pair}
    if shape.geom not in mutual:
        return _mobility(shape)
    # Two of these have the sum of their springs, and the sum of their mobilities.
    return 4.0 * max(_mobility(one) for one in found.shapes if one.geom in mutual)


def _mobility(shape: Shape) -> float:
    centre, rim = shape.mobility
    return max(_POINTS.get(shape.kind, 4) * centre, rim, _LEAST)


def _largest(inverse: np.ndarray, diagonal: np.ndarray) -> float:
    """The largest eigenvalue of inverse(M) D, for D of a diagonal [nv]."""
    root = np.sqrt(np.maximum(diagonal, 0.0))
    return float(np.linalg.eigvalsh(root[:, None] * inverse * root)[-1])


def _stiffness(model: mujoco.MjModel) -> Array:
    """What joints' springs and servos do per rad or m [nv]."""
    stiffness = np.zeros(model.nv)
    for j in range(model.njnt):
        if int(model.jnt_type[j]) in _SINGLE:
            stiffness[model.jnt_dofadr[j]] += model.jnt_stiffness[j]
    for a in range(model.nactuator):
        joint = int(model.actuator_trnid[a, 0])
        affine = int(model.actuator_biastype[a]) == _AFFINE and int(model.actuator_trntype[a]) in _TO_JOINT
        if affine and int(model.jnt_type[joint]) in _SINGLE:
            gear = float(model.actuator_gear[model.actuator_outadr[a], 0])
            stiffness[model.jnt_dofadr[joint]] -= model.actuator_biasprm[a, 1] * gear**2
    return stiffness


class Forces:
    """MuJoCo's forces on the joints of one simulation.

    Args:
        model: of this simulation; what changes of its actuators is to be written to it.
        own_damping: leave out the damping of joints, which the other simulator has itself.
    """

    def __init__(self, model: mujoco.MjModel, own_damping: bool) -> None:
        self.model, self.data = model, mujoco.MjData(model)
        self._own_damping = own_damping

    def set_inputs(self, ctrl: Array, applied: Array, pushes: Array) -> None:
        """Controls [nu], forces on joints [nv] and wrenches on bodies [nbody, 6] that hold from now on."""
        data = self.data
        data.ctrl[:], data.qfrc_applied[:], data.xfrc_applied[:] = ctrl, applied, pushes
        self._pushed = np.flatnonzero(pushes.any(axis=1))

    def at(self, qpos: Array, qvel: Array) -> Array:
        """The forces [nv] in a state."""
        self.evaluate(qpos, qvel)
        data = self.data
        force = data.qfrc_actuator + data.qfrc_passive + data.qfrc_applied + self.push()
        return force + self.model.dof_damping * qvel if self._own_damping else force

    def evaluate(self, qpos: Array, qvel: Array) -> None:
        """Have `data` hold positions, velocities, and forces of actuators and passive ones in a state; no contacts."""
        model, data = self.model, self.data
        data.qpos[:], data.qvel[:] = qpos, qvel
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        if model.ntendon:
            mujoco.mj_tendon(model, data)
        mujoco.mj_transmission(model, data)
        mujoco.mj_fwdVelocity(model, data)
        mujoco.mj_fwdActuation(model, data)

    def push(self) -> Array:
        """What wrenches on bodies do to the joints [nv], in the state that was evaluated."""
        force, data = np.zeros(self.model.nv), self.data
        for body in self._pushed:
            wrench = data.xfrc_applied[body]
            mujoco.mj_applyFT(self.model, data, wrench[:3], wrench[3:], data.xipos[body], int(body), force)
        return force
