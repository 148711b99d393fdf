"""Motors inside of the physics step: limits of torque that depend on speed, voltage and temperature; friction that
depends on load and speed; encoders with a resolution.

Before every physics step the torque that the drive asks for follows from the command and from the state at that
moment, as MuJoCo will compute it. What limits it is written to `actuator_forcerange`, what gears and bearings take to
`dof_frictionloss` (a constraint, so that a joint can stick), and what the encoder does not see to the servo's bias.
"""

from __future__ import annotations

import torch
from torch import Tensor

from randomization.effects.context import EffectContext
from randomization.effects.effect import Effect
from randomization.effects.motors.equations import (
    UNLIMITED,
    derated,
    electrical_power,
    gear_loss,
    slopes,
    stribeck,
    torque_limits,
    voltage_share,
    warmed,
)
from randomization.effects.motors.parts import MotorState, MotorValues, TorqueLimits
from randomization.effects.parameter_index import index_of

_STILL = 0.01  # rad/s (or m/s): far below, a joint counts as at rest
_SUPPLY_S = 0.005  # time constant of a supply's voltage: inductance of its lines, capacitors of its drives
_OF_MOTORS = {  # and what they are where nothing is said
    "motor_no_load_speed": UNLIMITED, "motor_stall_torque": 1.0, "motor_continuous_torque": 1e6,
    "motor_start_heat": 0.0, "motor_friction_load": 0.0, "motor_stiction": 0.0, "gear_efficiency": 1.0,
    "gear_backdrive_efficiency": 1.0, "encoder_resolution": 0.0,
}  # fmt: skip
_OF_TASK = {
    "motor_thermal_time": 60.0, "motor_stribeck_speed": 0.1, "supply_sag": 0.0,
}  # fmt: skip


class Motors(Effect):
    """Applies the quantities of motors, gears, encoders and the supply.

    Attributes:
        heat: temperature of each motor, as a share of the rise that it may have [N, m].
        voltage: share of the supply's open voltage that is there [N, 1].
    """

    order = 80
    whole_episodes = frozenset({"motor_start_heat"})
    _state = ("_values", "heat", "voltage")

    def __init__(self, context: EffectContext) -> None:
        engine, model = context.engine, context.task.model
        self._timestep_s, self._dtype = context.durations.timestep_s, engine.dtype
        motors = sorted({place for name in _OF_MOTORS for place in context.index(name).places})
        self._values = {name: MotorValues(context, name, motors, none) for name, none in _OF_MOTORS.items()}
        self._values |= {name: MotorValues(context, name, None, none) for name, none in _OF_TASK.items()}
        asked = {name for name, values in self._values.items() if values.asked}
        self._curve, self._warms = "motor_no_load_speed" in asked, "motor_continuous_torque" in asked
        self._sags, self._sticks = "supply_sag" in asked, "motor_stiction" in asked
        self._loses = bool(asked & {"gear_efficiency", "gear_backdrive_efficiency"})
        self._loaded, self._counts = "motor_friction_load" in asked, "encoder_resolution" in asked
        self._rubs = self._sticks or self._loses or self._loaded
        self._motors = MotorState(model, engine, motors)
        self.heat, self.voltage = (context.zeros(size).to(engine.dtype) for size in (len(motors), 1))
        self.voltage += 1.0
        if self._curve or self._warms:
            self._torque_limits = TorqueLimits(context, self._motors, motors)
        if self._rubs:
            dofs = sorted(set(self._motors.dofs))
            self._friction = context.model_values("dof_frictionloss", dofs).live
            self._dofs = index_of(dofs, engine.device)
            self._one_each = self._motors.dofs == dofs
            self._of_dof = torch.tensor([dofs.index(d) for d in self._motors.dofs], device=engine.device)
        if self._counts:
            width = model.actuator_biasprm.shape[1]
            self._offset = context.model_values("actuator_biasprm", [width * a for a in motors]).live
            self._offsets = index_of([width * a for a in motors], engine.device)

    def reset(self, mask: Tensor, lam: Tensor) -> None:
        """Take what new worlds lam [N, d] in mask [N] say of motors, which have the temperature of the start."""
        self.change(mask, lam)
        self.heat = torch.where(mask[:, None], self._values["motor_start_heat"].now, self.heat)
        self.voltage = self.voltage.masked_fill(mask[:, None], 1.0)
        if self._curve or self._warms:
            self._torque_limits.reset(mask)

    def change(self, mask: Tensor, lam: Tensor) -> None:
        """Take what other worlds lam [N, d] in mask [N] say; motors are as warm as they are."""
        for values in self._values.values():
            values.take(mask, lam)

    def on_step(self) -> None:
        """Take note of what the world, and effects that change it, say for this control step."""
        motors, self._now = self._motors, {name: values.now for name, values in self._values.items()}
        now, timestep_s = self._now, self._timestep_s[:, None].to(self._dtype)
        motors.read()
        if self._curve:
            no_load, stall = now["motor_no_load_speed"], now["motor_stall_torque"] * motors.peak
            self._below, self._beyond = slopes(stall, no_load, motors.inertia, timestep_s)
            # R / k^2 of those that draw from the supply
            self._copper, self._draws = no_load / stall, no_load < UNLIMITED
            self._settled = -torch.expm1(-timestep_s / _SUPPLY_S)
        if self._warms:
            self._continuous = now["motor_continuous_torque"] * motors.peak
            self._share = -torch.expm1(-timestep_s / now["motor_thermal_time"])
        if self._rubs:
            self._own_friction = self._friction[:, self._dofs].clone()
            self._lost_driving = 1.0 - now["gear_efficiency"]
            self._lost_back = 1.0 / now["gear_backdrive_efficiency"] - 1.0

    def on_physics_step(self) -> None:
        """Let the motors be what they are at this moment."""
        angle, speed = self._motors.now()
        if self._counts:
            angle = self._seen(angle)
        low, high = self._motors.low, self._motors.high
        if self._curve or self._warms:
            low, high = self._limits(speed)
            self._torque_limits.write(low, high)
        torque = speed  # stands for it where nothing asks for it
        if self._loaded or self._loses or self._warms or self._sags:
            torque = self._motors.within_joint(torch.clamp(self._motors.asked(angle, speed), low, high))
        if self._rubs:
            self._rub(torque, speed)
        if self._warms:
            self.heat = warmed(self.heat, torque, self._continuous, self._share)
        if self._sags:
            self._sag(torque, speed)

    def _seen(self, angle: Tensor) -> Tensor:
        """Angles [N, m] as encoders show them; servos act on these."""
        step = self._now["encoder_resolution"]
        seen = torch.where(step > 0, torch.round(angle / step) * step, angle)
        unseen = self._motors.bias[..., 1] * self._motors.gear * (seen - angle)
        self._offset[:, self._offsets] = self._motors.bias[..., 0] + unseen
        return seen

    def _limits(self, speed: Tensor) -> tuple[Tensor, Tensor]:
        """Lowest and highest torque of each motor now [N, m]."""
        low, high = self._motors.low, self._motors.high
        if self._warms:
            high = torch.minimum(high, derated(high, self._continuous, self.heat))
            low = torch.maximum(low, -derated(-low, self._continuous, self.heat))
        if not self._curve:
            return low, high
        reach = self._now["motor_no_load_speed"]
        reach = reach * self.voltage if self._sags else reach
        least, most = torque_limits(speed, reach, self._below, self._beyond)
        return torch.clamp(least, low, high), torch.clamp(most, low, high)

    def _rub(self, torque: Tensor, speed: Tensor) -> None:
        """Write what friction takes from the joints."""
        now, lost = self._now, self._own_friction
        of_motors = torch.zeros_like(torque)
        if self._loaded:
            of_motors += now["motor_friction_load"] * torque.abs()
        if self._loses:
            held = self._motors.constrained()
            of_motors += gear_loss(torque, speed, held, self._lost_driving, self._lost_back, _STILL)
        if self._sticks:
            of_motors += stribeck(speed, now["motor_stiction"], now["motor_stribeck_speed"])
        # several motors at one joint: the sum
        lost = lost + of_motors if self._one_each else lost.index_add(1, self._of_dof, of_motors)
        self._friction[:, self._dofs] = lost

    def _sag(self, torque: Tensor, speed: Tensor) -> None:
        """Let the supply's voltage follow the power that all motors draw."""
        power = torch.where(self._draws, electrical_power(torque, speed, self._copper), 0.0).sum(dim=1, keepdim=True)
        share = voltage_share(power, 1e-3 * self._now["supply_sag"])
        self.voltage = torch.lerp(self.voltage, share, self._settled)
