"""Describes a robot on legs from its model alone: stance, gains, limits, gait and commands that fit its size.

Rules of thumb, each from the model's own numbers; what the file says itself comes first. A leg of length L of a robot
of mass m carries about m g L / 2 at a bent knee, and published controllers give way by a fifth to a half of a radian.
Times scale with sqrt(L / g), speeds with sqrt(L g) (Froude).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np

from envs.common.errors import TaskError
from envs.locomotion.legged.gait import Gait, natural_gait
from envs.locomotion.legged.legs import Leg, find_base, find_legs
from envs.locomotion.legged.robot import LeggedRobot
from envs.locomotion.legged.stance import Stance, find_stance
from envs.robots.ready import SINGLE, home_of
from envs.robots.servos import drives_of, effort_of
from envs.validation.drives import Drive

TIMESTEP_S = 0.005
_CARRY, _DAMP_S = 1.6, 0.025  # stiffness per m g L / 2 rad; damping per stiffness
_WHOLE_AT_RAD = {True: 0.15, False: 0.3}  # of error, at which a controller uses all of its motor: of two legs, of more
_STRONG = 3.0  # times what standing takes: the torque of motors of which nothing is known
_ROLL_RAD, _PITCH_RAD, _LONG_LEGS = 0.4, 0.8, 0.6  # action of 1: across, along, and a factor for legs with ankles
_FROUDE = {True: 0.3, False: 0.5}  # speed over sqrt(L g): of two legs, of more
_PERIOD = {True: 0.42, False: 0.38}  # of a step over 2 pi sqrt(L / g)
_CLEARANCE = 0.165  # of the leg
_LOWEST_M, _HIGHEST_M = 0.05, 0.09


@dataclass(frozen=True)
class Described:
    """What was found out of a robot.

    Attributes:
        robot: its description.
        gait: that fits it.
        command_limits: m/s forward and sideways, rad/s.
        stance_found: whether its file said how it stands, or it was looked for.
        leg_m: length of a leg.
    """

    robot: LeggedRobot
    gait: Gait
    command_limits: tuple[float, float, float]
    stance_found: bool
    leg_m: float


def describe_legged(
    spec: Callable[[], mujoco.MjSpec], file: Path | str | Callable[[], mujoco.MjSpec], speeds: Mapping[str, float]
) -> Described:
    """Describe a robot.

    Args:
        spec: makes its specification, with or without a free base, actuators and a floor.
        file: what the description says that it is read from.
        speeds: largest speeds of joints by name, rad/s, as far as they are known.

    Raises:
        TaskError: it has no legs.
    """
    made, model = _floating(spec())
    base = find_base(model)
    data = mujoco.MjData(model)
    home, legs = _pose_with_legs(model, data, base)
    stance = find_stance(model, base, legs, home, bool(model.nkey) and np.array_equal(home, home_of(model)))
    data.qpos[:] = stance.qpos
    mujoco.mj_kinematics(model, data)
    legs = find_legs(model, data, base)  # soles that are no balls are elsewhere now
    unnamed = [b for b in (base, *(leg.body for leg in legs)) if not model.body(b).name]
    if unnamed:
        raise TaskError(f"body number {unnamed[0]} has no name; base and feet need one")
    joints = [j for leg in legs for j in leg.joints]
    drives = drives_of(model)
    others = [j for j in range(model.njnt) if int(model.jnt_type[j]) in SINGLE and j not in joints]
    held = [j for j in others if _carried(model, j, base) and (j in drives or not drives) and not _follows(model, j)]
    names = tuple(_name(model, j) for j in joints)
    gains = [_gains(model, drives.get(j), j, stance, base, len(legs)) for j in joints]
    kept = [_gains(model, drives.get(j), j, stance, base, len(legs)) for j in held] or gains
    two = len(legs) <= 2
    robot = LeggedRobot(
        file=file,
        base=model.body(base).name,
        trunk=_trunk(model, base),
        feet=tuple(leg.foot for leg in legs),
        joints=names,
        stance=_round(stance.qpos[model.jnt_qposadr[joints]]),
        height_m=round(stance.height_m, 4),
        stiffness=_round([g[0] for g in gains], 3),
        damping=_round([g[1] for g in gains], 3),
        effort=_round([g[2] for g in gains], 3),
        scale=_round([_scale(model, legs, j, stance) for j in joints], 3),
        speed=_round([speeds[name] for name in names], 3) if all(name in speeds for name in names) else (),
        armature=_round([_armature(model, j, g[1]) for j, g in zip(joints, gains, strict=True)], 5),
        held=tuple((_name(model, j), round(float(stance.qpos[model.jnt_qposadr[j]]), 4)) for j in held),
        held_stiffness=round(float(np.median([g[0] for g in kept])), 2),
        held_damping=round(float(np.median([g[1] for g in kept])), 3),
        timestep_s=TIMESTEP_S,
    )
    del made
    return Described(
        robot, _gait(model, stance, base, legs, two), _commands(stance.leg_m, two), stance.found, stance.leg_m
    )


def _pose_with_legs(model: mujoco.MjModel, data: mujoco.MjData, base: int) -> tuple[np.ndarray, list[Leg]]:
    """The pose in which most legs hang down: the file's, or that of angles of 0. Raises TaskError without legs."""
    file, straight = home_of(model), model.qpos0.copy()
    for joint in range(model.njnt):
        if int(model.jnt_type[joint]) in SINGLE and model.jnt_limited[joint]:
            at = model.jnt_qposadr[joint]
            straight[at] = np.clip(straight[at], *model.jnt_range[joint])
    best: tuple[np.ndarray, list[Leg]] | None = None
    problem: TaskError | None = None
    for pose in (file, straight):
        data.qpos[:] = pose
        mujoco.mj_kinematics(model, data)
        try:
            legs = find_legs(model, data, base)
        except TaskError as error:
            problem = problem or error
            continue
        if best is None or len(legs) > len(best[1]):
            best = pose, legs
    if best is None:
        raise problem or TaskError("no legs")
    return best


def _floating(spec: mujoco.MjSpec) -> tuple[mujoco.MjSpec, mujoco.MjModel]:
    """The same with a free base, where it stands fixed to the world."""
    model = spec.compile()
    if not (model.jnt_type == int(mujoco.mjtJoint.mjJNT_FREE)).any():
        base = find_base(model)
        if not base or model.body_jntnum[base]:
            raise TaskError("no legs: its first body moves against the world by joints of its own")
        for key in list(spec.keys):
            spec.delete(key)
        spec.body(model.body(base).name).add_freejoint()
        model = spec.compile()
    return spec, model


def _trunk(model: mujoco.MjModel, base: int) -> str:
    """The heaviest body that is fixed to the base, where it is another one: many URDFs begin with a link of no mass."""
    fixed = [b for b in range(1, model.nbody) if int(model.body_weldid[b]) == int(model.body_weldid[base])]
    heaviest = max(fixed, key=lambda b: float(model.body_mass[b]))
    return "" if heaviest == base else model.body(heaviest).name


def _name(model: mujoco.MjModel, joint: int) -> str:
    name = model.joint(joint).name
    if not name:
        raise TaskError(f"joint number {joint} has no name; give it one, as the policy's contract needs")
    return name


def _carried(model: mujoco.MjModel, joint: int, base: int) -> bool:
    return int(model.body_rootid[model.jnt_bodyid[joint]]) == int(model.body_rootid[base])


def _follows(model: mujoco.MjModel, joint: int) -> bool:
    """Whether an equality ties a joint to another."""
    tied = int(mujoco.mjtEq.mjEQ_JOINT)
    return any(int(model.eq_type[i]) == tied and int(model.eq_obj1id[i]) == joint for i in range(model.neq))


def _gains(
    model: mujoco.MjModel, drive: Drive | None, joint: int, stance: Stance, base: int, legs: int
) -> tuple[float, float, float]:  # fmt: skip
    """Stiffness, damping and effort of a joint: what the file says, or what its load asks for."""
    load = float(model.body_subtreemass[base]) * 9.81 * 0.5 * stance.leg_m * min(1.0, 4.0 / legs)
    effort = effort_of(model, joint, drive)
    most = effort if effort is not None else _STRONG * load
    stiffness = min(_CARRY * load, most / _WHOLE_AT_RAD[legs == 2])
    damping = _DAMP_S * stiffness
    if drive is not None and drive.follows == "position" and drive.gear:
        stiffness = float(model.actuator_gainprm[drive.actuator, 0]) * drive.gear**2
        own = -float(model.actuator_biasprm[drive.actuator, 2]) * drive.gear**2
        damping = own if own > 0.0 else _DAMP_S * stiffness if not model.dof_damping[model.jnt_dofadr[joint]] else 0.0
    return stiffness, damping, most


def _armature(model: mujoco.MjModel, joint: int, damping: float) -> float:
    """The rotor's inertia: the file's, or the least with which damping at the end of a motor's torque does not flip
    speeds at this timestep (kv h = I; docs/check.md)."""
    return max(float(model.dof_armature[model.jnt_dofadr[joint]]), damping * TIMESTEP_S)


def _scale(model: mujoco.MjModel, legs: list[Leg], joint: int, stance: Stance) -> float:
    leg = next(leg for leg in legs if joint in leg.joints)
    data = mujoco.MjData(model)
    data.qpos[:] = stance.qpos
    mujoco.mj_kinematics(model, data)
    along = abs(float(data.xaxis[joint, 1])) > 0.7
    scale = (_PITCH_RAD if along else _ROLL_RAD) * (_LONG_LEGS if leg.ankle else 1.0)
    if model.jnt_limited[joint]:
        scale = min(scale, 0.5 * float(np.ptp(model.jnt_range[joint])))
    return scale


def _gait(model: mujoco.MjModel, stance: Stance, base: int, legs: list[Leg], two: bool) -> Gait:
    data = mujoco.MjData(model)
    data.qpos[:] = stance.qpos
    mujoco.mj_kinematics(model, data)
    places = []
    for leg in legs:
        body = leg.body
        at = data.xpos[body] + data.xmat[body].reshape(3, 3) @ np.array(leg.foot.sole) - data.xpos[base]
        places.append((leg.foot.name, round(float(at[0]), 3), round(float(at[1]), 3)))
    period = _PERIOD[two] * 2.0 * math.pi * math.sqrt(stance.leg_m / 9.81)
    clearance = min(max(_CLEARANCE * stance.leg_m, _LOWEST_M), _HIGHEST_M)
    return Gait(natural_gait(tuple(places)), round(period, 2), 0.6 if two else 0.55, round(clearance, 3))


def _commands(leg_m: float, two: bool) -> tuple[float, float, float]:
    forward = round(_FROUDE[two] * math.sqrt(9.81 * leg_m), 1)
    return (max(forward, 0.1), max(round(0.5 * forward, 1), 0.1), 1.0 if not two else 0.6)


def _round(values: list[float] | np.ndarray, digits: int = 4) -> tuple[float, ...]:
    return tuple(round(float(v), digits) for v in values)
