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
        motors = self._motor_list = list(groups)
        _check_period(network, context)
        self._network = network.to(engine.device, torch.float32, None if network.shared else list(groups.values()))
        self._motors = MotorState(model, engine, motors)
        self._limits = TorqueLimits(context, self._motors, motors)
        prm = torch.as_tensor(model.actuator_gainprm[motors, 0]), torch.as_tensor(model.actuator_biasprm[motors, 1])
        gain, bias = (x.to(engine.device, engine.dtype) for x in prm)
        self._nominal_gain = gain
        self._per_command = -gain / bias / self._motors.gear  # from controls to angles
        self._lags = _lags(network, context)
        if network.kind == "mlp":
            slots, size = self._lags[-1] + 1, 2  # errors and velocities
        else:  # memories: where the period has several physics steps one for each, which take turns
            slots, size = _steps(network.period_s, context), network.weights[1].shape[1]
        self._history = context.zeros(slots, len(motors), size).float()
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
        self._newest = (self._newest + 1) % self._history.shape[1]
        torque = self._seen(sample) if self._network.kind == "mlp" else self._remembered(sample)
        torque = torch.clamp(torque * self._strength, self._motors.low, self._motors.high)
        self._limits.write(torque, torque)

    def _seen(self, sample: Tensor) -> Tensor:
        """Torques [N, m] of a history whose newest sample [N, m, 2] is this one."""
        slots = self._history.shape[1]
        self._history[:, self._newest] = sample
        if self._any_fresh:
            self._history = torch.where(self._fresh[:, None, None, None], sample[:, None], self._history)
            self._fresh, self._any_fresh = torch.zeros_like(self._fresh), False
        seen = torch.stack([self._history[:, (self._newest - lag) % slots] for lag in self._lags], dim=3)
        inputs = seen.flatten(2)  # [N, m, 2 H]
        return self._by_motor(self._network.torque(self._by_group(inputs))[..., None])[..., 0]

    def _remembered(self, sample: Tensor) -> Tensor:
        """Torques [N, m] of a memory that sees this sample [N, m, 2]."""
        grouped = self._by_group(sample)
        if self._any_fresh:
            rest = self._by_motor(self._network.settled(grouped))
            self._history = torch.where(self._fresh[:, None, None, None], rest[:, None], self._history)
            self._fresh, self._any_fresh = torch.zeros_like(self._fresh), False
        torque, memory = self._network.after(grouped, self._by_group(self._history[:, self._newest]))
        self._history[:, self._newest] = self._by_motor(memory)
        return self._by_motor(torque[..., None])[..., 0]

    def _by_group(self, values: Tensor) -> Tensor:
        """Values [N, m, k] as the network takes them: [1, N m, k] of a shared one, else [m, N, k]."""
        return values.flatten(0, 1)[None] if self._network.shared else values.transpose(0, 1)

    def _by_motor(self, values: Tensor) -> Tensor:
        """The way back: [N, m, k]."""
        if self._network.shared:
            return values[0].view(-1, len(self._motor_list), values.shape[-1])
        return values.transpose(0, 1)


def _lags(network: ActuatorNetwork, context: EffectContext) -> list[int]:
    """Ages of the samples that the network sees, in physics steps."""
    return [_steps(lag * network.period_s, context) for lag in network.history]


def _steps(time_s: float, context: EffectContext) -> int:
    return round(time_s / float(context.task.model.opt.timestep))


def _check_period(network: ActuatorNetwork, context: EffectContext) -> None:
    """Raise TaskError where physics steps are longer than the network's period."""
    step_s = float(context.task.model.opt.timestep)
    if step_s > 1.001 * network.period_s:
        raise TaskError(
            f"actuator: its samples are {1e3 * network.period_s:g} ms apart, expected at least a physics step of the "
            f"task, {1e3 * step_s:g} ms; train it with a longer --period"
        )


def _check_servo(model: mujoco.MjModel, actuator: int) -> None:
    if not is_servo(model, actuator):
        raise TaskError(
            f"actuator: {model.actuator(actuator).name or actuator} takes no position, which the network's commands "
            "are; expected a position servo at a hinge or slide, without dynamics or delay of its own"
        )
