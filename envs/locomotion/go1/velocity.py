"""Go1Velocity-v0: a Unitree Go1 walks as a velocity command says, on flat or rough ground.

Policy group, 50 Hz, all of it measured on the machine (joints in the order FR, FL, RR, RL; hip, thigh, calf):

| component         | size | meaning                                                    | unit         |
|-------------------|------|------------------------------------------------------------|--------------|
| gyro              | 3    | angular velocity of the trunk, in its frame                | rad/s        |
| projected_gravity | 3    | direction of gravity in the trunk's frame                  | 1            |
| joint_pos         | 12   | joint angles                                               | rad          |
| joint_vel         | 12   | joint velocities                                           | rad/s        |
| last_action       | 12   | the action before this one                                 | 1            |
| command           | 3    | wanted velocity of the trunk: forward, left, turning left  | m/s, rad/s   |

The privileged group has what the machine cannot measure: velocity and height of the trunk, contacts, forces, heights
and air times of the feet.

Actions: targets of the joints' position controllers, `offset + scale * action`. An episode takes 10 s, the command
changes every 5 s, one in ten is to stand. It terminates when the robot falls: its trunk touches the ground or tilts
by more than 60 degrees. Success: no fall, and velocity errors of at most `success_errors`, averaged over the episode.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import mujoco
import numpy as np
import torch
from torch import Tensor

from envs.common.spatial import rotate_inverse
from envs.engines.base import write_rows
from envs.locomotion.go1.model import (
    ACTUATORS,
    EFFORT_NM,
    FEET,
    FOOT_RADIUS_M,
    JOINTS,
    KD,
    KP,
    STANCE,
    STANCE_HEIGHT_M,
    TERRAIN_HALF_SIZE_M,
    Terrain,
    build_model,
)
from envs.task import ActionComponent, Component, Mirror, Outcome, Task, vector

_ACTION_SCALE = (0.4, 0.8, 0.8) * 4  # rad
_COMMAND_STEPS = 250
_STANDING_SHARE = 0.1
_MOVING = 0.1  # commands with a smaller norm are to stand
_LOWEST_UPRIGHT = 0.5  # cosine of the largest tilt
_LINEAR_SCALE_M_S, _TURNING_SCALE_RAD_S = 0.3, 0.3  # errors at which tracking rewards fall to 1/e
_SWING_S = 0.3  # air time of a step that is rewarded in full
_CLEARANCE_M = 0.08  # height of a swinging foot

REWARD_WEIGHTS: dict[str, float] = {
    "track_linear": 3.0,
    "track_turning": 1.5,
    "bounce": -1.0,
    "rock": -0.02,
    "tilt": -2.5,
    "torque": -1e-4,
    "action_rate": -0.03,
    "joint_limit": -1.0,
    "air_time": 0.4,
    "trot": 0.8,
    "slip": -0.05,
    "clearance": -2.0,
    "posture": -0.1,
    "stand_still": -0.5,
    "stand_feet": -0.3,
    "fall": -20.0,
}


class Go1VelocityTask(Task):
    """A Go1 that follows velocity commands.

    Args:
        terrain: "flat" or "rough".
        roughness_m: height of the bumps of rough ground.
        command_limits: largest forward, lateral (m/s) and turning velocity (rad/s) commanded.
        success_errors: largest mean errors of an episode that succeeds, m/s and rad/s.
        reward_weights: other weights than `REWARD_WEIGHTS`, per second.

    Raises:
        ModelUnavailableError: the robot's model cannot be had.
        ValueError: an unknown terrain or reward.
    """

    id = "Go1Velocity-v0"
    decimation = 4
    max_episode_steps = 500
    state_tensors = ("command_velocity", "_action", "_previous", "_air_s", "_errors", "_steps")
    render_camera: ClassVar = {
        "type": int(mujoco.mjtCamera.mjCAMERA_TRACKING), "trackbodyid": 1, "distance": 1.8, "azimuth": 130.0,
        "elevation": -15.0,
    }  # fmt: skip

    def __init__(
        self,
        terrain: Terrain = "flat",
        roughness_m: float = 0.03,
        command_limits: tuple[float, float, float] = (1.0, 0.5, 1.0),
        success_errors: tuple[float, float] = (0.25, 0.35),
        reward_weights: Mapping[str, float] | None = None,
    ) -> None:
        if terrain not in ("flat", "rough"):
            raise ValueError(f"terrain: expected 'flat' or 'rough', got {terrain!r}")
        unknown = set(reward_weights or {}) - set(REWARD_WEIGHTS)
        if unknown:
            raise ValueError(
                f"reward_weights: unknown {', '.join(sorted(unknown))}; there are {', '.join(REWARD_WEIGHTS)}"
            )
        self.terrain: Terrain = terrain
        self.roughness_m = roughness_m
        self.command_limits, self.success_errors = tuple(command_limits), tuple(success_errors)
        self.weights = REWARD_WEIGHTS | dict(reward_weights or {})
        self.model = build_model(terrain, roughness_m)
        self.observation = _observation_components()
        self.mirror = _mirror()
        self.action = (
            ActionComponent(
                "joint_target", 12, "rad", _ACTION_SCALE, STANCE, JOINTS, JOINTS, ACTUATORS, frame="joint",
                stiffness=(KP,) * 12, damping=(KD,) * 12, effort_limit=EFFORT_NM,
                description="targets of the joints' position controllers",
            ),
        )  # fmt: skip

    def compile_full(self, bodies: Sequence[int]) -> None:
        self.model = build_model(self.terrain, self.roughness_m, bodies)

    def on_attach(self) -> None:
        engine, model, n = self.engine, self.model, self.engine.num_envs
        real = lambda *shape: torch.zeros(n, *shape, dtype=engine.dtype, device=engine.device)  # noqa: E731
        constant = lambda x: torch.as_tensor(np.array(x), dtype=engine.dtype, device=engine.device)  # noqa: E731
        self._qpos, self._qvel = engine.data("qpos"), engine.data("qvel")
        sensors = engine.data("sensordata")
        feet = sensors[:, :16].unflatten(1, (4, 4))
        self._found, self._force = feet[..., 0], feet[..., 1:]
        self._foot_velocity = sensors[:, 16:28].unflatten(1, (4, 3))
        self._trunk_found = sensors[:, 28]
        sites = [model.site(foot).id for foot in FEET]
        self._site_xpos = engine.data("site_xpos")
        self._sites = torch.tensor(sites, device=engine.device)
        self._torque = engine.data("actuator_force")
        self._stance, self._scale = constant(STANCE), constant(_ACTION_SCALE)
        limits = constant(model.jnt_range[1:13])
        middle, half = limits.mean(dim=1), (limits[:, 1] - limits[:, 0]) / 2
        self._soft_limits = torch.stack((middle - 0.95 * half, middle + 0.95 * half))
        self._command_limits, self._most_errors = constant(self.command_limits), constant(self.success_errors)
        self._weights = constant([weight * self.control_period_s for weight in self.weights.values()])[:, None]
        self._heights = None if self.terrain == "flat" else _heights(model, engine.dtype, engine.device)
        self.command_velocity = real(3)
        self._action, self._previous = real(12), real(12)  # the last two
        self._air_s, self._errors = real(4), real(2)  # errors: sums over the episode
        self._steps = torch.zeros(n, dtype=torch.int64, device=engine.device)
        self._motion: tuple[Tensor, Tensor, Tensor] | None = None  # see `_moves`

    def reset(self, mask: Tensor) -> None:
        rows, self._motion = mask[:, None], None
        u = self.rng.episode_uniform("go1", 23)
        yaw = (2.0 * math.pi) * u[:, 0]
        spawn = (2.0 * u[:, 1:3] - 1.0) * (0.0 if self._heights is None else 4.0)
        joints = self._stance + 0.1 * (2.0 * u[:, 3:15] - 1.0)
        height = STANCE_HEIGHT_M + self._highest(spawn)
        zero = torch.zeros_like(yaw)
        quat = torch.stack(((0.5 * yaw).cos(), zero, zero, (0.5 * yaw).sin()), dim=1)
        qpos = torch.cat((spawn, height[:, None], quat, joints), dim=1)
        qvel = torch.cat((0.2 * (2.0 * u[:, 15:21] - 1.0), torch.zeros_like(joints)), dim=1)
        write_rows(self._qpos, qpos, mask)
        write_rows(self._qvel, qvel, mask)
        for value in (self._action, self._previous, self._air_s, self._errors):
            value.masked_fill_(rows, 0.0)
        self._steps.masked_fill_(mask, 0)
        self._draw_command(mask, self.rng.episode_uniform("go1_command", 4))

    def decided(self, action: Tensor) -> None:
        self._previous.copy_(self._action)
        self._action.copy_(action)

    def command(self, action: Tensor) -> Tensor:
        return self._stance + self._scale * action

    def after_step(self) -> None:
        self._steps += 1
        self._motion = None

    def observe(self) -> Tensor:
        quat, zero = self._qpos[:, 3:7], torch.zeros_like(self._qpos[:, 0])
        down = rotate_inverse(quat, torch.stack((zero, zero, zero - 1.0), dim=1))
        parts = (self._qvel[:, 3:6], down, self._qpos[:, 7:], self._qvel[:, 6:], self._action, self.command_velocity)
        return torch.cat(parts, dim=1)

    def observe_privileged(self) -> Tensor:
        velocity, touching, foot_heights = self._moves()
        height = self._qpos[:, 2:3] - self._ground(self._qpos[:, None, :2])
        force = _length_squared(self._force).sqrt()
        return torch.cat((velocity, height, touching, force, foot_heights, self._air_s), dim=1)

    def outcome(self, action: Tensor) -> Outcome:
        velocity, _, _ = self._moves()
        upright = 1.0 - 2.0 * _length_squared(self._qpos[:, 4:6])
        linear_error = _length_squared(velocity[:, :2] - self.command_velocity[:, :2]).sqrt()
        turning_error = (self._qvel[:, 5] - self.command_velocity[:, 2]).abs()
        fell = (self._trunk_found > 0) | (upright < _LOWEST_UPRIGHT)
        terms = self._rewards(linear_error, turning_error, upright, fell)
        weighted = torch.stack([terms[name] for name in self.weights]) * self._weights
        self._errors += torch.stack((linear_error, turning_error), dim=1)
        mean_errors = self._errors / self._steps[:, None]
        success = (mean_errors <= self._most_errors).all(dim=1) & ~fell
        reward = weighted.sum(dim=0)
        # The policy has acted on the old command, which the reward is about; it sees the new one next.
        self._change_command()
        measures = {"linear_error": linear_error, "turning_error": turning_error, "fell": fell.to(reward.dtype)}
        return Outcome(reward, fell, success, dict(zip(self.weights, weighted.unbind(), strict=True)) | measures)

    def _rewards(self, linear_error: Tensor, turning_error: Tensor, upright: Tensor, fell: Tensor) -> dict[str, Tensor]:
        """Every term [N] before its weight."""
        (_, touching, foot_heights), period = self._moves(), self.control_period_s
        landed = touching * (self._air_s > 0)
        air = self._air_s + period
        moving = (_length_squared(self.command_velocity) > _MOVING**2).to(air.dtype)
        joints = self._qpos[:, 7:]
        off_stance = (joints - self._stance).square().sum(dim=1)
        speed = _length_squared(self._foot_velocity[..., :2])
        too_low = (foot_heights - _CLEARANCE_M).square() * speed.sqrt()
        beyond = (self._soft_limits[0] - joints).clamp(min=0.0) + (joints - self._soft_limits[1]).clamp(min=0.0)
        self._air_s.copy_(air * (1.0 - touching))
        return {
            "track_linear": torch.exp(-linear_error / _LINEAR_SCALE_M_S),
            "track_turning": torch.exp(-turning_error / _TURNING_SCALE_RAD_S),
            "bounce": self._qvel[:, 2].square(),
            "rock": _length_squared(self._qvel[:, 3:5]),
            "tilt": 1.0 - upright.square(),
            "torque": self._torque.square().sum(dim=1),
            "action_rate": (self._action - self._previous).square().sum(dim=1),
            "joint_limit": beyond.sum(dim=1),
            "air_time": (landed * (air.clamp(max=_SWING_S) - 0.2 * _SWING_S)).sum(dim=1) * moving / period,
            "trot": (_diagonal(touching) - 0.5) * moving,
            "slip": (touching * speed).sum(dim=1),
            "clearance": too_low.sum(dim=1) * moving,
            "posture": off_stance,
            "stand_still": off_stance * (1.0 - moving),
            "stand_feet": (4.0 - touching.sum(dim=1)) * (1.0 - moving),
            "fall": fell.to(air.dtype) / period,
        }

    def _moves(self) -> tuple[Tensor, Tensor, Tensor]:
        """Velocity of the trunk in its frame [N, 3], which feet touch the ground [N, 4] (1 or 0), and their heights.

        Reward and critic read them: computed once per step.
        """
        if self._motion is None:
            velocity = rotate_inverse(self._qpos[:, 3:7], self._qvel[:, :3])
            self._motion = velocity, (self._found > 0).to(self._qpos.dtype), self._foot_heights()
        return self._motion

    def _foot_heights(self) -> Tensor:
        """Height of the soles above the ground below them [N, 4], m."""
        feet = self._site_xpos.index_select(1, self._sites)
        return feet[..., 2] - FOOT_RADIUS_M - self._ground(feet[..., :2])

    def _ground(self, xy: Tensor) -> Tensor:
        """Height of the ground [N, k] at points xy [N, k, 2], m, between the points of the grid."""
        if self._heights is None:
            return torch.zeros_like(xy[..., 0])
        size = self._heights.shape[0]
        at = ((xy + TERRAIN_HALF_SIZE_M) * ((size - 1) / (2 * TERRAIN_HALF_SIZE_M))).clamp(0.0, size - 1.001)
        low = at.long()
        part = at - low
        x, y, px, py = low[..., 0], low[..., 1], part[..., 0], part[..., 1]
        near = self._heights[y, x] * (1 - px) + self._heights[y, x + 1] * px
        far = self._heights[y + 1, x] * (1 - px) + self._heights[y + 1, x + 1] * px
        return near * (1 - py) + far * py

    def _highest(self, xy: Tensor) -> Tensor:
        """The highest ground [N] under a robot at xy [N, 2], m."""
        if self._heights is None:
            return torch.zeros_like(xy[:, 0])
        step = torch.linspace(-0.35, 0.35, 8, dtype=xy.dtype, device=xy.device)
        offsets = torch.cartesian_prod(step, step)
        return self._ground(xy[:, None] + offsets).amax(dim=1)

    def _change_command(self) -> None:
        due = self._steps % _COMMAND_STEPS == 0
        if due.is_cuda or bool(due.any()):  # looking would stall a GPU
            self._draw_command(due, self.rng.uniform("go1_command", 4))

    def _draw_command(self, mask: Tensor, u: Tensor) -> None:
        drawn = (2.0 * u[:, :3] - 1.0) * self._command_limits * (u[:, 3:] > _STANDING_SHARE)
        write_rows(self.command_velocity, drawn, mask)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._motion = None


def _length_squared(vector: Tensor) -> Tensor:
    """Squared lengths [...] of short vectors [..., k]: term by term, which is much quicker than a sum over k."""
    first, *others = vector.unbind(dim=-1)
    total = first * first
    for value in others:
        total = torch.addcmul(total, value, value)
    return total


def _diagonal(touching: Tensor) -> Tensor:
    """How much contacts [N, 4] look like a trot [N]: diagonal feet do the same, neighbours the opposite. 1 is a trot,
    0.5 is all feet alike."""
    fr, fl, rr, rl = touching.unbind(dim=1)
    same = (fr == rl).to(fr) + (fl == rr).to(fr)
    opposite = (fr != fl).to(fr) + (rr != rl).to(fr)
    return (same + opposite) / 4.0


def _mirror() -> Mirror:
    """Left and right exchanged: legs change places, and what turns or moves sideways its sign."""
    legs = tuple(3 * leg + joint for leg in (1, 0, 3, 2) for joint in range(3))
    abduction = (-1.0, 1.0, 1.0) * 4
    index = (*range(6), *(6 + i for i in legs), *(18 + i for i in legs), *(30 + i for i in legs), 42, 43, 44)
    sign = (-1.0, 1.0, -1.0, 1.0, -1.0, 1.0, *abduction, *abduction, *abduction, 1.0, -1.0, -1.0)
    feet = (1, 0, 3, 2)
    privileged = (*range(4), *(4 + 4 * block + foot for block in range(4) for foot in feet))
    privileged_sign = (1.0, -1.0, *([1.0] * 18))
    other = {"FR": "FL", "FL": "FR", "RR": "RL", "RL": "RR"}
    exchanged = {
        name: other[name[:2]] + name[2:] for name in (*FEET, *JOINTS, *ACTUATORS)
    }  # bodies have names of these
    return Mirror(index, sign, legs, abduction, privileged, privileged_sign, exchanged, ("body_com_y",))


def _heights(model: mujoco.MjModel, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Heights [rows along y, columns along x] of the ground, m."""
    values = model.hfield_data.reshape(int(model.hfield_nrow[0]), int(model.hfield_ncol[0]))
    return torch.as_tensor(values * model.hfield_size[0, 2], dtype=dtype, device=device)


def _observation_components() -> tuple[Component, ...]:
    trunk, privileged = ("trunk",), "privileged"
    actions, commands = tuple(f"{name}_action" for name in ACTUATORS), ("forward", "left", "turn_left")
    return (
        vector("gyro", "rad/s", trunk, "angular velocity of the trunk", frame="trunk"),
        vector("projected_gravity", "1", trunk, "down", frame="trunk", limits=(-1.0, 1.0)),
        Component("joint_pos", 12, "rad", "joint", JOINTS, JOINTS, description="joint angles"),
        Component("joint_vel", 12, "rad/s", "joint", JOINTS, JOINTS, description="joint velocities"),
        Component(
            "last_action", 12, "1", "joint", actions, measured=False, limits=(-1.0, 1.0), description="last action"
        ),
        Component("command", 3, "m/s, rad/s", "trunk", commands, measured=False, description="wanted velocity"),
        vector("base_linvel", "m/s", trunk, "trunk's velocity", frame="trunk", group=privileged),
        Component("base_height", 1, "m", "world", ("z",), bodies=trunk, group=privileged, description="above ground"),
        Component("foot_contact", 4, "1", "world", FEET, bodies=FEET, group=privileged, description="touches or not"),
        Component("foot_force", 4, "N", "world", FEET, bodies=FEET, group=privileged, description="contact force"),
        Component("foot_height", 4, "m", "world", FEET, bodies=FEET, group=privileged, description="above ground"),
        Component("foot_air_time", 4, "s", "world", FEET, bodies=FEET, group=privileged, description="since contact"),
    )
