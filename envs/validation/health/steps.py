"""Asks one actuator after the other for a step: whether it does something, arrives, or rings between commands.

Contacts are switched off, so that nothing is in the way, and every motion is compared with one without the step, so
that gravity and a falling base do not count.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import mujoco
import numpy as np

from envs.validation.drives import Drive
from envs.validation.health.finding import Finding
from envs.validation.health.flips import LARGEST_STEP, SHARE
from envs.validation.health.motion import Motion, move
from envs.validation.health.rest import instability
from envs.validation.health.subject import Subject, units_of, without_contacts

STEP_S = 1.0  # that a step gets
_ARRIVED, _CREEPING = 0.7, 0.15  # shares of the step: made in all, and still made in the second half
_RINGING, _SEEN = 0.3, 4.0  # what is left of a swing when the next command comes; swings shorter than so many periods
_IDLE = 4.0  # times that a servo would settle within one control period: the tasks that come along have 0.1 to 0.8


@dataclass(frozen=True)
class Step:
    """A step of one servo, in the length of its actuator: what was asked, and [T] what came of it."""

    drive: Drive
    asked: float
    moved: np.ndarray
    motion: Motion


def stepped(subject: Subject, skip: set[int]) -> Iterator[tuple[Drive, list[Finding]]]:
    """Every drive with the first thing that is wrong with it; `skip`: actuators that are known to be ill."""
    subject = without_contacts(subject)
    start = subject.starts[0]
    still = subject.still(start)
    count = max(20, round(STEP_S / subject.model.opt.timestep))
    reference = move(subject.model, start, still, count)
    if reference.broken is not None:
        return
    servos = {drive.actuator for drive in subject.servos()}
    for drive in subject.drives():
        if drive.actuator in skip:
            continue
        if drive.actuator in servos:
            yield drive, _servo(subject, drive, start, still, reference)
        else:
            yield drive, _effect(subject, drive, start, still, reference)


def _servo(subject: Subject, drive: Drive, start: mujoco.MjData, still: np.ndarray, reference: Motion) -> list[Finding]:
    asked = _size(subject, drive, float(still[drive.column]))
    if asked == 0.0:
        return []
    ctrl = still.copy()
    ctrl[drive.column] += asked

    motion = move(subject.model, start, ctrl, len(reference.speed))
    if motion.broken is not None:
        return instability(subject, motion, f"move {subject.drive_name(drive)}")
    output = int(subject.model.actuator_outadr[drive.actuator])
    step = Step(drive, asked, motion.length[:, output] - reference.length[:, output], motion)
    return _arrival(subject, step) or _timing(subject, step)


def _size(subject: Subject, drive: Drive, command: float) -> float:
    """The step to ask for, in the units of ctrl, towards the side with more room; 0 where there is none."""
    model = subject.model
    low, high = drive.clips(model) or (-np.inf, np.inf)
    size = min(LARGEST_STEP * abs(drive.gear), SHARE * (high - low))
    if drive.joint is not None and model.jnt_limited[drive.joint] and drive.gear:
        ends = [float(end) * drive.gear for end in model.jnt_range[drive.joint]]
        low, high = max(low, min(ends)), min(high, max(ends))
        size = min(size, SHARE * max(high - low, 0.0))
    below, above = command - low, high - command
    if max(below, above) < size:
        return 0.0
    return size if above >= below else -size


def _arrival(subject: Subject, step: Step) -> list[Finding]:
    """A joint that is not where it was sent."""
    tail = max(len(step.moved) // 10, 1)
    share = float(step.moved[-tail:].mean()) / step.asked
    if _swing(step)[1] > _RINGING:  # it swings about where it has arrived on average
        share = float(step.moved[len(step.moved) // 2 :].mean()) / step.asked
        return [] if share >= _ARRIVED else _not_there(subject, step, share)
    creeping = share - float(step.moved[len(step.moved) // 2]) / step.asked
    if share >= _ARRIVED and creeping < _CREEPING:
        return []
    return _not_there(subject, step, share)


def _not_there(subject: Subject, step: Step, share: float) -> list[Finding]:
    unit, gear = _unit(subject, step.drive), step.drive.gear
    asked, moved = step.asked / gear, step.moved[-1] / gear
    evidence = f"asked to move by {asked:.3g} {unit}, it has moved by {moved:.3g} {unit} after {STEP_S:g} s"
    return [Finding("does_not_arrive", subject.drive_name(step.drive), evidence, _obstacle(subject, step, share))]


def _obstacle(subject: Subject, step: Step, share: float) -> str:
    """What keeps a servo from arriving."""
    model, drive = subject.model, step.drive
    kp, kv = -float(model.actuator_biasprm[drive.actuator, 1]), -float(model.actuator_biasprm[drive.actuator, 2])
    late = np.abs(step.motion.force[-20:, model.actuator_outadr[drive.actuator]])
    if model.actuator_forcelimited[drive.actuator]:
        most = float(np.abs(model.actuator_forcerange[drive.actuator]).max())
        if late.min() > 0.98 * most:
            return f"its force is limited to {most:.3g}, which does not move it: raise forcerange"
    if drive.joint is not None:
        dof = int(model.jnt_dofadr[drive.joint])
        friction = float(model.dof_frictionloss[dof])
        pull = kp * abs(step.asked * drive.gear)
        if friction >= 0.5 * pull:
            return f"dry friction of {friction:.3g} holds it against {pull:.3g}: raise kp or lower frictionloss"
        stiffness, damping = kp * drive.gear**2, float(model.dof_damping[dof]) + kv * drive.gear**2
        if stiffness > 0 and damping / stiffness > 0.5 * STEP_S:
            slow = f"damping {damping:.3g} over stiffness {stiffness:.3g} makes it slow ({damping / stiffness:.3g} s)"
            return f"{slow}: lower damping (kv) or raise kp"
        if model.jnt_stiffness[drive.joint] > 0.5 * stiffness:
            return f"its spring ({model.jnt_stiffness[drive.joint]:.3g}) is as stiff as the servo ({kp:.3g}): raise kp"
    if share < 0.05:
        return "something holds it: look for an equality constraint, a limit, or a second actuator"
    return "raise kp, or look for a spring or an equality constraint against it"


def _swing(step: Step) -> tuple[float, float]:
    """Physics steps of a swing about the target, and what is left of its height after one; (inf, 0) without any."""
    tail = max(len(step.moved) // 10, 1)
    off = step.moved / (step.moved[-tail:].mean() or step.asked) - 1.0
    there = np.flatnonzero(off >= 0.0)
    turns = np.flatnonzero(np.diff(np.sign(np.diff(off))) != 0) + 1
    turns = turns[(np.abs(off[turns]) > 0.05) & (turns > (there[0] if len(there) else len(off)))]
    if len(turns) < 3:
        return math.inf, 0.0
    steps, heights = 2.0 * float(np.diff(turns).mean()), np.abs(off[turns])
    return steps, min(1.0, float(heights[-1] / heights[0]) ** (2.0 / (len(turns) - 1)))


def _timing(subject: Subject, step: Step) -> list[Finding]:
    """A servo that swings faster than commands come and still swings at the next one, or has long stopped by then."""
    tail, h = max(len(step.moved) // 10, 1), subject.model.opt.timestep
    off = step.moved / step.moved[-tail:].mean() - 1.0
    settled_s = (int(np.flatnonzero(np.abs(off) > 0.1)[-1]) + 1) * h
    steps, kept = _swing(step)
    period_s, left = steps * h, kept ** (subject.period_s / (steps * h))
    if left > _RINGING and period_s < _SEEN * subject.period_s:
        evidence = (
            f"swings {1.0 / period_s:.3g} times a second about its target, with {1.0 / subject.period_s:.3g} commands "
            f"per second, and {100 * left:.0f} % of a swing is left at the next command"
        )
        remedy, better_s = "raise its damping (kv), lower kp, or send", 0.25 * period_s
    elif subject.period_s > _IDLE * settled_s:
        evidence = f"arrives {1000 * settled_s:.3g} ms after a command and stands still until the next one"
        remedy, better_s = "smooth the commands, lower kp, or send", settled_s
    else:
        return []
    return [
        Finding(
            "control_period",
            subject.drive_name(step.drive),
            evidence,
            f"the control period ({subject.period_s:g} s) is too long for its gains: {remedy} commands every "
            f"{better_s:.2g} s",
        )
    ]


def _effect(
    subject: Subject, drive: Drive, start: mujoco.MjData, still: np.ndarray, reference: Motion
) -> list[Finding]:
    """An actuator that is no servo has to do something at all; adhesion needs contacts for it, which are off here."""
    if int(subject.model.actuator_trntype[drive.actuator]) == int(mujoco.mjtTrn.mjTRN_BODY):
        return []
    count = min(len(reference.speed), max(5, round(0.1 / subject.model.opt.timestep)))
    for end in drive.clips(subject.model) or (-1.0, 1.0):
        ctrl = still.copy()
        ctrl[drive.column] = 0.5 * end
        motion = move(subject.model, start, ctrl, count)
        if motion.broken is not None:
            return instability(subject, motion, f"move {subject.drive_name(drive)}")
        if np.abs(motion.speed - reference.speed[:count]).max(initial=0.0) > 1e-6:
            return []
    return [
        Finding(
            "does_not_arrive",
            subject.drive_name(drive),
            f"half of its largest command changes no speed within {count * subject.model.opt.timestep:.2g} s",
            "look at its gear, gain and forcerange, and at what holds the joint",
        )
    ]


def _unit(subject: Subject, drive: Drive) -> str:
    return units_of(subject.model, drive.joint) if drive.joint is not None else "m or rad"
