"""Finds the world in which a model shows what a log shows: multiple shooting, robust Gauss-Newton.

Each piece of the log begins in a state that is not known exactly, so its beginning is estimated too; these numbers
belong to one piece only and are eliminated from the normal equations (Bock 1983, multiple shooting; the Schur
complement of an arrowhead). Derivatives are differences of simulations, all of them played as one batch.

    cost(z) = sum over samples of rho(residual / noise),   rho: Huber's, so that a few wrong samples weigh little
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .measured.pieces import noise_of
from .simulation import Piece, Player
from .unknowns import Scales

Numbers = NDArray[np.float64]
_HUBER = 3.0  # noise standard deviations beyond which a sample weighs less
_STEP = 1e-3  # of a prior range's half, for differences
_STATE_STEP = 1e-5  # rad, m or these per second
_PRIOR = 1e-4  # information per coordinate that keeps what a log does not tell where it was
_LONGEST = 0.4  # step, likewise
_LEAST_NOISE = 1e-7  # of a log without noise
_SHARE = 0.02  # of the spread of positions and speeds in a log: how wrong the state of a beginning may be, and more
_APART_S = 0.02  # of samples whose noise makes a speed that is not measured
_ITERATIONS, _TRIES = 40, 8
_ENOUGH = 1e-4  # of the prior range's half: a shorter step ends the search


@dataclass(frozen=True)
class Linear:
    """A piece's residual [m] and its derivatives, in units of noise."""

    residual: Numbers
    weight: Numbers  # [m] of Huber's loss
    world: Numbers  # [m, P]
    state: Numbers  # [m, S]
    known: Numbers  # [S] information about the beginning from the samples around it

    def reduced(self) -> tuple[Numbers, Numbers, Numbers, Numbers]:
        """Information and gradient about the world, the beginning eliminated, and what moves that:
        [P, P], [P], [S, P], [S]."""
        weighted = self.weight[:, None] * self.world
        inner = self.state.T @ (self.weight[:, None] * self.state) + np.diag(self.known)
        across = self.state.T @ weighted
        slope = self.state.T @ (self.weight * self.residual)
        solved = np.linalg.solve(inner, np.concatenate((across, slope[:, None]), axis=1))
        solved = np.asarray(solved, dtype=np.float64)
        information = self.world.T @ weighted - across.T @ solved[:, :-1]
        gradient = weighted.T @ self.residual - across.T @ solved[:, -1]
        return information, gradient, solved[:, :-1], solved[:, -1]

    def reduced_gradient(self, residual: Numbers) -> Numbers:
        """The gradient [P] of another residual [m]."""
        return replace(self, residual=residual).reduced()[1]


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
        states: [W, nq + nv] beginnings.
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

    def towards(self, residuals: list[list[Numbers]], noise: Sequence[Numbers]) -> Numbers:
        """How far [P] the best world would move if simulations left other residuals, to first order."""
        flat = [np.concatenate([(r / n).ravel() for r, n in zip(tracks, noise, strict=True)]) for tracks in residuals]
        gradient = np.zeros(len(self.z))
        for part, now in zip(self.parts, flat, strict=True):
            gradient += part.reduced_gradient(now - part.residual)
        return -np.linalg.pinv(self.information.sum(axis=0), rcond=1e-6, hermitian=True) @ gradient


def _slope(ahead: Numbers, behind: Numbers) -> Numbers:
    """Derivatives [m] of differences to either side: the flatter one, 0 where they disagree in sign.

    Where a joint begins to slip, or two bodies touch, a sample jumps; a difference over the jump is a huge number that
    says nothing of the neighbourhood, and it stands on one side only.
    """
    flatter = np.where(np.abs(ahead) < np.abs(behind), ahead, behind)
    return np.nan_to_num(np.where(ahead * behind > 0.0, flatter, 0.0))


def _bounded_step(information: Numbers, gradient: Numbers, z: Numbers) -> Numbers:
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


class Fitter:
    """Fits a world to pieces of logs.

    Args:
        player: of the pieces.
        pieces: W of them.
        scales: of the unknowns.
        told: called with a line of progress.
    """

    def __init__(
        self, player: Player, pieces: Sequence[Piece], scales: Scales, told: Callable[[str], None] | None = None
    ) -> None:
        self._player, self._pieces, self._scales, self._told = player, list(pieces), scales, told
        model = player.model
        positions = pieces[0].recording.tracks[0]
        dofs = np.array([int(model.jnt_dofadr[model.joint(name).id]) for name in positions.joints])
        self._free = np.concatenate((positions.columns, model.nq + dofs))  # numbers of a beginning that are estimated
        self._noise = [
            np.maximum(np.median([noise_of(p.recording.tracks[k]) for p in pieces], axis=0), _LEAST_NOISE)
            for k in range(len(pieces[0].recording.tracks))
        ]
        # A beginning is known from the samples around it, to a share of how far joints moved and how fast.
        moved = np.array([np.concatenate((piece.qpos, piece.qvel))[self._free] for piece in pieces]).std(axis=0)
        known = np.concatenate((self._noise[0], self._noise[0] / _APART_S))
        self._state_information = (_SHARE * moved + 10.0 * known) ** -2.0

    def fit(self, z: Numbers) -> Fit:
        """The best world near z [P]. Raises ValueError where the simulation is unstable there."""
        states = np.array([np.concatenate((piece.qpos, piece.qvel)) for piece in self._pieces])
        damping, made = 1.0, 0
        residuals = self._residuals(z, states)
        cost = self._cost(residuals, z, states)
        if not np.isfinite(cost):
            raise ValueError("the simulation is unstable where the search starts")
        for made in range(1, _ITERATIONS + 1):
            parts = self._linear(z, states, residuals)
            trial, moved, tried, now, improved = z, states, residuals, cost, False
            for _ in range(_TRIES):
                step, change = self._solve(parts, z, damping)
                trial = np.clip(z + step, -1.0, 1.0)
                moved = states.copy()
                moved[:, self._free] += change
                tried = self._residuals(trial, moved)
                now = self._cost(tried, trial, moved)
                if now < cost:
                    improved = True
                    break
                damping = max(damping, 1e-6) * 10.0
            if not improved:
                break
            step, gain = trial - z, cost - now
            z, states, residuals, cost = trial, moved, tried, now
            damping /= 5.0
            if self._told is not None:
                self._told(f"iteration {made}: residuals of {self._spread(residuals):.2f} noise")
            if np.abs(step).max() < _ENOUGH or gain < 1e-5 * cost:
                break
        return self._finished(z, states, residuals, made)

    def look(self, z: Numbers) -> Fit:
        """A world as if it were the best one: what pieces tell there."""
        states = np.array([np.concatenate((piece.qpos, piece.qvel)) for piece in self._pieces])
        return self._finished(z, states, self._residuals(z, states), 0)

    def cost_at(self, z: Numbers) -> float:
        """The cost of a world without moving the beginnings; inf where it is unstable."""
        states = np.array([np.concatenate((piece.qpos, piece.qvel)) for piece in self._pieces])
        cost = self._cost(self._residuals(z, states), z, states)
        return cost if np.isfinite(cost) else np.inf

    def rescale(self, fit: Fit) -> None:
        """Take the noise as the residuals have it: what a model cannot explain counts as noise, or intervals lie."""
        self._noise = fit.noise

    def finer(self, player: Player, fit: Fit) -> Numbers:
        """How far [P] the best world would move if physics steps were as short as another player's, to first order."""
        values = np.repeat(self._scales.outward(fit.z)[None], len(self._pieces), axis=0)
        shown = player.play(self._pieces, values, fit.states)
        residuals = [self._less(piece, tracks) for piece, tracks in zip(self._pieces, shown, strict=True)]
        finite = all(np.isfinite(track).all() for tracks in residuals for track in tracks)
        return fit.towards(residuals, self._noise) if finite else np.zeros_like(fit.z)

    def _residuals(self, z: Numbers, states: Numbers) -> list[list[Numbers]]:
        values = np.repeat(self._scales.outward(z)[None], len(self._pieces), axis=0)
        shown = self._player.play(self._pieces, values, states)
        return [self._less(piece, tracks) for piece, tracks in zip(self._pieces, shown, strict=True)]

    @staticmethod
    def _less(piece: Piece, tracks: list[Numbers]) -> list[Numbers]:
        pairs = zip(piece.recording.tracks, piece.samples, tracks, strict=True)
        return [track.values[where] - shown for track, where, shown in pairs]

    def _flat(self, tracks: list[Numbers]) -> Numbers:
        return np.concatenate([(r / noise).ravel() for r, noise in zip(tracks, self._noise, strict=True)])

    def _cost(self, residuals: list[list[Numbers]], z: Numbers, states: Numbers) -> float:
        total = 0.0
        for piece, tracks, state in zip(self._pieces, residuals, states, strict=True):
            r = np.abs(self._flat(tracks))
            if not np.isfinite(r).all():
                return float("inf")
            total += float(np.where(r <= _HUBER, 0.5 * r * r, _HUBER * (r - 0.5 * _HUBER)).sum())
            moved = (state - np.concatenate((piece.qpos, piece.qvel)))[self._free]
            total += 0.5 * float((self._state_information * moved**2).sum())
        return total + 0.5 * _PRIOR * float(((z - self._scales.nominal) ** 2).sum())

    def _linear(self, z: Numbers, states: Numbers, residuals: list[list[Numbers]]) -> list[Linear]:
        """Residuals and derivatives of all pieces: one batch of simulations to either side of each unknown."""
        count, unknowns = len(self._pieces), len(z)
        here = [self._flat(tracks) for tracks in residuals]
        steps = [*([_STEP] * unknowns), *([_STATE_STEP] * len(self._free))]
        slopes = [np.empty((len(r), len(steps))) for r in here]
        for column, step in enumerate(steps):
            values, starts = np.repeat(z[None], 2 * count, axis=0), np.concatenate((states, states))
            moved, at = (values, column) if column < unknowns else (starts, self._free[column - unknowns])
            moved[:count, at] += step
            moved[count:, at] -= step
            shown = self._player.play([*self._pieces, *self._pieces], self._scales.outward(values), starts)
            flat = [
                self._flat(self._less(piece, tracks)) for piece, tracks in zip(self._pieces * 2, shown, strict=True)
            ]
            for w, r in enumerate(here):
                slopes[w][:, column] = _slope((flat[w] - r) / step, (r - flat[count + w]) / step)
        weights = [np.minimum(1.0, _HUBER / np.maximum(np.abs(r), 1e-12)) for r in here]
        parts = zip(here, weights, slopes, strict=True)
        return [Linear(r, w, s[:, :unknowns], s[:, unknowns:], self._state_information) for r, w, s in parts]

    def _solve(self, parts: list[Linear], z: Numbers, damping: float) -> tuple[Numbers, Numbers]:
        """The step of the world [P] and of all beginnings [W, S]; what lies at an end of its range stays there."""
        reduced = [part.reduced() for part in parts]
        information = sum((r[0] for r in reduced), np.zeros((len(z), len(z)))) + _PRIOR * np.eye(len(z))
        gradient = sum((r[1] for r in reduced), np.zeros(len(z))) + _PRIOR * (z - self._scales.nominal)
        while True:  # coordinates are alike in size, so damping adds the same to all: badly known ones move least
            step = _bounded_step(information + damping * np.eye(len(z)), gradient, z)
            if np.abs(step).max() <= _LONGEST:
                break
            damping = max(damping, 1e-6) * 4.0
        step = np.clip(z + step, -1.0, 1.0) - z
        return step, np.array([-(r[3] + r[2] @ step) for r in reduced])

    def _spread(self, residuals: list[list[Numbers]]) -> float:
        return float(np.sqrt(np.mean(np.concatenate([self._flat(tracks) for tracks in residuals]) ** 2)))

    def _finished(self, z: Numbers, states: Numbers, residuals: list[list[Numbers]], made: int) -> Fit:
        parts = self._linear(z, states, residuals)
        reduced = [part.reduced() for part in parts]
        noise: list[Numbers] = []
        for k in range(len(self._noise)):
            pooled = np.concatenate([tracks[k] for tracks in residuals])
            middle = np.median(np.abs(pooled), axis=0) / 0.6745
            noise.append(np.maximum(np.maximum(middle, 0.7 * pooled.std(axis=0)), _LEAST_NOISE))
        samples = sum(len(part.residual) for part in parts)
        return Fit(
            z, np.array([r[0] for r in reduced]), np.array([r[1] for r in reduced]), residuals, noise,
            self._cost(residuals, z, states) / samples, made, states, parts,
        )  # fmt: skip
