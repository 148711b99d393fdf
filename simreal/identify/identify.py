"""From logs to what is known of the world: starts, fits, intervals, and a look at what was held back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from envs.task import Task
from randomization.parameters import Parameter
from simreal.common.errors import UserError

from .fitting.fit import Fitter
from .fitting.linear import Fit
from .fitting.steps import Limit
from .knowledge import Knowledge, knowledge
from .measured.pieces import cut, noise_of, touching
from .measured.recording import Recording
from .simulation import Piece, Player
from .unknowns import Scales, Unknown, unknown_of

Numbers = NDArray[np.float64]
_HELD_BACK = 5  # every fifth piece is not fitted
_DELAYS = 7  # tried, evenly over their range
_FEWEST = 6  # pieces
_ODD, _ODD_SHARE = 5.0, 0.3  # times what the median of the pieces leaves, and of the motion: more is left out
_MOST_ODD, _ODD_ROUNDS = 1.0 / 3.0, 4  # of all pieces; where more are odd, the model is
_ROUGH = 4  # times the shortest steps, of derivatives
_GAINS = (1.0, 0.02)  # of the cost, half a squared noise, with which fits end


@dataclass(frozen=True)
class HeldBack:
    """How well pieces that were not fitted are explained, for one track.

    Attributes:
        kind: position or velocity.
        joints: n names.
        noise: [n] of the log.
        nominal, identified: [n] root mean square of measured less simulated, by the model as it is and by the best
            world of the model at its own timestep; `Knowledge` leads values on to a robot without one.
    """

    kind: str
    joints: tuple[str, ...]
    noise: Numbers
    nominal: Numbers
    identified: Numbers


@dataclass(frozen=True)
class Identified:
    """All that `identify` found.

    Attributes:
        knowledge: of each unknown.
        fit: the best one.
        held_back: per track.
        pieces: fitted; their length is `length_s`.
        left_out: pieces that no world near the best one explains, as falls and feet that slip or lift are.
        example: pieces that were held back, with what is shown of them by the model as it is and as identified.
    """

    knowledge: Knowledge
    fit: Fit
    held_back: tuple[HeldBack, ...]
    pieces: int
    left_out: int
    length_s: float
    example: tuple[tuple[Piece, list[Numbers], list[Numbers]], ...]


def identify(
    task: Task,
    recordings: Sequence[Recording],
    parameters: Sequence[Parameter],
    *,
    offsets: Sequence[tuple[str, float]] = (),
    length_s: float = 0.5,
    starts: int = 4,
    seed: int = 0,
    threads: int | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Identified:
    """What logs tell of a robot's parameters.

    Args:
        task: with the robot's model.
        recordings: of one robot.
        parameters: looked for; their limits are what is believed beforehand.
        offsets: joints whose sensors may be off, with the largest offset, rad or m.
        length_s: of the pieces that logs are cut into: motion over longer times tells more of slow effects, and errors
            grow over it.
        starts: places from which the search begins: the model as it is, and others at random.
        seed: of those, and of the bootstrap.
        threads: of physics.
        say: told of progress.

    Raises:
        UserError: the logs are too short or show other joints than the first, or the simulation is unstable.
    """
    _check_alike(recordings)
    unknowns = [unknown_of(parameter) for parameter in parameters]
    unknowns += [
        Unknown(f"{joint} offset", "offset", 0.0, (-most, most), "rad or m", joint=joint) for joint, most in offsets
    ]
    if not unknowns:
        raise UserError("nothing to look for: expected parameters, or offsets of sensors")
    scales = Scales(unknowns)
    late = next((u.limits[1] for u in unknowns if u.role == "delay"), 0.0) * 1e-3
    steps = max(2, round(length_s / float(task.model.opt.timestep)))
    contacts = touching(recordings, task.model)
    make = cache(lambda finer: Player(task, unknowns, steps, threads, finer, contacts))
    player = make(1)
    pieces = cut(recordings, player.model, length_s, late)
    if len(pieces) < _FEWEST:
        raise UserError(
            f"{recordings[0].name}: {len(pieces)} pieces of {length_s:g} s, expected at least {_FEWEST}: a longer "
            "log, or shorter pieces"
        )
    kept_back = pieces[_HELD_BACK // 2 :: _HELD_BACK]
    fitted = [piece for k, piece in enumerate(pieces) if k % _HELD_BACK != _HELD_BACK // 2]
    say(f"{len(unknowns)} unknowns, {len(fitted)} pieces of {length_s:g} s, {len(kept_back)} held back")
    fitter = Fitter(player, fitted, scales, say)
    fit, limit = _fitted(fitter, _start(fitter, unknowns, scales, starts, seed, say), make, say)
    led_on = fitter.shift(fit, limit.halved()) * 4.0 / 3.0  # what is left goes with the square of the step
    known = knowledge(fit, unknowns, scales, seed, led_on)
    held_back, example = _compared(player, kept_back, scales, fit.z)
    used = len(fit.states)
    return Identified(known, fit, held_back, used, len(fitted) - used, length_s, example)


def _fitted(fitter: Fitter, z: Numbers, make: Callable[[int], Player], say: Callable[[str], None]) -> tuple[Fit, Limit]:
    """The best world near z, and the limit whose trajectories it explains the log with.

    A first one is found with the model's own steps, and half of them; from there on steps are as short as it takes, but
    those of derivatives, which need not be.
    """
    fitter.exact = limit = Limit(make, 1)
    fitter.differentiate(z, fitter.begun)
    fit = fitter.fit(z, gain=1.0)
    motion, fewest = fitter.motion(), max(_FEWEST, (1.0 - _MOST_ODD) * len(fit.states))
    for _ in range(_ODD_ROUNDS):
        kept = _explained(fit, motion)
        if kept.all() or kept.sum() < fewest:
            break
        say(f"left out {(~kept).sum()} pieces that are explained far worse than others")
        fitter.keep(kept)
        fit = fitter.fit(fit.z, fit.states[kept], gain=1.0)
    for gain in _GAINS:
        fitter.rescale(fit)  # what the last one left may have been more than noise
        limit = fitter.settle(fit.z, fit.states, limit)
        fitter.player = make(max(1, limit.finer // _ROUGH))
        fit = fitter.fit(fit.z, fit.states, gain, often=False)
    return fit, limit


def _explained(fit: Fit, motion: float) -> NDArray[np.bool_]:
    """Which pieces [W] go on: not those whose motion is another one than that of all others. Where a foot slips or
    lifts a little sooner, or a robot falls, what follows tells nothing of the world, and however little a large
    residual weighs, there are many of them. A model that lacks something leaves much where the robot moves and little
    where it rests, but little of the `motion` itself, which is in units of noise."""
    left = np.array([np.sqrt(np.mean(part.residual**2)) for part in fit.parts])
    return left <= max(_ODD * np.median(left), _ODD_SHARE * motion)


def _check_alike(recordings: Sequence[Recording]) -> None:
    """Raise UserError where logs show other joints than the first."""
    shown = [[(str(track.kind), track.joints) for track in recording.tracks] for recording in recordings]
    for recording, tracks in zip(recordings, shown, strict=True):
        if tracks != shown[0]:
            raise UserError(
                f"{recording.name}: shows {_listed(tracks)}, but {recordings[0].name} {_listed(shown[0])}; expected "
                "logs that show the same joints in the same order"
            )


def _listed(tracks: list[tuple[str, tuple[str, ...]]]) -> str:
    return " and ".join(f"{kind} of {', '.join(joints)}" for kind, joints in tracks)


def _start(
    fitter: Fitter, unknowns: Sequence[Unknown], scales: Scales, starts: int, seed: int, say: Callable[[str], None]
) -> Numbers:
    """The best of some worlds: that of the model, and others drawn evenly from the prior ranges."""
    generator = np.random.default_rng(seed)
    delay = next((k for k, u in enumerate(unknowns) if u.role == "delay"), None)
    drawn = [scales.nominal, *(generator.uniform(-0.8, 0.8, len(scales.nominal)) for _ in range(max(starts, 1) - 1))]
    if delay is not None:  # of all unknowns the one with the most valleys
        for late in np.linspace(-0.9, 0.9, _DELAYS):
            drawn.append(scales.nominal.copy())
            drawn[-1][delay] = late
    costs = [fitter.cost_at(z) for z in drawn]
    if not np.isfinite(min(costs)):
        raise UserError("the simulation is unstable in every world tried: see `simreal check`")
    say(f"starts from the best of {len(drawn)} worlds")
    return drawn[int(np.argmin(costs))].copy()


def _compared(
    player: Player, pieces: list[Piece], scales: Scales, z: Numbers
) -> tuple[tuple[HeldBack, ...], tuple[tuple[Piece, list[Numbers], list[Numbers]], ...]]:
    """Pieces that were not fitted, from the states that the log shows at their beginnings."""
    states = np.array([np.concatenate((piece.position, piece.velocity)) for piece in pieces])
    shown = [
        player.play(pieces, np.repeat(scales.outward(at)[None], len(pieces), axis=0), states)
        for at in (scales.nominal, z)
    ]
    compared: list[HeldBack] = []
    for k, track in enumerate(pieces[0].recording.tracks):
        errors = [
            np.concatenate(
                [p.recording.tracks[k].values[p.samples[k]] - s[k] for p, s in zip(pieces, worlds, strict=True)]
            )
            for worlds in shown
        ]
        nominal, identified = (np.sqrt((error**2).mean(axis=0)) for error in errors)
        compared.append(HeldBack(track.kind, track.joints, noise_of(track), nominal, identified))
    return tuple(compared), tuple(zip(pieces, shown[0], shown[1], strict=True))
