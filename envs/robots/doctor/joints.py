"""Joints and actuators of a compiled model: limits, units, gains, who drives what."""

from __future__ import annotations

import math
from collections.abc import Iterator

import mujoco
import numpy as np

from envs.common.names import label_of
from envs.robots.doctor.symptom import Symptom, several
from envs.robots.doctor.urdf import DEGREES
from envs.validation.drives import Drive, find_drive

_HINGE, _SLIDE = int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE)
_NARROW = 0.1  # rad: a driven hinge with less of a range is one whose radians were taken for degrees
_WIDE = 8.0  # times the joint's range that commands may span
_JOINT_EQUALITY = int(mujoco.mjtEq.mjEQ_JOINT)


def examine_joints(model: mujoco.MjModel, urdf: bool) -> Iterator[Symptom]:
    """What is wrong with joints and actuators; `urdf`: of a URDF, whose own words have been looked at already."""
    drives = [drive for i in range(model.nactuator) if (drive := find_drive(model, i)) is not None]
    yield from _actuators(model, urdf)
    if not urdf:
        yield from _ranges(model, drives)
    yield from _commands(model, drives)
    yield from _gains(model, drives)
    yield from _followers(model, drives)


def _name(model: mujoco.MjModel, joint: int) -> str:
    return label_of(model, "joint", joint)


def _actuators(model: mujoco.MjModel, urdf: bool) -> Iterator[Symptom]:
    single = [j for j in range(model.njnt) if int(model.jnt_type[j]) in (_HINGE, _SLIDE)]
    if not single:
        yield Symptom("error", "structure", "the robot", "has no hinges and no slides", "expected joints to move")
    elif not model.nactuator and urdf:
        yield Symptom("note", "actuators", f"{len(single)} joints", "no actuators, as a URDF has none",
                      "adopt adds position servos, with gains from effort limits and weights")  # fmt: skip
    elif not model.nactuator:
        yield Symptom("error", "actuators", f"{len(single)} joints", "no actuators, so a policy could do nothing",
                      "add <actuator> with a <position>, <velocity> or <motor> for each joint")  # fmt: skip


def _ranges(model: mujoco.MjModel, drives: list[Drive]) -> Iterator[Symptom]:
    wide = [j for j in range(model.njnt) if int(model.jnt_type[j]) == _HINGE and model.jnt_limited[j]
            and float(np.ptp(model.jnt_range[j])) > DEGREES]  # fmt: skip
    if wide:
        low, high = model.jnt_range[wide[0]].tolist()
        yield Symptom(
            "warning", "limits", several("joint", [_name(model, j) for j in wide]),
            f"limits of {low:g} to {high:g} rad",
            f"these look like degrees, {math.radians(low):.4g} to {math.radians(high):.4g} rad: angle=\"degree\"",
        )  # fmt: skip
    driven = list(dict.fromkeys(d.joint for d in drives if d.joint is not None and d.turns))
    narrow = [j for j in driven if model.jnt_limited[j] and float(np.ptp(model.jnt_range[j])) < _NARROW]
    if narrow:
        low, high = np.degrees(model.jnt_range[narrow[0]]).tolist()
        yield Symptom(
            "warning", "limits", several("joint", [_name(model, j) for j in narrow]),
            f"limits of {math.radians(low):.3g} to {math.radians(high):.3g} rad, a range of {high - low:.3g} degrees",
            f"if {low:g} to {high:g} rad were meant, say angle=\"radian\" in <compiler>",
        )  # fmt: skip
    free = [d for d in drives if d.follows == "position" and d.joint is not None and not model.jnt_limited[d.joint]
            and d.clips(model) is None]  # fmt: skip
    if free:
        names = [_name(model, d.joint) for d in free if d.joint is not None]
        yield Symptom("warning", "limits", several("joint", names),
                      "position servos without limits: neither the joint nor the command has a range",
                      "state range= of the joint, or ctrlrange= of the servo")  # fmt: skip


def _commands(model: mujoco.MjModel, drives: list[Drive]) -> Iterator[Symptom]:
    """Ranges of commands of position servos beside the range of their joint."""
    beyond = list[Drive]()
    for drive in drives:
        clips = drive.clips(model)
        if drive.follows != "position" or drive.joint is None or clips is None or not model.jnt_limited[drive.joint]:
            continue
        if not drive.gear:
            continue
        low, high = sorted(end / drive.gear for end in clips)
        start, end = model.jnt_range[drive.joint].tolist()
        if high - low > _WIDE * (end - start) or high < start or low > end:
            beyond.append(drive)
    if beyond:
        first, joint = beyond[0], beyond[0].joint
        low, high = first.clips(model) or (0.0, 0.0)
        start, end = model.jnt_range[joint].tolist()
        yield Symptom(
            "warning", "units", several("actuator", [d.name for d in beyond]),
            f"takes commands from {low:g} to {high:g}, and its joint goes from {start:.3g} to {end:.3g}",
            "commands of position servos are in rad or m, times the gear",
        )  # fmt: skip


def _gains(model: mujoco.MjModel, drives: list[Drive]) -> Iterator[Symptom]:
    """Actuators that can do nothing, and forces without an end."""
    dead = [d.name for d in drives if d.gear == 0.0 and (d.joint is not None or d.tendon is not None)]
    dead += [d.name for d in drives if d.gear != 0.0 and int(model.actuator_gaintype[d.actuator]) == 0
             and model.actuator_gainprm[d.actuator, 0] == 0.0]  # fmt: skip
    if dead:
        yield Symptom("warning", "gain", several("actuator", dead), "its gear or gain is 0: it does nothing",
                      "give it a gear, and kp, kv or gainprm")  # fmt: skip
    strong = [d for d in drives if d.joint is not None and not model.actuator_forcelimited[d.actuator]
              and not model.jnt_actfrclimited[d.joint] and d.follows in ("position", "velocity")]  # fmt: skip
    if strong:
        yield Symptom("note", "effort", several("actuator", [d.name for d in strong]), "servos without a force limit",
                      "state the motor's largest torque or force: forcerange")  # fmt: skip
    count: dict[int, list[str]] = {}
    for drive in drives:
        if drive.joint is not None and drive.follows == "position":
            count.setdefault(drive.joint, []).append(drive.name)
    for joint, names in count.items():
        if len(names) > 1:
            yield Symptom("warning", "actuators", f"joint {_name(model, joint)!r}",
                          f"is held by {len(names)} position servos: {', '.join(names)}",
                          "they pull against each other: leave one")  # fmt: skip


def _followers(model: mujoco.MjModel, drives: list[Drive]) -> Iterator[Symptom]:
    """Joints that an equality ties to another, and that have an actuator all the same."""
    driven = {d.joint for d in drives if d.joint is not None}
    for i in range(model.neq):
        if int(model.eq_type[i]) != _JOINT_EQUALITY or not model.eq_active0[i]:
            continue
        follower, leader = int(model.eq_obj1id[i]), int(model.eq_obj2id[i])
        if leader >= 0 and follower in driven and leader in driven:
            yield Symptom("warning", "mimic", f"joint {_name(model, follower)!r}",
                          f"is tied to {_name(model, leader)!r} by an equality, and both have actuators",
                          "two commands for one motion: leave the actuator of the one that leads")  # fmt: skip
