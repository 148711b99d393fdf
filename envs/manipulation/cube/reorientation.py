"""A hand turns a cube in its palm to one goal orientation after another, batched.

The tasks of "Learning Dexterous In-Hand Manipulation" (arXiv 1808.00177) and "Solving Rubik's Cube with a Robot Hand"
(arXiv 1910.07113), with the Allegro hand (AllegroCube-v0) or the Shadow hand (ShadowCube-v0). When the cube is within
0.4 rad of its goal, that is a success and there is a new goal. An episode ends when the cube is dropped, and after
8 s without a success, or a minute (`episode_s`). What counts is the number of successes in an episode
(`episode_successes`; in a configuration `performance: successes`).

Observation, policy group (k joints, u actuators; Allegro 16 and 16, Shadow 24 and 20):

| component         | size | meaning                                                                     | unit |
|-------------------|------|-----------------------------------------------------------------------------|------|
| joint_pos         | k    | joint angles                                                                | rad  |
| joint_pos_history | 2 k  | the same one and two control steps earlier, as measured then                | rad  |
| joint_target      | u    | the command that the policy's last action led to, smoothed                  | rad  |
| cube_pos          | 3    | the cube's centre, from where it rests in the palm                          | m    |
| cube_quat         | 4    | its orientation (w, x, y, z), w >= 0                                        | 1    |
| goal_quat         | 4    | the orientation wanted, w >= 0                                              | 1    |
| goal_rel_quat     | 4    | the rotation in the world's frame that brings the cube there, w >= 0        | 1    |

Privileged group, for a critic: joint velocities, the true pose of the cube and its velocity, where the fingertips are
and how hard each presses on something. Velocities and forces are those of the last evaluation of the dynamics.

Action: one value per actuator. The target of an actuator is offset + scale * action, limited to its range: action 0
is the grasp, and the scale is half of the actuator's range. What the servos are told moves by `smoothing` of the way to
the target in every control step (exponential moving average, 1808.00177 appendix C). Episodes begin half way between
the open hand and the grasp, with the servos told to close.

Reward: see `Weights`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, get_args

import mujoco
import torch
from torch import Tensor

from envs.common.errors import UnknownOptionError
from envs.common.spatial import quat_angle, quat_canonical, quat_conjugate, quat_multiply, quat_rotate
from envs.engines.base import write_rows
from envs.manipulation.cube.goals import GOAL_DRAWS, START_DRAWS, GoalKind, first_orientation, next_goal
from envs.manipulation.cube.hands import HANDS, Hand, HandModel, build
from envs.task import XYZ, ActionComponent, Component, Outcome, Task, id_of, vector

SUCCESS_RAD = 0.4
PATIENCE_S = 8.0  # without a success
EPISODE_S = 60.0
NEAR_M = 0.025  # a cube within this of where it rests lies well
DROP_M = 0.12  # a cube farther from where it rests is lost
_HISTORY = 2  # earlier readings of the joints that the policy sees
START_RAD = math.pi / 4  # how far a cube may be turned when an episode starts: a policy meets every angle on its way
START_SHARE = 0.5  # of the grasp's angles at which the hand then is: open enough for a cube that is turned
START_M = 0.004  # how far off it may be, along the palm
_GEOM, _SITE, _SENSOR = mujoco.mjtObj.mjOBJ_GEOM, mujoco.mjtObj.mjOBJ_SITE, mujoco.mjtObj.mjOBJ_SENSOR
_QUAT = ("w", "x", "y", "z")


@dataclass(frozen=True)
class Weights:
    """The reward of a control step: a sum of terms, each a weight times what its name says.

    The first three are the task; the others make it easier to learn what a real hand can do (after arXiv 2210.13702).
    Turning towards the goal is paid by the radian, and once: what counts is the nearest that the cube has been. Turning
    back costs nothing, so that a hand may let go and try again, and back and forth earns nothing.
    """

    progress: float = 2.0  # rad by which the cube is nearer to its goal than it has been
    success: float = 5.0
    drop: float = -1.0  # besides what could still have been earned
    off_centre: float = -2.0  # m by which the cube is farther than `NEAR_M` from where it rests
    action_rate: float = -0.00005  # sum of squared changes of the action
    joint_speed: float = -0.0000125  # sum of squared joint velocities, rad^2/s^2
    torque: float = -0.00125  # sum of squared torques, N^2 m^2


def costs(w: Weights, away: Tensor, change: Tensor, speed: Tensor, force: Tensor) -> dict[str, Tensor]:
    """Terms [N] of what a hand does whatever its goal is.

    Args:
        w: their weights.
        away: [N] m, of the cube from where it rests.
        change: [N, A] of the action since the last one.
        speed: [N, J] rad/s of the hand's joints.
        force: [N, A] of its actuators.
    """
    return {
        "off_centre": w.off_centre * (away - NEAR_M).clamp(min=0.0),
        "action_rate": w.action_rate * change.square().sum(dim=1),
        "joint_speed": w.joint_speed * speed.square().sum(dim=1),
        "torque": w.torque * force.square().sum(dim=1),
    }


class CubeReorientation(Task):
    """A hand that turns a cube, for N environments.

    Args:
        hand: a key of `HANDS`.
        goals: kind of goals, see `envs.manipulation.cube.goals`.
        smoothing: share of the way to a new target that the servos' command goes in one control step; 1 goes all of it.
        episode_s: s, the time limit of an episode.
    """

    decimation = 5
    counts_successes = True
    state_tensors = (
        "goal", "goal_angle", "waited", "target", "intended", "_last_action", "_readings", "_fresh"
    )  # fmt: skip
    render_camera: ClassVar = {"distance": 0.55, "azimuth": 150.0, "elevation": -35.0, "lookat": (0.0, 0.07, 0.02)}

    def __init__(
        self, hand: str, goals: GoalKind = "face", smoothing: float = 0.3, episode_s: float = EPISODE_S
    ) -> None:
        if goals not in get_args(GoalKind):
            raise UnknownOptionError(f"goals: expected {', '.join(map(repr, get_args(GoalKind)))}, got {goals!r}")
        if not 0.0 < smoothing <= 1.0:
            raise UnknownOptionError(f"smoothing: expected a number above 0 and up to 1, got {smoothing!r}")
        if not 1.0 <= episode_s <= 3600.0:
            raise UnknownOptionError(f"episode_s: expected 1 to 3600 s, got {episode_s!r}")
        self.hand_name, self.hand = hand, HANDS[hand]
        self.goals: GoalKind = goals
        self.smoothing, self.weights = smoothing, Weights()
        self.id = f"{hand.capitalize()}Cube-v0"
        self._take(build(hand))
        self.max_episode_steps = round(episode_s / self.control_period_s)
        self.patience_steps = round(PATIENCE_S / self.control_period_s)
        self.observation = hand_components(self.parts, self.hand)
        self.action = (hand_action(self.parts, smoothing),)

    def _take(self, parts: HandModel) -> None:
        self.parts, self.model = parts, parts.model

    def compile_full(self, bodies: Sequence[int]) -> None:
        self._take(build(self.hand_name, tuple(bodies)))

    def on_attach(self) -> None:
        engine, model, parts = self.engine, self.model, self.parts
        as_tensor = lambda x: torch.as_tensor(x, dtype=engine.dtype, device=engine.device)  # noqa: E731
        n, k, u = engine.num_envs, len(parts.joints), model.nu
        self._qpos, self._qvel = engine.data("qpos"), engine.data("qvel")
        self._force, self._sensors = engine.data("actuator_force"), engine.data("sensordata")
        self._site_xpos = engine.data("site_xpos")
        tips = list(self.hand.fingertips)
        self._tips = torch.tensor([id_of(model, _SITE, f"{t}_touch") for t in tips], device=engine.device)
        first = int(model.sensor_adr[id_of(model, _SENSOR, f"{tips[0]}_touch")])
        self._touch = slice(first, first + len(tips))
        self._k = k
        self._pos, self._quat = slice(k, k + 3), slice(k + 3, k + 7)
        self._cube = id_of(model, _GEOM, "cube")
        self._sizes = engine.field("geom_size")  # of worlds
        self._rest, self._start = as_tensor(self.hand.cube_rest), as_tensor(self.hand.cube_start)
        self._grasp, self._offset = as_tensor(parts.grasp), as_tensor(parts.targets)
        self._scale = as_tensor(self.action[0].scale)
        self._low, self._high = as_tensor(model.actuator_ctrlrange.T.copy())
        zeros = lambda *shape: torch.zeros(n, *shape, dtype=engine.dtype, device=engine.device)  # noqa: E731
        self.target = zeros(u)  # [N, u] what the servos are told; less what is lost, late or wrong on the way:
        self.intended = zeros(u)  # [N, u] what the hand's controller means to tell them
        self.goal = zeros(4)
        self.goal_angle = zeros()  # [N] rad from the cube to its goal, at the nearest so far
        self.waited = torch.zeros(n, dtype=torch.int64, device=engine.device)  # steps since the last success
        self._last_action = zeros(u)
        self._readings = zeros(1 + _HISTORY, k)  # [N, 1 + history, k] of the joints' sensors, newest first
        self._fresh = torch.zeros(n, dtype=torch.bool, device=engine.device)  # [N] episodes that have just begun
        names = self.slices()
        self._in = {name: names[name] for name in ("joint_pos", "joint_pos_history", "cube_quat", "goal_rel_quat")}

    def reset(self, mask: Tensor) -> None:
        rows = mask[:, None]
        u = self.rng.episode_uniform("start", START_DRAWS + 3)
        aligned = first_orientation(self.goals, u)
        shift = 2.0 * u[:, START_DRAWS:] - 1.0
        half = 0.5 * START_RAD * shift[:, 2]
        zero = torch.zeros_like(half)
        turned = quat_multiply(torch.stack((half.cos(), zero, zero, half.sin()), dim=1), aligned)
        # Of a cube of another size, the bottom and the side at the fingers are where they are of the usual one.
        larger = self._sizes[:, self._cube, 0] - 0.5 * self.hand.cube_edge
        x, y = (START_M * shift[:, :2]).unbind(dim=1)
        place = self._start + torch.stack((x - larger, y, larger), dim=1)
        hand = (START_SHARE * self._grasp).expand(len(u), -1)
        qpos = torch.cat((hand, place, turned), dim=1)
        write_rows(self._qpos, qpos, mask)
        self._qvel.masked_fill_(rows, 0.0)
        self.target = torch.where(rows, self._offset, self.target)
        self.intended = torch.where(rows, self._offset, self.intended)
        self._last_action = self._last_action.masked_fill(rows, 0.0)
        self._set_goals(mask, aligned.to(self.goal.dtype), self.rng.episode_uniform("goal", GOAL_DRAWS))
        self._readings = torch.where(rows[:, None], self._qpos[:, None, : self._k], self._readings)
        self._fresh = self._fresh | mask

    def _set_goals(self, mask: Tensor, last: Tensor, u: Tensor) -> None:
        """New goals after the goals `last` [N, 4] in the environments of `mask` [N]."""
        self.goal = torch.where(mask[:, None], next_goal(self.goals, last, u), self.goal)
        self.goal_angle = torch.where(mask, quat_angle(self._to_goal(self._qpos[:, self._quat])), self.goal_angle)
        self.waited = self.waited.masked_fill(mask, 0)

    def _to_goal(self, quat: Tensor) -> Tensor:
        """The rotation [N, 4] in the world's frame from orientations [N, 4] to the goals."""
        return quat_multiply(self.goal, quat_conjugate(quat))

    def _smoothed(self, last: Tensor, action: Tensor) -> Tensor:
        """The command [N, u] that follows the command `last` for actions [N, u]."""
        target = torch.addcmul(self._offset, self._scale, action.to(last.dtype))
        return torch.lerp(last, torch.minimum(torch.maximum(target, self._low), self._high), self.smoothing)

    def decided(self, action: Tensor) -> None:
        self.intended = self._smoothed(self.intended, action)

    def command(self, action: Tensor) -> Tensor:
        # Remembers nothing: randomization also asks for the command of an action of zero, and does not send it.
        return self._smoothed(self.target, action)

    def after_step(self) -> None:
        self._readings = torch.cat((self._qpos[:, None, : self._k], self._readings[:, :-1]), dim=1)
        self._fresh = torch.zeros_like(self._fresh)
        self.waited += 1

    def observe(self) -> Tensor:
        quat = quat_canonical(self._qpos[:, self._quat])
        parts = (
            self._readings.flatten(1), self.intended, self._qpos[:, self._pos] - self._rest, quat, self.goal,
            quat_canonical(self._to_goal(quat)),
        )  # fmt: skip
        return torch.cat(parts, dim=1)

    def derive(self, observation: Tensor) -> Tensor:
        # What sensors show of a step is the same however often one looks, so remembering it again does no harm.
        kind = self._readings.dtype
        seen = observation[:, self._in["joint_pos"]].to(kind)
        self._readings[:, 0] = seen
        self._readings = torch.where(self._fresh[:, None, None], seen[:, None], self._readings)
        observation[:, self._in["joint_pos_history"]] = self._readings[:, 1:].flatten(1).to(observation.dtype)
        quat = quat_canonical(observation[:, self._in["cube_quat"]].to(kind))
        observation[:, self._in["cube_quat"]] = quat.to(observation.dtype)
        observation[:, self._in["goal_rel_quat"]] = quat_canonical(self._to_goal(quat)).to(observation.dtype)
        return observation

    def observe_privileged(self) -> Tensor:
        quat, velocity = self._qpos[:, self._quat], self._qvel[:, self._k :]
        parts = (
            self._qvel[:, : self._k], self._qpos[:, self._pos] - self._rest, quat_canonical(self._to_goal(quat)),
            velocity[:, :3], quat_rotate(quat, velocity[:, 3:]),
            (self._site_xpos[:, self._tips] - self._rest).flatten(1), self._sensors[:, self._touch],
        )  # fmt: skip
        return torch.cat(parts, dim=1)

    def outcome(self, action: Tensor) -> Outcome:
        w, action = self.weights, action.to(self.target.dtype)
        self.target = self._smoothed(self.target, action)
        angle = quat_angle(self._to_goal(self._qpos[:, self._quat]))
        distance = torch.linalg.vector_norm(self._qpos[:, self._pos] - self._rest, dim=1)
        dropped = distance > DROP_M
        success = (angle < SUCCESS_RAD) & ~dropped
        terms = {
            "progress": w.progress * (self.goal_angle - angle).clamp(min=0.0),
            "success": w.success * success.to(angle.dtype),
            "drop": w.drop * dropped.to(angle.dtype),
            **costs(w, distance, action - self._last_action, self._qvel[:, : self._k], self._force),
        }
        self._last_action, self.goal_angle = action.clone(), torch.minimum(self.goal_angle, angle)
        # A time without success is no state of the hand: the policy sees no clock, and a hand that is about to run out
        # of patience is as good as one that has just begun. So it truncates, and the last state keeps its value. As a
        # termination it would punish every state by how long ago, by chance, the last success was.
        late = (self.waited >= self.patience_steps) & ~success & ~dropped
        if success.is_cuda or bool(success.any()):  # looking would stall a GPU
            self._set_goals(success, self.goal, self.rng.uniform("goal", GOAL_DRAWS))
        return Outcome(torch.stack(tuple(terms.values())).sum(dim=0), dropped, success, terms, truncated=late)

    def draw_goal(self, model: mujoco.MjModel, data: mujoco.MjData, index: int) -> None:
        site = id_of(model, _SITE, "goal")
        model.site_quat[site] = self.goal[index].cpu().numpy()
        model.site_sameframe[site] = mujoco.mjtSameFrame.mjSAMEFRAME_NONE  # it was compiled unturned
        model.site_size[site] = model.geom_size[id_of(model, _GEOM, "cube")]
        mujoco.mj_kinematics(model, data)


def hand_components(parts: HandModel, hand: Hand) -> tuple[Component, ...]:
    """What the hand observes."""
    joints, k = parts.joints, len(parts.joints)
    actuators = tuple(parts.model.actuator(i).name for i in range(parts.model.nu))
    tips, cube = tuple(hand.fingertips), ("cube",)
    before = tuple(f"{joint} {i} before" for i in range(1, 1 + _HISTORY) for joint in joints)
    secret, palm = partial(Component, group="privileged"), "palm (x fingers, z up)"
    turn = partial(Component, size=4, unit="1", frame=palm, elements=_QUAT)
    ranges = parts.model.jnt_range[:k]
    return (
        Component(
            "joint_pos", k, "rad", "joint", joints, joints, limits=(float(ranges.min()), float(ranges.max())),
            description="joint angles",
        ),
        Component(
            "joint_pos_history", _HISTORY * k, "rad", "joint", before, joints * _HISTORY, derived_from=("joint_pos",),
            description="joint angles one and two control steps earlier, as measured then; at first the first reading",
        ),
        Component(
            "joint_target", len(actuators), "rad", "joint", actuators, measured=False,
            description="the command that the last action led to: its target, smoothed",
        ),
        vector(
            "cube_pos", "m", cube, frame=palm,
            description=f"the cube's centre from where it rests, which is {hand.cube_rest} from the palm's origin",
        ),
        turn("cube_quat", bodies=cube, limits=(-1.0, 1.0), description="orientation of the cube, w >= 0"),
        turn("goal_quat", measured=False, limits=(-1.0, 1.0), description="orientation wanted, w >= 0"),
        turn("goal_rel_quat", bodies=cube, derived_from=("cube_quat", "goal_quat"), limits=(-1.0, 1.0),
             description="goal_quat * conjugate(cube_quat), w >= 0"),
        secret("joint_vel", k, "rad/s", "joint", joints, joints, description="joint velocities"),
        vector("true_cube_pos", "m", cube, "cube_pos, clean", frame=palm, group="privileged"),
        turn("true_goal_rel_quat", bodies=cube, description="goal_rel_quat, clean", group="privileged"),
        vector("cube_velp", "m/s", cube, "velocity of the cube's centre", group="privileged"),
        vector("cube_velr", "rad/s", cube, "angular velocity of the cube", group="privileged"),
        secret("fingertip_pos", 3 * len(tips), "m", palm,
               tuple(f"{tip}.{axis}" for tip in tips for axis in XYZ), bodies=tips,
               description="fingertips, from where the cube rests"),
        secret("fingertip_force", len(tips), "N", "fingertip", tips, bodies=tips,
               description="sum of what presses on each fingertip"),
    )  # fmt: skip


def hand_action(parts: HandModel, smoothing: float) -> ActionComponent:
    """Targets of the servos around the grasp."""
    model = parts.model
    actuators = tuple(model.actuator(i).name for i in range(model.nu))
    on_joint = model.actuator_trntype == int(mujoco.mjtTrn.mjTRN_JOINT)
    driven = (model.joint(i).name if joint else model.tendon(i).name
              for i, joint in zip(model.actuator_trnid[:, 0], on_joint, strict=True))  # fmt: skip
    low, high = model.actuator_ctrlrange.T
    damping = [  # of a joint, or of the first of several coupled ones
        model.dof_damping[model.jnt_dofadr[i if joint else model.wrap_objid[model.tendon_adr[i]]]]
        for i, joint in zip(model.actuator_trnid[:, 0], on_joint, strict=True)
    ]
    return ActionComponent(
        "joint_target", model.nu, "rad", tuple((0.5 * (high - low)).tolist()), tuple(parts.targets.tolist()),
        elements=actuators, joints=tuple(driven), actuators=actuators, frame="joint",
        target_limits=(tuple(low.tolist()), tuple(high.tolist())), smoothing=smoothing,
        stiffness=tuple(model.actuator_gainprm[:, 0].tolist()), damping=tuple(map(float, damping)),
        effort_limit=tuple(model.actuator_forcerange[:, 1].tolist()),
        description="where the servos should go, limited to target_limits; what they are told moves by `smoothing` of "
        "the way there in each control step, from the offset at the start",
    )  # fmt: skip
