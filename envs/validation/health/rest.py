"""Looks at a robot that is asked to stay where it is: overlaps at the start, energy that grows, actuators at the end of
their force."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import mujoco
import numpy as np

from envs.validation.health.finding import Finding
from envs.validation.health.motion import Motion, knows_energy, move
from envs.validation.health.subject import Subject, units_of

_DEEP, _DEEP_SHARE = 1e-3, 0.02  # m, and of the smaller geom's size
_GROWTH = 0.25  # of the largest energy of motion
_SMALLEST = 1e-4  # J per kg: below it, growth is noise
_SAG = {"rad": 0.4, "m": 0.1}  # servos of the tasks that come along give way by 0.26 rad at most
_AT_LIMIT, _AT_LIMIT_SHARE = 0.995, 0.9  # of the limit, and share of steps
_EULER, _RK4 = int(mujoco.mjtIntegrator.mjINT_EULER), int(mujoco.mjtIntegrator.mjINT_RK4)


def penetrations(subject: Subject) -> tuple[list[Finding], bool]:
    """Geoms that overlap at the start of an episode, the deepest pair of bodies first; and whether there are any."""
    model, deepest = subject.model, {}
    for data in subject.starts:
        for contact in data.contact[: data.ncon]:
            if contact.exclude:
                continue
            one, other = sorted(int(g) for g in contact.geom)
            if one < 0:
                continue
            sizes = [r for r in (model.geom_rbound[one], model.geom_rbound[other]) if r > 0] or [1.0]
            soft = float(contact.solimp[2])  # contacts stiffen over so many metres: feet may be made to sink in
            if -contact.dist > max(_DEEP, soft, _DEEP_SHARE * min(sizes)):
                deepest[one, other] = max(deepest.get((one, other), 0.0), -float(contact.dist))
    found = [
        Finding(
            "penetration",
            f"{subject.geom_name(one)} and {subject.geom_name(other)}",
            f"overlap by {1000 * depth:.3g} mm when an episode starts",
            "move one of them at the start, shrink it, or exclude the pair (contype, conaffinity, <exclude>)",
        )
        for (one, other), depth in sorted(deepest.items(), key=lambda item: -item[1])
    ]
    return found, bool(found)


def instability(subject: Subject, motion: Motion, doing: str = "") -> list[Finding]:
    """A simulation that broke off while it did something; at rest where nothing is said."""
    if motion.broken is None:
        return []
    fastest = int(np.abs(motion.speed[-1]).argmax()) if subject.model.nv else 0
    if not doing and (pushed := _undamped(subject)) is not None:
        return [pushed]
    evidence = f"the simulation becomes unstable {motion.broken:.3g} s after it began to {doing}; this joint is fastest"
    if not doing:
        evidence = f"its energy grows at rest until the simulation becomes unstable after {motion.broken:.3g} s"
    return [Finding("unstable" if doing else "energy", subject.dof_name(fastest), evidence, _calmer(subject))]


def _calmer(subject: Subject) -> str:
    """What to do about an unstable simulation."""
    model, how = subject.model, "lower the stiffness and damping of what acts there, or give it more inertia (armature)"
    if int(model.opt.integrator) in (_EULER, _RK4):
        return f"use integrator implicitfast, a timestep below {model.opt.timestep:g} s, or {how}"
    return f"lower the timestep ({model.opt.timestep:g} s), or {how}"


def growing_energy(subject: Subject, motion: Motion) -> list[Finding]:
    """Energy that comes from nowhere while commands stay as they are, or would once something moves faster."""
    pushed = _undamped(subject)
    if pushed is not None:
        return [pushed]
    if not knows_energy(subject.model) or motion.broken is not None:
        return []
    early = max(len(motion.energy) // 20, 1)
    grown = float(motion.energy[-4 * early :].max() - motion.energy[:early].max())
    # Energy without motion is that of something that is pulled, as by a weld.
    livelier = motion.kinetic[-4 * early :].max() > 2.0 * motion.kinetic[:early].max()
    mass = float(subject.model.body_mass.sum())
    if not livelier or grown <= max(_GROWTH * float(motion.kinetic.max()), _SMALLEST * mass):
        return []
    seconds = len(motion.energy) * subject.model.opt.timestep
    of, remedy = _source(subject, motion)
    return [
        Finding("energy", of, f"energy grows by {grown:.3g} J within {seconds:.3g} s of rest, from nowhere", remedy)
    ]


def _source(subject: Subject, motion: Motion) -> tuple[str, str]:
    """Where energy may come from."""
    model = subject.model
    for drive in subject.drives():
        if model.actuator_biasprm[drive.actuator, 2] > 0:
            value = float(model.actuator_biasprm[drive.actuator, 2])
            return subject.drive_name(drive), f"it pushes in the direction of motion (kv {-value:g}): make kv positive"
    fastest = int(np.abs(motion.speed[-len(motion.speed) // 5 :]).max(axis=0).argmax())
    return subject.dof_name(fastest), _calmer(subject)


def _undamped(subject: Subject) -> Finding | None:
    """The first hinge or slide whose damping and that of its servo are below zero together: whatever moves it grows."""
    model, damping = subject.model, subject.model.dof_damping.copy()
    for drive in subject.drives():
        if drive.joint is not None:
            damping[model.jnt_dofadr[drive.joint]] -= model.actuator_biasprm[drive.actuator, 2] * drive.gear**2
    pushed = np.flatnonzero((model.dof_damping < 0) & (damping < 0))
    if not len(pushed):
        return None
    dof = int(pushed[0])
    evidence = f"its damping is {model.dof_damping[dof]:g}, below 0, so that motion grows from nowhere"
    return Finding("energy", subject.dof_name(dof), evidence, "make it positive")


def saturated(subject: Subject, motion: Motion, start: mujoco.MjData, skip: set[int]) -> list[tuple[int, Finding]]:
    """Actuators that need their whole force to stay where they are, with their index; `skip`: others."""
    model, late = subject.model, motion.force[len(motion.force) // 2 :]
    found = [
        (drive, at)
        for drive in subject.drives()
        if drive.actuator not in skip and (at := force_limit(model, drive.actuator)) is not None
        and (np.abs(late[:, model.actuator_outadr[drive.actuator]]) >= _AT_LIMIT * at).mean() > _AT_LIMIT_SHARE
    ]  # fmt: skip
    if not found or motion.broken is not None:
        return []
    free = copy.copy(model)
    free.actuator_forcelimited[:] = 0
    needed = np.abs(move(free, start, subject.still(start), len(motion.force)).force[-20:]).max(axis=0)
    result = []
    for drive, at in found:
        unit = "N" if drive.turns is False else "N m" if drive.turns else ""
        need = float(needed[model.actuator_outadr[drive.actuator]])
        result.append((drive.actuator, Finding(
            "saturated", subject.drive_name(drive),
            f"exerts all of its force ({at:.3g} {unit}) to hold still and does not manage".replace(" )", ")"),
            f"about {need:.3g} {unit} would hold it: raise forcerange, lighten what it carries, or start elsewhere",
        )))  # fmt: skip
    return result


def sagging(subject: Subject, motion: Motion, start: mujoco.MjData, skip: set[int]) -> list[tuple[int, Finding]]:
    """Servos that give way under the weight that they carry, with their index; `skip`: actuators."""
    still, found = subject.still(start), []
    for drive in subject.servos():
        if drive.joint is None or drive.actuator in skip or motion.broken is not None:
            continue
        unit = units_of(subject.model, drive.joint)
        column = subject.model.actuator_outadr[drive.actuator]
        off = float(motion.length[-1, column] - still[drive.column]) / drive.gear
        if abs(off) > _SAG[unit]:
            found.append((drive.actuator, Finding(
                "does_not_arrive", subject.drive_name(drive), f"asked to stay, it gives way by {abs(off):.3g} {unit}",
                f"raise kp ({subject.model.actuator_gainprm[drive.actuator, 0]:g}), or lighten what it carries",
            )))  # fmt: skip
    return found


def force_limit(model: mujoco.MjModel, actuator: int) -> float | None:
    """The largest force of an actuator; None without a limit."""
    if not model.actuator_forcelimited[actuator]:
        return None
    return float(np.abs(model.actuator_forcerange[actuator]).max())


def held(subject: Subject, seconds: float) -> Iterator[tuple[mujoco.MjData, Motion]]:
    """Every start, and what it does when it is asked to stay."""
    steps = max(20, round(seconds / subject.model.opt.timestep))
    for data in subject.starts:
        yield data, move(subject.model, data, subject.still(data), steps, nudge=True)
