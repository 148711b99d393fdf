"""What Gymnasium's MuJoCo tasks (version v5) share, batched; the tasks are in `planar` (HalfCheetah, Hopper,
Walker2d, Swimmer), `free` (Ant, Humanoid, HumanoidStandup) and `arms` (Reacher, Pusher, InvertedPendulum,
InvertedDoublePendulum).

Models, initial states, observations, rewards and termination are Gymnasium's: from the same state and action, every
value agrees step by step, and constructor options have the same names, defaults and meanings. As there, values
derived from positions (xpos, cinert, cvel, cfrc_ext, ...) are those of the last evaluation of the dynamics, which is
up to one physics step behind qpos and qvel.

Actions: motors, one per driven joint; -1 and 1 are the ends of the actuator's control range (Humanoids 0.4, Pusher 2,
InvertedPendulum 3, the others 1).

Precision: Gymnasium's actions are float32 and its control costs are computed from them in float32. Here actions
[-1, 1] are scaled, squared and summed in the precision in which they arrive, in NumPy's order of summation, so that
costs are the same to the last bit for float32 and float64 actions alike.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import mujoco
import numpy as np
import torch
from torch import Tensor

from envs.common.names import labels_of
from envs.engines.base import write_rows
from envs.engines.cfrc_ext import compute_body_forces, note_plain
from envs.task import ActionComponent, Component, Outcome, Task, compile_spec

Range = tuple[float, float]  # lower and upper end


def model_path(xml_file: str) -> Path:
    """Where a model is: a path if it starts with '.', '/' or '~', else the name of a model of Gymnasium's.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: Gymnasium is not installed.
    """
    if xml_file.startswith((".", "/", "~")):
        path = Path(xml_file).expanduser()
    else:
        spec = find_spec("gymnasium")
        if spec is None or spec.origin is None:
            raise ImportError("the models of these tasks come with gymnasium: pip install gymnasium")
        path = Path(spec.origin).parent / "envs" / "mujoco" / "assets" / xml_file
    if not path.is_file():
        raise FileNotFoundError(f"xml_file: {path}: no such file")
    return path


def load_model(xml_file: str, body_forces: bool = False, full: Sequence[int] = ()) -> mujoco.MjModel:
    """Compile a model; with `body_forces`, steps compute `cfrc_ext`; `full`: see `compile_spec`."""
    plain = _compile(xml_file, False, full)
    if not body_forces:
        return plain
    model = _compile(xml_file, True, full)
    note_plain(model, plain)
    return model


def _compile(xml_file: str, body_forces: bool, full: Sequence[int]) -> mujoco.MjModel:
    spec = mujoco.MjSpec.from_file(str(model_path(xml_file)))
    if body_forces:
        compute_body_forces(spec)
    with warnings.catch_warnings():
        # A notice for whoever maintains half_cheetah.xml; doing as it says would change the solver's scaling.
        warnings.filterwarnings("ignore", message=".*settotalmass")
        return compile_spec(spec, full)


def sum_like_numpy(values: Tensor) -> Tensor:
    """Sum [N, n] over n in the order in which NumPy adds up a contiguous array of n <= 8 numbers.

    Float32 sums depend on the order in their last digit, which here is 1e-7 of a reward.
    """
    n = values.shape[1]
    if values.dtype == torch.float64 or n > 8:
        return values.sum(dim=1)
    if n < 8:
        return reduce(torch.add, values.unbind(dim=1))
    pairs = values[:, ::2] + values[:, 1::2]
    quads = pairs[:, ::2] + pairs[:, 1::2]
    return quads[:, 0] + quads[:, 1]


def between(low: float, value: Tensor, high: float) -> Tensor:
    """low < value < high, elementwise."""
    return (value > low) & (value < high)


@dataclass(eq=False, repr=False)
class GymnasiumTask(Task):
    """A MuJoCo task of Gymnasium, version v5, for N environments.

    Subclasses are dataclasses: their fields are the options of the constructor, named as Gymnasium's.
    Gymnasium defines no success for these tasks, so `success` is never true; `terms` are what its `info` holds about
    the reward.

    Attributes:
        xml_file: name of a model of Gymnasium's, or a path starting with '.', '/' or '~'.
        frame_skip: physics steps per control step.
        reset_noise_scale: every episode starts from the model's pose plus noise of this scale.
        body_forces: the task reads `cfrc_ext`.
        normal_velocity_noise: initial velocities are normal; else uniform, as positions are.
    """

    xml_file: str
    frame_skip: int

    max_episode_steps = 1000
    has_success = False
    reset_noise_scale = 0.0
    body_forces: ClassVar[bool] = False
    normal_velocity_noise: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self.model = load_model(self.xml_file, self.body_forces)
        self.decimation = self.frame_skip
        self.action = (_motors(self.model),)
        self._unscaled = self.action[0].scale == (1.0,) * self.model.nu and not any(self.action[0].offset)

    def compile_full(self, bodies: Sequence[int]) -> None:
        self.model = load_model(self.xml_file, self.body_forces, bodies)

    def on_attach(self) -> None:
        engine = self.engine
        as_tensor = lambda x: torch.as_tensor(x, dtype=engine.dtype, device=engine.device)  # noqa: E731
        self._qpos, self._qvel = engine.data("qpos"), engine.data("qvel")
        self._init_qpos = as_tensor(self.model.qpos0.copy())
        self._scale = torch.tensor(self.action[0].scale, dtype=torch.float64, device=engine.device)
        self._offset = torch.tensor(self.action[0].offset, dtype=torch.float64, device=engine.device)

    def native_action_range(self) -> tuple[np.ndarray, np.ndarray]:
        return self.model.actuator_ctrlrange[:, 0].copy(), self.model.actuator_ctrlrange[:, 1].copy()

    def native(self, action: Tensor) -> Tensor:
        """Gymnasium's action [N, A] for ours, in the precision of ours."""
        if self._unscaled:
            return action
        return self._offset.to(action.dtype) + self._scale.to(action.dtype) * action

    def command(self, action: Tensor) -> Tensor:
        return self.native(action).to(self.engine.dtype)

    def square_action(self, action: Tensor) -> Tensor:
        """Sum of the squares of Gymnasium's action [N], in the precision of the action."""
        return sum_like_numpy(self.native(action).square())

    def reset(self, mask: Tensor) -> None:
        qpos, qvel = self.initial_state()
        write_rows(self._qpos, qpos, mask)
        write_rows(self._qvel, qvel, mask)

    def initial_state(self) -> tuple[Tensor, Tensor]:
        """Positions [N, nq] and velocities [N, nv] that the episodes start from."""
        nq, nv, scale = self.model.nq, self.model.nv, self.reset_noise_scale
        noise = self.symmetric("start", nq + nv)
        qvel = self.rng.episode_normal("qvel", nv) if self.normal_velocity_noise else noise[:, nq:]
        return self._init_qpos + scale * noise[:, :nq], scale * qvel

    def finite(self) -> Tensor:
        """Where [N] every position and velocity is a finite number; cheaper than asking for each of them."""
        total = self._qpos.sum(dim=1) + self._qvel.sum(dim=1)
        return total - total == 0.0

    def nowhere(self) -> Tensor:
        """False [N]."""
        return torch.zeros(self.engine.num_envs, dtype=torch.bool, device=self.engine.device)

    def symmetric(self, tag: str, size: int) -> Tensor:
        """Numbers [N, size] of the episode, uniform in (-1, 1)."""
        return 2.0 * self.rng.episode_uniform(tag, size) - 1.0


@dataclass(eq=False, repr=False)
class ForwardTask(GymnasiumTask):
    """A task that rewards moving along x; subclasses say what moves and what healthy means.

    Attributes:
        excluded: leading position coordinates that the observation leaves out by default.
        hidden: those that it does leave out.
    """

    forward_reward_weight: float = 1.0
    ctrl_cost_weight: float = 0.1
    reset_noise_scale: float = 0.1
    exclude_current_positions_from_observation: bool = True

    excluded: ClassVar[int]
    healthy_reward = 1.0
    terminate_when_unhealthy = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.hidden = self.excluded if self.exclude_current_positions_from_observation else 0

    def x_position(self) -> Tensor:
        """Position [N] whose change is rewarded, m."""
        return self._qpos[:, 0]

    def control_reward(self, action: Tensor) -> Tensor:
        """Minus the cost [N] of an action."""
        return -self.ctrl_cost_weight * self.square_action(action)

    def contact_reward(self) -> Tensor | None:
        """Minus the cost [N] of contact forces, or None."""
        return None

    def is_healthy(self) -> Tensor | None:
        """Which robots [N] (bool) are healthy, or None where the task does not ask."""
        return None

    def command(self, action: Tensor) -> Tensor:
        # Read again before every step and used up by its outcome: no state of the episode.
        self._x_before = self.x_position().clone()
        return super().command(action)

    def outcome(self, action: Tensor) -> Outcome:
        velocity = (self.x_position() - self._x_before) / self.control_period_s
        rewards = self.forward_reward_weight * velocity
        penalties = self.control_reward(action).to(rewards.dtype)
        terms = {"reward_forward": rewards, "reward_ctrl": penalties, "x_velocity": velocity}
        healthy, contact, terminated = self.is_healthy(), self.contact_reward(), None
        if healthy is not None:
            terms["reward_survive"] = self.healthy_reward * healthy.to(rewards.dtype)
            rewards = rewards + terms["reward_survive"]
            terminated = ~healthy if self.terminate_when_unhealthy else None
        if contact is not None:
            terms["reward_contact"] = contact
            penalties = penalties + contact
        nowhere = self.nowhere()
        return Outcome(rewards + penalties, nowhere if terminated is None else terminated, nowhere, terms)


def _motors(model: mujoco.MjModel) -> ActionComponent:
    low, high = model.actuator_ctrlrange.T
    if not (low < high).all():
        raise ValueError("every actuator of the model needs a ctrlrange")
    on_joints = bool((model.actuator_trntype == int(mujoco.mjtTrn.mjTRN_JOINT)).all())
    owners = [i for i in range(model.nactuator) for _ in range(int(model.actuator_ctrlnum[i]))]  # of each control
    joints = joint_names(model, model.actuator_trnid[owners, 0].tolist()) if on_joints else ()
    labels = labels_of(model, "actuator")
    names = tuple(labels[i] for i in owners)
    inputs = [i - int(model.actuator_ctrladr[owner]) for i, owner in enumerate(owners)]
    if len(set(owners)) < len(owners):  # an actuator with several inputs: those are what can be told apart
        elements = tuple(f"{name}[{k}]" for name, k in zip(names, inputs, strict=True))
    else:
        elements = joints or names
    gear = ", ".join(f"{model.actuator_gear[model.actuator_outadr[i], 0]:g}" for i in owners)
    return ActionComponent(
        "motors", model.nu, "1", tuple(((high - low) / 2.0).tolist()), tuple(((high + low) / 2.0).tolist()),
        elements=elements, joints=joints, actuators=names, frame="joint",
        description=f"motor command; force or torque on the joint per unit, N or N m: {gear}",
    )  # fmt: skip


def joint_names(model: mujoco.MjModel, ids: Sequence[int] | range | None = None) -> tuple[str, ...]:
    """Labels of joints, see `envs.common.names`."""
    labels = labels_of(model, "joint")
    return tuple(labels if ids is None else (labels[i] for i in ids))


def joint_component(
    name: str, unit: str, joints: Sequence[str], description: str, limit: float | None = None
) -> Component:
    """One value per joint (sliding or turning)."""
    limits = None if limit is None else (-limit, limit)
    names = tuple(joints)
    return Component(name, len(names), unit, "joint", names, names, limits=limits, description=description)


def body_component(
    model: mujoco.MjModel, name: str, unit: str, elements: Sequence[str], description: str,
    limits: tuple[float, float] | None = None,
) -> Component:  # fmt: skip
    """`elements` of every body but the world, about the centre of mass of its kinematic tree, world axes."""
    bodies = tuple(labels_of(model, "body")[1:])
    names = tuple(f"{body}.{element}" for body in bodies for element in elements)
    return Component(
        name, len(names), unit, "tree centre of mass, world axes", names, bodies=bodies, limits=limits,
        description=description,
    )  # fmt: skip
