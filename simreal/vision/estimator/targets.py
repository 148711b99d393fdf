"""What an estimator reads from pictures: places, rotations and angles, each with the error that it is judged by, its
likelihood, and the interval that it claims.

Networks put out, for a target, the numbers of `outputs`: an estimate and the logarithm of how unsure it is
(heteroscedastic regression: Kendall and Gal 2017, arXiv 1703.04977). Rotations are six numbers, made a matrix by
Gram-Schmidt (Zhou et al. 2019, arXiv 1812.07035), and judged by the angle between them (geodesic distance).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from envs.common.messages import nearest
from envs.common.spatial import euler_to_quat, matrix_to_euler, matrix_to_quat, quat_to_matrix
from envs.task import Component, Task
from simreal.common.errors import UserError

Kind = Literal["position", "quaternion", "euler", "angles"]
LEVEL = 0.9  # of the intervals that are claimed
_NORMAL = 1.6448536269514722  # half width of the normal distribution's, in standard deviations
_CHI = 2.5002777108094  # of the length of three independent normal numbers: the root of chi-squared's 0.9 quantile
_BETA = 0.5  # of beta-NLL: Seitzer et al. 2022, arXiv 2203.09168
_LOG_STD = (-9.0, 3.0)
_EPS = 1e-7


@dataclass(frozen=True)
class Target:
    """One component that is read from pictures.

    Attributes:
        name: of the component.
        kind: what its numbers mean.
        size: how many it has.
        within: m or rad, see `TargetConfig`.
        unit: of its error.
        elements: names of its numbers.
    """

    name: str
    kind: Kind
    size: int
    within: float
    unit: str
    elements: tuple[str, ...]

    @property
    def outputs(self) -> int:
        """Numbers that a network puts out for it."""
        return {"position": 2 * self.size, "angles": 3 * self.size}.get(self.kind, 7)

    @property
    def spreads(self) -> int:
        """Numbers of them that say how unsure it is."""
        return 1 if self.kind in ("quaternion", "euler") else self.size

    def estimate(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Values of the component [B, size], and standard deviations [B, spreads] in the error's unit, of a network's
        outputs [B, outputs], positions in m."""
        raw, log_std = self._parted(output)
        if self.kind == "position":
            return raw, log_std.exp()
        if self.kind == "angles":
            return torch.atan2(raw[:, self.size :], raw[:, : self.size]), log_std.exp()
        return self.of_matrix(six_to_matrix(raw)), log_std.exp()

    def _parted(self, output: Tensor) -> tuple[Tensor, Tensor]:
        raw, log_std = output[:, : -self.spreads], output[:, -self.spreads :]
        return raw, log_std.clamp(*_LOG_STD)

    def residuals(self, output: Tensor, truth: Tensor) -> Tensor:
        """What the likelihood is of: [B, size] of positions and angles, the angle [B, 1] of rotations."""
        raw, _ = self._parted(output)
        if self.kind == "position":
            return raw - truth
        if self.kind == "angles":
            cos, sin = raw[:, : self.size], raw[:, self.size :]
            return torch.atan2(sin * truth.cos() - cos * truth.sin(), cos * truth.cos() + sin * truth.sin())
        return geodesic(six_to_matrix(raw), self.to_matrix(truth))[:, None]

    def loss(self, output: Tensor, truth: Tensor) -> Tensor:
        """Negative log-likelihood [B] of normal errors, each part times its variance to the power of one half.

        Rotations: of a turn by a normal vector, -log N(angle; 0, std) with three dimensions.
        """
        _, log_std = self._parted(output)
        dimensions = 3.0 if self.kind in ("quaternion", "euler") else 1.0
        squared = self.residuals(output, truth).square()
        likelihood = 0.5 * squared * (-2.0 * log_std).exp() + dimensions * log_std
        return (likelihood * (2.0 * _BETA * log_std.detach()).exp()).sum(1)

    def error(self, value: Tensor, truth: Tensor) -> Tensor:
        """How far estimates [B, size] are from the truth [B]: m; rad, of several angles the largest."""
        if self.kind == "position":
            return torch.linalg.vector_norm(value - truth, dim=1)
        if self.kind == "angles":
            return wrapped(value - truth).abs().amax(1)
        return geodesic(self.to_matrix(value), self.to_matrix(truth))

    def misses(self, value: Tensor, truth: Tensor) -> Tensor:
        """How far each number is off for which an interval is claimed, [B, spreads]."""
        if self.kind == "position":
            return (value - truth).abs()
        return wrapped(value - truth).abs() if self.kind == "angles" else self.error(value, truth)[:, None]

    def claimed(self, std: Tensor) -> Tensor:
        """Half widths [B, spreads] of the intervals of 90 % that are claimed."""
        return (_CHI if self.kind in ("quaternion", "euler") else _NORMAL) * std

    def covered(self, value: Tensor, std: Tensor, truth: Tensor) -> Tensor:
        """Whether the truth lies in the interval of 90 % that is claimed, [B, spreads]."""
        return self.misses(value, truth) <= self.claimed(std)

    def differences(self, value: Tensor, truth: Tensor) -> Tensor:
        """Errors [B, size] in the component's own numbers, as sensor noise is added to them. Of a quaternion and its
        opposite, which are one rotation, the one nearer to the truth counts: near w = 0 either may be shown."""
        if self.kind == "quaternion":
            return torch.where((value * truth).sum(1, keepdim=True) < 0.0, -value, value) - truth
        return wrapped(value - truth) if self.kind in ("angles", "euler") else value - truth

    def to_matrix(self, value: Tensor) -> Tensor:
        """Rotation matrices [B, 3, 3] of values [B, size]."""
        return quat_to_matrix(euler_to_quat(value) if self.kind == "euler" else value)

    def of_matrix(self, matrix: Tensor) -> Tensor:
        """Values [B, size] of rotation matrices [B, 3, 3]; quaternions have w >= 0."""
        return matrix_to_euler(matrix) if self.kind == "euler" else matrix_to_quat(matrix)


def find_target(task: Task, name: str, kind: Kind | Literal["auto"], within: float) -> Target:
    """A component of a task that pictures can show. Raises UserError, naming it and what is nearest."""
    components = {c.name: c for c in (*task.components("policy"), *task.components("privileged"), *task.pictured)}
    if name not in components:
        raise UserError(
            f"targets.{name}: {task.id} has no such component{nearest(name, components)}; it has: "
            f"{', '.join(components)}"
        )
    component = components[name]
    found = _kind(component) if kind == "auto" else kind
    size = {"quaternion": 4, "euler": 3}.get(found or "", component.size)
    if found is None or size != component.size:
        what = f"{component.size} in {component.unit!r}" if found is None else f"{component.size} values"
        raise UserError(
            f"targets.{name}: has {what}; pictures show positions (m), quaternions (4 values), Euler angles (3) and "
            f"angles (rad), which 'kind' may say"
        )
    elements = component.elements or tuple(f"{name}{i}" for i in range(component.size))
    return Target(name, found, component.size, within, "m" if found == "position" else "rad", elements)


def _kind(component: Component) -> Kind | None:
    """What a component's numbers mean, as far as its unit says."""
    if component.unit == "m":
        return "position"
    if component.unit == "rad":
        return "euler" if component.size == 3 and "Euler" in component.description else "angles"
    return "quaternion" if component.size == 4 and component.unit == "1" else None


def six_to_matrix(six: Tensor) -> Tensor:
    """Rotation matrices [..., 3, 3] of two columns [..., 6], the first kept in direction (arXiv 1812.07035, eq. 15)."""
    first, second = six[..., :3], six[..., 3:]
    x = first / torch.linalg.vector_norm(first, dim=-1, keepdim=True).clamp(min=_EPS)
    rest = second - (x * second).sum(-1, keepdim=True) * x
    y = rest / torch.linalg.vector_norm(rest, dim=-1, keepdim=True).clamp(min=_EPS)
    return torch.stack((x, y, torch.linalg.cross(x, y)), dim=-1)


def geodesic(a: Tensor, b: Tensor) -> Tensor:
    """Angle [...] in rad, from 0 to pi, of the turn from rotation a to b [..., 3, 3]: |a - b|^2 = 8 sin(angle/2)^2.

    The gradient stays finite at both ends.
    """
    part = (a - b).square().sum((-2, -1)) / 8.0
    return 2.0 * torch.asin(part.clamp(_EPS * _EPS, 1.0 - _EPS).sqrt())


def wrapped(angle: Tensor) -> Tensor:
    """Angles [...] in [-pi, pi)."""
    return torch.remainder(angle + math.pi, 2.0 * math.pi) - math.pi
