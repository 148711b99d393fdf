"""Batched rigid-body algebra in torch, in MuJoCo's conventions (quaternions w, x, y, z)."""

from __future__ import annotations

from functools import cache
from typing import Any

import mujoco
import torch
from torch import Tensor

_EULER_EPSILON = 4.0 * torch.finfo(torch.float64).eps


@cache
def constant(values: tuple[Any, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor of fixed numbers, made once: a GPU has to wait for every tensor that is made of numbers of the host."""
    return torch.tensor(values, dtype=dtype, device=device)


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


def quat_multiply(a: Tensor, b: Tensor) -> Tensor:
    """Hamilton product [..., 4]: the rotation b, then a."""
    w0, x0, y0, z0 = a.unbind(-1)
    w1, x1, y1, z1 = b.unbind(-1)
    return torch.stack(
        (
            w0 * w1 - x0 * x1 - y0 * y1 - z0 * z1,
            w0 * x1 + x0 * w1 + y0 * z1 - z0 * y1,
            w0 * y1 + y0 * w1 + z0 * x1 - x0 * z1,
            w0 * z1 + z0 * w1 + x0 * y1 - y0 * x1,
        ),
        dim=-1,
    )


def axis_angle_to_quat(axis: Tensor, angle: Tensor) -> Tensor:
    """Quaternion [..., 4] of a turn by angle [...] in rad about axis [..., 3], whose length does not matter."""
    half = 0.5 * angle.unsqueeze(-1)
    return torch.cat((half.cos(), half.sin() * (axis / torch.linalg.vector_norm(axis, dim=-1, keepdim=True))), dim=-1)


def quat_to_matrix(quat: Tensor) -> Tensor:
    """Rotation matrix [..., 3, 3] of a quaternion [..., 4] of any length but zero."""
    w, x, y, z = quat.unbind(-1)
    s = 2.0 / quat.square().sum(-1)
    sx, sy, sz = x * s, y * s, z * s
    rows = (
        (1.0 - (y * sy + z * sz), x * sy - w * sz, x * sz + w * sy),
        (x * sy + w * sz, 1.0 - (x * sx + z * sz), y * sz - w * sx),
        (x * sz - w * sy, y * sz + w * sx, 1.0 - (x * sx + y * sy)),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def matrix_to_quat(matrix: Tensor) -> Tensor:
    """The unit quaternion [..., 4] with w >= 0 of a rotation matrix [..., 3, 3] (Shepperd 1978)."""
    d = torch.diagonal(matrix, dim1=-2, dim2=-1)
    x, y, z = d.unbind(-1)
    trace = torch.stack((x + y + z, x - y - z, y - x - z, z - x - y), dim=-1)  # 4 w^2 - 1, 4 x^2 - 1, ...
    off = lambda i, j, sign: matrix[..., i, j] + sign * matrix[..., j, i]  # noqa: E731
    wx, wy, wz = off(2, 1, -1.0), off(0, 2, -1.0), off(1, 0, -1.0)
    xy, xz, yz = off(1, 0, 1.0), off(2, 0, 1.0), off(2, 1, 1.0)
    one = 1.0 + trace
    rows = (  # four times the quaternion's components times one of them
        (one[..., 0], wx, wy, wz), (wx, one[..., 1], xy, xz), (wy, xy, one[..., 2], yz), (wz, xz, yz, one[..., 3]),
    )  # fmt: skip
    table = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
    largest = trace.argmax(dim=-1)[..., None, None].expand(*trace.shape[:-1], 1, 4)
    return quat_canonical(table.gather(-2, largest).squeeze(-2))


def quat_to_euler(quat: Tensor) -> Tensor:
    """Euler angles [..., 3] of a quaternion [..., 4], in the convention of `matrix_to_euler`."""
    return matrix_to_euler(quat_to_matrix(quat))


def euler_to_quat(euler: Tensor) -> Tensor:
    """Quaternion [..., 4] of Euler angles [..., 3] in rad: turns about x, then the new y, then the new z."""
    sx, sy, sz = (0.5 * euler).sin().unbind(-1)
    cx, cy, cz = (0.5 * euler).cos().unbind(-1)
    return torch.stack(
        (
            cx * cy * cz - sx * sy * sz,
            sx * cy * cz + cx * sy * sz,
            cx * sy * cz - sx * cy * sz,
            cx * cy * sz + sx * sy * cz,
        ),
        dim=-1,
    )


def parallel_rotations() -> Tensor:
    """The 24 rotations [24, 4] (quaternions, float64) that bring a cube's edges back onto the axes.

    Their signs and their order are those that gymnasium-robotics finds by going through all triples of quarter turns;
    distances between its goals depend on the signs.
    """
    quarters = torch.tensor([0.0, 1.0, -1.0, 2.0], dtype=torch.float64)
    turns = torch.cartesian_prod(quarters, quarters, quarters)  # [64, 3]
    found: list[list[float]] = []
    for euler in (quat_to_euler(euler_to_quat(turns * (torch.pi / 2))) / (torch.pi / 2)).round().tolist():
        canonical = [2.0 if value == -2.0 else value + 0.0 for value in euler]
        if canonical not in found:
            found.append(canonical)
    return euler_to_quat(torch.tensor(found, dtype=torch.float64) * (torch.pi / 2))


def quat_conjugate(quat: Tensor) -> Tensor:
    """The inverse [..., 4] of a unit quaternion."""
    return torch.cat((quat[..., :1], -quat[..., 1:]), dim=-1)


def quat_canonical(quat: Tensor) -> Tensor:
    """The unit quaternion [..., 4] of the same rotation as `quat`, which is not zero, with w >= 0."""
    sign = torch.where(quat[..., :1] < 0.0, -1.0, 1.0)
    return quat * (sign / torch.linalg.vector_norm(quat, dim=-1, keepdim=True))


def quat_angle(quat: Tensor) -> Tensor:
    """Angle [...] in rad, from 0 to pi, of the rotation of a unit quaternion [..., 4]."""
    return 2.0 * torch.atan2(torch.linalg.vector_norm(quat[..., 1:], dim=-1), quat[..., 0].abs())


def quat_rotate(quat: Tensor, vector: Tensor) -> Tensor:
    """A vector [..., 3] rotated by a unit quaternion [..., 4]."""
    axis = quat[..., 1:]
    twice = 2.0 * torch.linalg.cross(axis, vector)
    return vector + quat[..., :1] * twice + torch.linalg.cross(axis, twice)


def uniform_quat(u: Tensor) -> Tensor:
    """Rotations [..., 4] uniform over SO(3) from numbers [..., 3] uniform in (0, 1) (Shoemake 1992)."""
    inner, outer = torch.sqrt(1.0 - u[..., 0]), torch.sqrt(u[..., 0])
    a, b = 2.0 * torch.pi * u[..., 1], 2.0 * torch.pi * u[..., 2]
    return torch.stack((inner * a.sin(), inner * a.cos(), outer * b.sin(), outer * b.cos()), dim=-1)


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

    Equal to MuJoCo's point Jacobian (mj_jac) times qvel.

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
