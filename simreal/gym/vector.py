"""simreal's tasks as Gymnasium environments: `make_vec` for N of them, `SingleEnv` for one."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, SupportsIndex

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.utils import EzPickle
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from gymnasium.wrappers import TimeLimit
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from numpy.typing import NDArray

from envs.engines.base import Engine
from envs.engines.gpu.options import GpuOptions
from envs.environment import Environment, Observed, StepResult
from envs.task import Task
from randomization.config import RandomizationConfig
from randomization.randomizer import DomainRandomizer
from randomization.targets.appearance import VIEW
from simreal.common.errors import UserError
from simreal.gym.callers import callers
from simreal.gym.image_observations import Images
from simreal.training.build import EngineName, make_environment

_CPU = torch.device("cpu")
Array = NDArray[Any]
Observation = Any  # an array, or a dict of arrays for goal tasks
Worlds = str | Path | Mapping[str, Any] | RandomizationConfig | None


def make_vec(
    task: str,
    num_envs: int = 1,
    engine: EngineName = "auto",
    randomization: Worlds = None,
    seed: int = 0,
    *,
    autoreset: AutoresetMode | str = AutoresetMode.SAME_STEP,
    render_mode: str | None = None,
    render_size: tuple[int, int] = (480, 480),
    render_camera: str = VIEW,
    max_episode_steps: int | None = None,
    threads: int | None = None,
    gpu: GpuOptions | None = None,
    **task_options: Any,
) -> VecEnv:
    """N environments of a task as a Gymnasium VectorEnv.

    Args:
        task: a task id, see `simreal envs`.
        num_envs: N.
        engine: physics engine.
        randomization: None, a mapping, or a YAML file whose `randomization:` block is used. A mapping with
            parameters and no `sampler` means fixed ranges.
        seed: of every random draw; `reset(seed=...)` starts another sequence of episodes.
        autoreset: when finished environments are reset. SAME_STEP: within the step that ends an episode, whose
            last observation is then `infos["final_obs"]`. NEXT_STEP: by the next step, whose action they ignore.
            DISABLED: by `reset(options={"reset_mask": mask})`.
        render_mode: None or "rgb_array".
        render_size: width and height of pictures, pixels.
        render_camera: "view", the task's usual one, or one of the model's.
        max_episode_steps: another time limit than the task's.
        threads: physics threads; None takes all that this process may use.
        gpu: settings of the GPU engine.
        task_options: arguments of the task, such as `ctrl_cost_weight` of Ant-v5.

    Raises:
        ValueError, UserError: naming what is wrong and what is nearest.
    """
    if max_episode_steps is not None and max_episode_steps < 1:
        raise UserError(f"max_episode_steps: expected at least 1, got {max_episode_steps}")
    environment = make_environment(
        task, num_envs, randomization, engine=engine, seed=seed, threads=threads,
        max_episode_steps=max_episode_steps, task_options=task_options, gpu=gpu,
    )  # fmt: skip
    return VecEnv(environment, AutoresetMode(autoreset), render_mode, render_size, render_camera)


class VecEnv(VectorEnv[Observation, Array, Array]):
    """N environments behind Gymnasium's interface, in NumPy.

    Observations are as Gymnasium's task has them: for goal tasks a dict of "observation", "achieved_goal" and
    "desired_goal", else the flat vector; float64. Returned arrays are copies.

    Infos: "is_success" [N]; "diverged" [N] (the simulation became unstable); the task's own terms [N]; where episodes
    ended, "episode" with "r" (return) and "l" (length), and in SAME_STEP mode "final_obs" and "final_info", each with
    its "_" mask. Under Gymnasium's RecordEpisodeStatistics "episode" is that wrapper's.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 25}

    def __init__(
        self,
        environment: Environment,
        autoreset: AutoresetMode = AutoresetMode.SAME_STEP,
        render_mode: str | None = None,
        render_size: tuple[int, int] = (480, 480),
        render_camera: str = VIEW,
    ) -> None:
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode: expected None or 'rgb_array', got {render_mode!r}")
        self.environment = environment
        environment.autoreset = autoreset is AutoresetMode.SAME_STEP
        self._mode = autoreset
        fps = round(1.0 / environment.task.control_period_s)
        self.metadata = {**type(self).metadata, "autoreset_mode": autoreset, "render_fps": fps}  # pyright: ignore
        self.render_mode = render_mode
        self.num_envs = environment.num_envs
        task = environment.task
        self.single_observation_space = _observation_space(task)
        self._scale, self._offset = _action_map(task)
        low, high = (bound.astype(np.float32) for bound in task.native_action_range())
        self.single_action_space = spaces.Box(low, high, dtype=np.float32)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._ended = np.zeros(self.num_envs, dtype=bool)
        self._was_reset = False
        self._images = None if render_mode is None else Images(environment, *render_size, render_camera)

    @property
    def engine(self) -> Engine:
        """The physics engine: `engine.data("qpos")[...] = x` writes state."""
        return self.environment.engine

    @property
    def task(self) -> Task:
        """The task; goal tasks hold `task.goal` [N, G], writable."""
        return self.environment.task

    @property
    def layer(self) -> DomainRandomizer:
        """The randomization: `layer.lam` [N, d] are the worlds being played."""
        layer = self.environment.layer
        assert isinstance(layer, DomainRandomizer)
        return layer

    def reset(
        self,
        *,
        seed: SupportsIndex | Sequence[SupportsIndex | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Observation, dict[str, Any]]:
        """Start new episodes, in all environments or in `options["reset_mask"]` [N].

        `seed` starts another sequence of episodes; a list of N gives every environment one of its own.
        """
        given: list[Any] = list(seed) if isinstance(seed, (list, tuple, np.ndarray)) else [seed]
        if len(given) not in (1, self.num_envs):
            raise ValueError(f"seed: expected one, or {self.num_envs}, one for each environment; got {len(given)}")
        seeds = [None if one is None else operator.index(one) for one in given]
        super().reset(seed=seeds[0])
        mask = self._reset_mask(options or {})
        device = self.environment.device
        if len(seeds) > 1:
            for row, one in zip(torch.eye(self.num_envs, dtype=torch.bool, device=device), seeds, strict=True):
                if one is not None:
                    self.environment.rng.seed(one, row if mask is None else row & mask.to(device))
        observed = self.environment.reset(
            None if mask is None else mask.to(device), seeds[0] if len(seeds) == 1 else None
        )
        self._was_reset = True
        self._ended[slice(None) if mask is None else mask.numpy()] = False
        return self._observation(observed.to(_CPU)), {}

    def _reset_mask(self, options: dict[str, Any]) -> torch.Tensor | None:
        """[N] bool, what `options["reset_mask"]` names; None for all."""
        unknown = next((key for key in options if key != "reset_mask"), None)
        if unknown is not None:
            raise ValueError(f"options: unknown key {unknown!r}, expected 'reset_mask'")
        if "reset_mask" not in options:
            return None
        chosen = np.asarray(options["reset_mask"])
        if chosen.shape != (self.num_envs,) or chosen.dtype != np.bool_ or not chosen.any():
            raise ValueError(f"reset_mask: expected {self.num_envs} booleans with at least one True")
        return torch.from_numpy(chosen.copy()) if self._was_reset else None

    def step(self, actions: Array) -> tuple[Observation, Array, Array, Array, dict[str, Any]]:
        """One control step; actions [N, A] within the action space (clipped)."""
        actions = np.asarray(actions)
        if actions.shape != self.action_space.shape:
            raise ValueError(f"actions: expected shape {self.action_space.shape}, got {actions.shape}")
        if not np.isfinite(actions).all():
            row = int(np.flatnonzero(~np.isfinite(actions).all(axis=1))[0])
            raise ValueError(f"actions: not finite in environment {row}: {actions[row]}")
        if not self._was_reset:
            raise RuntimeError("call reset() before step()")
        ended = self._ended.copy()
        if self._mode is AutoresetMode.DISABLED and ended.any():
            raise ValueError(f"environments {np.flatnonzero(ended).tolist()} have ended: reset them first")
        if not self._plain:
            actions = (actions - self._offset) / self._scale
        result = self.environment.step(torch.from_numpy(np.ascontiguousarray(actions))).to(_CPU)
        if self._mode is AutoresetMode.NEXT_STEP and ended.any():
            return self._begin(result, ended)
        self._ended = result.done.numpy().copy()
        observed = result.observed if self._mode is AutoresetMode.SAME_STEP else result.final
        return (*self._outcome(observed, result), self._infos(result))

    def _begin(self, result: StepResult, ended: Array) -> tuple[Observation, Array, Array, Array, dict[str, Any]]:
        """NEXT_STEP: environments in `ended` start anew; what they did in this step does not count."""
        observed = self.environment.reset(torch.from_numpy(ended).to(self.environment.device)).to(_CPU)
        observation, reward, terminated, truncated = self._outcome(observed, result)
        reward[ended], terminated[ended], truncated[ended] = 0.0, False, False
        self._ended = result.done.numpy() & ~ended
        return observation, reward, terminated, truncated, self._infos(result, ~ended)

    @property
    def _plain(self) -> bool:
        """Whether actions are in [-1, 1] as they come."""
        return bool((self._scale == 1.0).all() and (self._offset == 0.0).all())

    def _outcome(self, observed: Observed, result: StepResult) -> tuple[Observation, Array, Array, Array]:
        return (
            self._observation(observed),
            result.reward.numpy().copy(),
            result.terminated.numpy().copy(),
            result.truncated.numpy().copy(),
        )

    def _infos(self, result: StepResult, there: Array | None = None) -> dict[str, Any]:
        """Infos of a step, where it counts: in the environments `there` [N], None for all."""
        there = np.ones(self.num_envs, dtype=bool) if there is None else there
        infos: dict[str, Any] = {}
        for name, value in {"is_success": result.success, "diverged": result.diverged, **result.terms}.items():
            infos[name], infos[f"_{name}"] = value.numpy() * there, there.copy()
        done = result.done.numpy() & there
        if not done.any():
            return infos
        if self._mode is AutoresetMode.SAME_STEP:
            infos["final_info"] = {k: v & done if k[0] == "_" else v * done for k, v in infos.items()}
            infos["final_obs"] = self._final_observations(result.final, done)
            infos["_final_obs"], infos["_final_info"] = done.copy(), done.copy()
        # Gymnasium's recorder writes this key itself, and raises ValueError where it finds it.
        if not any(recorder._stats_key == "episode" for recorder in callers(RecordEpisodeStatistics.step, self)):
            steps, rewards = result.episode_steps.numpy(), result.episode_return.numpy()
            infos["episode"] = {"r": rewards * done, "l": steps * done, "_r": done.copy(), "_l": done.copy()}
            infos["_episode"] = done.copy()
        return infos

    def _final_observations(self, final: Observed, done: Array) -> Array:
        """Object array [N]: the last observation where an episode ended, else None; Gymnasium's form."""
        observation = self._observation(final)
        array = np.full(self.num_envs, None, dtype=object)
        for i in np.flatnonzero(done):
            array[i] = (
                {key: value[i] for key, value in observation.items()}
                if isinstance(observation, dict)
                else observation[i]
            )
        return array

    def _observation(self, observed: Observed) -> Observation:
        policy = observed.policy.double().numpy()
        goal = self.task.goal_size
        if not goal:
            return policy.copy()
        assert observed.achieved_goal is not None
        return {
            "achieved_goal": observed.achieved_goal.double().numpy().copy(),
            "desired_goal": policy[:, -goal:].copy(),
            "observation": policy[:, :-goal].copy(),
        }

    def compute_reward(self, achieved_goal: Array, desired_goal: Array, info: Any) -> Array:
        """Goal tasks: rewards for arrays of goals [..., G]; what hindsight replay of other libraries calls."""
        device = self.environment.device
        to_tensor = lambda x: torch.as_tensor(np.asarray(x, dtype=np.float64), device=device)  # noqa: E731
        return self.task.goal_reward(to_tensor(achieved_goal), to_tensor(desired_goal)).cpu().numpy()

    def render(self) -> tuple[Array, ...] | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One picture [height, width, 3] of each environment, in mode "rgb_array"."""
        return None if self._images is None else tuple(self._images.take().cpu().numpy())

    def images(self) -> torch.Tensor:
        """Pictures [N, height, width, 3] uint8 on the engine's device, in mode "rgb_array"; on the GPU in one call."""
        if self._images is None:
            raise ValueError("images: make the environment with render_mode='rgb_array'")
        return self._images.take()

    def close_extras(self, **kwargs: Any) -> None:
        """Free the renderer."""
        if self._images is not None:
            self._images.close()


class SingleEnv(gymnasium.Env[Observation, Array], EzPickle):
    """One environment behind Gymnasium's interface; what `gymnasium.make("simreal/<id>")` returns.

    Its time limit is that of Gymnasium's TimeLimit around it, which `gymnasium.make(..., max_episode_steps=...)` adds,
    else the task's. A pickled or copied one is made anew, as Gymnasium's own are.

    Args: as `make_vec`'s.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 25}

    def __init__(self, task: str, render_mode: str | None = None, **options: Any) -> None:
        EzPickle.__init__(self, task, render_mode, **options)
        self._vec = make_vec(task, 1, render_mode=render_mode, autoreset=AutoresetMode.DISABLED, **options)
        self._limit = self._vec.environment.max_episode_steps
        self.metadata = {**type(self).metadata, "render_fps": self._vec.metadata["render_fps"]}  # pyright: ignore
        self.render_mode = render_mode
        self.observation_space = self._vec.single_observation_space
        self.action_space = self._vec.single_action_space

    @property
    def engine(self) -> Engine:
        """The physics engine, of one simulation."""
        return self._vec.engine

    @property
    def task(self) -> Task:
        """The task, of one environment."""
        return self._vec.task

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start a new episode."""
        super().reset(seed=seed)
        limits = [wrapper._max_episode_steps for wrapper in callers(TimeLimit.reset, self)]
        self._vec.environment.max_episode_steps = min(limits, default=self._limit)
        observation, _ = self._vec.reset(seed=seed, options=options)
        return _first(observation), {}

    def step(self, action: Array) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """One control step with an action [A]."""
        observation, reward, terminated, truncated, infos = self._vec.step(np.asarray(action)[None])
        info = {key: value[0] for key, value in infos.items() if isinstance(value, np.ndarray) and key[0] != "_"}
        return _first(observation), float(reward[0]), bool(terminated[0]), bool(truncated[0]), info

    def compute_reward(self, achieved_goal: Array, desired_goal: Array, info: Any) -> Array:
        """Goal tasks: reward of goals [..., G]."""
        return self._vec.compute_reward(achieved_goal, desired_goal, info)

    def render(self) -> Any:
        """A picture [height, width, 3], in mode "rgb_array"."""
        pictures = self._vec.render()
        return None if pictures is None else pictures[0]

    def close(self) -> None:
        """Free the renderer."""
        self._vec.close()


def _first(observation: Observation) -> Observation:
    if isinstance(observation, dict):
        return {key: value[0] for key, value in observation.items()}
    return observation[0]


def _observation_space(task: Task) -> spaces.Space[Any]:
    size = sum(c.size for c in task.components("policy"))

    def box(n: int) -> spaces.Box:
        return spaces.Box(-np.inf, np.inf, (n,), np.float64)

    goal = task.goal_size
    if not goal:
        return box(size)
    return spaces.Dict({"achieved_goal": box(goal), "desired_goal": box(goal), "observation": box(size - goal)})


def _action_map(task: Task) -> tuple[Array, Array]:
    """Scale and offset [A] of Gymnasium's action to our [-1, 1]; 1 and 0 unless the task's native space differs."""
    low, high = task.native_action_range()
    scale, offset = (high - low) / 2.0, (high + low) / 2.0
    # Dividing by a power of two is exact in float32; other ranges need float64 to give Gymnasium's control back.
    exact = bool((np.frexp(scale)[0] == 0.5).all()) and not offset.any()
    dtype = np.float32 if exact else np.float64
    return scale.astype(dtype), offset.astype(dtype)
