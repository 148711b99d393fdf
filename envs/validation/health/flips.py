"""Looks for joints whose speed changes its sign from physics step to physics step, and for the armature that ends it.

Such motion is of the integrator, not of the robot. MuJoCo takes the damping of a servo into account implicitly only
while its force is within forcerange; at the end of it the force is constant for a step and changes speed by F h / I.
Where damping times timestep is more than twice the inertia that the servo moves (kv h > 2 I), that overshoots, the
force of the next step is at the other end, and so on: a servo that flips pushes one way as much as the other, so it
does not follow its command, and what is measured of its speed is noise as large as the motion. With a timestep twenty
times as short it is gone. Whether the cycle is entered depends on where the joint is and on what is asked, so one step
shows little; random commands show it. A few flips after a step, in a tenth of all physics steps or less, leave
positions as they are, and are no finding.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator

import mujoco
import numpy as np

from envs.validation.health.finding import Finding
from envs.validation.health.motion import Motion, move, moved_about
from envs.validation.health.subject import Subject, units_of, without_contacts

MOVED_S = 1.5  # of simulated time under random commands, from each start
LARGEST_STEP, SHARE = 0.2, 0.25  # rad or m, and share of the range of commands
_CHATTER = 0.05  # rad/s or m/s: below it, flips are rounding
# Shares of physics steps: servos of tasks that come along flip in up to 0.13 of them, those that do not follow in 0.25
# or more.
_FLIPS, _CURED = 0.2, 0.13
_WINDOW = 100
_ARMATURES = [m * 10.0**e for e in range(-5, 3) for m in (1.0, 2.0, 5.0)]  # kg m^2 or kg


def flips(speed: np.ndarray, steps: int = 1) -> np.ndarray:
    """Whether speeds [T, nv] have the other sign so many steps later, [T - steps, nv] of bool."""
    before, after = speed[:-steps], speed[steps:]
    return (before * after < 0) & (np.minimum(np.abs(before), np.abs(after)) > _CHATTER)


def flip_share(speed: np.ndarray) -> np.ndarray:
    """In which share of the steps speeds [T, nv] flip, [nv].

    From one step to the next; or, in some `_WINDOW` steps on end, by way of standing still, as of a servo without any
    damping but its own: full speed, none, full speed back, none. (Steps are compared with the last but one for that,
    which finds a single change of sign twice.)
    """
    slow = np.cumsum(np.pad(flips(speed, 2), ((1, 0), (0, 0))), axis=0) if len(speed) > 2 else np.zeros((1, 1))
    width = min(_WINDOW, len(slow) - 1)
    if width < 1:
        return np.zeros(speed.shape[1])
    return np.maximum(flips(speed).mean(axis=0), 0.5 * (slow[width:] - slow[:-width]).max(axis=0) / width)


def flipping(subject: Subject, rest: list[Motion], moved: list[Motion]) -> tuple[list[Finding], set[int]]:
    """Joints that flip, the worst first, each with the armature that ends it; and their degrees of freedom.

    Joints that are coupled flip together: of what the cures of others end, nothing is said.

    Args:
        subject: that moved.
        rest: what it did at rest, from each start.
        moved: what it did under random commands, from each start.
    """
    named: dict[int, Finding] = {}
    subject = without_contacts(subject)
    motions, shares = rest + moved, _shares(rest + moved, subject.model.nv)
    ill = {int(dof) for dof in np.flatnonzero(shares > _FLIPS)}
    while True:
        worst = max(ill - named.keys(), key=lambda dof: shares[dof], default=None)
        if worst is None or shares[worst] <= _FLIPS:
            return list(named.values()), ill
        cured = _cure(subject, worst, len(rest[0].speed))
        named[worst] = _finding(subject, worst, rest, moved, cured)
        if cured is not None:
            subject.model = _with_armature(subject.model, worst, cured)
            motions = list(_motions(subject, subject.model, len(rest[0].speed)))
            shares = _shares(motions, subject.model.nv)


def commanded_at_random(subject: Subject, model: mujoco.MjModel | None = None) -> Iterator[Motion]:
    """What all servos do, from each start and without contacts, under commands uniform around where they are."""
    subject = without_contacts(subject)
    for number, start in enumerate(subject.starts):
        still = subject.still(start)
        reach = np.zeros_like(still)
        for drive in subject.drives():
            low, high = drive.clips(subject.model) or (-np.inf, np.inf)
            size = LARGEST_STEP * abs(drive.gear) if drive.follows == "position" else 1.0
            if drive.follows in ("position", "velocity"):
                reach[drive.column] = min(size, SHARE * (high - low))
        count = max(1, round(MOVED_S / (subject.decimation * subject.model.opt.timestep)))
        random = np.random.default_rng(number).uniform(-1.0, 1.0, (count, len(still)))
        yield moved_about(model or subject.model, start, still + reach * random, subject.decimation)


def _motions(subject: Subject, model: mujoco.MjModel, rest_steps: int) -> Iterator[Motion]:
    """The motions that showed it, of another model."""
    yield from commanded_at_random(subject, model)
    for start in subject.starts:
        yield move(model, start, subject.still(start), rest_steps, nudge=True)


def _shares(motions: Iterable[Motion], nv: int) -> np.ndarray:
    """The largest share of a motion's physics steps in which each degree of freedom flips, [nv]."""
    return np.max([np.zeros(nv)] + [flip_share(m.speed) for m in motions if m.broken is None], axis=0)


def _cure(subject: Subject, dof: int, rest_steps: int) -> float | None:
    """The least round armature with which a joint no longer flips; None where none ends it."""
    candidates = [a for a in _ARMATURES if a > subject.model.dof_armature[dof]]
    low, high = 0, len(candidates)
    while low < high:  # more inertia flips less
        middle = (low + high) // 2
        model = _with_armature(subject.model, dof, candidates[middle])
        calm = (m.broken is None and flip_share(m.speed)[dof] < _CURED for m in _motions(subject, model, rest_steps))
        low, high = (low, middle) if all(calm) else (middle + 1, high)
    return candidates[low] if low < len(candidates) else None


def _with_armature(model: mujoco.MjModel, dof: int, armature: float) -> mujoco.MjModel:
    model = copy.copy(model)
    model.dof_armature[dof] = armature
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


def _finding(subject: Subject, dof: int, rest: list[Motion], moved: list[Motion], cure: float | None) -> Finding:
    """What to say of a degree of freedom that flips."""
    still, busy = (float(_shares(motions, subject.model.nv)[dof]) for motions in (rest, moved))
    shown = rest if still > busy else moved
    speed = np.abs(np.concatenate([m.speed[:, dof] for m in shown if m.broken is None]))
    joint = int(subject.model.dof_jntid[dof])
    unit = units_of(subject.model, joint)
    remedy = "lower the damping (kv) of what drives it, or the timestep"
    if cure is not None:
        kind, armature = "kg m^2" if unit == "rad" else "kg", float(subject.model.dof_armature[dof])
        remedy = f"give it a rotor: armature {cure:g} {kind} (it has {armature:g}) ends it; or {remedy}"
    when, usual = "at rest" if still > busy else "under random commands", np.median(speed[speed > _CHATTER])
    evidence = (
        f"its speed flips its sign from physics step to physics step, about ±{usual:.3g} {unit}/s, "
        f"in {100 * max(still, busy):.0f} % of all steps {when}"
    )
    return Finding("sign_flips", subject.joint_name(joint), evidence, remedy, cure)
