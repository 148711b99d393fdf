"""Gymnasium's robots with a free torso: Ant-v5, Humanoid-v5, HumanoidStandup-v5. See `gymnasium_v5`.

Observation (policy group, in order; root_xy only if current positions are not excluded):

| component     | size      | meaning                                                          | unit             |
|---------------|-----------|------------------------------------------------------------------|------------------|
| root_xy       | 2         | position of the torso, world                                     | m                |
| root_height   | 1         | height of the torso, world                                       | m                |
| root_quat     | 4         | orientation of the torso: w, x, y, z                             | 1                |
| joint_pos     | per joint | joint angles                                                     | rad              |
| root_linvel   | 3         | velocity of the torso, world                                     | m/s              |
| root_angvel   | 3         | angular velocity of the torso, in its own frame                  | rad/s            |
| joint_vel     | per joint | joint velocities                                                 | rad/s            |
| cinert        | 10 a body | Humanoids: inertia (6), mass times offset (3), mass              | kg m^2, kg m, kg |
| cvel          | 6 a body  | Humanoids: angular velocity, linear velocity                     | rad/s, m/s       |
| qfrc_actuator | per joint | Humanoids: torque of the motors                                  | N m              |
| cfrc_ext      | 6 a body  | torque, force of contacts (Ant: clipped); 0 at the first step    | N m, N           |

The last four can be left out by options. Ant and Humanoid: reward for velocity along x (of the torso, of the centre
of mass) and for being healthy (height in a range), minus control and contact cost; they terminate when unhealthy.
HumanoidStandup: reward for the height of the torso, minus control and impact cost, plus 1; never terminates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar

import mujoco
import torch
from torch import Tensor

from envs.common.names import labels_of
from envs.locomotion.gymnasium_v5.common import (
    ForwardTask,
    Range,
    between,
    body_component,
    joint_component,
    joint_names,
)
from envs.task import XYZ, Component, Outcome, id_of, vector

_MOTION = tuple(f"{kind}_{axis}" for kind in ("angular", "linear") for axis in XYZ)
_WRENCH = tuple(f"{kind}_{axis}" for kind in ("torque", "force") for axis in XYZ)
_INERTIA = ("xx", "yy", "zz", "xy", "xz", "yz", "mx", "my", "mz", "mass")
_DERIVED = ("cinert", "cvel", "qfrc_actuator", "cfrc_ext")  # in this order
_CAMERA = {"type": int(mujoco.mjtCamera.mjCAMERA_TRACKING), "trackbodyid": 1, "distance": 4.0, "elevation": -20.0}


@dataclass(eq=False, repr=False)
class FreeTask(ForwardTask):
    """A robot whose torso floats, with contact forces.

    Attributes:
        derived: fields that the observation shows after qpos and qvel, of `_DERIVED`.
        contact_force_range: contact forces are clipped to it.
    """

    frame_skip: int = 5
    include_cfrc_ext_in_observation: bool = True

    contact_force_range = (-math.inf, math.inf)
    excluded = 2
    body_forces = True
    state_tensors = ("forces",)
    render_camera: ClassVar = _CAMERA

    def __post_init__(self) -> None:
        super().__post_init__()
        self.derived = tuple(name for name in _DERIVED if getattr(self, f"include_{name}_in_observation", False))
        self.observation = (*self._state_components(), *self._derived_components())

    def _state_components(self) -> tuple[Component, ...]:
        torso = (labels_of(self.model, "body")[1],)
        joints = joint_names(self.model)[1:]
        quat = ("w", "x", "y", "z")
        return (
            *self._planar_position(torso),
            Component("root_height", 1, "m", elements=("z",), bodies=torso, description="height of the torso"),
            Component("root_quat", 4, "1", elements=quat, bodies=torso, limits=(-1.0, 1.0), description="orientation"),
            joint_component("joint_pos", "rad", joints, "joint angles"),
            vector("root_linvel", "m/s", torso, "velocity of the torso"),
            vector("root_angvel", "rad/s", torso, "angular velocity of the torso", frame="torso"),
            joint_component("joint_vel", "rad/s", joints, "joint velocities"),
        )

    def _planar_position(self, torso: tuple[str, ...]) -> tuple[Component, ...]:
        position = Component("root_xy", 2, "m", elements=("x", "y"), bodies=torso, description="position of the torso")
        return () if self.hidden else (position,)

    def _derived_components(self) -> tuple[Component, ...]:
        model = self.model
        limits = self.contact_force_range if math.isfinite(self.contact_force_range[0]) else None
        every = {
            "cinert": body_component(model, "cinert", "kg m^2, kg m, kg", _INERTIA, "inertia, mass * offset, mass"),
            "cvel": body_component(model, "cvel", "rad/s, m/s", _MOTION, "velocity"),
            "qfrc_actuator": joint_component("qfrc_actuator", "N m", joint_names(model)[1:], "torque of the motors"),
            "cfrc_ext": body_component(model, "cfrc_ext", "N m, N", _WRENCH, "torque and force of contacts", limits),
        }
        return tuple(every[name] for name in self.derived)

    def on_attach(self) -> None:
        super().on_attach()
        flat = lambda name: self.engine.data(name).view(self.engine.num_envs, -1)  # noqa: E731
        self._live_forces = flat("cfrc_ext")
        self.forces = torch.zeros_like(self._live_forces)
        # Live views of the values of all bodies but the world, of all dofs but the torso's.
        skip = {"cinert": 10, "cvel": 6, "qfrc_actuator": 6}
        views = {name: flat(name)[:, skip[name] :] for name in self.derived if name != "cfrc_ext"}
        self._shown = [views.get(name) for name in self.derived]

    def reset(self, mask: Tensor) -> None:
        super().reset(mask)
        low, high = self.contact_force_range
        self.forces.masked_fill_(mask[:, None], min(max(0.0, low), high))

    def after_step(self) -> None:
        # Kept, because the engine's own values mean nothing between a reset and the first step.
        torch.clamp(self._live_forces, *self.contact_force_range, out=self.forces)

    def observe(self) -> Tensor:
        derived = (self.forces[:, 6:] if view is None else view for view in self._shown)
        return torch.cat((self._qpos[:, self.hidden :], self._qvel, *derived), dim=1)

    def square_forces(self) -> Tensor:
        """Sum of squares [N] of all components of the contact forces and torques."""
        return self.forces.square().sum(dim=1)


@dataclass(eq=False, repr=False)
class AntTask(FreeTask):
    """Ant-v5. Options as Gymnasium's."""

    xml_file: str = "ant.xml"
    ctrl_cost_weight: float = 0.5
    contact_cost_weight: float = 5e-4
    healthy_reward: float = 1.0
    main_body: int | str = 1
    terminate_when_unhealthy: bool = True
    healthy_z_range: Range = (0.2, 1.0)
    contact_force_range: Range = (-1.0, 1.0)

    id = "Ant-v5"
    normal_velocity_noise = True

    def on_attach(self) -> None:
        super().on_attach()
        body = self.main_body
        index = body if isinstance(body, int) else id_of(self.model, mujoco.mjtObj.mjOBJ_BODY, body)
        self._main_x = self.engine.data("xpos")[:, index, 0]

    def x_position(self) -> Tensor:
        return self._main_x

    def contact_reward(self) -> Tensor:
        return -self.contact_cost_weight * self.square_forces()

    def is_healthy(self) -> Tensor:
        low, high = self.healthy_z_range
        height = self._qpos[:, 2]
        return self.finite() & (height >= low) & (height <= high)


@dataclass(eq=False, repr=False)
class _HumanoidTask(FreeTask):
    """What the two Humanoid tasks show, and their control cost, which is computed from what the actuators get."""

    reset_noise_scale: float = 1e-2
    include_cinert_in_observation: bool = True
    include_cvel_in_observation: bool = True
    include_qfrc_actuator_in_observation: bool = True

    def control_reward(self, action: Tensor) -> Tensor:
        return -self.ctrl_cost_weight * self.native(action).to(self.engine.dtype).square().sum(dim=1)


@dataclass(eq=False, repr=False)
class HumanoidTask(_HumanoidTask):
    """Humanoid-v5. Options as Gymnasium's."""

    xml_file: str = "humanoid.xml"
    forward_reward_weight: float = 1.25
    contact_cost_weight: float = 5e-7
    contact_cost_range: Range = (-math.inf, 10.0)
    healthy_reward: float = 5.0
    terminate_when_unhealthy: bool = True
    healthy_z_range: Range = (1.0, 2.0)

    id = "Humanoid-v5"

    def on_attach(self) -> None:
        super().on_attach()
        # The world's subtree is the whole robot: its centre of mass, with the masses of each simulation.
        self._com_x = self.engine.data("subtree_com")[:, 0, 0]

    def x_position(self) -> Tensor:
        return self._com_x

    def contact_reward(self) -> Tensor:
        return -(self.contact_cost_weight * self.square_forces()).clamp(*self.contact_cost_range)

    def is_healthy(self) -> Tensor | None:
        return between(self.healthy_z_range[0], self._qpos[:, 2], self.healthy_z_range[1])


@dataclass(eq=False, repr=False)
class HumanoidStandupTask(_HumanoidTask):
    """HumanoidStandup-v5. Options as Gymnasium's."""

    xml_file: str = "humanoidstandup.xml"
    forward_reward_weight: float = field(default=0.0, init=False)  # no option here
    uph_cost_weight: float = 1.0  # Gymnasium 1.4 takes it and does not use it; nor do we
    impact_cost_weight: float = 0.5e-6
    impact_cost_range: Range = (-math.inf, 10.0)

    id = "HumanoidStandup-v5"
    accepted = MappingProxyType({"penetration": "Gymnasium's humanoid begins lying, its arms in floor and legs"})

    def __post_init__(self) -> None:
        super().__post_init__()
        self._timestep_s = float(self.model.opt.timestep)  # the reward is defined by it, whatever a world steps with

    def outcome(self, action: Tensor) -> Outcome:
        height = self._qpos[:, 2] / self._timestep_s
        control = self.control_reward(action)
        impact = (self.impact_cost_weight * self.square_forces()).clamp(*self.impact_cost_range)
        terms = {"reward_linup": height, "reward_quadctrl": control, "reward_impact": -impact}
        return Outcome(height + control - impact + 1.0, self.nowhere(), self.nowhere(), terms)
