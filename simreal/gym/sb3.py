"""Adapter from a `simreal.make_vec` environment to stable-baselines3's VecEnv; stable-baselines3 is no dependency."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env.base_vec_env import VecEnv as SB3VecEnv

from simreal.gym.vector import VecEnv


class _Adapter(SB3VecEnv):
    """Stable-baselines3's view of a VecEnv: infos as a list, the final observation as "terminal_observation"."""

    def __init__(self, envs: VectorEnv[Any, Any, Any], task_env: VecEnv) -> None:
        self._envs, self._task_env = envs, task_env
        self._actions: Any = None
        self._began = time.monotonic()
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)
        self.metadata = envs.metadata

    def reset(self) -> Any:
        observation, _ = self._envs.reset(seed=self._seeds[0])
        self._reset_seeds()
        return observation

    def step_async(self, actions: Any) -> None:
        self._actions = actions

    def step_wait(self) -> Any:
        observation, reward, terminated, truncated, infos = self._envs.step(self._actions)
        everywhere = {k: v for k, v in infos.items() if k[0] != "_" and isinstance(v, np.ndarray) and k != "final_obs"}
        success = everywhere.pop("is_success")
        if self._task_env.task.has_success:  # else the rate of it would be logged, as 0
            everywhere["is_success"] = success.astype(np.float64)
        rows: list[dict[str, Any]] = [{k: v[i].item() for k, v in everywhere.items()} for i in range(self.num_envs)]
        for i in np.flatnonzero(terminated | truncated):
            rows[i]["terminal_observation"] = infos["final_obs"][i]
            rows[i]["TimeLimit.truncated"] = bool(truncated[i])
            episode, t = infos["episode"], round(time.monotonic() - self._began, 6)
            rows[i]["episode"] = {"r": float(episode["r"][i]), "l": int(episode["l"][i]), "t": t}
        return observation, reward.astype(np.float32), terminated | truncated, rows

    def get_images(self) -> Sequence[Any]:
        """A picture [height, width, 3] of each environment, made with render_mode="rgb_array"; what videos show."""
        pictures = self._envs.render()
        return [None] * self.num_envs if pictures is None else list(pictures)

    def close(self) -> None:
        self._envs.close()

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        result = self._find(method_name)(*args, **kwargs)
        return [result for _ in self._get_indices(indices)]

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        value = self._find(attr_name)
        return [value for _ in self._get_indices(indices)]

    def _find(self, name: str) -> Any:
        """An attribute of the outermost wrapper, or else of our environments."""
        return getattr(self._envs if hasattr(self._envs, name) else self._task_env, name)

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise AttributeError(f"{attr_name}: attributes of batched environments cannot be set one by one")

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        # What a Monitor writes into infos is there: returns and lengths of whole episodes, before any normalization.
        wrapped = issubclass(wrapper_class, Monitor)
        return [wrapped for _ in self._get_indices(indices)]


def as_sb3(envs: VectorEnv[Any, Any, Any]) -> SB3VecEnv:
    """A `simreal.make_vec` environment, or one in wrappers of Gymnasium's, as stable-baselines3's VecEnv.

    Raises:
        ValueError: it is another environment, or has another autoreset than same-step, the default.
    """
    task_env = envs.unwrapped
    if not isinstance(task_env, VecEnv):
        raise ValueError(f"as_sb3: expected what simreal.make_vec returns, got {type(task_env).__name__}")
    if envs.metadata["autoreset_mode"] is not AutoresetMode.SAME_STEP:
        raise ValueError("stable-baselines3 expects same-step autoreset, the default of simreal.make_vec")
    return _Adapter(envs, task_env)
