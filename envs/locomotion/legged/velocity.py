"""A legged robot walks as a velocity command says: the task, for any number of legs.

Policy group, all of it measured on the machine (J joints, in the order of the robot's description):

| component         | size | meaning                                                    | unit         |
|-------------------|------|------------------------------------------------------------|--------------|
| gyro              | 3    | angular velocity of the base, in its frame                 | rad/s        |
| projected_gravity | 3    | direction of gravity in the base's frame                   | 1            |
| joint_pos         | J    | joint angles                                               | rad          |
| joint_vel         | J    | joint velocities                                           | rad/s        |
| last_action       | J    | the action before this one                                 | 1            |
| command           | 3    | wanted velocity of the base: forward, left, turning left   | m/s, rad/s   |
| gait_clock        | 2    | sin and cos of 2 pi t / period; only of a gait with one    | 1            |

The privileged group has what the machine cannot measure: velocity and height of the base, contacts, forces, heights
and air times of the feet.

Actions: targets of the joints' position controllers, `offset + scale * action`. An episode takes 10 s, the command
changes every 5 s, one in ten is to stand. It terminates when the robot falls: its base touches the ground, tilts by
more than 60 degrees, or sinks below a share of its height. Success: no fall, and velocity errors of at most
`success_errors`, averaged over the episode.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import mujoco
import numpy as np
import torch
from torch import Tensor

from envs.common.errors import TaskError
from envs.common.messages import nearest, warn_once
from envs.common.spatial import rotate_inverse
from envs.engines.base import write_rows
from envs.locomotion.legged.gait import Gait, Order, phases, wanted_heights
from envs.locomotion.legged.ground import ROUGHNESS_M, Ground, Terrain, check_terrain
from envs.locomotion.legged.layout import Layout, action_component, mirror_of, observation_components
from envs.locomotion.legged.model import build_model
from envs.locomotion.legged.rewards import CLOCKED, TERMS, Moves, length_squared
from envs.locomotion.legged.robot import LeggedRobot
from envs.locomotion.legged.terrain import GRADED, LEVELS, PATCH_M, START_M, VARIANTS, level_for, middle_of, promoted
from envs.task import Outcome, Task

_COMMAND_STEPS = 250
_STANDING_SHARE = 0.1
_MOVING = 0.1  # commands with a smaller norm are to stand
_LOWEST_UPRIGHT = 0.5  # cosine of the largest tilt
_LINEAR_SCALE_M_S, _TURNING_SCALE_RAD_S = 0.3, 0.3  # errors at which tracking rewards fall to 1/e
_CLEARANCE_M = 0.08  # height of a swinging foot, without a gait

LEVEL_WEIGHTS: dict[str, float] = {
    "track_linear": 3.0, "track_turning": 1.5, "bounce": -1.0, "rock": -0.05, "level": -5.0, "height": -2.0,
    "torque": -1e-4, "action_rate": -0.03, "jerk": -0.01, "joint_limit": -1.0, "in_step": 2.0, "swing": -1.0,
    "slip": -0.05, "posture": -0.1, "stand_still": -0.5, "strain": -0.5, "overspeed": -0.5, "fall": -20.0,
}  # fmt: skip


_REPORTED = {
    "linear_error": "velocity error, m/s", "turning_error": "turning error, rad/s", "pitch_deg": "pitch, deg",
    "pitch_deg_sd": "its sd", "swing_height_m": "swing, m", "torque_share_peak": "peak torque / limit",
    "at_torque_limit": "time at it", "speed_share_peak": "peak speed / limit", "action_step": "action step",
}  # fmt: skip
_AT_LIMIT = 0.999  # share of a motor's torque at which it is at its limit


class LeggedVelocity(Task):
    """A robot on legs that follows velocity commands.

    Args:
        robot: its description.
        gait: what its gait should be like.
        terrain: "flat", "rough", or in patches of rising difficulty "slopes", "stairs", "stones"; see `terrain`.
        roughness_m: height of the bumps of rough ground.
        command_limits: largest forward, lateral (m/s) and turning velocity (rad/s) commanded.
        success_errors: largest mean errors of an episode that succeeds, m/s and rad/s.
        reward_weights: other weights than `weights`, per second; 0 leaves a term out.
        difficulty: of patches, from 0 (flat) to 1; None: any. The quantity `terrain_difficulty` takes its place.
        curriculum: patches are a level harder after a success and easier after a fall, from flat on; evaluations play
            all levels.

    Raises:
        TaskError: the robot's description does not fit its model, or there is no such reward.
        ValueError: an unknown terrain.
    """

    max_episode_steps = 500
    weights: Mapping[str, float] = LEVEL_WEIGHTS
    figures = True  # report what the gait is like, beside the terms of the reward
    lowest_share = 0.5  # of its height: a base that is lower has fallen; 0: only tilt and touch count
    draws = ("legged", "legged_command")  # names of random numbers
    reported = _REPORTED
    start_rad = 0.05  # how far joints are from the stance when an episode starts
    start_lift = 0.04  # of its height, by which the robot then hangs above the ground

    def __init__(
        self,
        robot: LeggedRobot,
        gait: Gait,
        terrain: Terrain = "flat",
        roughness_m: float = ROUGHNESS_M,
        command_limits: tuple[float, float, float] = (1.0, 0.5, 1.0),
        success_errors: tuple[float, float] = (0.25, 0.35),
        reward_weights: Mapping[str, float] | None = None,
        control_period_s: float = 0.02,
        difficulty: float | None = None,
        curriculum: bool = False,
    ) -> None:
        check_terrain(terrain, roughness_m)
        self._grade(terrain, difficulty, curriculum)
        self.robot, self.gait = robot, gait
        self.weights = _weights(type(self).weights, reward_weights or {}, gait)
        self.decimation = max(1, round(control_period_s / robot.timestep_s))
        self.terrain: Terrain = terrain
        self.roughness_m = roughness_m
        self.command_limits, self.success_errors = tuple(command_limits), tuple(success_errors)
        self.steered = {"command": ("command_velocity", self.command_limits)}
        self._order = Order.of(gait, tuple(foot.name for foot in robot.feet))
        self.model = self.compiled()
        self.layout = Layout(self.model, robot)
        self.observation = observation_components(robot, self.layout, gait)
        self.action = (action_component(robot, self.layout),)
        self.mirror = mirror_of(self.model, robot, self.layout, gait)
        base = mujoco.mj_name2id(self.model, mujoco.mjtObj.mjOBJ_BODY, robot.base)
        self.render_camera: dict[str, Any] = {  # pyright: ignore[reportIncompatibleVariableOverride]
            "type": int(mujoco.mjtCamera.mjCAMERA_TRACKING), "trackbodyid": base,
            "distance": 6.5 * robot.height_m, "azimuth": 130.0, "elevation": -15.0,
        }  # fmt: skip
        own = ("_before", "_peak", "_swing") if self.figures or "jerk" in self.weights else ()
        graded = ("terrain_difficulty", "_level", "_middle", "_ended") if self._graded else ()
        self.state_tensors = (*self._state, *own, *graded)

    def _grade(self, terrain: Terrain, difficulty: float | None, curriculum: bool) -> None:
        """Take the options of ground in patches. Raises TaskError where there are none."""
        self._graded = terrain in GRADED
        if not self._graded and (curriculum or difficulty is not None):
            option = "curriculum" if curriculum else "difficulty"
            raise TaskError(f"{option}: terrain: {terrain} has no levels, expected {', '.join(GRADED)}")
        if difficulty is not None and (curriculum or not 0.0 <= difficulty <= 1.0):
            expected = "None with curriculum" if curriculum else "a number from 0 to 1"
            raise TaskError(f"difficulty: expected {expected}, got {difficulty:g}")
        self.difficulty, self.curriculum = difficulty, curriculum
        self.terrain_levels = LEVELS if self._graded and not curriculum else 0
        if curriculum:
            self.evaluation_options = {**type(self).evaluation_options, "curriculum": False}  # pyright: ignore[reportAttributeAccessIssue]

    _state: ClassVar = ("command_velocity", "_action", "_previous", "_air_s", "_errors", "_steps")

    def compiled(self, full: Sequence[int] = ()) -> mujoco.MjModel:
        """The robot on its ground; `full` as in `compile_spec`."""
        return build_model(self.robot, self.terrain, self.roughness_m, full)

    def compile_full(self, bodies: Sequence[int]) -> None:
        self.model = self.compiled(bodies)

    def on_attach(self) -> None:
        engine, model, n = self.engine, self.model, self.engine.num_envs
        robot, layout = self.robot, self.layout
        feet, joints = len(robot.feet), len(robot.joints)
        real = lambda *shape: torch.zeros(n, *shape, dtype=engine.dtype, device=engine.device)  # noqa: E731
        constant = lambda x: torch.as_tensor(np.array(x), dtype=engine.dtype, device=engine.device)  # noqa: E731
        self._qpos, self._qvel = engine.data("qpos"), engine.data("qvel")
        sensors, first = engine.data("sensordata"), layout.first_sensor
        touch = sensors[:, first : first + 4 * feet].unflatten(1, (feet, 4))
        self._found, self._force = touch[..., 0], touch[..., 1:]
        self._foot_velocity = sensors[:, first + 4 * feet : first + 7 * feet].unflatten(1, (feet, 3))
        self._base_found = sensors[:, first + 7 * feet]
        self._site_xpos = engine.data("site_xpos")
        self._sites = torch.tensor(layout.sites, device=engine.device)
        self._radius = constant([foot.radius_m for foot in robot.feet])
        self._forces = engine.data("actuator_force")
        self._stance, self._scale = constant(robot.stance), constant(robot.scale)
        self._home, self._hold = constant(layout.home), constant(layout.hold)
        self._soft_limits = constant(layout.soft_limits)
        base = model.body(robot.base).id
        self._weight_n = float(model.body_subtreemass[base]) * float(np.linalg.norm(model.opt.gravity))
        self._most_torque = constant(robot.effort)
        self._most_speed = constant(robot.speed or (math.inf,) * joints)
        self._command_limits, self._most_errors = constant(self.command_limits), constant(self.success_errors)
        self._weights = constant([weight * self.control_period_s for weight in self.weights.values()])[:, None]
        self._begins = constant(self._order.begins)
        self.ground = Ground(model, self.terrain, engine.dtype, engine.device)
        self.command_velocity = real(3)
        self._action, self._previous, self._before = real(joints), real(joints), real(joints)  # the last three
        self._air_s, self._errors = real(feet), real(2)  # errors: sums over the episode
        self._peak, self._swing = real(feet), real(feet)  # highest in this swing, and in the last one that ended
        self._steps = torch.zeros(n, dtype=torch.int64, device=engine.device)
        self._motion: tuple[Tensor, Tensor, Tensor] | None = None  # see `_moves`
        if self._graded:  # what is asked for, and of each episode the level and the middle of its patch
            self.terrain_difficulty, self._level, self._middle = real(), real(), real(2)
            self._ended = real()  # 1 where the present state is a success, -1 a fall

    def reset(self, mask: Tensor) -> None:
        rows, self._motion = mask[:, None], None
        base, dof, size = self.layout.base_q, self.layout.base_v, len(self.robot.joints)
        u = self.rng.episode_uniform(self.draws[0], 11 + size)
        yaw = (2.0 * math.pi) * u[:, 0]
        spawn = (2.0 * u[:, 1:3] - 1.0) * (0.0 if self.ground.heights is None else START_M if self._graded else 4.0)
        if self._graded:
            spawn = spawn + self._next_patch(mask)
        joints = self._stance + self.start_rad * (2.0 * u[:, 3 : 3 + size] - 1.0)
        height = (1.0 + self.start_lift) * self.robot.height_m + self.ground.highest(spawn)
        zero = torch.zeros_like(yaw)
        quat = torch.stack(((0.5 * yaw).cos(), zero, zero, (0.5 * yaw).sin()), dim=1)
        qpos, qvel = self._home.repeat(len(mask), 1), torch.zeros_like(self._qvel)
        qpos[:, base : base + 7] = torch.cat((spawn, height[:, None], quat), dim=1)
        qpos[:, self.layout.qpos] = joints
        qvel[:, dof : dof + 6] = 0.2 * (2.0 * u[:, 3 + size : 9 + size] - 1.0)
        write_rows(self._qpos, qpos, mask)
        write_rows(self._qvel, qvel, mask)
        own = (self._action, self._previous, self._before, self._air_s, self._errors, self._peak, self._swing)
        for value in own:
            value.masked_fill_(rows, 0.0)
        self._steps.masked_fill_(mask, 0)
        self._draw_command(mask, self.rng.episode_uniform(self.draws[1], 4))

    def _next_patch(self, mask: Tensor) -> Tensor:
        """The middles [N, 2] of the patches that episodes in mask [N] begin on."""
        u = self.rng.episode_uniform("terrain", 3)
        if self.curriculum:
            level = promoted(self._level, self._ended, u[:, 0])
        elif self.terrain_given:
            if self.difficulty is not None:
                warn_once(f"terrain_difficulty says how hard the ground is, and not difficulty: {self.difficulty:g}")
            level = level_for(self.terrain_difficulty, u[:, 0])
        else:
            asked = torch.full_like(u[:, 0], self.difficulty) if self.difficulty is not None else u[:, 1]
            level = level_for(asked, u[:, 0])
        write_rows(self._level, level, mask)
        write_rows(self._middle, middle_of(level, (u[:, 2] * VARIANTS).floor()), mask)
        self._ended.masked_fill_(mask, 0.0)
        return self._middle

    def decided(self, action: Tensor) -> None:
        self._before.copy_(self._previous)
        self._previous.copy_(self._action)
        self._action.copy_(action)

    def command(self, action: Tensor) -> Tensor:
        target = self._stance + self._scale * action
        if self.layout.all_driven:
            return target
        ctrl = self._hold.repeat(len(action), 1)
        ctrl[:, self.layout.ctrl] = target.to(ctrl.dtype)
        return ctrl

    def after_step(self) -> None:
        self._steps += 1
        self._motion = None

    def observe(self) -> Tensor:
        quat, dof = self._quat(), self.layout.base_v
        parts = [self._qvel[:, dof + 3 : dof + 6], self._down(quat), self._joints(), self._joint_speed(), self._action,
                 self.command_velocity]  # fmt: skip
        if self.gait.period_s is not None:
            turn = (2.0 * math.pi / self.gait.period_s) * self._time()
            parts.append(torch.stack((turn.sin(), turn.cos()), dim=1))
        return torch.cat(parts, dim=1)

    def observe_privileged(self) -> Tensor:
        velocity, touching, foot_heights = self._moves()
        force = length_squared(self._force).sqrt()
        return torch.cat((velocity, self._height()[:, None], touching, force, foot_heights, self._air_s), dim=1)

    def outcome(self, action: Tensor) -> Outcome:
        velocity, _, _ = self._moves()
        at, dof = self.layout.base_q, self.layout.base_v
        upright = 1.0 - 2.0 * length_squared(self._qpos[:, at + 4 : at + 6])
        linear_error = length_squared(velocity[:, :2] - self.command_velocity[:, :2]).sqrt()
        turning_error = (self._qvel[:, dof + 5] - self.command_velocity[:, 2]).abs()
        fell = (self._base_found > 0) | (upright < _LOWEST_UPRIGHT)
        if self.lowest_share:
            fell |= self._height() < self.lowest_share * self.robot.height_m
        moves = self._what_it_does(linear_error, turning_error, upright, fell)
        terms = {name: TERMS[name](moves) for name in self.weights}
        weighted = torch.stack([terms[name] for name in self.weights]) * self._weights
        figures = self._figures(moves) if self.figures else {}
        self._air_s.copy_(moves.air_s * (1.0 - moves.touching))
        self._errors += torch.stack((linear_error, turning_error), dim=1)
        mean_errors = self._errors / self._steps[:, None]
        success = (mean_errors <= self._most_errors).all(dim=1) & ~fell
        reward = weighted.sum(dim=0)
        # The policy has acted on the old command, which the reward is about; it sees the new one next.
        self._change_command()
        measures = {"linear_error": linear_error, "turning_error": turning_error, "fell": fell.to(reward.dtype)}
        left = None
        if self._graded:
            at = self.layout.base_q
            left = ((self._qpos[:, at : at + 2] - self._middle).abs() > PATCH_M / 2).any(dim=1)
            self._ended.copy_(success.to(reward.dtype) - fell.to(reward.dtype))
            measures["terrain_level"] = self._level
        terms = dict(zip(self.weights, weighted.unbind(), strict=True)) | measures | figures
        return Outcome(reward, fell, success, terms, None if left is None else left & ~fell)

    def _what_it_does(self, linear_error: Tensor, turning_error: Tensor, upright: Tensor, fell: Tensor) -> Moves:
        (_, touching, foot_heights), period, gait = self._moves(), self.control_period_s, self.gait
        joints, dof = self._joints(), self.layout.base_v
        moving = (length_squared(self.command_velocity) > _MOVING**2).to(self._air_s.dtype)
        up = height = None
        if gait.period_s is not None:
            phase = phases(self._time(), gait.period_s, self._begins)
            up, height = wanted_heights(phase, gait.ground_share, gait.clearance_m)
        return Moves(
            period, _LINEAR_SCALE_M_S, _TURNING_SCALE_RAD_S, gait.clearance_m, self.robot.height_m, linear_error,
            turning_error, upright, fell, moving, self._qvel[:, dof : dof + 6], self._height,
            lambda: self._down(self._quat()), joints, joints - self._stance, self._joint_speed(),
            self._forces[:, self.layout.outputs], self._soft_limits, self._most_torque, self._most_speed, self._forces,
            touching, self._air_s + period, touching * (self._air_s > 0), self._load, foot_heights,
            length_squared(self._foot_velocity[..., :2]), self._action, self._previous, self._before, self._order.same,
            self._order.opposite,
            up, height,
        )  # fmt: skip

    def _figures(self, moves: Moves) -> dict[str, Tensor]:
        """What the gait is like, means over steps: see docs/locomotion.md."""
        self._peak.copy_(torch.maximum(self._peak, moves.foot_height))
        self._swing.copy_(torch.where(moves.landed > 0, self._peak, self._swing))
        self._peak.masked_fill_(moves.touching > 0, 0.0)
        lifted = (self._swing > 0).to(self._swing.dtype)
        down = moves.down()
        degrees = 180.0 / math.pi
        strain = (moves.torque.abs() / moves.most_torque).amax(dim=1)
        return {
            "pitch_deg": degrees * torch.atan2(down[:, 0], -down[:, 2]),
            "roll_deg": -degrees * torch.atan2(down[:, 1], -down[:, 2]),
            "swing_height_m": (self._swing * lifted).sum(dim=1) / lifted.sum(dim=1).clamp(min=1.0),
            "torque_share": strain,
            "at_torque_limit": (strain >= _AT_LIMIT).to(strain.dtype),
            "speed_share": (moves.joint_speed.abs() / moves.most_speed).amax(dim=1),
            "action_step": (moves.action - moves.previous).abs().mean(dim=1),
        }

    def _moves(self) -> tuple[Tensor, Tensor, Tensor]:
        """Velocity of the base in its frame [N, 3], which feet touch the ground [N, F] (1 or 0), and their heights.

        Reward and critic read them: computed once per step.
        """
        if self._motion is None:
            dof = self.layout.base_v
            velocity = rotate_inverse(self._quat(), self._qvel[:, dof : dof + 3])
            self._motion = velocity, (self._found > 0).to(self._qpos.dtype), self._foot_heights()
        return self._motion

    def _load(self) -> Tensor:
        """Force on the feet over the robot's nominal weight [N, F]."""
        return length_squared(self._force).sqrt() / self._weight_n

    def _foot_heights(self) -> Tensor:
        """Height of the soles above the ground below them [N, F], m."""
        feet = self._site_xpos.index_select(1, self._sites)
        return feet[..., 2] - self._radius - self._ground(feet[..., :2])

    def _ground(self, xy: Tensor) -> Tensor:
        """Height of the ground [N, k] at points xy [N, k, 2], m."""
        return self.ground.below(xy)

    def _height(self) -> Tensor:
        """Height of the base above the ground [N], m."""
        at = self.layout.base_q
        if self._graded:
            return self._qpos[:, at + 2] - self.ground.mean(self._qpos[:, at : at + 2])
        return (self._qpos[:, at + 2 : at + 3] - self._ground(self._qpos[:, None, at : at + 2]))[:, 0]

    def _quat(self) -> Tensor:
        return self._qpos[:, self.layout.base_q + 3 : self.layout.base_q + 7]

    def _down(self, quat: Tensor) -> Tensor:
        """Direction of gravity in the base's frame [N, 3]."""
        zero = torch.zeros_like(quat[:, 0])
        return rotate_inverse(quat, torch.stack((zero, zero, zero - 1.0), dim=1))

    def _joints(self) -> Tensor:
        return self._qpos[:, self.layout.qpos]

    def _joint_speed(self) -> Tensor:
        return self._qvel[:, self.layout.qvel]

    def _time(self) -> Tensor:
        """Since the episode began [N], s."""
        return self._steps.to(self._qpos.dtype) * self.control_period_s

    def _change_command(self) -> None:
        due = self._steps % _COMMAND_STEPS == 0
        if due.is_cuda or bool(due.any()):  # looking would stall a GPU
            self._draw_command(due, self.rng.uniform(self.draws[1], 4))

    def _draw_command(self, mask: Tensor, u: Tensor) -> None:
        drawn = (2.0 * u[:, :3] - 1.0) * self._command_limits * (u[:, 3:] > _STANDING_SHARE)
        write_rows(self.command_velocity, drawn, mask)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._motion = None


def _weights(usual: Mapping[str, float], given: Mapping[str, float], gait: Gait) -> dict[str, float]:
    """Weights of the reward. Raises TaskError for a term that there is not."""
    for name in given:
        if name not in TERMS:
            raise TaskError(f"reward_weights: unknown {name}{nearest(name, TERMS)}; there are {', '.join(TERMS)}")
        if name in CLOCKED and gait.period_s is None and given[name]:
            raise TaskError(f"reward_weights: {name}: needs a gait with a clock (Gait(period_s=...))")
    weights = dict(usual) | dict(given)
    if gait.period_s is None:
        weights = {name: weight for name, weight in weights.items() if name not in CLOCKED}
    return {name: weight for name, weight in weights.items() if weight or (name in usual and name not in given)}
