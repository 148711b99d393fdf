"""Motors that get warm: two quantities to randomize that are not part of simreal.

Losses in a motor's winding grow with the square of its current, and so of its torque; as a body with one heat capacity
it approaches the temperature that belongs to them with a time constant T (Urata et al., "Thermal control of electrical
motors for high-power humanoid robots", IROS 2008, who use two such bodies). With h = 1 for the temperature that peak
torque would lead to in the end, and drives that take torque back in proportion to temperature,

    dh/dt = ((torque / peak)^2 - h) / T,    h(0) = 0,    |torque| <= (1 - motor_heat * h) * peak

which for a torque that holds for a control step is h' = q + (h - q) exp(-dt / T) with q = (torque / peak)^2.
"""

from __future__ import annotations

import torch
from torch import Tensor

import simreal


class MotorHeat(simreal.Effect):
    """Lowers the limits of actuators' forces (`forcerange`) as they get warm."""

    _state = ("loss", "time_s", "heat")

    def __init__(self, context: simreal.EffectContext) -> None:
        self.index, self.time = context.index("motor_heat"), context.index("motor_heat_time")
        self.environment, self.durations, model = context.environment, context.durations, context.task.model
        motors, device = self.index.places, context.engine.device
        self.loss, self.heat, self.time_s = (context.zeros(size) for size in (len(motors), len(motors), 1))
        self.ends = torch.tensor([[2 * motor, 2 * motor + 1] for motor in motors], device=device)
        changed = [2 * motor + end for motor in motors for end in (0, 1)]
        self.limits = context.model_values("actuator_forcerange", changed).live
        self.peak = torch.as_tensor(model.actuator_forcerange[motors]).abs().amax(1).to(device)
        self.output = torch.as_tensor(model.actuator_outadr[motors]).long().to(device)
        self.force = context.engine.data("actuator_force")

    def reset(self, mask: Tensor, lam: Tensor) -> None:
        rows = mask[:, None]
        self.loss = torch.where(rows, self.index.of(lam), self.loss)
        self.time_s = torch.where(rows, self.time.or_nominal(lam), self.time_s)
        self.heat = self.heat.masked_fill(rows, 0.0)

    def on_step(self) -> None:
        losses = (self.force[:, self.output].double() / self.peak).square()  # of the control step that has passed
        passed = (self.environment.steps > 0)[:, None] * self.durations.period_s
        self.heat = losses + (self.heat - losses) * torch.exp(-passed / self.time_s)
        left = (1.0 - self.loss * self.heat).clamp(min=0.0)
        self.limits[:, self.ends] = (self.limits[:, self.ends] * left[:, :, None]).to(self.limits.dtype)


simreal.register_quantity(
    simreal.Quantity(
        name="motor_heat",
        channel="action",
        target="actuator",
        limits=(0.0, 1.0),
        default_range=(0.0, 0.5),
        description="share of its peak torque that a motor has lost when it is as warm as that torque makes it",
        effect=MotorHeat,
        suits=lambda task, index: bool(task.model.actuator_forcelimited[index]),
        expected="actuator with a force range of its own",
    )
)
simreal.register_quantity(
    simreal.Quantity(
        name="motor_heat_time",
        channel="action",
        target="none",
        unit="s",
        nominal=60.0,
        limits=(0.1, float("inf")),
        default_range=(20.0, 120.0),
        description="time constant of a motor's warming and cooling",
        needs="motor_heat",
    )
)
