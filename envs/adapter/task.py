"""A Gymnasium environment as a task: `task: gymnasium:AdroitHandDoor-v1`.

Physics, observation, reward, termination and reset are those of the environment, which is not modified: its own `step`
and `reset` are called. Each environment has its own mjModel, to which physics randomization writes.

| of the environment | here |
|---|---|
| observation: a Box | one component, "observation" |
| observation, achieved_goal, desired_goal | the first and the last; a goal task, rewarded by `compute_reward` |
| observation: another Dict of Boxes | a component for every Box; nested keys are joined by dots |
| action space: a Box with bounds | one component; -1 and 1 are the bounds |
| `info["is_success"]`, `info["success"]` | success |
| other single numbers in `info` | terms of the outcome |
| time limit it is registered with | `max_episode_steps` |
"""

from __future__ import annotations

import copy
from typing import Any

import mujoco
import numpy as np
import torch
from torch import Tensor

from envs.adapter.engine import GymnasiumEngine, Reading
from envs.adapter.make import GymnasiumEnv, find_spec, make_env, quiet, refusals
from envs.adapter.spaces import action_component, observation_layout
from envs.engine import Engine
from envs.processors import available_threads
from envs.registry import TaskError
from envs.task import Outcome, Task

_SUCCESS = ("is_success", "success")
_CAMERA = ("distance", "azimuth", "elevation", "lookat", "trackbodyid", "fixedcamid", "type")


class AdaptedTask(Task):
    """A Gymnasium environment that holds an mjModel and an mjData, N of them stepped on threads.

    Args:
        env_id: as `gymnasium.make` takes it.
        max_episode_steps: another time limit than the registered one.
        options: arguments of the environment.

    Raises:
        TaskError: it does not exist, takes other options, or is of a kind that cannot be used.
    """

    command_fields = ()  # environments write their controls themselves, once per step

    def __init__(self, env_id: str, max_episode_steps: int | None = None, **options: Any) -> None:
        self.id, self._env_id, self._options = f"gymnasium:{env_id}", env_id, options
        limit = find_spec(env_id).max_episode_steps if max_episode_steps is None else max_episode_steps
        if limit is None:
            raise TaskError(f"task: {self.id} is registered without a time limit: set task_options.max_episode_steps")
        self.max_episode_steps = limit
        env = make_env(env_id, options)
        try:
            self._inspect(env)
        finally:
            env.close()

    def _inspect(self, env: GymnasiumEnv) -> None:
        """Learn from one environment what its spaces do not say, by a reset and a step."""
        raw: Any = env.unwrapped
        self.model: mujoco.MjModel = copy.copy(raw.model)
        layout = observation_layout(self._env_id, env.observation_space)
        component = action_component(self._env_id, env.action_space)
        self.observation, self.action, self.goal_size = layout.components, (component,), layout.goal_size
        space: Any = env.action_space
        self._low, self._high = space.low.astype(np.float64), space.high.astype(np.float64)
        with quiet(), refusals(f"task: {self.id}"):
            observation, _ = env.reset(seed=0)
            before = raw.data.time
            observation, _, _, _, info = env.step(np.asarray(component.offset, space.dtype))
        self.decimation = round((raw.data.time - before) / raw.model.opt.timestep)
        if self.decimation < 1:
            raise TaskError(f"task: {self.id}: its step does not advance the time of its mjData")
        for part, described in zip(layout.parts, layout.components, strict=True):
            if part.read(observation).size != part.size:
                got = part.read(observation).size
                raise TaskError(f"task: {self.id}: {described.name}: expected {part.size} values, got {got}")
        success = next((key for key in _SUCCESS if key in info), None)
        terms = tuple(str(k) for k, v in info.items() if k not in _SUCCESS and _is_number(v))
        self.has_success = success is not None
        self._reading = Reading(layout, success, terms, np.dtype(space.dtype))
        renderer = getattr(raw, "mujoco_renderer", None)
        self.render_camera = _camera(  # pyright: ignore[reportAttributeAccessIssue]
            getattr(renderer, "default_cam_config", None) or {}
        )
        self._vectorized = self.goal_size > 0 and self._is_vectorized(raw)

    def _is_vectorized(self, raw: Any) -> bool:
        """Whether `compute_reward` takes many goals at once."""
        goals = np.zeros((3, self.goal_size))
        try:
            return np.shape(raw.compute_reward(goals, goals, {})) == (3,)
        except Exception:  # whatever the environment makes of goals that it does not expect
            return False

    def make_engine(self, num_envs: int, threads: int | None) -> Engine:
        envs = [make_env(self._env_id, self._options) for _ in range(num_envs)]
        return GymnasiumEngine(envs, self.model, self._reading, threads or available_threads(), f"task: {self.id}")

    def native_action_range(self) -> tuple[np.ndarray, np.ndarray]:
        return self._low.copy(), self._high.copy()

    def on_attach(self) -> None:
        engine = self.engine
        if not isinstance(engine, GymnasiumEngine):
            raise TypeError(f"{self.id} runs on the engine that its make_engine makes")
        self._envs = engine
        self._raw: list[Any] = [env.unwrapped for env in engine.envs]
        self._scale = torch.tensor(self.action[0].scale, dtype=torch.float64)
        self._offset = torch.tensor(self.action[0].offset, dtype=torch.float64)
        if self.goal_size:
            self._given_goal = self.goal.clone()  # what the environments have

    def reset(self, mask: Tensor) -> None:
        u = self.rng.episode_uniform("gymnasium_seed", 1)[:, 0]
        self._envs.begin(mask, (u * 2.0**31).long())
        self._follow_goals(mask)

    def command(self, action: Tensor) -> Tensor:
        self._give_goals()
        return self._offset + self._scale * action.double()

    def after_step(self) -> None:
        self._follow_goals(None)  # some environments choose another goal when one is reached

    def observe(self) -> Tensor:
        return torch.from_numpy(self._envs.signals.observation.copy())

    def outcome(self, action: Tensor) -> Outcome:
        s = self._envs.signals
        reward, terminated, truncated, success = (
            torch.from_numpy(values.copy()) for values in (s.reward, s.terminated, s.truncated, s.success)
        )
        terms = {name: torch.from_numpy(values.copy()) for name, values in s.terms.items()}
        return Outcome(reward, terminated, success, terms, truncated)

    # Goals

    def _follow_goals(self, mask: Tensor | None) -> None:
        if not self.goal_size:
            return
        goals = torch.from_numpy(self._envs.signals.observation[:, -self.goal_size :])
        self.goal.copy_(goals if mask is None else torch.where(mask[:, None], goals, self.goal))
        self._given_goal.copy_(self.goal)

    def _give_goals(self) -> None:
        """Bring goals that were written to `self.goal` into the environments."""
        if not self.goal_size or torch.equal(self.goal, self._given_goal):
            return
        for i in (self.goal != self._given_goal).any(dim=1).nonzero()[:, 0].tolist():
            present = getattr(self._raw[i], "goal", None)
            if not isinstance(present, np.ndarray) or present.size != self.goal_size:
                raise TypeError(f"{self.id} does not let its goal be set: it has no array `goal`")
            self._raw[i].goal = self.goal[i].numpy().reshape(present.shape).astype(present.dtype)
        self._given_goal.copy_(self.goal)

    def achieved_goal(self) -> Tensor:
        return torch.from_numpy(self._envs.signals.achieved.copy())

    def goal_reward(self, achieved: Tensor, desired: Tensor) -> Tensor:
        shape, size = achieved.shape[:-1], self.goal_size
        a, d = (goal.detach().cpu().double().reshape(-1, size).numpy() for goal in (achieved, desired))
        compute = self._raw[0].compute_reward
        rewards = compute(a, d, {}) if self._vectorized else [compute(x, y, {}) for x, y in zip(a, d, strict=True)]
        values = torch.as_tensor(np.asarray(rewards, dtype=np.float64))
        return values.reshape(shape).to(achieved.device, achieved.dtype)

    def draw_goal(self, model: mujoco.MjModel, data: mujoco.MjData, index: int) -> None:
        """Let gymnasium-robotics place its marker, in the model and data given."""
        raw = self._raw[index]
        draw = getattr(raw, "_render_callback", None)
        if draw is None:
            return
        own = raw.model, raw.data
        raw.model, raw.data = model, data
        try:
            draw()
        finally:
            raw.model, raw.data = own

    def state_dict(self) -> dict[str, Any]:
        given = {"given_goal": self._given_goal.clone()} if self.goal_size else {}
        return super().state_dict() | given

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        if self.goal_size:
            self._given_goal.copy_(state["given_goal"])


def _is_number(value: Any) -> bool:
    return np.ndim(value) == 0 and np.asarray(value).dtype.kind in "biuf"


def _camera(config: dict[str, Any]) -> dict[str, Any]:
    """A camera as MuJoCo has it, following a body where the environment names one."""
    camera = {key: value for key, value in config.items() if key in _CAMERA}
    if "trackbodyid" in camera:
        camera.setdefault("type", int(mujoco.mjtCamera.mjCAMERA_TRACKING))
    return camera
