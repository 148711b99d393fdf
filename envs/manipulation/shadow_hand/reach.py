"""HandReach of gymnasium-robotics (Plappert et al. 2018, arXiv 1802.09464): the thumb meets a finger. Batched.

Equal to gymnasium-robotics' HandReach-v3 step by step. Positions of the fingertips are those of the last evaluation
of the dynamics, which is one physics step behind the joints.

Observation (policy group, in order):

| component     | size | meaning                                                              | unit  |
|---------------|------|----------------------------------------------------------------------|-------|
| joint_pos     | 24   | joint angles: wrist, fore, middle, ring, little finger, thumb        | rad   |
| joint_vel     | 24   | their rates                                                          | rad/s |
| fingertip_pos | 15   | fore, middle, ring, little finger, thumb, world                      | m     |
| desired_goal  | 15   | where the fingertips should be, world                                | m     |

Action: targets of the 20 servos. Control period 0.04 s. Reward: -1 until the fingertips are within 0.01 m of the goal
(the norm over all five), then 0; dense: minus that distance.
"""

from __future__ import annotations

import mujoco
import torch
from torch import Tensor

from envs.engines.base import write_rows
from envs.manipulation.shadow_hand.common import ShadowHandTask
from envs.task import XYZ, Component, id_of

FINGERS = ("ff", "mf", "rf", "lf", "th")  # fore, middle, ring, little finger, thumb
_TIPS = tuple(f"robot0:S_{finger}tip" for finger in FINGERS)
_SUCCESS_DISTANCE_M = 0.01
_MEETING_POINT_M = (0.0, -0.09, 0.05)  # of thumb and finger, from the palm
_MEETING_SPREAD_M = 0.005  # standard deviation
_APART_M = 0.005  # each fingertip stops this far from the meeting point, so that they do not overlap
_SHARE_AT_REST = 0.1  # of episodes whose goal is where the fingers start
_BODY, _JOINT, _SITE = mujoco.mjtObj.mjOBJ_BODY, mujoco.mjtObj.mjOBJ_JOINT, mujoco.mjtObj.mjOBJ_SITE
# Joint angles at the start, rad: outermost joint last.
_START = {
    "WRJ": (-0.16514339750464327, -0.31973286565062153),
    "FFJ": (0.14340512546557435, 0.32028208333591573, 0.7126053607727917, 0.6705281001412586),
    "MFJ": (0.000246444303701037, 0.3152655251085491, 0.7659800313729842, 0.7323156897425923),
    "RFJ": (0.00038520700007378114, 0.36743546201985233, 0.7119514095008576, 0.6699446327514138),
    "LFJ": (0.0525442258033891, -0.13615534724474673, 0.39872030433433003, 0.7415570009679252, 0.704096378652974),
    "THJ": (
        0.003673823825070126, 0.5506291436028695, -0.014515151997119306, -0.0015229223564485414, -0.7894883021600622,
    ),
}  # fmt: skip


class HandReachTask(ShadowHandTask):
    """HandReach for N environments.

    Args:
        dense: reward is minus the distance to the goal; otherwise -1 until the goal is reached, then 0.
    """

    xml = "reach.xml"
    max_episode_steps = 50
    goal_size = 15

    def __init__(self, dense: bool = False) -> None:
        self.id = f"HandReach{'Dense' if dense else ''}-v3"
        self.dense = dense
        self.compile_full(())
        self.observation = (
            *self.joint_state(),
            _tips("fingertip_pos", "where the fingertips are"),
            _tips("desired_goal", "where the fingertips should be", measured=False),
        )

    def on_attach(self) -> None:
        super().on_attach()
        model, engine = self.model, self.engine
        as_tensor = lambda x: torch.as_tensor(x, dtype=engine.dtype, device=engine.device)  # noqa: E731
        data = mujoco.MjData(model)
        for prefix, angles in _START.items():
            for i, angle in enumerate(reversed(angles)):
                data.qpos[model.jnt_qposadr[id_of(model, _JOINT, f"robot0:{prefix}{i}")]] = angle
        mujoco.mj_forward(model, data)
        tips = [id_of(model, _SITE, name) for name in _TIPS]
        self._start_qpos, self._start_tips = as_tensor(data.qpos.copy()), as_tensor(data.site_xpos[tips])
        self._meeting = as_tensor(data.xpos[id_of(model, _BODY, "robot0:palm")]) + as_tensor(_MEETING_POINT_M)
        self._site_xpos, self._tips = engine.data("site_xpos"), torch.tensor(tips, device=engine.device)

    def reset(self, mask: Tensor) -> None:
        write_rows(self._qpos, self._start_qpos, mask)
        write_rows(self.goal, self._sample_goal(), mask)

    def _sample_goal(self) -> Tensor:
        """Fingertip positions [N, 15]: thumb and one finger meet, the others stay; or all stay."""
        u = self.rng.episode_uniform("goal", 2)
        spread = _MEETING_SPREAD_M * self.rng.episode_normal("meeting", 3)
        meeting = (self._meeting + spread.to(self._meeting.dtype))[:, None]  # [N, 1, 3]
        way = meeting - self._start_tips
        met = meeting - _APART_M * way / torch.linalg.vector_norm(way, dim=-1, keepdim=True)
        thumb = len(FINGERS) - 1
        fingers = torch.arange(len(FINGERS), device=u.device)
        moves = (fingers == (u[:, :1] * thumb).long()) | (fingers == thumb)
        moves &= u[:, 1:] >= _SHARE_AT_REST
        return torch.where(moves[..., None], met, self._start_tips).flatten(1)

    def observe(self) -> Tensor:
        return torch.cat((self._qpos, self._qvel, self.achieved_goal(), self.goal), dim=1)

    def achieved_goal(self) -> Tensor:
        return self._site_xpos[:, self._tips].flatten(1)

    def reward_and_success(self, achieved: Tensor, desired: Tensor) -> tuple[Tensor, Tensor]:
        distance = torch.linalg.vector_norm(achieved - desired, dim=-1)
        reward = -distance if self.dense else -(distance > _SUCCESS_DISTANCE_M).to(distance.dtype)
        return reward, distance < _SUCCESS_DISTANCE_M

    def draw_goal(self, model: mujoco.MjModel, data: mujoco.MjData, index: int) -> None:
        goal = self.goal[index].view(len(FINGERS), 3).cpu().numpy()
        for i, tip in enumerate(_TIPS):
            for marker, position in ((f"target{i}", goal[i]), (f"finger{i}", data.site_xpos[id_of(model, _SITE, tip)])):
                site = id_of(model, _SITE, marker)
                model.site_pos[site] += position - data.site_xpos[site]
        mujoco.mj_kinematics(model, data)


def _tips(name: str, description: str, measured: bool = True) -> Component:
    elements = tuple(f"{finger}tip.{axis}" for finger in FINGERS for axis in XYZ)
    return Component(
        name, len(elements), "m", "world", elements, bodies=_TIPS, measured=measured, description=description
    )
