"""Inertia of rotors (armature) in a simulator whose joints have none.

A motor behind a gear resists the acceleration of its joint. Where a simulator knows inertia of links alone, the rotor
of a hinge becomes inertia of the link that it moves, about its axis: then it resists the turning of the whole limb too,
as a rotor without a gear would. What is too much there, and all of a slide's, is taken back by forces on joints: the
difference between what two inverse dynamics need for the accelerations of the steps before,

    (M_links - M) a + c_links - c,

where M and c are inertia and velocity forces of the model, M_links and c_links those of its links as they are there.
The accelerations lag a step, so they are averaged: with half of the new ones the iteration
a -> M_links^-1 (M_links - M) a settles for all eigenvalues above -3. Models that have lower ones, with rotors that are
heavy beside the links that carry them, are refused.
"""

from __future__ import annotations

import copy

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.common.errors import EngineError
from envs.engines.bridge.mechanism import Link, Mechanism, name_of

Array = NDArray[np.float64]
_NEW = 0.5  # share of the last step's accelerations in their average
_LEAST = -2.5  # eigenvalue in the initial pose: it is not lower by much in others


def with_rotor(link: Link) -> tuple[Array, Array]:
    """Principal moments [3] of a link with the rotor of its last joint, if that is a hinge, and their axes as a
    quaternion."""
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, link.inertia_quat)
    axes = matrix.reshape(3, 3)
    inertia = axes @ np.diag(link.inertia) @ axes.T
    for joint in link.joints[-1:]:
        if not joint.slides:
            inertia += joint.armature * np.outer(joint.axis, joint.axis)
    moments, axes = np.linalg.eigh(inertia)
    if np.linalg.det(axes) < 0:
        axes[:, 0] *= -1.0
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, np.ascontiguousarray(axes).ravel())
    return moments, quat


class Rotors:
    """What the forces on joints have to be corrected by, for one simulation.

    Args:
        model: of this simulation.
        found: its translation.

    Raises:
        EngineError: rotors are too heavy beside their links.
    """

    def __init__(self, model: mujoco.MjModel, found: Mechanism) -> None:
        self._model, self._links = model, copy.copy(model)
        self._links.dof_armature[:] = 0.0
        for link in found.links:
            self._links.body_inertia[link.body], self._links.body_iquat[link.body] = with_rotor(link)
        self._links.body_sameframe[:] = 0
        sliding = model.jnt_dofadr[model.jnt_type == int(mujoco.mjtJoint.mjJNT_SLIDE)]
        self._links.dof_M0[sliding] -= model.dof_armature[sliding]  # what MuJoCo takes for single bodies
        self._data = mujoco.MjData(self._links)
        self._average, self._needed = np.zeros(model.nv), np.zeros((2, model.nv))
        self.any = bool((model.dof_armature > 0).any())
        if self.any and 1.0 - _largest_ratio(model, self._links) < _LEAST:
            heaviest = name_of(model, mujoco.mjtObj.mjOBJ_JOINT, int(model.dof_jntid[np.argmax(model.dof_armature)]))
            raise EngineError(
                f"engine: rotors (armature) are too heavy beside their links, joint {heaviest} above all: the "
                "simulator has none, and what stands for them would not be stable"
            )

    def forget(self) -> None:
        """The mechanism was put into another state."""
        self._average[:] = 0.0

    def saw(self, acceleration: Array) -> None:
        """Note the acceleration [nv] of a step."""
        self._average += _NEW * (acceleration - self._average)

    def correction(self, data: mujoco.MjData) -> Array:
        """Forces [nv] in the state for which `data`, of the model, has positions and velocities."""
        links, own, acceleration = self._links, self._data, self._average
        own.qpos[:], own.qvel[:], own.qacc[:] = data.qpos, data.qvel, acceleration
        mujoco.mj_kinematics(links, own)
        mujoco.mj_comPos(links, own)
        mujoco.mj_comVel(links, own)
        mujoco.mj_rne(links, own, 1, self._needed[0])
        data.qacc[:] = acceleration
        mujoco.mj_rne(self._model, data, 1, self._needed[1])
        return self._needed[0] - self._needed[1] - self._model.dof_armature * acceleration


def _largest_ratio(model: mujoco.MjModel, links: mujoco.MjModel) -> float:
    """The largest eigenvalue of inverse(M_links) M, in the initial pose."""
    matrices = np.zeros((2, model.nv, model.nv))
    for one, matrix in zip((model, links), matrices, strict=True):
        data = mujoco.MjData(one)
        mujoco.mj_kinematics(one, data)
        mujoco.mj_comPos(one, data)
        mujoco.mj_crb(one, data)
        mujoco.mj_fullM(one, data, matrix)
    root = np.linalg.inv(np.linalg.cholesky(matrices[1]))
    return float(np.linalg.eigvalsh(root @ matrices[0] @ root.T)[-1])
