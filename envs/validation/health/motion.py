"""Moves a copy of a simulation under constant commands, and notes what a look at it needs."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import mujoco
import numpy as np

from envs.engines.stability import speed_limits

_NUDGE = 0.02  # rad/s or m/s: a robot that stands perfectly still shows no instability
_WARNING = mujoco.mjtWarning
BROKEN = [int(w) for w in (_WARNING.mjWARN_BADQPOS, _WARNING.mjWARN_BADQVEL, _WARNING.mjWARN_BADQACC)]
_FIXED, _NO_DYN = int(mujoco.mjtGain.mjGAIN_FIXED), int(mujoco.mjtDyn.mjDYN_NONE)
_AFFINE, _NO_BIAS = int(mujoco.mjtBias.mjBIAS_AFFINE), int(mujoco.mjtBias.mjBIAS_NONE)


@dataclass(frozen=True)
class Motion:
    """T physics steps.

    Attributes:
        speed: [T, nv] after each step.
        force: [T, outputs of actuators] in each step.
        length: [T, outputs of actuators] before each step.
        energy: [T] before each step, J, springs of servos included; zeros where it cannot be known.
        kinetic: [T] its part that is motion, J.
        broken: when the simulation became unstable, s from the beginning; None: it did not.
    """

    speed: np.ndarray
    force: np.ndarray
    length: np.ndarray
    energy: np.ndarray
    kinetic: np.ndarray
    broken: float | None


def move(model: mujoco.MjModel, start: mujoco.MjData, ctrl: np.ndarray, steps: int, nudge: bool = False) -> Motion:
    """Move a copy of `start`, from rest, under commands [nu]; `nudge`: with some speed of every joint."""
    model = copy.copy(model)
    model.opt.enableflags |= int(mujoco.mjtEnableBit.mjENBL_ENERGY)
    data = copy.copy(start)
    data.qvel[:] = _nudge(model) if nudge else 0.0
    data.qfrc_applied[:], data.xfrc_applied[:] = 0.0, 0.0
    data.ctrl[:] = ctrl
    springs, limits = _Springs(model, ctrl), speed_limits(model)
    widths = (model.nv, data.actuator_force.size, data.actuator_length.size)
    speed, force, length = (np.zeros((steps, n)) for n in widths)
    energy, kinetic = np.zeros(steps), np.zeros(steps)
    for t in range(steps):
        mujoco.mj_step(model, data)
        speed[t], force[t], length[t] = data.qvel, data.actuator_force, data.actuator_length
        energy[t], kinetic[t] = data.energy.sum() + _carried(model, data), data.energy[1]
        if any(data.warning[w].number for w in BROKEN) or (np.abs(data.qvel) > limits).any():
            kept = slice(0, max(t, 1))
            seconds = (t + 1) * model.opt.timestep
            return Motion(speed[kept], force[kept], length[kept], energy[kept], kinetic[kept], seconds)
    return Motion(speed, force, length, energy + springs.energy(length), kinetic, None)


def moved_about(model: mujoco.MjModel, start: mujoco.MjData, commands: np.ndarray, decimation: int) -> Motion:
    """Move a copy of `start`, from rest, under commands [K, nu], `decimation` physics steps each; its speeds alone."""
    data, limits = copy.copy(start), speed_limits(model)
    data.qvel[:], data.qfrc_applied[:], data.xfrc_applied[:] = 0.0, 0.0, 0.0
    speed, nothing = np.zeros((len(commands) * decimation, model.nv)), np.zeros((0, 0))
    for t in range(len(speed)):
        data.ctrl[:] = commands[t // decimation]
        mujoco.mj_step(model, data)
        speed[t] = data.qvel
        if any(data.warning[w].number for w in BROKEN) or (np.abs(data.qvel) > limits).any():
            broken = (t + 1) * model.opt.timestep
            return Motion(speed[: max(t, 1)], nothing, nothing, np.zeros(0), np.zeros(0), broken)
    return Motion(speed, nothing, nothing, np.zeros(0), np.zeros(0), None)


def _nudge(model: mujoco.MjModel) -> np.ndarray:
    """Speeds [nv] of both signs; none for what is damped so strongly that it cannot move."""
    free = model.dof_damping * model.opt.timestep < model.dof_M0
    return np.where(free, _NUDGE * np.cos(np.arange(model.nv)), 0.0)


def knows_energy(model: mujoco.MjModel) -> bool:
    """Whether all that does work in a model is counted in `Motion.energy`."""
    windy = bool(np.any(model.opt.wind)) and (model.opt.density > 0 or model.opt.viscosity > 0)
    return not windy and not model.nplugin and all(_is_spring(model, i) for i in range(model.nactuator))


def _is_spring(model: mujoco.MjModel, i: int) -> bool:
    """Whether the force of an actuator follows from its length, but for damping."""
    return (
        int(model.actuator_gaintype[i]) == _FIXED
        and int(model.actuator_dyntype[i]) == _NO_DYN
        and int(model.actuator_biastype[i]) in (_AFFINE, _NO_BIAS)
        and int(model.actuator_ctrlnum[i]) == 1
    )


def _carried(model: mujoco.MjModel, data: mujoco.MjData) -> float:
    """What gravity compensation takes off the potential energy, J: mjData.energy knows nothing of it."""
    if not model.ngravcomp:
        return 0.0
    return float((model.body_gravcomp * model.body_mass) @ (data.xipos @ model.opt.gravity))


class _Springs:
    """The energy that actuators store under constant commands: minus the work of their force without its damping."""

    def __init__(self, model: mujoco.MjModel, ctrl: np.ndarray) -> None:
        self.known = knows_energy(model)
        if not self.known:
            return
        n = model.nactuator
        inputs, outputs = model.actuator_ctrladr[:n], model.actuator_outadr[:n]
        command = np.array(ctrl, dtype=float)
        if not int(model.opt.disableflags) & int(mujoco.mjtDisableBit.mjDSBL_CLAMPCTRL):
            low, high = model.actuator_ctrlrange.T
            command = np.where(model.actuator_ctrllimited, np.clip(command, low, high), command)
        affine = (model.actuator_biastype == _AFFINE)[:, None]
        bias = np.where(affine, model.actuator_biasprm[:, :2], 0.0)
        self.outputs = outputs
        self.constant = model.actuator_gainprm[:, 0] * command[inputs] + bias[:, 0]
        self.slope = bias[:, 1]
        limited = model.actuator_forcelimited.astype(bool)
        self.low = np.where(limited, model.actuator_forcerange[:, 0], -np.inf)
        self.high = np.where(limited, model.actuator_forcerange[:, 1], np.inf)

    def energy(self, length: np.ndarray) -> np.ndarray:
        """[T] of lengths [T, outputs], from 0 on."""
        if not self.known or not len(self.outputs):
            return np.zeros(len(length))
        at = length[:, self.outputs]
        force = np.clip(self.constant + self.slope * at, self.low, self.high)
        work = 0.5 * (force[1:] + force[:-1]) * np.diff(at, axis=0)
        return np.concatenate(([0.0], -np.cumsum(work.sum(axis=1))))
