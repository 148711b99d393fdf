"""How feet should move: which swing together, how long, how high; and what they did."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from envs.common.errors import TaskError
from envs.common.messages import nearest
from envs.task import Fixed


@dataclass(frozen=True)
class Gait(Fixed):
    """What a gait should be like.

    Args:
        groups: names of feet that swing together, in the order in which groups swing; together every foot once.
        period_s: of a step of all groups, shown to the policy as a clock; None: the policy finds its own.
        ground_share: of the period that a foot is on the ground.
        clearance_m: height of the sole in the middle of a swing.
    """

    groups: tuple[tuple[str, ...], ...]
    period_s: float | None = None
    ground_share: float = 0.55
    clearance_m: float = 0.07

    def __post_init__(self) -> None:
        if self.period_s is not None and not 0.0 < self.period_s < math.inf:
            raise TaskError(f"Gait: period_s: expected seconds above 0, or None, got {self.period_s!r}")
        if not 0.0 < self.ground_share < 1.0:
            raise TaskError(f"Gait: ground_share: expected a share between 0 and 1, got {self.ground_share!r}")

    def offsets(self, feet: tuple[str, ...]) -> tuple[float, ...]:
        """When each foot's swing begins, in periods. Raises TaskError unless groups have every foot once."""
        named = [name for group in self.groups for name in group]
        unknown = next((name for name in named if name not in feet), None)
        if unknown is not None:
            raise TaskError(f"Gait: groups: no foot {unknown!r}{nearest(unknown, feet)}")
        if sorted(named) != sorted(feet):
            raise TaskError(f"Gait: groups: expected every foot once ({', '.join(feet)}), got {', '.join(named)}")
        order = {name: i / len(self.groups) for i, group in enumerate(self.groups) for name in group}
        return tuple(order[name] for name in feet)

    def pairs(self, feet: tuple[str, ...]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """Indices of neighbouring feet that do the same, and of those that do the opposite (of two groups)."""
        at = {name: i for i, name in enumerate(feet)}
        groups = [[at[name] for name in group] for group in self.groups]
        same = [(a, b) for group in groups for a, b in pairwise(group)]
        opposite = [(a, b) for one, other in pairwise(groups) for a, b in zip(one, other, strict=False)]
        return same, opposite


@dataclass(frozen=True)
class Order(Fixed):
    """In which order feet swing.

    Attributes:
        begins: when each foot's swing begins, in periods.
        same, opposite: indices of neighbouring feet that do the same, and of those that do the opposite.
    """

    begins: tuple[float, ...]
    same: list[tuple[int, int]]
    opposite: list[tuple[int, int]]

    @staticmethod
    def of(gait: Gait, feet: tuple[str, ...]) -> Order:
        """That of a gait, for named feet. Raises TaskError unless groups have every foot once."""
        return Order(gait.offsets(feet), *gait.pairs(feet))


def natural_gait(feet: tuple[tuple[str, float, float], ...]) -> tuple[tuple[str, ...], ...]:
    """Groups of feet that swing together, from names and places (x, y) of the feet: left and right by turns, and from
    front to rear by turns, as the diagonals of a trot, the tripods of six legs, or the two feet of a biped."""
    sides: dict[int, list[tuple[float, str]]] = {1: [], -1: []}
    for name, x, y in feet:
        sides[1 if y >= 0.0 else -1].append((-x, name))
    groups: tuple[list[str], list[str]] = ([], [])
    for side, row in sides.items():
        for rank, (_, name) in enumerate(sorted(row)):
            groups[(rank + (side < 0)) % 2].append(name)
    return tuple(tuple(group) for group in groups if group)


def phases(time_s: Tensor, period_s: float, offsets: Tensor) -> Tensor:
    """How far each foot [N, F] is in its period, in [0, 1), at times [N]; offsets [F] in periods."""
    return torch.remainder(time_s[:, None] / period_s + offsets, 1.0)


def wanted_heights(phase: Tensor, ground_share: float, clearance_m: float) -> tuple[Tensor, Tensor]:
    """Which feet should be in the air [N, F] (1 or 0), and how high [N, F], m: half a sine squared in a swing, which
    begins with the period."""
    swing = 1.0 - ground_share
    up = (phase < swing).to(phase.dtype)
    return up, clearance_m * torch.sin(math.pi * (phase / swing).clamp(max=1.0)).square() * up
