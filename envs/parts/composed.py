"""A task composed of ready-made actions and observations: what is left to write is the start, and the reward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
import torch
from torch import Tensor

from envs.common.errors import TaskError
from envs.common.spatial import constant, matrix_to_quat
from envs.common.step_records import Mark
from envs.engines.base import Stage, write_rows
from envs.parts.actions import ActionSpec
from envs.parts.kinematics import WORLD, find_frame
from envs.parts.observations import Command, Goal, ObservationSpec
from envs.parts.readings import Scene, Source, true_pose
from envs.parts.selection import Patterns, select_joints
from envs.parts.targets import Targets
from envs.task import Component, Fixed, Outcome, Task

_OF_JOINTS = {"qpos": "jnt_qposadr", "qvel": "jnt_dofadr"}
_MARKERS = ("goal", "target")  # as scenes of MuJoCo Menagerie call what shows a goal
_STAGES: tuple[Stage | None, ...] = (None, "kinematics", "position", "velocity", "acceleration")


def _parts(name: str, given: Any, kind: type[Any]) -> tuple[Any, ...]:
    """One part or several. Raises TaskError where something else is among them."""
    parts = tuple(given) if isinstance(given, (list, tuple)) else (given,)
    for part in parts:
        if not isinstance(part, kind):
            got = f"the class {part.__name__} itself" if isinstance(part, type) else type(part).__name__
            raise TaskError(f"compose: {name}: expected {kind.__name__}s, got {got}")
    return parts


class ComposedTask(Task):
    """A task whose actions and observations are parts: call `compose` in `__init__`, write `start` and `outcome`.

    A goal task (one with a `Goal`) writes `goal_reward` and `goal_success` instead of `outcome`.
    """

    def compose(
        self,
        model: mujoco.MjModel,
        actions: ActionSpec | Sequence[ActionSpec] = (),
        observations: ObservationSpec | Sequence[ObservationSpec] = (),
    ) -> None:
        """Take a model and the parts: `model`, `action` and `observation` follow from them.

        Args:
            model: of the task.
            actions: in order. None: the task has its own `action` and `command`.
            observations: in order, of both groups. A `Goal` is the last of the policy's.

        Raises:
            TaskError: a part does not fit the model.
        """
        self.model = model
        self.actions = _parts("actions", actions, ActionSpec)
        self.observations = _parts("observations", observations, ObservationSpec)
        if not self.actions and not hasattr(self, "action"):
            raise TaskError("compose: actions: expected parts, or an `action` of the task's own before")
        # What is seen of joints depends on no action; actions may be relative to it.
        joints = [source.component for spec in self.observations if not spec.about_action
                  for source in spec.sources(model, (), self._joints_before(spec))]  # fmt: skip
        if self.actions:
            self.action = tuple(spec.component(model, joints) for spec in self.actions)
        self.observation = tuple(source.component for source in self._sources())
        goal = next((spec for spec in self.observations if isinstance(spec, Goal)), None)
        self.goal_size = goal.size if goal is not None else self.goal_size
        self._achieved = None if goal is None else true_pose(model, goal.of, goal.frame)
        needed = [spec.stage_needed() for spec in self.observations]
        self.step_stage = max([*needed, self.step_stage], key=_STAGES.index)

    def _joints_before(self, spec: ObservationSpec) -> list[Component]:
        """Components of the parts before one that need no action."""
        found: list[Component] = []
        for other in self.observations[: self.observations.index(spec)]:
            if not other.about_action:
                found += [source.component for source in other.sources(self.model, (), found)]
        return found

    def _sources(self) -> list[Source]:
        found: list[Source] = []
        for spec in self.observations:
            found += spec.sources(self.model, self.action, [source.component for source in found])
        return found

    def on_attach(self) -> None:
        targets = (self.action, self.components("policy"), self.engine, self.model)
        self._targets = Targets(*targets) if self.actions else None
        commands = {spec.name: len(spec.low) for spec in self._commands()}
        goal = (lambda: self.goal) if self.goal_size else None
        self.scene = Scene(self.engine, self.action_size, commands, self._targets, goal)
        self._read = _Sources(self._sources())

    def start(self, mask: Tensor) -> None:
        """Write the initial state of the environments in `mask` [N], and the goal; `write` does so. What is not written
        is as in the model."""

    def reset(self, mask: Tensor) -> None:
        """Calls `start`, and then begins the parts in the state that it wrote."""
        self.start(mask)
        self.scene.begin(mask)
        for spec in self._commands():
            self._draw(spec, mask, self.rng.episode_uniform(f"command {spec.name}", len(spec.low) + 1))
        if self._targets is not None:
            self._targets.begin(mask)

    @property
    def commanded(self) -> dict[str, Tensor]:
        """By the name of a `Command`, what is wanted [N, size]; writable."""
        return self.scene.commanded

    def write(self, mask: Tensor, goal: Tensor | None = None, of: Patterns | None = None, **fields: Tensor) -> None:
        """Write values [N, ...] to fields of mjData (`qpos`, ...) and to the goal, in the rows of `mask` [N].

        With `of`, names or patterns of hinges and slides, `qpos` and `qvel` are values of these joints alone, in the
        model's order or in that of several patterns; the others keep theirs.

        Raises:
            TaskError: values of another shape, or no such joints.
        """
        joints = None if of is None else select_joints("write", self.model, of)
        for name, values in fields.items():
            field = self.engine.data(name)
            if joints is None:
                self._fits(name, values, field.shape, name in _OF_JOINTS)
                write_rows(field, values, mask)
                continue
            columns, new = self._places(name, joints), field.clone()
            self._fits(name, values, new[:, columns].shape, False)
            new[:, columns] = values.to(new.dtype)
            write_rows(field, new, mask)
        if goal is not None:
            self._fits("goal", goal, self.goal.shape, False)
            write_rows(self.goal, goal, mask)

    def _places(self, field: str, joints: list[int]) -> list[int]:
        """Where a field has the values of joints."""
        if field not in _OF_JOINTS:
            raise TaskError(f"task: {self.id}: write: of: expected {' or '.join(_OF_JOINTS)} beside it, got {field!r}")
        return getattr(self.model, _OF_JOINTS[field])[joints].tolist()

    def _fits(self, name: str, values: Tensor, shape: Sequence[int], advise: bool) -> None:
        """Raise TaskError where values do not expand to a shape."""
        got = tuple(values.shape)
        if len(got) > len(shape) or any(a not in (1, b) for a, b in zip(got[::-1], tuple(shape)[::-1], strict=False)):
            advice = "; `of` says to which joints values belong, where they are not of all" if advise else ""
            raise TaskError(f"task: {self.id}: write: {name}: expected {list(shape)}, got {list(got)}{advice}")

    def tensor(self, values: Sequence[float]) -> Tensor:
        """Numbers as a tensor of the engine's type, on its device."""
        return constant(tuple(values), self.engine.dtype, self.engine.device)

    def value(self, name: str) -> Tensor:
        """The true values [N, size] of a component of the observation, without sensors' errors."""
        return next(source for source in self._read.all if source.component.name == name).read(self.scene)

    @property
    def action_change(self) -> Tensor:
        """How the policy's last action differs from the one before [N, A]; from 0 in the first step."""
        return self.scene.action - self.scene.before

    def decided(self, action: Tensor) -> None:
        self.scene.decided(action)
        if self._targets is not None:
            self._targets.decided(action)

    def command(self, action: Tensor) -> Tensor:
        if self._targets is None:
            raise TaskError(f"task: {self.id}: expected actions in `compose`, or a `command` of its own")
        return self._targets.command(action)

    def after_step(self) -> None:
        self.scene.steps += 1

    def observe(self) -> Tensor:
        return self._observe("policy")

    def observe_privileged(self) -> Tensor | None:
        return self._observe("privileged") if self.components("privileged") else None

    def _observe(self, group: str) -> Tensor:
        return torch.cat(
            [source.read(self.scene) for source in self._read.all if source.component.group == group], dim=1
        )

    def derive(self, observation: Tensor) -> Tensor:
        slices = self.slices()
        seen = {name: observation[:, where].to(self.engine.dtype) for name, where in slices.items()}
        for source in self._read.all:
            if source.derive is not None:
                observation[:, slices[source.component.name]] = source.derive(seen).to(observation.dtype)
        return observation

    def after_observe(self, observation: Tensor) -> None:
        if self._targets is not None:
            self._targets.shown(observation)

    def outcome(self, action: Tensor) -> Outcome:
        """Of a goal task: reward and success as `goal_reward` and `goal_success` say; only the time ends episodes."""
        achieved = self.achieved_goal()
        success = self.goal_success(achieved, self.goal)
        distance = torch.linalg.vector_norm(achieved[:, :3] - self.goal[:, :3], dim=1)
        terms = {"distance": distance}
        outcome = Outcome(self.goal_reward(achieved, self.goal), torch.zeros_like(success), success, terms)
        self.change_commands()
        return outcome

    def change_commands(self) -> None:
        """Draw commands anew whose time is over: to be called at the end of your `outcome`, as the reward is about the
        command that the policy acted on."""
        for spec in self._commands():
            if spec.every_s is not None:
                due = self.scene.steps % max(1, round(spec.every_s / self.control_period_s)) == 0
                if due.is_cuda or bool(due.any()):  # looking would stall a GPU
                    self._draw(spec, due, self.rng.uniform(f"command {spec.name}", len(spec.low) + 1))

    def _commands(self) -> list[Command]:
        return [spec for spec in self.observations if isinstance(spec, Command)]

    def _draw(self, spec: Command, mask: Tensor, u: Tensor) -> None:
        low, high = self.tensor(spec.low), self.tensor(spec.high)
        drawn = (low + (high - low) * u[:, :-1]) * (u[:, -1:] >= spec.still)
        write_rows(self.commanded[spec.name], drawn.to(self.engine.dtype), mask)

    def achieved_goal(self) -> Tensor:
        if self._achieved is None:
            return super().achieved_goal()
        pos, rot = self._achieved(self.engine)
        return pos if self.goal_size == 3 else torch.cat((pos, matrix_to_quat(rot)), dim=1)

    def draw_goal(self, model: mujoco.MjModel, data: mujoco.MjData, index: int) -> Sequence[Mark] | None:
        """Mark the goal, also where it is in the frame of something that moves: a ball at a position [3], axes at a
        pose [7] (x, y, z, and a quaternion w, x, y, z). A mocap body called `goal` or `target` goes there too. A goal
        of another size is yours to draw.
        """
        if self.goal_size not in (3, 7):
            return None
        goal = self.goal[index].double().numpy(force=True)
        part = next((spec for spec in self.observations if isinstance(spec, Goal)), None)
        body, pos, quat = find_frame(model, WORLD if part is None else part.frame)
        at, turned = np.zeros(3), np.zeros(4)
        given = goal[3:] if len(goal) == 7 else np.array([1.0, 0.0, 0.0, 0.0])
        mujoco.mju_mulPose(at, turned, pos, quat, goal[:3], given)
        mujoco.mju_mulPose(at, turned, data.xpos[body], data.xquat[body], at.copy(), turned.copy())
        for name in _MARKERS if "mocap_pos" not in self.command_fields else ():
            marker = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, name)
            if marker >= 0 and model.body_mocapid[marker] >= 0:
                data.mocap_pos[model.body_mocapid[marker]] = at
                if len(goal) == 7:
                    data.mocap_quat[model.body_mocapid[marker]] = turned
                mujoco.mj_kinematics(model, data)
        return [Mark(at, turned if len(goal) == 7 else None)]

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"scene": self.scene.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.scene.load_state_dict(state["scene"])


@dataclass(frozen=True)
class _Sources(Fixed):
    """Where the values of all components come from."""

    all: list[Source]
