"""Lets stable-baselines3 (not a dependency) train on a `simreal.make_vec` environment."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.vec_env.base_vec_env import VecEnv as SB3VecEnv

from simreal.vector import VecEnv


class _Adapter(SB3VecEnv):
    """Stable-baselines3's view of a VecEnv: infos as a list, the final observation as "terminal_observation"."""

    def __init__(self, envs: VecEnv) -> None:
        self._envs = envs
        self._actions: Any = None
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)

    def reset(self) -> Any:
        observation, _ = self._envs.reset(seed=self._seeds[0])
        self._reset_seeds()
        return observation

    def step_async(self, actions: Any) -> None:
        self._actions = actions

    def step_wait(self) -> Any:
        observation, reward, terminated, truncated, infos = self._envs.step(self._actions)
        rows: list[dict[str, Any]] = [{"is_success": float(s)} for s in infos["is_success"]]
        for i in np.flatnonzero(terminated | truncated):
            rows[i]["terminal_observation"] = infos["final_obs"][i]
            rows[i]["TimeLimit.truncated"] = bool(truncated[i])
            rows[i]["episode"] = {"r": float(infos["episode"]["r"][i]), "l": int(infos["episode"]["l"][i]), "t": 0.0}
        return observation, reward.astype(np.float32), terminated | truncated, rows

    def close(self) -> None:
        self._envs.close()

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        result = getattr(self._envs, method_name)(*args, **kwargs)
        return [result for _ in self._get_indices(indices)]

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self._envs, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise AttributeError(f"{attr_name}: attributes of batched environments cannot be set one by one")

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False for _ in self._get_indices(indices)]


def as_sb3(envs: VecEnv) -> SB3VecEnv:
    """A `simreal.make_vec` environment as stable-baselines3's VecEnv; needs same-step autoreset, the default."""
    if envs.metadata["autoreset_mode"] is not AutoresetMode.SAME_STEP:
        raise ValueError("stable-baselines3 expects same-step autoreset, the default of simreal.make_vec")
    return _Adapter(envs)
