"""Positions of a robot as numbers that can be added to, averaged and drawn: one for each degree of freedom."""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
SINGLE = (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE))
_FREE, _BALL = int(mujoco.mjtJoint.mjJNT_FREE), int(mujoco.mjtJoint.mjJNT_BALL)
PLACE, TURN = ("x", "y", "z"), ("rx", "ry", "rz")
QUATERNION = ("qw", "qx", "qy", "qz")


class Coordinates:
    """The coordinates of a model, nv of them, in the order of its velocities.

    A hinge or slide has its own. A body that floats has its place x y z (m) and a rotation vector rx ry rz (rad, in the
    world's axes), as `BODY.x` and so on; its velocities are MuJoCo's: of its place in the world's axes, of its
    rotation in its own.

    Attributes:
        names: of hinges, slides and parts of floating bodies, with their column.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        self._nq = int(model.nq)
        self.names: dict[str, int] = {}
        straight: list[tuple[int, int]] = []  # address of qpos, column
        self._turns: list[tuple[int, int]] = []
        for j in range(model.njnt):
            kind, q, v = int(model.jnt_type[j]), int(model.jnt_qposadr[j]), int(model.jnt_dofadr[j])
            if kind in SINGLE:
                straight.append((q, v))
                self.names[model.joint(j).name] = v
            elif kind == _BALL:
                self._turns.append((q, v))
            elif kind == _FREE:
                straight += [(q + i, v + i) for i in range(3)]
                self._turns.append((q + 3, v + 3))
                body = model.body(int(model.jnt_bodyid[j])).name
                self.names |= {f"{body}.{part}": v + i for i, part in enumerate((*PLACE, *TURN))}
        pairs = np.array(straight, dtype=np.int64).reshape(-1, 2)
        self._from, self._to = pairs[:, 0], pairs[:, 1]

    def outward(self, coordinates: Numbers) -> Numbers:
        """qpos [..., nq] of coordinates [..., nv]."""
        qpos = np.zeros((*coordinates.shape[:-1], self._nq))
        qpos[..., self._from] = coordinates[..., self._to]
        for q, v in self._turns:
            vector = coordinates[..., v : v + 3]
            angle = np.linalg.norm(vector, axis=-1, keepdims=True)
            qpos[..., q : q + 1] = np.cos(angle / 2.0)
            qpos[..., q + 1 : q + 4] = vector * (0.5 * np.sinc(angle / (2.0 * np.pi)))
        return qpos

    def inward(self, qpos: Numbers) -> Numbers:
        """Coordinates [..., nv] of qpos [..., nq]; a rotation by half a turn is where they jump."""
        found = np.zeros((*qpos.shape[:-1], len(self._to) + 3 * len(self._turns)))
        found[..., self._to] = qpos[..., self._from]
        for q, v in self._turns:
            found[..., v : v + 3] = rotation_vector(qpos[..., q : q + 4])
        return found


def rotation_vector(quaternion: Numbers) -> Numbers:
    """Axis times angle [..., 3], rad, of quaternions [..., 4], w first, of any length."""
    w = quaternion[..., :1]
    axis = np.where(w < 0.0, -quaternion[..., 1:], quaternion[..., 1:])
    sine = np.linalg.norm(axis, axis=-1, keepdims=True)
    angle = 2.0 * np.arctan2(sine, np.abs(w))
    return axis * (angle / np.maximum(sine, 1e-300))
