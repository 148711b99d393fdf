"""Gymnasium's arms and pendulums: Reacher-v5, Pusher-v5, InvertedPendulum-v5, InvertedDoublePendulum-v5.
See `gymnasium_v5`.

Observation (policy group, in order):

| component              | size | meaning                                                        | unit  |
|------------------------|------|----------------------------------------------------------------|-------|
| Reacher                |      |                                                                |       |
| joint_cos, joint_sin   | 2, 2 | of the two joint angles                                        | 1     |
| target_pos             | 2    | where the fingertip should be, world x, y                      | m     |
| joint_vel              | 2    | joint velocities                                               | rad/s |
| fingertip_to_target    | 2    | fingertip minus target, world x, y                             | m     |
| Pusher                 |      |                                                                |       |
| joint_pos, joint_vel   | 7, 7 | of the arm                                                     | rad, rad/s |
| fingertip_pos          | 3    | tip of the arm, world                                          | m     |
| object_pos             | 3    | object, world                                                  | m     |
| goal_pos               | 3    | where the object should be, world                              | m     |
| InvertedPendulum       |      |                                                                |       |
| cart_pos, pole_pos     | 1, 1 | position of the cart, angle of the pole                        | m, rad |
| cart_vel, pole_vel     | 1, 1 | their rates                                                    | m/s, rad/s |
| InvertedDoublePendulum |      |                                                                |       |
| cart_pos               | 1    | position of the cart                                           | m     |
| pole_sin, pole_cos     | 2, 2 | of the two joint angles                                        | 1     |
| cart_vel, pole_vel     | 1, 2 | velocities, clipped to 10                                      | m/s, rad/s |
| cart_constraint_force  | 1    | force of the rail's ends on the cart, clipped to 10            | N     |

Reacher and Pusher: minus distances, minus control cost; they never terminate. The pendulums: reward for staying
upright (the double one minus penalties for distance and velocity); they terminate when they fall.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import mujoco
import torch
from torch import Tensor

from envs.locomotion.gymnasium_v5.common import GymnasiumTask, joint_component, joint_names
from envs.task import Component, Outcome, id_of, vector

_XY = ("x", "y")
_GOAL_RADIUS_M = 0.2  # Reacher: targets are uniform in this disc
_MIN_OBJECT_DISTANCE_M = 0.17  # Pusher: the object starts at least this far from the goal


@dataclass(eq=False, repr=False)
class _ArmTask(GymnasiumTask):
    """An arm with something to reach, which the last coordinates of qpos place."""

    max_episode_steps = 50

    def on_attach(self) -> None:
        super().on_attach()
        self._xpos = self.engine.data("xpos")

    def body(self, name: str) -> Tensor:
        """World position [N, 3] of a body, live."""
        return self._xpos[:, id_of(self.model, mujoco.mjtObj.mjOBJ_BODY, name)]


@dataclass(eq=False, repr=False)
class ReacherTask(_ArmTask):
    """Reacher-v5. Options as Gymnasium's."""

    xml_file: str = "reacher.xml"
    frame_skip: int = 2
    reward_dist_weight: float = 1.0
    reward_control_weight: float = 1.0

    id = "Reacher-v5"
    render_camera: ClassVar = {"distance": 0.8, "elevation": -90.0, "lookat": (0.0, 0.0, 0.0)}

    def __post_init__(self) -> None:
        super().__post_init__()
        joints = joint_names(self.model)[:2]
        self.observation = (
            joint_component("joint_cos", "1", joints, "cosine of the joint angles", 1.0),
            joint_component("joint_sin", "1", joints, "sine of the joint angles", 1.0),
            Component(
                "target_pos", 2, "m", elements=_XY, bodies=("target",), measured=False,
                description="where the fingertip should be",
            ),
            joint_component("joint_vel", "rad/s", joints, "joint velocities"),
            Component(
                "fingertip_to_target", 2, "m", elements=_XY, bodies=("fingertip", "target"),
                description="fingertip minus target",
            ),
        )  # fmt: skip

    def on_attach(self) -> None:
        super().on_attach()
        self._fingertip, self._target = self.body("fingertip"), self.body("target")

    def initial_state(self) -> tuple[Tensor, Tensor]:
        qpos = self._init_qpos + 0.1 * self.symmetric("qpos", self.model.nq)
        qvel = 0.005 * self.symmetric("qvel", self.model.nv)
        u = self.rng.episode_uniform("goal", 2)
        radius, angle = _GOAL_RADIUS_M * u[:, :1].sqrt(), 2.0 * torch.pi * u[:, 1:]
        qpos[:, -2:] = torch.cat((radius * angle.cos(), radius * angle.sin()), dim=1)
        qvel[:, -2:] = 0.0
        return qpos, qvel

    def observe(self) -> Tensor:
        angle, to_target = self._qpos[:, :2], (self._fingertip - self._target)[:, :2]
        return torch.cat((angle.cos(), angle.sin(), self._qpos[:, 2:], self._qvel[:, :2], to_target), dim=1)

    def outcome(self, action: Tensor) -> Outcome:
        distance = -(self._fingertip - self._target).norm(dim=1) * self.reward_dist_weight
        control = (-self.square_action(action) * self.reward_control_weight).to(distance.dtype)
        terms = {"reward_dist": distance, "reward_ctrl": control}
        return Outcome(distance + control, self.nowhere(), self.nowhere(), terms)


@dataclass(eq=False, repr=False)
class PusherTask(_ArmTask):
    """Pusher-v5. Options as Gymnasium's."""

    xml_file: str = "pusher_v5.xml"
    frame_skip: int = 5
    reward_near_weight: float = 0.5
    reward_dist_weight: float = 1.0
    reward_control_weight: float = 0.1

    id = "Pusher-v5"
    max_episode_steps = 100
    render_camera: ClassVar = {"distance": 4.0}

    def __post_init__(self) -> None:
        super().__post_init__()
        joints = joint_names(self.model)[:7]
        self.observation = (
            joint_component("joint_pos", "rad", joints, "joint angles"),
            joint_component("joint_vel", "rad/s", joints, "joint velocities"),
            vector("fingertip_pos", "m", ("tips_arm",), "tip of the arm"),
            vector("object_pos", "m", ("object",), "object"),
            vector("goal_pos", "m", ("goal",), "where the object should be", measured=False),
        )

    def on_attach(self) -> None:
        super().on_attach()
        self._tip, self._object, self._goal = self.body("tips_arm"), self.body("object"), self.body("goal")

    def initial_state(self) -> tuple[Tensor, Tensor]:
        qpos = self._init_qpos.repeat(self.engine.num_envs, 1)
        qvel = 0.005 * self.symmetric("qvel", self.model.nv)
        qpos[:, -4:-2] = self._object_start()
        qpos[:, -2:] = 0.0
        qvel[:, -4:] = 0.0
        return qpos, qvel

    def _object_start(self) -> Tensor:
        """Uniform [N, 2] in a rectangle outside a disc around the goal, by rejection.

        62 % of the rectangle is outside: 32 tries fail with odds of 1e-13, and then a corner is taken.
        """
        tries = 32
        u = self.rng.episode_uniform("object", 2 * tries).view(-1, tries, 2)
        corner = u.new_tensor((-0.3, -0.2)).expand(len(u), 1, 2)
        place = torch.cat((torch.stack((-0.3 * u[..., 0], 0.4 * u[..., 1] - 0.2), dim=-1), corner), dim=1)
        first = (place.norm(dim=-1) > _MIN_OBJECT_DISTANCE_M).to(torch.int8).argmax(dim=1)
        return place[torch.arange(len(first), device=first.device), first]

    def observe(self) -> Tensor:
        return torch.cat((self._qpos[:, :7], self._qvel[:, :7], self._tip, self._object, self._goal), dim=1)

    def outcome(self, action: Tensor) -> Outcome:
        near = -(self._object - self._tip).norm(dim=1) * self.reward_near_weight
        distance = -(self._object - self._goal).norm(dim=1) * self.reward_dist_weight
        control = (-self.square_action(action) * self.reward_control_weight).to(distance.dtype)
        terms = {"reward_dist": distance, "reward_ctrl": control, "reward_near": near}
        return Outcome(distance + control + near, self.nowhere(), self.nowhere(), terms)


@dataclass(eq=False, repr=False)
class InvertedPendulumTask(GymnasiumTask):
    """InvertedPendulum-v5. Options as Gymnasium's."""

    xml_file: str = "inverted_pendulum.xml"
    frame_skip: int = 2
    reset_noise_scale: float = 0.01

    id = "InvertedPendulum-v5"
    render_camera: ClassVar = {"distance": 2.04}

    def __post_init__(self) -> None:
        super().__post_init__()
        cart, pole = joint_names(self.model)
        self.observation = (
            joint_component("cart_pos", "m", (cart,), "position of the cart"),
            joint_component("pole_pos", "rad", (pole,), "angle of the pole, 0 upright"),
            joint_component("cart_vel", "m/s", (cart,), "velocity of the cart"),
            joint_component("pole_vel", "rad/s", (pole,), "angular velocity of the pole"),
        )

    def observe(self) -> Tensor:
        return torch.cat((self._qpos, self._qvel), dim=1)

    def outcome(self, action: Tensor) -> Outcome:
        upright = self.finite() & (self._qpos[:, 1].abs() <= 0.2)
        reward = upright.to(self.engine.dtype)
        return Outcome(reward, ~upright, self.nowhere(), {"reward_survive": reward})


@dataclass(eq=False, repr=False)
class InvertedDoublePendulumTask(GymnasiumTask):
    """InvertedDoublePendulum-v5. Options as Gymnasium's."""

    xml_file: str = "inverted_double_pendulum.xml"
    frame_skip: int = 5
    healthy_reward: float = 10.0
    reset_noise_scale: float = 0.1

    id = "InvertedDoublePendulum-v5"
    normal_velocity_noise = True
    render_camera: ClassVar = {"distance": 4.1225, "lookat": (0.0, 0.0, 0.1225)}

    def __post_init__(self) -> None:
        super().__post_init__()
        names = joint_names(self.model)
        cart, poles = names[:1], names[1:]
        self.observation = (
            joint_component("cart_pos", "m", cart, "position of the cart"),
            joint_component("pole_sin", "1", poles, "sine of the joint angles", 1.0),
            joint_component("pole_cos", "1", poles, "cosine of the joint angles", 1.0),
            joint_component("cart_vel", "m/s", cart, "velocity of the cart", 10.0),
            joint_component("pole_vel", "rad/s", poles, "joint velocities", 10.0),
            joint_component("cart_constraint_force", "N", cart, "force of the rail's ends on the cart", 10.0),
        )

    def on_attach(self) -> None:
        super().on_attach()
        self._tip = self.engine.data("site_xpos")[:, 0]
        self._constraint_force = self.engine.data("qfrc_constraint")[:, :1]

    def observe(self) -> Tensor:
        cart, angle = self._qpos[:, :1], self._qpos[:, 1:]
        clipped = torch.cat((self._qvel, self._constraint_force), dim=1).clamp(-10.0, 10.0)
        return torch.cat((cart, angle.sin(), angle.cos(), clipped), dim=1)

    def outcome(self, action: Tensor) -> Outcome:
        x, height = self._tip[:, 0], self._tip[:, 2]
        terminated = height <= 1.0
        survive = self.healthy_reward * (~terminated).to(self.engine.dtype)
        distance = 0.01 * x.square() + (height - 2.0).square()
        velocity = 1e-3 * self._qvel[:, 1].square() + 5e-3 * self._qvel[:, 2].square()
        terms = {"reward_survive": survive, "distance_penalty": -distance, "velocity_penalty": -velocity}
        return Outcome(survive - distance - velocity, terminated, self.nowhere(), terms)
