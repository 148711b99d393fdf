"""A Gymnasium environment as a task: `task: gymnasium:AdroitHandDoor-v1`.

Physics, observation, reward, termination and reset are those of the environment, which is not modified: its own `step`
and `reset` are called. Each environment has its own mjModel, to which physics randomization writes.

| of the environment | here |
|---|---|
| observation: a Box | one component, "observation" |
| observation, achieved_goal, desired_goal | all but the second; a goal task, rewarded by `compute_reward` |
| observation: another Dict, or a Tuple | a component for every Box and choice in it; nested keys are joined by dots |
| action space: a Box with bounds | one component; -1 and 1 are the bounds |
| `info["is_success"]`, `info["success"]` | success, at the steps whose info says so |
| `compute_terminated` | which goals end an episode |
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

from envs.common.errors import TaskError
from envs.common.messages import warn_once
from envs.engines.base import Engine
from envs.gymnasium_adapter.engine import GymnasiumEngine, Reading
from envs.gymnasium_adapter.goals import GoalFunction
from envs.gymnasium_adapter.make import GymnasiumEnv, find_spec, make_env
from envs.gymnasium_adapter.probe import Findings, bounded_action_space, probe, statistics_in
from envs.gymnasium_adapter.python_state import unsaved_attributes
from envs.gymnasium_adapter.spaces import action_component, observation_layout
from envs.platform.processors import available_threads
from envs.task import Outcome, Task

_CAMERA = ("distance", "azimuth", "elevation", "lookat", "trackbodyid", "fixedcamid", "type")
_found: dict[str, Findings] = {}  # by id, options and time limit: an episode is played once


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
        if limit < 1:
            raise TaskError(f"task: {self.id}: max_episode_steps: expected at least 1, got {limit}")
        self.max_episode_steps = limit
        env = make_env(env_id, options, limit)
        try:
            self._inspect(env)
        finally:
            env.close()

    def _inspect(self, env: GymnasiumEnv) -> None:
        """Learn from one environment what its spaces do not say."""
        raw: Any = env.unwrapped
        self.model: mujoco.MjModel = copy.copy(raw.model)
        layout = observation_layout(self._env_id, env.observation_space)
        space: Any = bounded_action_space(env)
        component = action_component(self._env_id, space)
        self.observation, self.action, self.goal_size = layout.components, (component,), layout.goal_size
        self._low, self._high = space.low.astype(np.float64), space.high.astype(np.float64)
        key = repr((self._env_id, sorted(self._options.items()), self.max_episode_steps))
        if key not in _found:
            _found[key] = probe(env, layout, self._low, self._high, space.dtype, f"task: {self.id}")
        found = _found[key]
        self.decimation, self.has_success = found.decimation, found.success
        self._reading = Reading(layout, found.terms, np.dtype(space.dtype))
        renderer = getattr(raw, "mujoco_renderer", None)
        self.render_camera = _camera(  # pyright: ignore[reportAttributeAccessIssue]
            getattr(renderer, "default_cam_config", None) or {}
        )
        self._reward = GoalFunction("compute_reward", layout.goal_shape, float)
        self._terminated = GoalFunction("compute_terminated", layout.goal_shape, bool)
        if self.goal_size:
            self._reward.inspect(raw, found.info)
            self._terminated.inspect(raw, found.info)
        self._altered = found.altered
        for warning in self._warnings(env):
            warn_once(f"{self.id}: {warning}")

    def _warnings(self, env: GymnasiumEnv) -> list[str]:
        """What a user should know before training on an environment."""
        warnings, own = [], statistics_in(env)
        if self._altered:
            warnings.append(f"{self.export_obstacle}; no bundle will be written")
        if self._reading.layout.odd_goals:
            warnings.append("its goals are not two Boxes of one shape: they are observed as any key, without hindsight")
        if own:
            warnings.append(
                f"{' and '.join(own)}: each environment learns statistics of its own, and those of an evaluation begin "
                "anew: its observations or returns are not those of training"
            )
        lost = unsaved_attributes(env)
        if lost:
            warnings.append(f"a resumed run begins with these as they were made: {', '.join(lost[:5])}")
        return warnings

    @property
    def export_obstacle(self) -> str | None:
        if not self._altered:
            return None
        names = ", ".join(self._altered)
        return (
            f"its policy observes and acts through {names}, which a robot does not have; make the environment without "
            "(learner.normalize_observation and observation_delay are simreal's own)"
        )

    @property
    def hindsight_obstacle(self) -> str | None:
        return self._reward.obstacle if self.goal_size else None

    def make_engine(self, num_envs: int, threads: int | None) -> Engine:
        envs = [make_env(self._env_id, self._options, self.max_episode_steps) for _ in range(num_envs)]
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
            self.given_goal = self.goal.clone()  # what the environments have
            self.state_tensors = ("given_goal",)

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
        self.has_success |= self._envs.told_success
        terms = {name: torch.from_numpy(values.copy()) for name, values in s.terms.items()}
        return Outcome(reward, terminated, success, terms, truncated)

    # Goals

    def _follow_goals(self, mask: Tensor | None) -> None:
        if not self.goal_size:
            return
        goals = torch.from_numpy(self._envs.signals.observation[:, -self.goal_size :])
        self.goal.copy_(goals if mask is None else torch.where(mask[:, None], goals, self.goal))
        self.given_goal.copy_(self.goal)

    def _give_goals(self) -> None:
        """Bring goals that were written to `self.goal` into the environments."""
        if not self.goal_size or torch.equal(self.goal, self.given_goal):
            return
        for i in (self.goal != self.given_goal).any(dim=1).nonzero()[:, 0].tolist():
            present = getattr(self._raw[i], "goal", None)
            if not isinstance(present, np.ndarray) or present.size != self.goal_size:
                raise TypeError(f"{self.id} does not let its goal be set: it has no array `goal`")
            self._raw[i].goal = self.goal[i].numpy().reshape(present.shape).astype(present.dtype)
        self.given_goal.copy_(self.goal)

    def achieved_goal(self) -> Tensor:
        return torch.from_numpy(self._envs.signals.achieved.copy())

    def goal_reward(self, achieved: Tensor, desired: Tensor) -> Tensor:
        if self.hindsight_obstacle is not None:
            raise TaskError(f"task: {self.id}: {self.hindsight_obstacle}")
        return self._of_goals(self._reward, achieved, desired).to(achieved.dtype)

    def goal_terminated(self, achieved: Tensor, desired: Tensor) -> Tensor | None:
        return None if self._terminated.obstacle is not None else self._of_goals(self._terminated, achieved, desired)

    def _of_goals(self, function: GoalFunction, achieved: Tensor, desired: Tensor) -> Tensor:
        """Values [...] of a function of the environment for goals [..., G]."""
        a, d = (goal.detach().cpu().double().reshape(-1, self.goal_size).numpy() for goal in (achieved, desired))
        values = torch.from_numpy(function(self._raw[0], a, d))
        return values.reshape(achieved.shape[:-1]).to(achieved.device)

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


def _camera(config: dict[str, Any]) -> dict[str, Any]:
    """A camera as MuJoCo has it, following a body where the environment names one."""
    camera = {key: value for key, value in config.items() if key in _CAMERA}
    if "trackbodyid" in camera:
        camera.setdefault("type", int(mujoco.mjtCamera.mjCAMERA_TRACKING))
    return camera
