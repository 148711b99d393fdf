"""Rotations as networks put them out, and as observations have them. [..., 3, 3] are matrices.

Part of `simreal.deploy`, which imports nothing else of simreal.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
_EPS = 1e-7
_GIMBAL_LOCK = 4.0 * float(np.finfo(np.float64).eps)


def six_to_matrix(six: Numbers) -> Numbers:
    """Of two columns [..., 6], the first kept in direction (arXiv 1812.07035, eq. 15)."""
    first, second = six[..., :3], six[..., 3:]
    x = first / np.maximum(np.linalg.norm(first, axis=-1, keepdims=True), _EPS)
    rest = second - (x * second).sum(-1, keepdims=True) * x
    y = rest / np.maximum(np.linalg.norm(rest, axis=-1, keepdims=True), _EPS)
    return np.stack((x, y, np.cross(x, y)), axis=-1)


def quat_to_matrix(quat: Numbers) -> Numbers:
    """Of quaternions [..., 4], w, x, y, z, of any length but zero."""
    w, x, y, z = (quat[..., i] for i in range(4))
    s = 2.0 / np.square(quat).sum(-1)
    rows = (
        (1 - s * (y * y + z * z), s * (x * y - w * z), s * (x * z + w * y)),
        (s * (x * y + w * z), 1 - s * (x * x + z * z), s * (y * z - w * x)),
        (s * (x * z - w * y), s * (y * z + w * x), 1 - s * (x * x + y * y)),
    )
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def matrix_to_quat(matrix: Numbers) -> Numbers:
    """Unit quaternions [..., 4], w, x, y, z with w >= 0 (Shepperd 1978)."""
    m = matrix
    x, y, z = (m[..., i, i] for i in range(3))
    trace = np.stack((x + y + z, x - y - z, y - x - z, z - x - y), axis=-1)
    wx, wy, wz = (m[..., i, j] - m[..., j, i] for i, j in ((2, 1), (0, 2), (1, 0)))
    xy, xz, yz = (m[..., i, j] + m[..., j, i] for i, j in ((1, 0), (2, 0), (2, 1)))
    one = 1.0 + trace
    rows = ((one[..., 0], wx, wy, wz), (wx, one[..., 1], xy, xz), (wy, xy, one[..., 2], yz), (wz, xz, yz, one[..., 3]))
    table = np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
    largest = trace.argmax(axis=-1)[..., None, None]
    quat = np.take_along_axis(table, largest, axis=-2)[..., 0, :]
    quat = quat / np.linalg.norm(quat, axis=-1, keepdims=True)
    return np.where(quat[..., :1] < 0.0, -quat, quat)


def matrix_to_euler(matrix: Numbers) -> Numbers:
    """Intrinsic XYZ angles [..., 3] in rad, with the signs of gymnasium-robotics' `mat2euler`."""
    m = matrix
    cos_y = np.sqrt(m[..., 2, 2] ** 2 + m[..., 1, 2] ** 2)
    regular = cos_y > _GIMBAL_LOCK
    x = np.where(regular, -np.arctan2(m[..., 1, 2], m[..., 2, 2]), 0.0)
    y = -np.arctan2(-m[..., 0, 2], cos_y)
    z = np.where(regular, -np.arctan2(m[..., 0, 1], m[..., 0, 0]), -np.arctan2(-m[..., 1, 0], m[..., 1, 1]))
    return np.stack((x, y, z), axis=-1)
