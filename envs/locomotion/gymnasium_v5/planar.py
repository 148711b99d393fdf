"""Gymnasium's robots that move in a plane: HalfCheetah-v5, Hopper-v5, Walker2d-v5, Swimmer-v5. See `gymnasium_v5`.

Observation (policy group, in order; root_x and root_y only if current positions are not excluded):

| component            | size      | meaning                                                     | unit  |
|----------------------|-----------|-------------------------------------------------------------|-------|
| root_x               | 1         | position along the way                                      | m     |
| root_height          | 1         | height (Swimmer: root_y, position across the way)           | m     |
| root_pitch           | 1         | angle of the torso (Swimmer: root_heading)                  | rad   |
| joint_pos            | per joint | angles of the driven joints                                 | rad   |
| root_x_vel           | 1         | velocity along the way                                      | m/s   |
| root_height_vel      | 1         | vertical velocity (Swimmer: root_y_vel)                     | m/s   |
| root_pitch_vel       | 1         | angular velocity of the torso (Swimmer: root_heading_vel)   | rad/s |
| joint_vel            | per joint | angular velocities of the driven joints                     | rad/s |

Hopper and Walker2d show velocities clipped to 10. Reward: velocity along x minus the control cost; Hopper and
Walker2d add a reward for being healthy, and terminate when they are not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import mujoco
import torch
from torch import Tensor

from envs.locomotion.gymnasium_v5.common import ForwardTask, Range, between, joint_component, joint_names
from envs.task import Component

_TRACKING = int(mujoco.mjtCamera.mjCAMERA_TRACKING)


@dataclass(eq=False, repr=False)
class PlanarTask(ForwardTask):
    """A robot that moves in a plane: three root joints (two slides, one hinge), then the driven ones."""

    excluded = 1
    root: ClassVar[tuple[str, str, str]] = ("root_x", "root_height", "root_pitch")
    velocity_limit: ClassVar[float | None] = None  # observed velocities are clipped to it

    def __post_init__(self) -> None:
        super().__post_init__()
        self.observation = self._components()

    def _components(self) -> tuple[Component, ...]:
        names, limit = joint_names(self.model), self.velocity_limit
        driven = names[3:]
        parts = [
            joint_component(self.root[i], "rad" if i == 2 else "m", names[i : i + 1], "root coordinate")
            for i in range(self.hidden, 3)
        ]
        parts.append(joint_component("joint_pos", "rad", driven, "joint angles"))
        parts += [
            joint_component(
                f"{self.root[i]}_vel", "rad/s" if i == 2 else "m/s", names[i : i + 1], "root velocity", limit
            )
            for i in range(3)
        ]
        parts.append(joint_component("joint_vel", "rad/s", driven, "joint velocities", limit))
        return tuple(parts)

    def observe(self) -> Tensor:
        velocity = self._qvel
        if self.velocity_limit is not None:
            velocity = velocity.clamp(-self.velocity_limit, self.velocity_limit)
        return torch.cat((self._qpos[:, self.hidden :], velocity), dim=1)


@dataclass(eq=False, repr=False)
class HalfCheetahTask(PlanarTask):
    """HalfCheetah-v5. Options as Gymnasium's."""

    xml_file: str = "half_cheetah.xml"
    frame_skip: int = 5

    id = "HalfCheetah-v5"
    normal_velocity_noise = True
    render_camera: ClassVar = {"type": _TRACKING, "trackbodyid": 1, "distance": 4.0}


@dataclass(eq=False, repr=False)
class SwimmerTask(PlanarTask):
    """Swimmer-v5. Options as Gymnasium's."""

    xml_file: str = "swimmer.xml"
    frame_skip: int = 4
    ctrl_cost_weight: float = 1e-4

    id = "Swimmer-v5"
    excluded = 2
    root = ("root_x", "root_y", "root_heading")
    render_camera: ClassVar = {"type": _TRACKING, "trackbodyid": 1, "distance": 4.0}


@dataclass(eq=False, repr=False)
class _LegTask(PlanarTask):
    """A walker in the plane that has to keep its height and its angle."""

    frame_skip: int = 4
    ctrl_cost_weight: float = 1e-3
    healthy_reward: float = 1.0
    terminate_when_unhealthy: bool = True
    healthy_z_range: Range = (0.7, math.inf)
    healthy_angle_range: Range = (-0.2, 0.2)
    reset_noise_scale: float = 5e-3

    velocity_limit = 10.0

    def is_healthy(self) -> Tensor:
        in_place = between(self.healthy_z_range[0], self._qpos[:, 1], self.healthy_z_range[1])
        return in_place & between(self.healthy_angle_range[0], self._qpos[:, 2], self.healthy_angle_range[1])


@dataclass(eq=False, repr=False)
class HopperTask(_LegTask):
    """Hopper-v5. Options as Gymnasium's."""

    xml_file: str = "hopper.xml"
    healthy_state_range: Range = (-100.0, 100.0)

    id = "Hopper-v5"
    render_camera: ClassVar = {"type": _TRACKING, "trackbodyid": 1, "distance": 3.0, "elevation": -20.0}

    def is_healthy(self) -> Tensor:
        low, high = self.healthy_state_range
        state = torch.cat((self._qpos[:, 2:], self._qvel), dim=1)
        return between(low, state, high).all(dim=1) & super().is_healthy()


@dataclass(eq=False, repr=False)
class Walker2dTask(_LegTask):
    """Walker2d-v5. Options as Gymnasium's."""

    xml_file: str = "walker2d_v5.xml"
    healthy_z_range: Range = (0.8, 2.0)
    healthy_angle_range: Range = (-1.0, 1.0)

    id = "Walker2d-v5"
    render_camera: ClassVar = {"type": _TRACKING, "trackbodyid": 1, "distance": 4.0, "elevation": -20.0}
