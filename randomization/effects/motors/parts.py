"""The motors of a model: where they are, what they ask for, and what a world says of each."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import torch
from torch import Tensor

from envs.common.stateful import Stateful
from envs.engines.base import Engine
from randomization.effects.context import EffectContext
from randomization.effects.parameter_index import index_of
from randomization.targets.motors import gear_of, largest_torque

_UNLIMITED = 1e9  # N m: more than any motor has, and finite


class MotorValues(Stateful):
    """Values of a quantity in each world: [N, m] for motors, or [N, 1] for the whole task.

    Args:
        context: of the effect.
        name: of the quantity.
        motors: the m actuators; None for a quantity of the task.
        nominal: where it says nothing.

    Attributes:
        asked: whether it is a parameter.
        now: the values.
    """

    _state = ("now",)

    def __init__(self, context: EffectContext, name: str, motors: Sequence[int] | None, nominal: float) -> None:
        self._index = context.index(name)
        self.asked = bool(self._index.size)
        self.now = context.zeros(1 if motors is None else len(motors)).to(context.engine.dtype) + nominal
        places = [0] * self._index.size if motors is None else [motors.index(p) for p in self._index.places]
        self._columns = index_of(places, context.engine.device)

    def take(self, mask: Tensor, lam: Tensor) -> None:
        """Those of new worlds lam [N, d] in mask [N]."""
        if self.asked:
            values = self.now.clone()
            values[:, self._columns] = self._index.of(lam).to(values.dtype)
            self.now = torch.where(mask[:, None], values, self.now)


class MotorState:
    """The state of m motors (see `randomization.targets.motors.is_motor`), live, and the torque that they are to exert.

    Args:
        model: the task's.
        engine: that runs it.
        motors: its actuators.

    Attributes:
        dofs: of their joints [m].
        gear: torque at the joint for an actuator's force of 1 [m].
        peak: largest torques, N m [m].
        unlimited: motors [m] (bool) to which the model gives no limit of their own.
        low, high: limits of the torque by the actuator itself, N m [N, m].
        gain: MuJoCo's first parameter of the actuators' gain [N, m].
        bias: MuJoCo's first three parameters of the actuators' bias [N, m, 3].
        inertia: that a motor feels where nothing else is held, kg m^2 [m].
    """

    def __init__(self, model: mujoco.MjModel, engine: Engine, motors: list[int]) -> None:
        device, joints = engine.device, [int(model.actuator_trnid[a, 0]) for a in motors]
        controls = model.actuator_ctrladr[motors]

        def real(values: Sequence[float]) -> Tensor:
            return torch.tensor([float(v) for v in values], dtype=engine.dtype, device=device)

        def limits(limited: Sequence[bool], values: Sequence[float]) -> Tensor:
            return torch.where(torch.tensor([bool(x) for x in limited], device=device), real(values), torch.inf)

        self.dofs = [int(model.jnt_dofadr[j]) for j in joints]
        self._dofs = index_of(self.dofs, device)
        self._angles = index_of([int(model.jnt_qposadr[j]) for j in joints], device)
        self._controls, self._all = index_of(controls.tolist(), device), index_of(motors, device)
        self._lowest = -limits(model.actuator_ctrllimited[controls], -model.actuator_ctrlrange[controls, 0])
        self._highest = limits(model.actuator_ctrllimited[controls], model.actuator_ctrlrange[controls, 1])
        self._joint_limit = limits(model.jnt_actfrclimited[joints], model.jnt_actfrcrange[joints, 1])
        self.gear = real([gear_of(model, a) for a in motors])
        self.peak = real([min(largest_torque(model, a), _UNLIMITED) for a in motors])
        self.inertia = 1.0 / real(model.dof_invweight0[self.dofs])
        self._range = engine.field("actuator_forcerange")
        self.unlimited = torch.tensor([not model.actuator_forcelimited[a] for a in motors], device=device)
        self._qpos, self._qvel, self._ctrl = (engine.data(name) for name in ("qpos", "qvel", "ctrl"))
        self._qfrc_constraint = engine.data("qfrc_constraint")
        self._gain_field, self._bias_field = (engine.field(f"actuator_{k}prm") for k in ("gain", "bias"))
        self.read()

    def read(self) -> None:
        """Take note of gains and limits of the present worlds; they hold for a control step."""
        low, high = (self._range[:, self._all] * self.gear[:, None]).unbind(dim=2)
        self.low = torch.minimum(low, high).masked_fill(self.unlimited, -torch.inf)
        self.high = torch.maximum(low, high).masked_fill(self.unlimited, torch.inf)
        self.gain = self._gain_field[:, self._all, 0].clone()
        self.bias = self._bias_field[:, self._all, :3].clone()
        b0, b1, b2 = self.bias.unbind(dim=2)
        self._gain, self._offset = self.gear * self.gain, self.gear * b0  # at the joint, N m
        self._stiffness, self._damping = self.gear.square() * b1, self.gear.square() * b2

    def now(self) -> tuple[Tensor, Tensor]:
        """Angles and speeds of the joints [N, m]."""
        return self._qpos[:, self._angles], self._qvel[:, self._dofs]

    def command(self) -> Tensor:
        """The present controls [N, m], within their ranges."""
        return torch.clamp(self._ctrl[:, self._controls], self._lowest, self._highest)

    def asked(self, angle: Tensor, speed: Tensor) -> Tensor:
        """The torque at the joint that the present command asks for [N, m], before any limits."""
        static = torch.addcmul(self._offset, self._gain, self.command())
        return static.addcmul_(self._stiffness, angle).addcmul_(self._damping, speed)

    def constrained(self) -> Tensor:
        """Torque of friction, limits and contacts on the joints in the physics step before, N m [N, m]."""
        return self._qfrc_constraint[:, self._dofs]

    def within_joint(self, torque: Tensor) -> Tensor:
        """What the limits of the joints leave of torques [N, m]."""
        return torch.clamp(torque, -self._joint_limit, self._joint_limit)


class TorqueLimits:
    """Limits of motors' torques, written to `actuator_forcerange`; motors that the model leaves without get some.

    Args:
        context: of the effect.
        state: of the motors.
        motors: their actuators.
    """

    def __init__(self, context: EffectContext, state: MotorState, motors: list[int]) -> None:
        engine, model = context.engine, context.task.model
        context.model_values("actuator_forcerange", [2 * a + end for a in motors for end in (0, 1)])
        self._range, self._places = engine.field("actuator_forcerange"), index_of(motors, engine.device)
        gears = [gear_of(model, a) for a in motors]  # of the model: a tensor of a GPU would have to be waited for
        self._gear, self._turned, self._geared = state.gear, min(gears) < 0.0, any(gear != 1.0 for gear in gears)
        free = [a for a in motors if not model.actuator_forcelimited[a]]
        self._free = torch.tensor(free, dtype=torch.int64, device=engine.device)
        if free:
            engine.field("actuator_forcelimited")[:, free] = True
            state.unlimited.zero_()
            peak = state.peak / state.gear.abs()
            self._free_range = torch.stack((-peak, peak), dim=1)[[motors.index(a) for a in free]]

    def reset(self, mask: Tensor) -> None:
        """Give back, in mask [N], what the model says of motors without limits: that they have none, or the largest
        that their commands lead to."""
        if len(self._free):
            present = self._range[:, self._free]
            self._range[:, self._free] = torch.where(mask[:, None, None], self._free_range, present)

    def write(self, low: Tensor, high: Tensor) -> None:
        """Let the engine keep torques [N, m] within these."""
        if self._geared:
            low, high = low / self._gear, high / self._gear
        if self._turned:
            low, high = torch.minimum(low, high), torch.maximum(low, high)
        self._range[:, self._places, 0] = low
        self._range[:, self._places, 1] = high
