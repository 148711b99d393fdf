"""Actuators as a network learned from logs says (`envs.parts.actuator_network`), inside of the physics step."""

from __future__ import annotations

import mujoco
import torch
from torch import Tensor

from envs.common.errors import TaskError
from envs.parts.actuator_network import ActuatorNetwork
from randomization.effects.context import EffectContext
from randomization.effects.effect import Effect
from randomization.effects.motors.parts import MotorState, TorqueLimits
from randomization.targets.motors import is_servo


class NetworkActuators(Effect):
    """Exerts the network's torques in place of the servos', before every physics step.

    What scales a servo's gain in a world (`actuator_strength`, `actuator_gain`, `actuator_kp`, fading and failing
    motors) scales the torque; force ranges limit it. Commands come late by `action_delay`, and pass backlash, as ever.
    """

    order = 85
    _state = ("_history", "_newest", "_fresh", "_any_fresh")

    def __init__(self, context: EffectContext) -> None:
        network, model, engine = context.task.actuator, context.task.model, context.engine
        assert network is not None
        groups = network.drives(model)
        for a in groups:
            _check_servo(model, a)
        motors = list(groups)
        self._network = network.to(engine.device, torch.float32, None if network.shared else list(groups.values()))
        self._motors = MotorState(model, engine, motors)
        self._limits = TorqueLimits(context, self._motors, motors)
        prm = torch.as_tensor(model.actuator_gainprm[motors, 0]), torch.as_tensor(model.actuator_biasprm[motors, 1])
        gain, bias = (x.to(engine.device, engine.dtype) for x in prm)
        self._nominal_gain = gain
        self._per_command = -gain / bias / self._motors.gear  # from controls to angles
        self._lags = _lags(network, context)
        slots = self._lags[-1] + 1
        self._history = context.zeros(slots, len(motors), 2).float()  # error and velocity
        self._fresh = torch.ones(engine.num_envs, dtype=torch.bool, device=engine.device)
        self._newest, self._any_fresh = 0, True

    def reset(self, mask: Tensor, lam: Tensor) -> None:
        """Begin histories in mask [N]: the first sample counts for the time before."""
        self._fresh, self._any_fresh = self._fresh | mask, True
        self._limits.reset(mask)

    def on_step(self) -> None:
        """Take note of what the world says of gains and limits for this control step."""
        self._motors.read()
        self._strength = self._motors.gain / self._nominal_gain

    def on_physics_step(self) -> None:
        """Exert the torques of this moment."""
        angle, speed = self._motors.now()
        sample = torch.stack((self._motors.command() * self._per_command - angle, speed), dim=2).float()
        slots = self._history.shape[1]
        self._newest = (self._newest + 1) % slots
        self._history[:, self._newest] = sample
        if self._any_fresh:
            self._history = torch.where(self._fresh[:, None, None, None], sample[:, None], self._history)
            self._fresh, self._any_fresh = torch.zeros_like(self._fresh), False
        seen = torch.stack([self._history[:, (self._newest - lag) % slots] for lag in self._lags], dim=3)
        inputs = seen.flatten(2)  # [N, m, 2 H]
        if self._network.shared:
            torque = self._network.torque(inputs.flatten(0, 1)[None])[0].view(inputs.shape[:2])
        else:
            torque = self._network.torque(inputs.transpose(0, 1)).T
        torque = torch.clamp(torque * self._strength, self._motors.low, self._motors.high)
        self._limits.write(torque, torque)


def _lags(network: ActuatorNetwork, context: EffectContext) -> list[int]:
    """Ages of the samples that the network sees, in physics steps. Raises TaskError where steps are too long."""
    step_s = float(context.task.model.opt.timestep)
    if step_s > 1.001 * network.period_s:
        raise TaskError(
            f"actuator: its samples are {1e3 * network.period_s:g} ms apart, expected at least a physics step of the "
            f"task, {1e3 * step_s:g} ms; train it with a longer --period"
        )
    return [round(lag * network.period_s / step_s) for lag in network.history]


def _check_servo(model: mujoco.MjModel, actuator: int) -> None:
    if not is_servo(model, actuator):
        raise TaskError(
            f"actuator: {model.actuator(actuator).name or actuator} takes no position, which the network's commands "
            "are; expected a position servo at a hinge or slide, without dynamics or delay of its own"
        )
