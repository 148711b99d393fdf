"""Hold a pose, or balance in it: a task for any robot whose actuators are servos or motors of its joints."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import torch
from torch import Tensor

from envs.parts.actions import ActionSpec
from envs.parts.composed import ComposedTask
from envs.parts.observations import Command, Imu, JointState, LastAction, ObservationSpec
from envs.parts.selection import select_joints
from envs.task import Outcome

_FALLEN_SHARE, _UPRIGHT = 0.5, 0.5  # of the height at the start; cosine of the largest tilt


class Hold(ComposedTask):
    """Hold a pose that is asked for; a free robot falls where it does not balance.

    Args:
        model: of the robot, with its actuators.
        home: [nq] where episodes start.
        actions: what the policy does, as `simreal.JointPosition`.
        judged: the joints whose pose counts.
        room: how far from home each of them may be asked for, rad or m.
        base: the body that floats; None for a robot that is bolted down.
        tolerance: how far every joint may be off in an episode that succeeds, rad or m.
        push: largest speed that an episode starts with, rad/s or m/s.
        extra: more of an observation.

    Raises:
        TaskError: the model has no such joints or actuators.
    """

    decimation, max_episode_steps = 10, 150

    def __init__(
        self,
        model: mujoco.MjModel,
        home: Sequence[float],
        actions: ActionSpec | Sequence[ActionSpec],
        judged: Sequence[str],
        room: Sequence[float],
        base: str | None = None,
        tolerance: float = 0.1,
        push: float = 0.05,
        extra: Sequence[ObservationSpec] = (),
    ) -> None:
        self.home, self.tolerance, self.push = tuple(home), tolerance, push
        ids = select_joints("Hold: judged", model, judged)
        self._judged = [int(model.jnt_qposadr[i]) for i in ids]
        self._base = None if base is None else int(model.jnt_qposadr[model.body_jntadr[model.body(base).id]])
        low = [home[at] - width for at, width in zip(self._judged, room, strict=True)]
        high = [home[at] + width for at, width in zip(self._judged, room, strict=True)]
        imu: list[ObservationSpec] = [] if base is None else [Imu(base)]
        asked = Command("asked", low, high, unit="1", elements=tuple(judged))
        self.compose(model, actions, [*joint_states(model), *imu, *extra, LastAction(), asked])

    def start(self, mask: Tensor) -> None:
        speeds = self.push * (2.0 * self.rng.episode_uniform("push", self.model.nv) - 1.0)
        self.write(mask, qpos=self.tensor(self.home), qvel=speeds)

    def outcome(self, action: Tensor) -> Outcome:
        qpos = self.engine.data("qpos")
        off = (qpos[:, self._judged] - self.commanded["asked"]).abs()
        reward = torch.exp(-4.0 * off.square().mean(dim=1) / self.tolerance**2) - 0.01 * action.square().mean(dim=1)
        fallen = torch.zeros(len(off), dtype=torch.bool, device=off.device)
        if self._base is not None:
            low = qpos[:, self._base + 2] < _FALLEN_SHARE * self.home[self._base + 2]
            fallen = low | (self.value("projected_gravity")[:, 2] > -_UPRIGHT)
        success = (off.amax(dim=1) < self.tolerance) & ~fallen
        return Outcome(reward, terminated=fallen, success=success, terms={"off": off.mean(dim=1)})


def joint_states(model: mujoco.MjModel) -> list[ObservationSpec]:
    """Positions and speeds of hinges and of slides, in components of one unit each."""
    kinds = {kind: [model.joint(j).name for j in range(model.njnt) if int(model.jnt_type[j]) == kind]
             for kind in (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE))}  # fmt: skip
    found = [(names, prefix) for names, prefix in zip(kinds.values(), ("hinge", "slide"), strict=True) if names]
    if len(found) == 1:
        return [JointState()]
    return [JointState(names, prefix=prefix) for names, prefix in found]
