"""From a step of a tool to steps of the joints that carry it, with the lengths that the contract states.

Part of `simreal.deploy`, which imports nothing else of simreal. `envs/parts/kinematics.py` is the same for training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
_KINDS = ("hinge", "slide")


class InverseKinematics:
    """Damped least squares on the chain of hinges and slides from a robot's base to its tool.

    Args:
        entry: `inverse` of an action component: `links`, each with `kind`, `pos` [3] m and `quat` [4] (the way from the
            joint before), `axis` [3] and `zero`; `tip`, the way from the last joint to the tool; `damping`.
        size: of the steps: 3, or 6 with turns.

    Raises:
        ValueError: something is missing or no number; names it.
    """

    def __init__(self, entry: Any, size: int) -> None:
        if size not in (3, 6):
            raise ValueError(f"expected steps of 3 or 6 values, got {size}")
        links = entry.get("links") if isinstance(entry, dict) else None
        if not isinstance(links, list) or not links:
            raise ValueError("links: expected a list of joints")
        self.size, self.damping = size, float(_numbers(entry, "damping", 1)[0])
        if not self.damping > 0.0:
            raise ValueError("damping: expected a number above 0")
        self._slides: list[bool] = []
        self._pos, self._fixed = [_numbers(link, "pos", 3) for link in links], [_turned(link) for link in links]
        self._axis, self._zero = [_numbers(link, "axis", 3) for link in links], np.zeros(len(links))
        for i, link in enumerate(links):
            if link.get("kind") not in _KINDS:
                raise ValueError(f"links: kind: expected 'hinge' or 'slide', got {link.get('kind')!r}")
            self._slides.append(link["kind"] == "slide")
            self._zero[i] = _numbers(link, "zero", 1)[0]
        self._tip = _numbers(entry.get("tip"), "pos", 3)

    @property
    def joints(self) -> int:
        """Number of joints."""
        return len(self._pos)

    def tables(self) -> dict[str, Numbers]:
        """The chain's numbers: `slides` (1 or 0) and `zero` [joints], `pos` and `axis` [joints, 3], `fixed`
        [joints, 3, 3], `tip` [3]."""
        return {
            "slides": np.array(self._slides, dtype=np.float64), "pos": np.array(self._pos),
            "fixed": np.array(self._fixed), "axis": np.array(self._axis), "zero": self._zero, "tip": self._tip,
        }  # fmt: skip

    def steps(self, q: Numbers, wanted: Numbers) -> Numbers:
        """Steps [B, joints] of joints at q [B, joints] that move the tool by about `wanted` [B, size]."""
        j = self._jacobian(q)[:, : self.size]
        square = j @ j.transpose(0, 2, 1) + self.damping**2 * np.eye(self.size)
        return (j.transpose(0, 2, 1) @ np.linalg.solve(square, wanted[..., None]))[..., 0]

    def _jacobian(self, q: Numbers) -> Numbers:
        """[B, 6, joints]: linear, then angular velocity of the tool for velocities of the joints."""
        pos, rot = np.zeros((len(q), 3)), np.broadcast_to(np.eye(3), (len(q), 3, 3))
        places: list[tuple[Numbers, Numbers]] = []
        for i, axis in enumerate(self._axis):
            pos, rot = pos + rot @ self._pos[i], rot @ self._fixed[i]
            along = rot @ axis
            if self._slides[i]:
                pos = pos + along * (q[:, i] - self._zero[i])[:, None]
            else:
                rot = rot @ _about(axis, q[:, i] - self._zero[i])
            places.append((pos, along))
        tip = pos + rot @ self._tip
        columns = [
            np.concatenate((along, np.zeros_like(along)) if slide else (np.cross(along, tip - pos), along), axis=1)
            for (pos, along), slide in zip(places, self._slides, strict=True)
        ]
        return np.stack(columns, axis=2)


def _numbers(entry: Any, key: str, count: int) -> Numbers:
    """`count` finite numbers of a mapping. Raises ValueError."""
    value = entry.get(key) if isinstance(entry, dict) else None
    listed: Sequence[Any] = value if isinstance(value, list) else [value]
    good = len(listed) == count and all(type(v) in (int, float) and math.isfinite(v) for v in listed)
    if not good:
        raise ValueError(f"{key}: expected {count} finite numbers" if count > 1 else f"{key}: expected a finite number")
    return np.array(listed, dtype=np.float64)


def _turned(link: Any) -> Numbers:
    """The rotation matrix [3, 3] of a link's `quat`."""
    w, x, y, z = _numbers(link, "quat", 4)
    square = w * w + x * x + y * y + z * z
    if square < 1e-12:
        raise ValueError("quat: expected a quaternion that is not zero")
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + 2.0 * (w * cross + cross @ cross) / square


def _about(axis: Numbers, angle: Numbers) -> Numbers:
    """Rotations [B, 3, 3] about an axis [3] of length 1 by angles [B] (Rodrigues)."""
    x, y, z = axis
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    sine, cosine = np.sin(angle)[:, None, None], np.cos(angle)[:, None, None]
    return np.eye(3) + sine * cross + (1.0 - cosine) * (cross @ cross)
