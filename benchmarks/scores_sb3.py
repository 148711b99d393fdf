"""stable-baselines3 on a task: python benchmarks/scores_sb3.py ALGORITHM TASK SEED STEPS OUTPUT.json.

Hyperparameters of PPO and SAC are those that rl-baselines3-zoo tuned for the task (hyperparams/*.yml; -v4 entries, as
there are none for -v5). It has no DDPG for these tasks: the library's defaults, with the warm-up and noise of the zoo's
PyBullet entries. The figure is the return of the final policy without exploration over 20 fresh episodes, as in our
tables; the file also holds lengths and returns of the episodes in training.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import gymnasium
import numpy as np
import stable_baselines3
import torch
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize
from torch import nn

_WIDE: dict[str, Any] = {
    "log_std_init": -2, "ortho_init": False, "activation_fn": nn.ReLU, "net_arch": {"pi": [256, 256], "vf": [256, 256]},
}  # fmt: skip
_PPO: dict[str, dict[str, Any]] = {
    "HalfCheetah": {
        "batch_size": 64, "n_steps": 512, "gamma": 0.98, "learning_rate": 2.0633e-05, "ent_coef": 0.000401762,
        "clip_range": 0.1, "n_epochs": 20, "gae_lambda": 0.92, "max_grad_norm": 0.8, "vf_coef": 0.58096,
    },
    "Hopper": {
        "batch_size": 32, "n_steps": 512, "gamma": 0.999, "learning_rate": 9.80828e-05, "ent_coef": 0.00229519,
        "clip_range": 0.2, "n_epochs": 5, "gae_lambda": 0.99, "max_grad_norm": 0.7, "vf_coef": 0.835671,
    },
    "Walker2d": {
        "batch_size": 32, "n_steps": 512, "gamma": 0.99, "learning_rate": 5.05041e-05, "ent_coef": 0.000585045,
        "clip_range": 0.1, "n_epochs": 20, "gae_lambda": 0.95, "max_grad_norm": 1.0, "vf_coef": 0.871923,
    },
}  # fmt: skip


def make_model(algorithm: str, task: str, env: Monitor, seed: int) -> tuple[Any, VecEnv]:
    """The learner and the environment that it trains in."""
    envs: VecEnv = DummyVecEnv([lambda: env])
    if algorithm == "ppo":
        family = task.split("-")[0]
        settings = dict(_PPO[family])
        envs = VecNormalize(envs, gamma=settings["gamma"])
        policy = _WIDE if family in ("HalfCheetah", "Hopper") else {}
        return stable_baselines3.PPO(
            "MlpPolicy", envs, seed=seed, device="cpu", policy_kwargs=dict(policy), **settings
        ), envs
    fused: dict[str, Any] = {"optimizer_kwargs": {"fused": True}}  # the same steps up to rounding, a tenth less time
    if algorithm == "sac":
        return stable_baselines3.SAC(
            "MlpPolicy", envs, seed=seed, device="cpu", policy_kwargs=fused, learning_starts=10_000
        ), envs
    actions = envs.action_space.shape
    assert actions is not None
    noise = NormalActionNoise(np.zeros(actions), 0.1 * np.ones(actions))
    return stable_baselines3.DDPG(
        "MlpPolicy", envs, seed=seed, device="cpu", learning_starts=10_000, action_noise=noise, policy_kwargs=fused,
        batch_size=256, learning_rate=1e-3, train_freq=1, gradient_steps=1,
    ), envs  # fmt: skip


def play(model: Any, envs: VecEnv, task: str, episodes: int = 20) -> list[float]:
    """Returns of fresh episodes without exploration."""
    env, returns = gymnasium.make(task), []
    for episode in range(episodes):
        observation, _ = env.reset(seed=1_000_003 + episode)
        total, over = 0.0, False
        while not over:
            seen = envs.normalize_obs(observation) if isinstance(envs, VecNormalize) else observation
            action, _ = model.predict(seen, deterministic=True)
            observation, reward, terminated, truncated, _ = env.step(action)
            total, over = total + float(reward), terminated or truncated
        returns.append(total)
    return returns


def main(algorithm: str, task: str, seed: int, steps: int, output: str) -> None:
    torch.set_num_threads(1)
    env = Monitor(gymnasium.make(task))
    model, envs = make_model(algorithm, task, env, seed)
    began = time.perf_counter()
    model.learn(steps)
    seconds = time.perf_counter() - began
    returns = play(model, envs, task)
    row = {"algorithm": algorithm, "task": task, "seed": seed, "steps": steps, "seconds": seconds, "returns": returns}
    row["training"] = {"length": env.get_episode_lengths(), "return": env.get_episode_rewards()}
    with open(output, "w") as file:
        json.dump(row | {"return_mean": float(np.mean(returns))}, file, indent=2)
    print(f"{algorithm} {task} seed {seed}: {np.mean(returns):.0f} in {seconds:.0f} s")


if __name__ == "__main__":
    if len(sys.argv) != 6:
        print(__doc__)
        sys.exit(0 if "--help" in sys.argv else 2)
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
