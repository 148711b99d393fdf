"""Finds the world in which a model shows what a log shows: multiple shooting, robust Gauss-Newton.

Each piece of the log begins in a state that is not known exactly, so its beginning is estimated too; these numbers
belong to one piece only and are eliminated from the normal equations (Bock 1983, multiple shooting; the Schur
complement of an arrowhead). Derivatives are differences of simulations, played as batches.

    cost(z) = sum over samples of rho(residual / noise),   rho: Huber's, so that a few wrong samples weigh little

What is fitted are trajectories of physics steps of no length (`steps`); derivatives may be of longer ones, and of
several unknowns at once (`groups`). The search ends where the derivatives are at right angles to the residuals: with
rough derivatives, instruments in the words of statistics, that is the true world as well, only on a longer way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simreal.identify.measured.pieces import noise_of
from simreal.identify.simulation import Piece, Player
from simreal.identify.unknowns import Scales

from .groups import divided, groups_of, reach_of
from .linear import HUBER, PRIOR, Fit, Linear, bounded_step, huber, slope
from .steps import Limit

Numbers = NDArray[np.float64]
_STEP = 1e-3  # of a prior range's half, for differences; a first one
_STATE_STEP = 1e-5  # rad, m or these per second, likewise
_SEEN = 0.01  # of the noise: how much is to be seen of a step, on average
_FARTHEST = 30.0  # times the first ones
_LONGEST = 0.4  # step, likewise
_LEAST_NOISE = 1e-7  # of a log without noise
_SHARE = 0.02  # of the spread of positions and speeds in a log: how wrong the state of a beginning may be, and more
_APART_S = 0.02  # of samples whose noise makes a speed that is not measured
_ITERATIONS = 40
_FINEST, _SETTLED = 16, 0.5  # parts of a physics step; of an interval's standard deviation
_WARM = 1e-3  # damping of a search that goes on where another ended
_ENOUGH = 1e-4  # of the prior range's half: a shorter step ends the search
_GAIN = 0.02  # a fifth of an interval's standard deviation


@dataclass(frozen=True)
class _Place:
    """Where a search is: a world, beginnings of pieces, what they leave, and the damping of the next step."""

    z: Numbers
    states: Numbers
    residuals: list[list[Numbers]]
    cost: float
    damping: float


class Fitter:
    """Fits a world to pieces of logs.

    Args:
        player: of the pieces; derivatives are those of its trajectories.
        pieces: W of them.
        scales: of the unknowns.
        told: called with a line of progress.
    """

    def __init__(
        self, player: Player, pieces: Sequence[Piece], scales: Scales, told: Callable[[str], None] | None = None
    ) -> None:
        self.player: Player = player
        self.exact: Player | Limit = player
        self._pieces, self._scales, self._told = list(pieces), scales, told
        tracks = pieces[0].recording.tracks
        positions = [k for k, track in enumerate(tracks) if track.kind == "position"]
        shown = np.concatenate([tracks[k].columns for k in positions])
        self._free = np.concatenate((shown, player.model.nv + shown))  # of a beginning
        self._noise = [
            np.maximum(np.median([noise_of(p.recording.tracks[k]) for p in pieces], axis=0), _LEAST_NOISE)
            for k in range(len(tracks))
        ]
        self.begun = np.array([np.concatenate((piece.position, piece.velocity)) for piece in pieces])
        # A beginning is known from the samples around it, to a share of how far joints moved and how fast.
        noise = np.concatenate([self._noise[k] for k in positions])
        known = np.concatenate((noise, noise / _APART_S))
        self._known = (_SHARE * self.begun[:, self._free].std(axis=0) + 10.0 * known) ** -2.0
        self._joints = [self._joints_of(piece) for piece in pieces]
        self._slopes: list[Numbers] = []  # per piece, [m, C] in units of noise
        self.groups: list[list[int]] = []
        self._reach = np.empty((0, 0))
        self._steps = np.empty(0)  # [C]

    def fit(self, z: Numbers, states: Numbers | None = None, gain: float = _GAIN, often: bool = True) -> Fit:
        """The best world near z [P].

        Args:
            z: where the search starts.
            states: [W, 2 nv] beginnings, likewise; None: as the log shows them.
            gain: of the cost, half a squared noise, below which a step was the last.
            often: whether derivatives are made anew at every step, those of a group of unknowns at once. Else they are
                made at the first, each by itself: what a log does not tell apart shows only if they fit each other.

        Raises:
            ValueError: the simulation is unstable there.
        """
        damping, made, fresh = (1.0 if states is None else _WARM), 0, False
        states = self.begun if states is None else states
        residuals = self._residuals(z, states)
        cost = self._cost(residuals, z, states)
        if not np.isfinite(cost):
            raise ValueError("the simulation is unstable where the search starts")
        if not self._slopes:
            self.differentiate(z, states)
        for made in range(1, _ITERATIONS + 1):
            if often or made == 1 or fresh:
                (self.differentiate_groups if often else self.differentiate)(z, states)
                fresh = True
            found = self._descended(z, states, residuals, cost, damping)
            if found is None:
                if fresh:
                    break
                fresh = True  # derivatives may be too old
                continue
            step, gained = found.z - z, cost - found.cost
            z, states, residuals, cost, damping = found.z, found.states, found.residuals, found.cost, found.damping
            fresh = False
            if self._told is not None:
                spread = self._spread(residuals)
                self._told(f"iteration {made}: residuals of {spread:.2f} noise, cost {cost:.1f} ({gained:.2g} less)")
            if np.abs(step).max() < _ENOUGH or gained < gain:
                break
        return self.finished(z, states, residuals, made)

    def _descended(
        self, z: Numbers, states: Numbers, residuals: list[list[Numbers]], cost: float, damping: float
    ) -> _Place | None:
        """A place of lower cost, by a step with the derivatives at hand that is shortened until it leads there."""
        parts = self._parts(states, residuals)
        length = np.inf
        while length >= _ENOUGH:
            step, change = self._solve(parts, z, damping)
            trial, moved = np.clip(z + step, -1.0, 1.0), states.copy()
            moved[:, self._free] += change
            tried = self._residuals(trial, moved)
            now = self._cost(tried, trial, moved)
            if now < cost:
                return _Place(trial, moved, tried, now, damping / 5.0)
            damping, length = max(damping, _WARM) * 10.0, np.abs(step).max()
        return None

    def look(self, z: Numbers) -> Fit:
        """A world as if it were the best one: what pieces tell there."""
        self.differentiate(z, self.begun)
        self.differentiate_groups(z, self.begun)
        return self.finished(z, self.begun, self._residuals(z, self.begun), 0)

    def cost_at(self, z: Numbers) -> float:
        """The cost of a world without moving the beginnings; inf where it is unstable."""
        cost = self._cost(self._residuals(z, self.begun), z, self.begun)
        return cost if np.isfinite(cost) else np.inf

    def keep(self, kept: NDArray[np.bool_]) -> None:
        """Go on with some of the pieces [W] only."""
        rows = np.flatnonzero(kept).tolist()
        self.begun = self.begun[kept]
        self._pieces = [self._pieces[k] for k in rows]
        self._joints = [self._joints[k] for k in rows]
        self._slopes = [self._slopes[k] for k in rows]

    def motion(self) -> float:
        """How much the log moves within pieces, in units of noise: the root of the mean square."""
        moved = [
            self._flat(
                [t.values[at] - t.values[at].mean(axis=0) for t, at in zip(p.recording.tracks, p.samples, strict=True)]
            )
            for p in self._pieces
        ]
        return float(np.sqrt(np.mean(np.concatenate(moved) ** 2)))

    def rescale(self, fit: Fit) -> None:
        """Take the noise as the residuals have it: what a model cannot explain counts as noise, or intervals lie."""
        before = [self._divisor(piece) for piece in self._pieces]
        self._noise = fit.noise
        self._slopes = [
            slopes * (old / self._divisor(piece))[:, None]
            for slopes, piece, old in zip(self._slopes, self._pieces, before, strict=True)
        ]

    def settle(self, z: Numbers, states: Numbers, limit: Limit) -> Limit:
        """A limit whose steps are short enough: with steps half as long the best world would hardly move."""
        while limit.finer < _FINEST:
            self.exact = limit
            fit = self.finished(z, states, self._residuals(z, states), 0)
            finer = limit.halved()
            wide = np.sqrt(np.diag(fit.covariance()))
            if np.isfinite(fit.cost) and (np.abs(self.shift(fit, finer)) < _SETTLED * wide).all():
                break
            limit = finer
        self.exact = limit
        if self._told is not None:
            step_ms = 1e3 * limit.step_s
            self._told(f"led on from physics steps of {step_ms:.3g} and {step_ms / 2:.3g} ms")
        return limit

    def shift(self, fit: Fit, limit: Limit) -> Numbers:
        """How far [P] the best world would move if trajectories were those of another limit, to first order; 0 where
        those are unstable."""
        values = np.repeat(self._scales.outward(fit.z)[None], len(self._pieces), axis=0)
        shown = limit.play(self._pieces, values, fit.states)
        residuals = [self._less(piece, tracks) for piece, tracks in zip(self._pieces, shown, strict=True)]
        changes = [self._flat(now) - self._flat(before) for now, before in zip(residuals, fit.residuals, strict=True)]
        finite = all(np.isfinite(change).all() for change in changes)
        return fit.towards(changes) if finite else np.zeros_like(fit.z)

    def differentiate(self, z: Numbers, states: Numbers) -> None:
        """Derivatives of every unknown by itself, and which can be moved together from now on."""
        here = self._played(self.player, self._pieces, np.repeat(z[None], len(states), axis=0), states)
        kinds = [*([0] * len(z)), *([1] * len(self._free))]
        first = np.where(kinds, _STATE_STEP, _STEP)
        steps = self._steps if len(self._steps) else first
        slopes = [np.empty((len(joints), len(kinds))) for joints in self._joints]
        for column in range(len(kinds)):
            for k, change in enumerate(self._moved(z, states, [column], steps, here)):
                slopes[k][:, column] = change / steps[column]
        self._slopes = slopes
        self._reach = reach_of(slopes, self._joints, self.player.model.nv)
        self.groups = groups_of(self._reach, kinds)
        # Unknowns of which a log tells little but their sum pass the same kinks of dry friction if as much is seen of
        # the step of each; else their derivatives differ there, as if they could be told apart.
        samples = sum(len(joints) for joints in self._joints)
        wanted = _SEEN / np.sqrt(np.maximum(self._reach.sum(axis=1), 1e-300) / samples)
        self._steps = np.clip(wanted, first / _FARTHEST, first * _FARTHEST)

    def differentiate_groups(self, z: Numbers, states: Numbers) -> None:
        """Derivatives here; of unknowns that different joints show, at once."""
        here = self._played(self.player, self._pieces, np.repeat(z[None], len(states), axis=0), states)
        for group in self.groups:
            owners = np.array(group)[self._reach[group].argmax(axis=0)]
            for k, change in enumerate(self._moved(z, states, group, self._steps, here)):
                self._slopes[k] = divided(change, self._slopes[k], group, owners[self._joints[k]], self._steps)

    def _moved(
        self, z: Numbers, states: Numbers, group: list[int], steps: Numbers, here: list[Numbers]
    ) -> list[Numbers]:
        """Per piece the change [m] by a step of all unknowns of a group together, by simulations to either side of
        `here`."""
        count, unknowns = len(self._pieces), len(z)
        values, starts = np.repeat(z[None], 2 * count, axis=0), np.concatenate((states, states))
        for column in group:
            moved, at = (values, column) if column < unknowns else (starts, self._free[column - unknowns])
            moved[:count, at] += steps[column]
            moved[count:, at] -= steps[column]
        flat = self._played(self.player, [*self._pieces, *self._pieces], values, starts)
        return [slope(ahead - r, r - behind) for ahead, r, behind in zip(flat[:count], here, flat[count:], strict=True)]

    def _played(self, player: Player, pieces: list[Piece], z: Numbers, states: Numbers) -> list[Numbers]:
        """Residuals [m] of pieces in worlds z [R, P], from states [R, 2 nv], in units of noise."""
        shown = player.play(pieces, self._scales.outward(z), states)
        return [self._flat(self._less(piece, tracks)) for piece, tracks in zip(pieces, shown, strict=True)]

    def _residuals(self, z: Numbers, states: Numbers) -> list[list[Numbers]]:
        values = np.repeat(self._scales.outward(z)[None], len(self._pieces), axis=0)
        shown = self.exact.play(self._pieces, values, states)
        return [self._less(piece, tracks) for piece, tracks in zip(self._pieces, shown, strict=True)]

    @staticmethod
    def _less(piece: Piece, tracks: list[Numbers]) -> list[Numbers]:
        pairs = zip(piece.recording.tracks, piece.samples, tracks, strict=True)
        return [track.values[where] - shown for track, where, shown in pairs]

    def _divisor(self, piece: Piece) -> Numbers:
        """Noise of each of a piece's samples [m]."""
        pairs = zip(piece.samples, self._noise, strict=True)
        return np.concatenate([np.tile(noise, len(where)) for where, noise in pairs])

    @staticmethod
    def _joints_of(piece: Piece) -> NDArray[np.int64]:
        """Of each of a piece's samples [m], which coordinate it is of."""
        pairs = zip(piece.recording.tracks, piece.samples, strict=True)
        return np.concatenate([np.tile(track.columns, len(where)) for track, where in pairs])

    def _flat(self, tracks: list[Numbers]) -> Numbers:
        return np.concatenate([(r / noise).ravel() for r, noise in zip(tracks, self._noise, strict=True)])

    def _cost(self, residuals: list[list[Numbers]], z: Numbers, states: Numbers) -> float:
        total = 0.0
        for tracks, state, begun in zip(residuals, states, self.begun, strict=True):
            r = self._flat(tracks)
            if not np.isfinite(r).all():
                return float("inf")
            total += huber(r) + 0.5 * float((self._known * (state - begun)[self._free] ** 2).sum())
        return total + 0.5 * PRIOR * float(((z - self._scales.nominal) ** 2).sum())

    def _parts(self, states: Numbers, residuals: list[list[Numbers]]) -> list[Linear]:
        """Residuals and derivatives of all pieces."""
        parts: list[Linear] = []
        unknowns = len(self._scales.nominal)
        for tracks, slopes, state, begun in zip(residuals, self._slopes, states, self.begun, strict=True):
            r = self._flat(tracks)
            weight = np.minimum(1.0, HUBER / np.maximum(np.abs(r), 1e-12))
            pull = self._known * (state - begun)[self._free]
            parts.append(Linear(r, weight, slopes[:, :unknowns], slopes[:, unknowns:], self._known, pull))
        return parts

    def _solve(self, parts: list[Linear], z: Numbers, damping: float) -> tuple[Numbers, Numbers]:
        """The step of the world [P] and of all beginnings [W, S]; what lies at an end of its range stays there."""
        reduced = [part.reduced() for part in parts]
        information = sum((r[0] for r in reduced), np.zeros((len(z), len(z)))) + PRIOR * np.eye(len(z))
        gradient = sum((r[1] for r in reduced), np.zeros(len(z))) + PRIOR * (z - self._scales.nominal)
        while True:  # coordinates are alike in size, so damping adds the same to all: badly known ones move least
            step = bounded_step(information + damping * np.eye(len(z)), gradient, z)
            if np.abs(step).max() <= _LONGEST:
                break
            damping = max(damping, 1e-6) * 4.0
        step = np.clip(z + step, -1.0, 1.0) - z
        return step, np.array([-(r[3] + r[2] @ step) for r in reduced])

    def _spread(self, residuals: list[list[Numbers]]) -> float:
        return float(np.sqrt(np.mean(np.concatenate([self._flat(tracks) for tracks in residuals]) ** 2)))

    def finished(self, z: Numbers, states: Numbers, residuals: list[list[Numbers]], made: int) -> Fit:
        """What was found, with the derivatives at hand."""
        parts = self._parts(states, residuals)
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
