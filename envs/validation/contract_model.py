"""Whether what a task says of joints, actuators and bodies is so in its model: names, units, gains and limits."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

import mujoco
import numpy as np

from envs.common.errors import TaskError
from envs.common.messages import nearest
from envs.parts.kinematics import chain_to
from envs.task import ActionComponent, Component, Task
from envs.validation.drives import UNITS, Drive, find_drive, named_drives, sent_name, sent_unit

_O = mujoco.mjtObj
_TURNS = {int(mujoco.mjtJoint.mjJNT_HINGE): True, int(mujoco.mjtJoint.mjJNT_SLIDE): False}
_CLOSE = 0.01  # relative difference of figures that are taken to be the same, but for rounding
_SHOWN = 6  # names listed where none is near

# For each list of names: what they may be called after, and how many the model has of each.
_KINDS: dict[str, tuple[tuple[mujoco.mjtObj, str], ...]] = {
    "joints": ((_O.mjOBJ_JOINT, "njnt"), (_O.mjOBJ_TENDON, "ntendon")),
    "actuators": ((_O.mjOBJ_ACTUATOR, "nactuator"),),
    "bodies": ((_O.mjOBJ_BODY, "nbody"), (_O.mjOBJ_SITE, "nsite"), (_O.mjOBJ_GEOM, "ngeom")),
}
_ONE = {"joints": "joint", "actuators": "actuator", "bodies": "body, site or geom"}


def problem(task: Task, where: str, expected: str, got: str) -> TaskError:
    """One line that says what is wrong with a task."""
    return TaskError(f"task: {task.id}: {where}: {expected}, got {got}")


def check_against_model(task: Task) -> None:
    """Compare components with the model. Raises TaskError, naming the component and what is nearest."""
    for part in task.observation:
        where = f"observation {part.name!r}"
        _check_names(task, where, part, ("joints", "bodies"))
        _check_unit(task, where, part)
    for part in task.action:
        where = f"action {part.name!r}"
        _check_names(task, where, part, ("joints", "actuators"))
        _check_unit(task, where, part)
        _check_driven(task, where, part)
        drives = named_drives(task.model, part)
        if drives is not None:
            for check in (_check_gains, _check_effort, _check_limits):
                check(task, where, part, drives)
        _check_chain(task, where, part)
    period_s = task.model.opt.timestep * task.decimation
    if not np.isclose(task.control_period_s, period_s, rtol=1e-6, atol=0.0):
        expected = f"expected decimation * timestep = {task.decimation} * {task.model.opt.timestep:g} s = {period_s:g}"
        raise problem(task, "control_period_s", expected, f"{task.control_period_s:g}")


def _check_names(task: Task, where: str, part: Component | ActionComponent, keys: Iterable[str]) -> None:
    for key in keys:
        names: tuple[str, ...] = getattr(part, key)
        known = {name for kind, count in _KINDS[key] for name in _names(task.model, kind, count)}
        for name in names:
            if name not in known and not _made_up(task.model, key, name):
                near = nearest(name, sorted(known))
                listed = ", ".join(sorted(known)[:_SHOWN]) + (", ..." if len(known) > _SHOWN else "")
                hint = near or f"; there are: {listed or 'none with a name'}"
                raise TaskError(f"task: {task.id}: {where}: {key}: the model has no {_ONE[key]} {name!r}{hint}")
        counted = key != "bodies" and names
        if counted and not _counts_fit(task.model, part, names):
            count = part.size if isinstance(part, Component) else part.sent_size
            expected = f"expected one {_ONE[key]} for each of {count} values"
            raise problem(task, f"{where}: {key}", expected, str(len(names)))
        if counted and len(set(names)) < len(names) and not _told_apart(part):
            twice = next(name for name in names if names.count(name) > 1)
            raise problem(task, f"{where}: {key}", "expected different ones, or `elements` that tell them apart",
                          f"{twice!r} {names.count(twice)} times")  # fmt: skip
        if names and sorted(names) == sorted(part.elements) and names != part.elements:
            raise problem(task, where, f"expected elements and {key} in the same order", "the same names in two orders")
    if len(set(part.elements)) < len(part.elements):
        twice = next(name for name in part.elements if part.elements.count(name) > 1)
        raise problem(task, f"{where}: elements", "expected different names", f"{twice!r} twice")


def _told_apart(part: Component | ActionComponent) -> bool:
    """Whether names may come twice: a component may show several values of a joint, and an actuator may have several
    controls, each an element of its own."""
    if isinstance(part, Component):
        return bool(part.derived_from or part.elements)
    pairs = set(zip(part.joints, part.actuators, strict=False))
    one_each = len({actuator for _, actuator in pairs}) == len({joint for joint, _ in pairs}) == len(pairs)
    return bool(part.actuators) and one_each and len(set(part.elements)) == part.size


def _counts_fit(model: mujoco.MjModel, part: Component | ActionComponent, names: tuple[str, ...]) -> bool:
    """One for each value; or of a single value all that it is about. Observations may have several values of each."""
    if isinstance(part, ActionComponent):
        return part.sent_size in (1, len(names))
    if part.size in (1, len(names)):
        return True
    joints = [mujoco.mj_name2id(model, _O.mjOBJ_JOINT, name) for name in names]
    sizes = [(7, 6) if model.jnt_type[i] == 0 else (4, 3) if model.jnt_type[i] == 1 else (1, 1) for i in joints]
    return part.size % len(names) == 0 or part.size in np.sum(sizes, axis=0).tolist()


def _names(model: mujoco.MjModel, kind: mujoco.mjtObj, count: str) -> list[str]:
    return [name for i in range(getattr(model, count)) if (name := mujoco.mj_id2name(model, kind, i))]


def _made_up(model: mujoco.MjModel, key: str, name: str) -> bool:
    """Whether a name stands for an object without one: it then holds the object's index."""
    numbers = [int(digits) for digits in re.findall(r"\d+", name)]
    return any(
        i < getattr(model, count) and not mujoco.mj_id2name(model, kind, i)
        for kind, count in _KINDS[key]
        for i in numbers[-1:]
    )


def _check_unit(task: Task, where: str, part: Component | ActionComponent) -> None:
    """Angles belong to hinges, lengths to slides."""
    unit, size = (part.unit, part.size) if isinstance(part, Component) else (sent_unit(part), part.sent_size)
    quantity, angular = UNITS.get(unit, (None, None))
    if quantity is None or (quantity == "force" and isinstance(part, Component)) or len(part.joints) != size:
        return
    for name in part.joints:
        joint = mujoco.mj_name2id(task.model, _O.mjOBJ_JOINT, name)
        turns = _TURNS.get(int(task.model.jnt_type[joint])) if joint >= 0 else None
        if turns is not None and turns != angular:
            units = [unit for unit, (q, a) in UNITS.items() if q == quantity and a == turns]
            kind = "hinge" if turns else "slide"
            raise problem(task, f"{where}: unit", f"expected {units[0]!r} as {name!r} is a {kind}", repr(unit))
        if isinstance(part, ActionComponent) and part.inverse is not None:
            continue
        if turns and part.frame not in ("joint", "world"):
            raise problem(task, f"{where}: frame", f"expected 'joint' for angles of {name!r}", repr(part.frame))
        if part.frame == "world" and turns is not None and _is_turned(task.model, joint):
            raise problem(task, f"{where}: frame", f"expected 'joint' as {name!r} turns with the joints before it",
                          repr(part.frame))  # fmt: skip


def _is_turned(model: mujoco.MjModel, joint: int) -> bool:
    """Whether the axis of a joint changes its direction in the world, as joints before it turn."""
    body = int(model.jnt_bodyid[joint])
    before = list(range(int(model.body_jntadr[body]), joint))
    while body := int(model.body_parentid[body]):
        first = int(model.body_jntadr[body])
        before += range(first, first + int(model.body_jntnum[body])) if first >= 0 else []
    return any(int(model.jnt_type[j]) != int(mujoco.mjtJoint.mjJNT_SLIDE) for j in before)


def _check_driven(task: Task, where: str, part: ActionComponent) -> None:
    """Each actuator acts on the joint that stands in the same place."""
    model = task.model
    if not len(part.joints) == len(part.actuators) == part.sent_size:
        return
    for joint, actuator in zip(part.joints, part.actuators, strict=True):
        index = mujoco.mj_name2id(model, _O.mjOBJ_ACTUATOR, actuator)
        drive = find_drive(model, index) if index >= 0 else None
        if drive is None or drive.joint is None or mujoco.mj_name2id(model, _O.mjOBJ_JOINT, joint) < 0:
            continue
        driven = mujoco.mj_id2name(model, _O.mjOBJ_JOINT, drive.joint)
        if driven and driven != joint:
            raise problem(task, where, f"expected joint {driven!r} beside actuator {actuator!r}, which drives it",
                          repr(joint))  # fmt: skip


def _check_chain(task: Task, where: str, part: ActionComponent) -> None:
    """The way from a robot's base to its tool is the model's."""
    if part.inverse is None:
        return
    stated = part.inverse.chain
    if part.frame != stated.root:
        raise problem(
            task, f"{where}: frame", f"expected {stated.root!r}, along whose axes steps are", repr(part.frame)
        )
    try:
        true = chain_to(task.model, stated.tip, stated.root)
    except ValueError as error:
        raise TaskError(f"task: {task.id}: {where}: inverse: {error}") from None
    if true.joints != stated.joints or part.joints != stated.joints or not stated.simple:
        expected = f"expected the hinges and slides that carry {stated.tip!r}: {', '.join(true.joints)}"
        raise problem(task, f"{where}: inverse", expected, ", ".join(stated.joints))
    for link, of_model in zip(stated.links, true.links, strict=True):
        numbers = [(*end.pos, *end.quat, *end.axis, end.zero) for end in (link, of_model)]
        if not np.allclose(*numbers, rtol=1e-6, atol=1e-9):
            name = link.joint or stated.tip
            raise problem(
                task, f"{where}: inverse", f"expected {name!r} to lie where the model has it", "another place"
            )


def _check_gains(task: Task, where: str, part: ActionComponent, drives: Sequence[Drive]) -> None:
    """Stiffness and damping of servos; damping may be the servo's, the joint's own, or both together."""
    model = task.model

    def stiffness(d: Drive) -> list[float]:
        return [float(model.actuator_gainprm[d.actuator, 0]) * d.gear**2] if d.follows == "position" else []

    def damping(d: Drive) -> list[float]:
        if d.follows != "position" or d.joint is None:
            return []
        servo = float(-model.actuator_biasprm[d.actuator, 2]) * d.gear**2
        own = float(np.ravel(model.dof_damping[model.jnt_dofadr[d.joint]])[0])
        return [servo, own, servo + own]

    _compare(task, where, "stiffness", part, part.stiffness, drives, stiffness)
    _compare(task, where, "damping", part, part.damping, drives, damping)


def _check_effort(task: Task, where: str, part: ActionComponent, drives: Sequence[Drive]) -> None:
    """Where a motor's command is a force, the task itself may limit it further."""
    model = task.model
    for i, (stated, drive) in enumerate(zip(part.effort_limit, drives, strict=bool(part.effort_limit))):
        ranges = _force_ranges(model, drive)
        if drive.follows is None or (drive.follows == "force" and not ranges):
            continue
        most = [min((max(abs(low), abs(high)) for low, high in ranges), default=float("inf"))]
        most += [min(abs(high) for _, high in ranges)] if ranges else []
        if any(np.isclose(stated, value, rtol=_CLOSE) for value in most):
            continue
        if drive.follows != "force" or stated > most[0]:
            got = "no limit" if not ranges else f"{most[0]:g}"
            raise _differs(task, where, "effort_limit", part, i, drive, f"{stated:g}", got)


def _force_ranges(model: mujoco.MjModel, drive: Drive) -> list[tuple[float, float]]:
    """Ranges of the force or torque on what an actuator drives."""
    found, i, gear = [], drive.actuator, abs(drive.gear)
    if model.actuator_forcelimited[i]:
        found.append(tuple(model.actuator_forcerange[i] * gear))
    if drive.joint is not None and model.jnt_actfrclimited[drive.joint]:
        found.append(tuple(model.jnt_actfrcrange[drive.joint]))
    if drive.tendon is not None and model.tendon_actfrclimited[drive.tendon]:
        found.append(tuple(model.tendon_actfrcrange[drive.tendon]))
    clips = drive.clips(model)
    if drive.follows == "force" and clips is not None:
        found.append(tuple(np.array(clips) * abs(float(model.actuator_gainprm[i, 0])) * gear))
    return found


def _check_limits(task: Task, where: str, part: ActionComponent, drives: Sequence[Drive]) -> None:
    """Targets beyond an actuator's range are limited to it by MuJoCo: limits that reach further would not be so."""
    if part.target_limits is None:
        return
    for i, drive in enumerate(drives):
        factor, clips = drive.per_ctrl(task.model, sent_unit(part)), drive.clips(task.model)
        if factor is None or clips is None:
            continue
        low, high = sorted(value * factor for value in clips)
        margin = _CLOSE * (high - low)
        stated = part.target_limits[0][i], part.target_limits[1][i]
        if stated[0] < low - margin or stated[1] > high + margin:
            says, has = f"{stated[0]:g} to {stated[1]:g}", f"a control range of {low:g} to {high:g}"
            raise _differs(task, where, "target_limits", part, i, drive, says, has)


def _compare(
    task: Task, where: str, key: str, part: ActionComponent, values: tuple[float, ...], drives: Sequence[Drive],
    of: Callable[[Drive], list[float]],
) -> None:  # fmt: skip
    for i, (stated, drive) in enumerate(zip(values, drives, strict=bool(values))):
        found = of(drive)
        if found and not any(np.isclose(stated, value, rtol=_CLOSE, atol=1e-9) for value in found):
            raise _differs(task, where, key, part, i, drive, f"{stated:g}", f"{found[0]:g}")


def _differs(
    task: Task, where: str, key: str, part: ActionComponent, i: int, drive: Drive, says: str, has: str
) -> TaskError:
    element = sent_name(part, i)
    return TaskError(
        f"task: {task.id}: {where}: {key}: of {element!r} the contract says {says}, "
        f"but the model's actuator {drive.name!r} has {has}"
    )
