"""The arithmetic of the fit: a piece's residual with its derivatives, and what pieces say of the world together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
PRIOR = 3.0  # information per coordinate of what was believed beforehand: a range [-1, 1] has a variance of a third
HUBER = 3.0  # noise standard deviations beyond which a sample weighs less


@dataclass(frozen=True)
class Linear:
    """A piece's residual [m] and its derivatives, in units of noise."""

    residual: Numbers
    weight: Numbers  # [m] of Huber's loss
    world: Numbers  # [m, P]
    state: Numbers  # [m, S]
    known: Numbers  # [S] information about the beginning from the samples around it
    pull: Numbers  # [S] gradient of that: how far the beginning is from what they say, times `known`

    def reduced(self) -> tuple[Numbers, Numbers, Numbers, Numbers]:
        """Information and gradient about the world, the beginning eliminated, and what moves that:
        [P, P], [P], [S, P], [S]."""
        weighted = self.weight[:, None] * self.world
        inner = self.state.T @ (self.weight[:, None] * self.state) + np.diag(self.known)
        across = self.state.T @ weighted
        slope = self.state.T @ (self.weight * self.residual) + self.pull
        solved = np.linalg.solve(inner, np.concatenate((across, slope[:, None]), axis=1))
        solved = np.asarray(solved, dtype=np.float64)
        information = self.world.T @ weighted - across.T @ solved[:, :-1]
        gradient = weighted.T @ self.residual - across.T @ solved[:, -1]
        return information, gradient, solved[:, :-1], solved[:, -1]

    def reduced_gradient(self, residual: Numbers) -> Numbers:
        """The gradient [P] of another residual [m]."""
        return replace(self, residual=residual, pull=np.zeros_like(self.pull)).reduced()[1]


@dataclass
class Fit:
    """What was found.

    Attributes:
        z: [P] coordinates of the best world.
        information: [W, P, P] of each piece about the world, its beginning eliminated.
        gradients: [W, P] of each piece, at the best world.
        residuals: per piece, per track, [m, n]: measured less simulated.
        noise: per track, [n], as the residuals have it.
        cost: per sample, half a squared noise if all is explained.
        iterations: made.
        states: [W, 2 nv] beginnings.
        parts: residuals and derivatives of each piece.
    """

    z: Numbers
    information: Numbers
    gradients: Numbers
    residuals: list[list[Numbers]]
    noise: list[Numbers]
    cost: float
    iterations: int
    states: Numbers
    parts: list[Linear]

    def towards(self, changes: Sequence[Numbers]) -> Numbers:
        """How far [P] the best world would move if residuals [m] of the pieces, in units of noise, changed by so much,
        to first order; in directions that the log does not tell it stays."""
        gradient = np.zeros(len(self.z))
        for part, change in zip(self.parts, changes, strict=True):
            gradient += part.reduced_gradient(change)
        return -self.covariance() @ gradient

    def covariance(self) -> Numbers:
        """Of z [P, P] by the curvature; where nothing is known that of the prior ranges."""
        return np.linalg.inv(self.information.sum(axis=0) + PRIOR * np.eye(len(self.z)))


def slope(ahead: Numbers, behind: Numbers) -> Numbers:
    """Derivatives [m] of differences to either side: the flatter one, 0 where they disagree in sign.

    Where a joint begins to slip, or two bodies touch, a sample jumps; a difference over the jump is a huge number that
    says nothing of the neighbourhood, and it stands on one side only.
    """
    flatter = np.where(np.abs(ahead) < np.abs(behind), ahead, behind)
    return np.nan_to_num(np.where(ahead * behind > 0.0, flatter, 0.0))


def bounded_step(information: Numbers, gradient: Numbers, z: Numbers) -> Numbers:
    """The Newton step [P] in which what lies at an end of its range does not go beyond it."""
    free = np.ones(len(z), dtype=bool)
    step = np.zeros(len(z))
    for _ in range(len(z)):
        step[:] = 0.0
        step[free] = -np.linalg.solve(information[np.ix_(free, free)], gradient[free])
        blocked = free & (((z >= 1.0) & (step > 0.0)) | ((z <= -1.0) & (step < 0.0)))
        if not blocked.any():
            break
        free &= ~blocked
    return step


def huber(residual: Numbers) -> float:
    """The loss of residuals [m] in units of noise."""
    r = np.abs(residual)
    return float(np.where(r <= HUBER, 0.5 * r * r, HUBER * (r - 0.5 * HUBER)).sum())
