"""Batched rigid-body algebra in torch, in MuJoCo's conventions (quaternions w, x, y, z)."""

from __future__ import annotations

import mujoco
import torch
from torch import Tensor

_EULER_EPSILON = 4.0 * torch.finfo(torch.float64).eps


def matrix_to_euler(matrix: Tensor) -> Tensor:
    """Euler angles [..., 3] in rad of rotation matrices [..., 3, 3].

    Intrinsic XYZ, with the sign convention of gymnasium-robotics' `mat2euler`, whose observations use it.
    At gimbal lock the first angle is 0.
    """
    m = matrix
    cos_y = torch.sqrt(m[..., 2, 2] * m[..., 2, 2] + m[..., 1, 2] * m[..., 1, 2])
    regular = cos_y > _EULER_EPSILON
    x = torch.where(regular, -torch.atan2(m[..., 1, 2], m[..., 2, 2]), torch.zeros_like(cos_y))
    y = -torch.atan2(-m[..., 0, 2], cos_y)
    z = torch.where(regular, -torch.atan2(m[..., 0, 1], m[..., 0, 0]), -torch.atan2(-m[..., 1, 0], m[..., 1, 1]))
    return torch.stack((x, y, z), dim=-1)


def ancestor_dofs(model: mujoco.MjModel, body: int) -> list[int]:
    """Degrees of freedom that move a body: its own and those of the bodies above it."""
    dofs: list[int] = []
    while body > 0:
        start = int(model.body_dofadr[body])
        dofs += range(start, start + int(model.body_dofnum[body])) if start >= 0 else []
        body = int(model.body_parentid[body])
    return sorted(dofs)


def point_velocity(cdof: Tensor, qvel: Tensor, point: Tensor, subtree_com: Tensor) -> tuple[Tensor, Tensor]:
    """Angular and linear velocity of a point fixed to a body, in the world frame.

    The same as MuJoCo's point Jacobian (mj_jac) times qvel.

    Args:
        cdof: [N, k, 6] motion axes of the dofs that move the body, about the root's subtree_com.
        qvel: [N, k] velocities of those dofs.
        point: [N, 3] world position, m.
        subtree_com: [N, 3] centre of mass of the kinematic tree, m.

    Returns:
        angular [N, 3] in rad/s, linear [N, 3] in m/s.
    """
    twist = torch.bmm(qvel.unsqueeze(1), cdof).squeeze(1)
    angular, linear = twist[:, :3], twist[:, 3:]
    return angular, linear - torch.linalg.cross(point - subtree_com, angular)


def rotate_inverse(quat: Tensor, vector: Tensor) -> Tensor:
    """Vectors [..., 3] of the world frame, in the frame of a body with orientation quat [..., 4] (w, x, y, z)."""
    w, xyz = quat[..., :1], quat[..., 1:]
    twice = 2.0 * torch.linalg.cross(xyz, vector)
    return vector - w * twice + torch.linalg.cross(xyz, twice)
