"""Bring a tool to a place that the joints can reach: a task for any arm, or finger, with servos or motors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import mujoco
import torch
from torch import Tensor

from envs.common.errors import TaskError
from envs.common.spatial import matrix_to_quat
from envs.parts.actions import ActionSpec
from envs.parts.composed import ComposedTask
from envs.parts.kinematics import Kinematics, chain_to
from envs.parts.observations import BodyPose, Goal, LastTarget, ObservationSpec
from envs.robots.hold import joint_states
from envs.robots.ready import GROUND

_TRIES = 8  # poses that a goal is chosen from: the first whose tool is above the ground
_ABOVE_M = 0.03
_TURN_M = 0.1  # m of distance that a radian costs as much as


class Reach(ComposedTask):
    """Bring a tool to a random place, and where asked, turn it as asked.

    A goal is where the tool is at random angles of its joints, so that it can be reached.

    Args:
        model: of the robot, with its actuators.
        tool: body, site or geom.
        home: angles (or places) of the joints from the world to the tool, in order, rad or m.
        room: how far from home goals may take each of them, rad or m.
        actions: what the policy does: `simreal.JointPosition`, `JointVelocity`, `EndEffectorDelta`, ...
        tolerance: distance at which a goal counts as reached, m.
        turned: angle within which the tool has to be turned as asked, rad; None: how it is turned does not matter.
        start: how far from home episodes start, as a share of `room`.
        extra: more of an observation.

    Raises:
        TaskError: nothing moves the tool, or numbers do not fit its joints.
    """

    decimation, max_episode_steps = 25, 60

    def __init__(
        self,
        model: mujoco.MjModel,
        tool: str,
        home: Sequence[float],
        room: Sequence[float],
        actions: ActionSpec | Sequence[ActionSpec],
        tolerance: float = 0.02,
        turned: float | None = None,
        start: float = 0.5,
        extra: Sequence[ObservationSpec] = (),
    ) -> None:
        try:
            self._chain = chain_to(model, tool)
        except ValueError as error:
            raise TaskError(f"Reach: tool: {error}") from None
        count = len(self._chain.joints)
        if not count or not self._chain.simple:
            raise TaskError(
                f"Reach: tool: expected hinges and slides from the world to {tool!r}, got {count or 'none'}"
            )
        if not len(home) == len(room) == count:
            raise TaskError(f"Reach: home, room: expected {count} values each, for {', '.join(self._chain.joints)}")
        self.home, self.room, self._start = tuple(home), tuple(room), start
        self.tolerance, self.turned = tolerance, turned
        self._ground = any(int(kind) in GROUND for kind in model.geom_type)
        shown = BodyPose(tool, name="tool", rotation=None if turned is None else "quat")
        goal = Goal(tool, turned=turned is not None)
        self.compose(model, actions, [*joint_states(model), LastTarget(), *extra, shown, goal])

    def start(self, mask: Tensor) -> None:
        size, names = len(self.home), self._chain.joints
        home, room = self.tensor(self.home), self.tensor(self.room)
        u = 2.0 * self.rng.episode_uniform("reach", size * (1 + _TRIES)) - 1.0
        tries = home + room * u[:, size:].reshape(len(u), _TRIES, size)
        pos, rot = Kinematics(self._chain, home.dtype, home.device).pose(tries.reshape(-1, size))
        pos, rot = pos.reshape(len(u), _TRIES, 3), rot.reshape(len(u), _TRIES, 3, 3)
        above = pos[..., 2] > _ABOVE_M if self._ground else torch.ones_like(pos[..., 2], dtype=torch.bool)
        chosen = torch.where(above.any(dim=1), above.to(torch.int8).argmax(dim=1), pos[..., 2].argmax(dim=1))
        goal = pos[torch.arange(len(u), device=pos.device), chosen]
        if self.turned is not None:
            quat = matrix_to_quat(rot[torch.arange(len(u), device=pos.device), chosen])
            goal = torch.cat((goal, quat), dim=1)
        self.write(mask, of=names, qpos=home + self._start * room * u[:, :size])
        self.write(mask, goal=goal)

    def _off(self, achieved: Tensor, desired: Tensor) -> tuple[Tensor, Tensor | None]:
        """Distance [...], m, and angle [...], rad, between goals [..., G]."""
        distance = torch.linalg.vector_norm(achieved[..., :3] - desired[..., :3], dim=-1)
        if self.turned is None:
            return distance, None
        along = (achieved[..., 3:] * desired[..., 3:]).sum(dim=-1).abs().clamp(max=1.0)
        return distance, 2.0 * torch.acos(along)

    def goal_reward(self, achieved: Tensor, desired: Tensor) -> Tensor:
        distance, angle = self._off(achieved, desired)
        cost = distance if angle is None else distance + _TURN_M * angle
        return -cost - 0.1 * ~self.goal_success(achieved, desired)

    def goal_success(self, achieved: Tensor, desired: Tensor) -> Tensor:
        distance, angle = self._off(achieved, desired)
        near = distance < self.tolerance
        return near if angle is None else near & (angle < (self.turned or math.inf))
