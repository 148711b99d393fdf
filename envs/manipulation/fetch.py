"""The four Fetch tasks of gymnasium-robotics (Plappert et al. 2018, arXiv 1802.09464), batched.

Models, initial states, observations, rewards and success are those of version v4: from the same state and
action, every value agrees with gymnasium-robotics step by step. The arm is driven through a mocap body that
is welded to the gripper: an action moves that body relative to where the gripper is.

Observation (policy group, in order; `_object` rows only where the task has an object):

| component     | size | meaning                                                        | unit |
|---------------|------|----------------------------------------------------------------|------|
| grip_pos      | 3    | gripper position, world                                        | m    |
| object_pos    | 3    | object position, world                                         | m    |
| object_rel_pos| 3    | object position minus gripper position                         | m    |
| gripper_state | 2    | finger positions: right, left                                  | m    |
| object_rot    | 3    | object orientation, XYZ Euler angles                           | rad  |
| object_velp   | 3    | object velocity relative to the gripper, per control step      | m    |
| object_velr   | 3    | object angular velocity, per control step                      | rad  |
| grip_velp     | 3    | gripper velocity, per control step                             | m    |
| gripper_vel   | 2    | finger velocities: right, left, per control step               | m    |
| desired_goal  | 3    | where the gripper or the object should be, world               | m    |

Action: dx, dy, dz of the gripper (1 is 0.05 m per control step) and the fingers' opening (used only by
PickAndPlace). Control period 0.04 s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import mujoco
import numpy as np
import torch
from torch import Tensor

from envs.common.spatial import ancestor_dofs, matrix_to_euler, point_velocity
from envs.engines.base import write_rows
from envs.platform.gymnasium_robotics_patch import robotics_asset
from envs.task import ActionComponent, Component, Outcome, SpecEdit, Task, compile_spec, id_of, spec_edits, vector

SUCCESS_DISTANCE_M = 0.05
_DISPLACEMENT_M = 0.05  # of the gripper per control step at action 1
_MIN_OBJECT_DISTANCE_M = 0.1  # objects start at least this far from the gripper
_AIR_GOAL_HEIGHT_M = 0.45
_GRIPPER_QUAT = (1.0, 0.0, 1.0, 0.0)
_FINGERS = ("robot0:r_gripper_finger_joint", "robot0:l_gripper_finger_joint")
_JOINT, _BODY, _SITE = mujoco.mjtObj.mjOBJ_JOINT, mujoco.mjtObj.mjOBJ_BODY, mujoco.mjtObj.mjOBJ_SITE


@dataclass(frozen=True)
class FetchVariant:
    """What distinguishes the four tasks; lengths in m."""

    xml: str
    initial_qpos: dict[str, tuple[float, ...]]
    has_object: bool
    block_gripper: bool
    gripper_extra_height: float
    target_in_the_air: bool
    target_offset: tuple[float, float, float]
    obj_range: float
    target_range: float


_BASE = {"robot0:slide0": (0.405,), "robot0:slide1": (0.48,), "robot0:slide2": (0.0,)}
_BLOCK = _BASE | {"object0:joint": (1.25, 0.53, 0.4, 1.0, 0.0, 0.0, 0.0)}
_PUCK = _BASE | {"robot0:slide0": (0.05,), "object0:joint": (1.7, 1.1, 0.41, 1.0, 0.0, 0.0, 0.0)}
VARIANTS = {
    "FetchReach": FetchVariant(
        "reach.xml", _BASE | {"robot0:slide0": (0.4049,)}, False, True, 0.2, True, (0.0, 0.0, 0.0), 0.15, 0.15
    ),
    "FetchPush": FetchVariant("push.xml", _BLOCK, True, True, 0.0, False, (0.0, 0.0, 0.0), 0.15, 0.15),
    "FetchSlide": FetchVariant("slide.xml", _PUCK, True, True, -0.02, False, (0.4, 0.0, 0.0), 0.1, 0.3),
    "FetchPickAndPlace": FetchVariant(
        "pick_and_place.xml", _BLOCK, True, False, 0.2, True, (0.0, 0.0, 0.0), 0.15, 0.15
    ),
}


@dataclass(frozen=True)
class _Start:
    """Where every episode starts: found by letting the arm settle, as gymnasium-robotics does."""

    qpos: np.ndarray  # [nq]
    qvel: np.ndarray  # [nv]
    time_s: float
    grip_pos: np.ndarray  # [3]
    object_height: float


@cache
def _prepare(
    family: str, decimation: int, full: tuple[int, ...], _edits: tuple[SpecEdit, ...]
) -> tuple[mujoco.MjModel, _Start]:
    """The model with its mocap weld reset, and the state after ten control steps towards the start pose.

    `_edits` are those that `compile_spec` makes: each set has a cached model of its own.
    """
    variant = VARIANTS[family]
    model = compile_spec(mujoco.MjSpec.from_file(str(robotics_asset("fetch", variant.xml))), full)
    data = mujoco.MjData(model)
    for name, value in variant.initial_qpos.items():
        start = model.jnt_qposadr[id_of(model, _JOINT, name)]
        data.qpos[start : start + len(value)] = value
    for i in range(model.neq):
        if int(model.eq_type[i]) == int(mujoco.mjtEq.mjEQ_WELD):
            model.eq_data[i, :7] = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
            # The weld's pose above is meant as it is. With this flag mj_setConst, which follows a change of mass,
            # would replace it by the relative pose in qpos0, and the arm would leave its place.
            model.eq_data[i, 11] = 0.0
    mujoco.mj_forward(model, data)
    grip = id_of(model, _SITE, "robot0:grip")
    offset = np.array([-0.498, 0.005, -0.431 + variant.gripper_extra_height])
    data.mocap_pos[0] = offset + data.site_xpos[grip]
    data.mocap_quat[0] = _GRIPPER_QUAT
    for _ in range(10):
        mujoco.mj_step(model, data, nstep=decimation)
    height = float(data.site_xpos[id_of(model, _SITE, "object0")][2]) if variant.has_object else 0.0
    return model, _Start(data.qpos.copy(), data.qvel.copy(), data.time, data.site_xpos[grip].copy(), height)


class FetchTask(Task):
    """One of the four Fetch tasks, for N environments.

    Args:
        family: a key of `VARIANTS`.
        dense: reward is minus the distance to the goal; otherwise -1 until the goal is reached, then 0.
    """

    command_fields = ("ctrl", "mocap_pos", "mocap_quat")
    decimation = 20
    max_episode_steps = 50
    goal_size = 3
    render_camera: ClassVar = {"distance": 2.5, "azimuth": 132.0, "elevation": -14.0, "lookat": (1.3, 0.75, 0.55)}

    def __init__(self, family: str, dense: bool = False) -> None:
        self.id = f"{family}{'Dense' if dense else ''}-v4"
        self.variant_name, self.variant = family, VARIANTS[family]
        self.dense = dense
        self.model, self.start = _prepare(family, self.decimation, (), spec_edits())
        self.observation = _observation_components(self.variant.has_object)
        self.action = _action_components(self.variant.block_gripper)

    def compile_full(self, bodies: Sequence[int]) -> None:
        self.model, self.start = _prepare(self.variant_name, self.decimation, tuple(bodies), spec_edits())

    def on_attach(self) -> None:
        engine, model = self.engine, self.model
        as_tensor = lambda x: torch.as_tensor(x, dtype=engine.dtype, device=engine.device)  # noqa: E731
        self._qpos, self._qvel = engine.data("qpos"), engine.data("qvel")
        self._xpos, self._xquat = engine.data("xpos"), engine.data("xquat")
        self._site_xpos, self._site_xmat = engine.data("site_xpos"), engine.data("site_xmat")
        self._cdof, self._subtree_com = engine.data("cdof"), engine.data("subtree_com")
        self._grip = id_of(model, _SITE, "robot0:grip")
        self._gripper_body = id_of(model, _BODY, "robot0:gripper_link")
        self._grip_chain = self._chain(int(model.site_bodyid[self._grip]))
        self._fingers = slice(*self._finger_range(model.jnt_qposadr))
        self._finger_dofs = slice(*self._finger_range(model.jnt_dofadr))
        # A position actuator's target is relative to its joint (gymnasium-robotics' ctrl_set_action).
        joints = model.actuator_trnid[:, 0]
        self._ctrl_qpos = torch.as_tensor(model.jnt_qposadr[joints].astype("int64"), device=engine.device)
        self._target_offset = as_tensor(self.variant.target_offset)
        self._quat_step = as_tensor(_GRIPPER_QUAT)
        self._start_qpos, self._start_qvel = as_tensor(self.start.qpos), as_tensor(self.start.qvel)
        self._start_grip = as_tensor(self.start.grip_pos)
        if self.variant.has_object:
            self._object = id_of(model, _SITE, "object0")
            self._object_chain = self._chain(int(model.site_bodyid[self._object]))
            self._object_qpos = int(model.jnt_qposadr[id_of(model, _JOINT, "object0:joint")])
        names = self.slices()
        self._grip_slice, self._rel_slice = names["grip_pos"], names.get("object_rel_pos")
        self._object_slice = names.get("object_pos")

    def _chain(self, body: int) -> tuple[Tensor, int]:
        """The dofs that move a body and the root of its tree."""
        dofs = torch.tensor(ancestor_dofs(self.model, body), device=self.engine.device)
        return dofs, int(self.model.body_rootid[body])

    def _finger_range(self, addresses: np.ndarray) -> tuple[int, int]:
        right, left = (int(addresses[id_of(self.model, _JOINT, name)]) for name in _FINGERS)
        if left != right + 1:
            raise ValueError("the finger joints are not consecutive")
        return right, left + 1

    def reset(self, mask: Tensor) -> None:
        qpos = self._start_qpos.expand_as(self._qpos)
        if self.variant.has_object:
            qpos = qpos.clone()
            qpos[:, self._object_qpos : self._object_qpos + 2] = self._start_grip[:2] + self._object_offset()
        write_rows(self._qpos, qpos, mask)
        write_rows(self._qvel, self._start_qvel, mask)
        self.engine.data("time").masked_fill_(mask, self.start.time_s)
        write_rows(self.goal, self._sample_goal(), mask)

    def _object_offset(self) -> Tensor:
        """Object position [N, 2] relative to the gripper: uniform in a square outside a circle.

        The square's corners leave at least 21 % of the area, so 64 tries fail with odds below 1e-6; the fallback is
        a corner.
        """
        tries = 64
        u = self.rng.episode_uniform("object_pos", 2 * tries).view(-1, tries, 2)
        offset = (2.0 * u - 1.0) * self.variant.obj_range
        accepted = offset.norm(dim=-1) >= _MIN_OBJECT_DISTANCE_M
        first = accepted.to(torch.int8).argmax(dim=1)
        chosen = offset[torch.arange(len(first), device=first.device), first]
        corner = torch.full_like(chosen, self.variant.obj_range)
        return torch.where(accepted.any(dim=1, keepdim=True), chosen, corner).to(self.engine.dtype)

    def _sample_goal(self) -> Tensor:
        variant = self.variant
        u = self.rng.episode_uniform("goal", 5).to(self.engine.dtype)
        goal = self._start_grip + (2.0 * u[:, :3] - 1.0) * variant.target_range
        if variant.has_object:
            goal = goal + self._target_offset
            goal[:, 2] = self.start.object_height
            if variant.target_in_the_air:
                goal[:, 2] += torch.where(u[:, 3] < 0.5, u[:, 4] * _AIR_GOAL_HEIGHT_M, 0.0)
        return goal

    def command(self, action: Tensor) -> Tensor:
        # Scaled in the action's own precision: gymnasium-robotics multiplies float32 actions in float32.
        displacement = (action[:, :3] * _DISPLACEMENT_M).to(self.engine.dtype)
        position = self._xpos[:, self._gripper_body] + displacement
        quat = self._xquat[:, self._gripper_body] + self._quat_step
        if not len(self._ctrl_qpos):
            return torch.cat((position, quat), dim=1)
        opening = torch.zeros_like(action[:, 3:]) if self.variant.block_gripper else action[:, 3:]
        return torch.cat((self._qpos[:, self._ctrl_qpos] + opening.to(position.dtype), position, quat), dim=1)

    def after_step(self) -> None:
        if self.variant.block_gripper:
            self._qpos[:, self._fingers] = 0.0
            self.engine.forward(stage="kinematics")

    def observe(self) -> Tensor:
        dt = self.control_period_s
        grip = self._site_xpos[:, self._grip]
        _, grip_velp = self._velocity(self._grip_chain, grip)
        grip_velp = grip_velp * dt
        fingers = self._qpos[:, self._fingers]
        finger_vel = self._qvel[:, self._finger_dofs] * dt
        if not self.variant.has_object:
            return torch.cat((grip, fingers, grip_velp, finger_vel, self.goal), dim=1)
        position = self._site_xpos[:, self._object]
        rotation = matrix_to_euler(self._site_xmat[:, self._object].unflatten(1, (3, 3)))
        velr, velp = self._velocity(self._object_chain, position)
        parts = (grip, position, position - grip, fingers, rotation, velp * dt - grip_velp, velr * dt)
        return torch.cat((*parts, grip_velp, finger_vel, self.goal), dim=1)

    def observe_privileged(self) -> Tensor:
        grip = self._site_xpos[:, self._grip]
        if not self.variant.has_object:
            return grip.clone()
        position = self._site_xpos[:, self._object]
        return torch.cat((grip, position, position - grip), dim=1)

    def _velocity(self, chain: tuple[Tensor, int], point: Tensor) -> tuple[Tensor, Tensor]:
        dofs, root = chain
        return point_velocity(self._cdof[:, dofs], self._qvel[:, dofs], point, self._subtree_com[:, root])

    def derive(self, observation: Tensor) -> Tensor:
        if self._rel_slice is not None:
            measured = observation[:, self._object_slice] - observation[:, self._grip_slice]
            observation[:, self._rel_slice] = measured
        return observation

    def achieved_goal(self) -> Tensor:
        return self._site_xpos[:, self._object if self.variant.has_object else self._grip].clone()

    def goal_reward(self, achieved: Tensor, desired: Tensor) -> Tensor:
        distance = torch.linalg.vector_norm(achieved - desired, dim=-1)
        return -distance if self.dense else -(distance > SUCCESS_DISTANCE_M).to(distance.dtype)

    def goal_success(self, achieved: Tensor, desired: Tensor) -> Tensor:
        return torch.linalg.vector_norm(achieved - desired, dim=-1) < SUCCESS_DISTANCE_M

    def outcome(self, action: Tensor) -> Outcome:
        site = self._object if self.variant.has_object else self._grip
        distance = torch.linalg.vector_norm(self._site_xpos[:, site] - self.goal, dim=-1)
        reward = -distance if self.dense else -(distance > SUCCESS_DISTANCE_M).to(distance.dtype)
        success = distance < SUCCESS_DISTANCE_M
        return Outcome(reward, torch.zeros_like(success), success)

    def draw_goal(self, model: mujoco.MjModel, data: mujoco.MjData, index: int) -> None:
        site = id_of(model, _SITE, "target0")
        for geom in range(model.ngeom):  # the axes that mark the mocap body would cut through the picture
            if model.body_mocapid[model.geom_bodyid[geom]] >= 0:
                model.geom_rgba[geom, 3] = 0.0
        model.site_pos[site] += self.goal[index].cpu().numpy() - data.site_xpos[site]
        mujoco.mj_kinematics(model, data)


def _observation_components(has_object: bool) -> tuple[Component, ...]:
    step, grip, block, fingers = "per control step", ("robot0:grip",), ("object0",), ("right", "left")
    parts = (
        vector("grip_pos", "m", grip, "gripper position"),
        vector("object_pos", "m", block, "object position"),
        vector(
            "object_rel_pos", "m", block + grip, "object position minus gripper position",
            derived_from=("object_pos", "grip_pos"),
        ),
        Component(
            "gripper_state", 2, "m", "joint", fingers, _FINGERS, limits=(0.0, 0.05), description="finger positions"
        ),
        vector("object_rot", "rad", block, "object XYZ Euler angles"),
        vector("object_velp", "m", block + grip, f"object velocity relative to the gripper, {step}"),
        vector("object_velr", "rad", block, f"object angular velocity, {step}"),
        vector("grip_velp", "m", grip, f"gripper velocity, {step}"),
        Component("gripper_vel", 2, "m", "joint", fingers, _FINGERS, description=f"finger velocities, {step}"),
        vector("desired_goal", "m", (), "where the gripper or object should be", measured=False),
        vector("true_grip_pos", "m", grip, "grip_pos, clean", group="privileged"),
        vector("true_object_pos", "m", block, "object_pos, clean", group="privileged"),
        vector("true_object_rel_pos", "m", block + grip, "object_rel_pos, clean", group="privileged"),
    )  # fmt: skip
    return tuple(part for part in parts if has_object or "object" not in part.name)


def _action_components(block_gripper: bool) -> tuple[ActionComponent, ...]:
    unused = " (not used by this task: the fingers stay closed)" if block_gripper else ""
    finger_scale = 0.0 if block_gripper else 1.0
    return (
        ActionComponent(
            "grip_displacement", 3, "m", (_DISPLACEMENT_M,) * 3, (0.0,) * 3, ("dx", "dy", "dz"),
            description="gripper displacement from where it is, per control step",
            afterwards="added to where the gripper is",
        ),
        ActionComponent(
            "gripper", 1, "m", (finger_scale,), (0.0,), ("opening",), joints=_FINGERS,
            description="finger target relative to the fingers' position" + unused,
            afterwards="added to where each finger is",
        ),
    )  # fmt: skip
