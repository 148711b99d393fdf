"""The whole look: what is wrong with a simulation, each defect once and by its own name.

One defect has many consequences: a joint that flips does not arrive either, bodies that overlap push each other apart.
So what was found decides what is still asked: of overlapping bodies contacts are left out, of a joint that is known to
be ill nothing more is said, and a simulation that explodes at rest is not moved.
"""

from __future__ import annotations

import mujoco

from envs.task import Task
from envs.validation.health.actions import FASTEST, under_random_actions
from envs.validation.health.finding import Finding
from envs.validation.health.motion import move
from envs.validation.health.rest import (
    Again,
    flip_finding,
    flipping,
    growing_energy,
    held,
    instability,
    penetrations,
    sagging,
    saturated,
)
from envs.validation.health.steps import stepped, stepped_together, without_contacts
from envs.validation.health.subject import Subject

REST_S = 1.0  # that a robot is asked to stay
SHORT_S = 0.25  # the same, in the short form


def checkup(subject: Subject, short: bool = False, fastest: dict[str, float] | None = None) -> list[Finding]:
    """What is wrong with a simulation; the environment of the subject, if it has one, is stepped unless `short`.

    Args:
        subject: to look at.
        short: look at the start, a short rest and one step of all servos, which takes a fraction of a second.
        fastest: largest speed of joints by unit, "rad" (rad/s) and "m" (m/s); None: what joints of robots reach.
    """
    found, overlapping = penetrations(subject)
    if overlapping:
        subject = without_contacts(subject)
    resting, ill = _at_rest(subject, SHORT_S if short else REST_S)
    found += resting
    if any(finding.kind == "energy" for finding in resting):
        return found
    if short:
        return found + stepped_together(subject, ill)
    for drive, findings in stepped(subject, ill):
        found += findings
        if findings:
            ill.add(drive.actuator)
    found += under_random_actions(subject, ill, FASTEST | (fastest or {}))
    return list({(finding.kind, finding.of): finding for finding in found}.values())


def sorted_out(task: Task | None, found: list[Finding]) -> tuple[list[Finding], list[Finding]]:
    """What is wrong, and what the task says that it accepts (`Task.accepted`)."""
    accepted = {} if task is None else task.accepted
    return [f for f in found if f.kind not in accepted], [f for f in found if f.kind in accepted]


def _at_rest(subject: Subject, seconds: float) -> tuple[list[Finding], set[int]]:
    """What a robot at rest shows, and the actuators that are known to be ill then."""
    found: list[Finding] = []
    ill: set[int] = set()
    for start, motion in held(subject, seconds):
        found += instability(subject, motion)
        if motion.broken is not None:
            break
        flips = flipping(motion)
        again = _rest_of(subject, start, len(motion.speed))
        found += [flip_finding(subject, motion, dof, again) for dof in flips]
        joints = {int(subject.model.dof_jntid[dof]) for dof in flips}
        ill |= {drive.actuator for drive in subject.drives() if drive.joint in joints}
        weak = saturated(subject, motion, start, joints)
        weak += sagging(subject, motion, start, ill | {actuator for actuator, _ in weak})
        found += [finding for _, finding in weak]
        ill |= {actuator for actuator, _ in weak}
        if not flips:
            found += growing_energy(subject, motion)
        if found:
            break
    return found, ill


def _rest_of(subject: Subject, start: mujoco.MjData, steps: int) -> Again:
    """The rest of another model from the same start."""
    still = subject.still(start)
    return lambda model: [move(model, start, still, steps, nudge=True)]
