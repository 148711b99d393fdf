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
from envs.validation.health.flips import commanded_at_random, flipping
from envs.validation.health.motion import Motion
from envs.validation.health.rest import (
    growing_energy,
    held,
    instability,
    penetrations,
    sagging,
    saturated,
)
from envs.validation.health.steps import stepped
from envs.validation.health.subject import Subject, without_contacts

REST_S = 1.0  # that a robot is asked to stay
SHORT_S = 0.25  # the same, in the short form


def checkup(subject: Subject, short: bool = False, fastest: dict[str, float] | None = None) -> list[Finding]:
    """What is wrong with a simulation; the environment of the subject, if it has one, is stepped unless `short`.

    Args:
        subject: to look at.
        short: look at the start, a short rest and all servos under random commands, which takes a fraction of a second.
        fastest: largest speed of joints by unit, "rad" (rad/s) and "m" (m/s); None: what joints of robots reach.
    """
    found, overlapping = penetrations(subject)
    if overlapping:
        subject = without_contacts(subject)
    rest = list(held(subject, SHORT_S if short else REST_S))
    broken = [motion for _, motion in rest if motion.broken is not None]
    if broken:
        return found + instability(subject, broken[0])
    moved = list(commanded_at_random(subject))
    flips, dofs = flipping(subject, [motion for _, motion in rest], moved)
    ill = {
        drive.actuator for drive in subject.drives() if drive.joint in {subject.model.dof_jntid[dof] for dof in dofs}
    }
    resting = _at_rest(subject, rest, ill)
    found += flips + resting
    if any(finding.kind == "energy" for finding in resting):
        return found
    if short:
        return found + [f for motion in moved for f in instability(subject, motion, "move all servos")][:1]
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


def _at_rest(subject: Subject, rest: list[tuple[mujoco.MjData, Motion]], ill: set[int]) -> list[Finding]:
    """What else a robot at rest shows; actuators that are known to be ill are left out, and added to `ill`."""
    found: list[Finding] = []
    well = not ill
    for start, motion in rest:
        weak = saturated(subject, motion, start, ill)
        weak += sagging(subject, motion, start, ill | {actuator for actuator, _ in weak})
        found += [finding for _, finding in weak]
        ill |= {actuator for actuator, _ in weak}
        if well:
            found += growing_energy(subject, motion)
        if found:
            break
    return found
