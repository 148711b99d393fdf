"""Sends random commands, and looks at how fast joints become and how often actuators are at the end of their force."""

from __future__ import annotations

import copy

import mujoco
import numpy as np
import torch

from envs.environment import Environment
from envs.validation.health.finding import Finding
from envs.validation.health.flips import LARGEST_STEP
from envs.validation.health.motion import BROKEN
from envs.validation.health.rest import force_limit
from envs.validation.health.subject import Subject, units_of

RANDOM_S = 1.5  # of simulated time
FASTEST = {"rad": 200.0, "m": 30.0}  # rad/s and m/s: joints of robots that are faster are rare
_SATURATED_SHARE = 0.9  # of the time at the end of its force, or beyond the range of its commands
_SINGLE = (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE))


def under_random_actions(subject: Subject, skip: set[int], fastest: dict[str, float]) -> list[Finding]:
    """What random actions bring to light; `skip`: actuators that are known to be ill; `fastest`: speeds by unit."""
    speed, force = _of_task(subject.environment) if subject.environment is not None else _of_file(subject)
    if speed is None:
        return [
            Finding(
                "unstable",
                subject.name,
                "simulations become unstable under random actions",
                f"lower the timestep ({subject.model.opt.timestep:g} s), the gains or the gears, or use integrator "
                "implicitfast",
            )
        ]
    ill = {drive.joint for drive in subject.drives() if drive.actuator in skip}
    return _too_fast(subject, speed, ill, fastest) + _saturated(subject, force, skip)


def _of_task(environment: Environment) -> tuple[np.ndarray | None, np.ndarray]:
    """Speeds [K, nv] and forces [K, outputs] after control steps with random actions; None where one diverged."""
    steps = max(10, round(RANDOM_S / environment.task.control_period_s))
    generator = torch.Generator().manual_seed(0)
    data = environment.engine.data
    speeds, forces = [], []
    for _ in range(steps):
        shape = (environment.num_envs, environment.task.action_size)
        result = environment.step(2.0 * torch.rand(shape, generator=generator) - 1.0)
        if bool(result.diverged.any()):
            return None, np.zeros(0)
        running = ~result.done  # the others have begun anew
        speeds.append(data("qvel")[running].double().numpy(force=True).copy())
        forces.append(data("actuator_force")[running].double().numpy(force=True).copy())
    return np.concatenate(speeds), np.concatenate(forces)


def _of_file(subject: Subject) -> tuple[np.ndarray | None, np.ndarray]:
    """The same, of commands that are uniform in their ranges (in [-1, 1] without one), kept for a control period."""
    model, data = subject.model, copy.copy(subject.starts[0])
    random = np.random.default_rng(0)
    still = subject.still(data)
    limited = model.actuator_ctrllimited.astype(bool)
    low = np.where(limited, model.actuator_ctrlrange[:, 0], still - 1.0)
    high = np.where(limited, model.actuator_ctrlrange[:, 1], still + 1.0)
    for drive in subject.servos():  # targets as a policy sends them, not from end to end of the range
        low[drive.column] = max(low[drive.column], still[drive.column] - LARGEST_STEP * abs(drive.gear))
        high[drive.column] = min(high[drive.column], still[drive.column] + LARGEST_STEP * abs(drive.gear))
    speeds, forces = [], []
    commands = round(RANDOM_S / (subject.decimation * model.opt.timestep))
    for _ in range(max(10, commands)):
        data.ctrl[:] = random.uniform(low, high)
        for _ in range(subject.decimation):
            mujoco.mj_step(model, data)
            speeds.append(data.qvel.copy())
            forces.append(data.actuator_force.copy())
        if any(data.warning[w].number for w in BROKEN):
            return None, np.zeros(0)
    return np.array(speeds), np.array(forces)


def _too_fast(subject: Subject, speed: np.ndarray, ill: set[int | None], fastest: dict[str, float]) -> list[Finding]:
    """Hinges and slides beyond the speed that joints of robots reach."""
    model, found = subject.model, []
    for joint in range(model.njnt):
        if int(model.jnt_type[joint]) not in _SINGLE or joint in ill:
            continue
        unit = units_of(model, joint)
        peak = float(np.abs(speed[:, model.jnt_dofadr[joint]]).max(initial=0.0))
        if peak > fastest[unit]:
            found.append(Finding(
                "too_fast", subject.joint_name(joint),
                f"reaches {peak:.3g} {unit}/s under random actions, the limit is {fastest[unit]:.3g}",
                "lower gear or forcerange of what drives it, or give it damping or inertia (armature) like its motor's",
            ))  # fmt: skip
    return found


def _saturated(subject: Subject, force: np.ndarray, skip: set[int]) -> list[Finding]:
    """Actuators that are at the end of their force whatever is asked of them."""
    model, found = subject.model, []
    for drive in subject.drives():
        limit = force_limit(model, drive.actuator)
        if limit is None or drive.actuator in skip or drive.follows == "position":  # these were looked at at rest
            continue
        share = float((np.abs(force[:, model.actuator_outadr[drive.actuator]]) >= 0.995 * limit).mean())
        if share > _SATURATED_SHARE:
            found.append(Finding(
                "saturated", subject.drive_name(drive),
                f"exerts all of its force ({limit:.3g}) in {100 * share:.0f} % of the time under random actions",
                "raise forcerange, or lower its gain or the scale of its commands",
            ))  # fmt: skip
    return found
