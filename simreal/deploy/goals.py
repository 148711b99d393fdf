"""A sequence of goals for a policy that turns a Rubik's Cube: which one it has now, and when it has reached it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np

SUCCESS_RAD, SUCCESS_FACE_RAD = 0.4, 0.2  # as in training


class GoalSequence:
    """Goals of RubiksCube-v0, one after another.

    Args:
        quats: [n, 4] (w, x, y, z) orientations of the cube in the palm's frame.
        face_angles: [n, 6] angles of the faces U R F D L B from where they began, counter-clockwise as seen from
            outside, rad.
        heading: as the task's option of that name; "free": only which face is up counts.

    Raises:
        ValueError: for other shapes, numbers that are not finite, an orientation of length 0, or another heading.
    """

    def __init__(
        self,
        quats: Sequence[Any] | np.ndarray,
        face_angles: Sequence[Any] | np.ndarray,
        heading: Literal["fixed", "free"] = "fixed",
    ) -> None:
        if heading not in ("fixed", "free"):
            raise ValueError(f"heading: expected 'fixed' or 'free', got {heading!r}")
        self._quats, self._angles = np.array(quats, dtype=float).reshape(-1, 4), np.array(face_angles, dtype=float)
        self._angles = self._angles.reshape(-1, 6)
        lengths = np.linalg.norm(self._quats, axis=1, keepdims=True)
        if len(self._quats) != len(self._angles):
            raise ValueError(f"expected as many orientations as angles, got {len(self._quats)} and {len(self._angles)}")
        if not (np.isfinite(self._quats).all() and np.isfinite(self._angles).all() and (lengths > 0.0).all()):
            raise ValueError("goals: expected finite numbers, and orientations of a length above 0")
        self._quats = np.where(self._quats[:, :1] < 0.0, -1.0, 1.0) * self._quats / lengths
        self._free = heading == "free"
        if self._free:
            up = [int((_matrix(quat) @ _NORMALS.T)[2].argmax()) for quat in self._quats]
            self._quats = _UPWARDS[up]
        self.reached = 0
        """How many goals have been reached."""

    @classmethod
    def of(cls, plan: Iterable[Any], heading: Literal["fixed", "free"] = "fixed") -> GoalSequence:
        """The goals of a plan: of anything that has a `rotation` [3, 3] and `quarters` [6], as a planner's subgoals."""
        steps = list(plan)
        quats = [_quat(np.asarray(s.rotation, dtype=float)) for s in steps]
        return cls(quats, [np.pi / 2 * s.quarters for s in steps], heading)

    @property
    def done(self) -> bool:
        """Whether all goals have been reached."""
        return self.reached >= len(self._quats)

    @property
    def goal_quat(self) -> np.ndarray:
        """[4] the orientation wanted; the last one when all is done. Raises IndexError where there are no goals."""
        return self._quats[min(self.reached, len(self._quats) - 1)]

    @property
    def goal_face_angle(self) -> np.ndarray:
        """[6] the angles wanted, from -pi to pi; the last ones when all is done. Raises IndexError without goals."""
        return _wrapped(self._angles[min(self.reached, len(self._angles) - 1)])

    def components(self) -> dict[str, np.ndarray]:
        """The components of the observation that come from the goal."""
        return {"goal_quat": self.goal_quat, "goal_face_angle": self.goal_face_angle}

    def derived(self, cube_quat: np.ndarray, face_angle: np.ndarray) -> dict[str, np.ndarray]:
        """The components that are computed from the goal and from what is measured.

        Args:
            cube_quat: [4] orientation of the cube in the palm's frame, of any length above 0.
            face_angle: [6] rad.
        """
        w, x, y, z = quat = np.asarray(cube_quat, dtype=float) / np.linalg.norm(cube_quat)
        relative = _product(self.goal_quat, np.array([w, -x, -y, -z]))
        if self._free:
            relative = _without_heading(relative)
        left = _wrapped(self.goal_face_angle - np.asarray(face_angle, dtype=float))
        along = _matrix(quat) @ _NORMALS.T  # [xyz, face]
        sides = np.stack((along.argmax(axis=1), along.argmin(axis=1)), axis=1).ravel()
        return {
            "goal_rel_quat": relative * (-1.0 if relative[0] < 0.0 else 1.0),
            "goal_rel_face_angle": left,
            "side_turn": left[sides],
        }

    def see(self, cube_quat: np.ndarray, face_angle: np.ndarray) -> bool:
        """Take note of a measurement, as of `derived`; returns whether the present goal is reached, which is then
        followed by the next one."""
        if self.done:
            return False
        seen = self.derived(cube_quat, face_angle)
        turn = 2.0 * np.arctan2(np.linalg.norm(seen["goal_rel_quat"][1:]), seen["goal_rel_quat"][0])
        near = turn < SUCCESS_RAD and np.abs(seen["goal_rel_face_angle"]).max() < SUCCESS_FACE_RAD
        self.reached += int(near)
        return bool(near)


_NORMALS = np.array([(0, 0, 1), (1, 0, 0), (0, -1, 0), (0, 0, -1), (-1, 0, 0), (0, 1, 0)], dtype=float)  # U R F D L B
_HALF = 0.5**0.5
_UPWARDS = np.array([  # the orientation that stands for all with that face up
    (1, 0, 0, 0), (_HALF, 0, -_HALF, 0), (_HALF, -_HALF, 0, 0), (0, 0, 1, 0), (_HALF, 0, _HALF, 0), (_HALF, _HALF, 0, 0)
])  # fmt: skip


def _wrapped(angle: np.ndarray) -> np.ndarray:
    return angle - 2.0 * np.pi * np.round(angle / (2.0 * np.pi))


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The rotation b, then a."""
    return np.concatenate(([a[0] * b[0] - a[1:] @ b[1:]], a[0] * b[1:] + b[0] * a[1:] + np.cross(a[1:], b[1:])))


def _without_heading(quat: np.ndarray) -> np.ndarray:
    """The least rotation that brings up what a rotation brings up."""
    w, x, y, z = quat
    length = np.hypot(w, z)
    cos, sin = (w / length, z / length) if length > 1e-6 else (1.0, 0.0)
    return np.array([length, cos * x + sin * y, cos * y - sin * x, 0.0])


def _matrix(quat: np.ndarray) -> np.ndarray:
    w, v = quat[0], quat[1:]
    cross = np.array([[0.0, -v[2], v[1]], [v[2], 0.0, -v[0]], [-v[1], v[0], 0.0]])
    return np.eye(3) + 2.0 * w * cross + 2.0 * cross @ cross


def _quat(rotation: np.ndarray) -> np.ndarray:
    """The unit quaternion of a rotation [3, 3] (Bar-Itzhack 2000: the eigenvector of the largest eigenvalue)."""
    r = rotation
    off = np.array([r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]])
    k = np.zeros((4, 4))
    k[0, 0], k[0, 1:], k[1:, 0] = np.trace(r), off, off
    k[1:, 1:] = r + r.T - np.trace(r) * np.eye(3)
    values, vectors = np.linalg.eigh(k)
    quat = vectors[:, values.argmax()]
    return quat if quat[0] >= 0.0 else -quat
