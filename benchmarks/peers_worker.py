"""One peer of `benchmarks.peers`, in a process of its own: python peers_worker.py steps|learning PEER TASK NUMBER.

Prints '> ready', then for each line with a number of seconds on standard input what it found, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Work = Callable[[float], dict[str, float]]  # seconds -> figures
_FRAMES = {"Ant-v5": 5, "HalfCheetah-v5": 5}  # physics steps of a control step
CPUS = len(os.sched_getaffinity(0))
BATCH, HIDDEN, RATE, GAMMA, SHARE, EVERY, TRIES, ENOUGH = 256, 64, 1e-3, 0.95, 0.25, 1000, 100, 0.95
ALPHA = 0.1  # at the start


def _stepped(step: Callable[[], Any], environments: int) -> Work:
    """Counts steps of so many environments for a while."""
    for _ in range(3):
        step()

    def work(seconds: float) -> dict[str, float]:
        steps, began = 0, time.perf_counter()
        while (spent := time.perf_counter() - began) < seconds:
            step()
            steps += environments
        return {"steps_per_s": steps / spent}

    return work


def steps_simreal(task: str, n: int) -> Work:
    """Ours, without randomization."""
    import torch

    from simreal.training.build import make_environment

    torch.set_num_threads(1)
    environment = make_environment(task, n, seed=0)
    environment.reset()
    action = torch.rand(n, environment.task.action_size) * 2.0 - 1.0
    return _stepped(lambda: environment.step(action), n)


def _with_robotics() -> None:
    """Gymnasium-Robotics' environments, which need a patch for MuJoCo 4."""
    import gymnasium
    import gymnasium_robotics

    from envs.platform.gymnasium_robotics_patch import patch_gymnasium_robotics

    patch_gymnasium_robotics()
    gymnasium.register_envs(gymnasium_robotics)


def _steps_gymnasium(task: str, n: int, mode: str) -> Work:
    import gymnasium

    _with_robotics()
    environment = gymnasium.make_vec(task, num_envs=n, vectorization_mode=mode)
    environment.reset(seed=0)
    action = environment.action_space.sample()
    return _stepped(lambda: environment.step(action), n)


def steps_gymnasium_sync(task: str, n: int) -> Work:
    """Gymnasium's vector environment in one process."""
    return _steps_gymnasium(task, n, "sync")


def steps_gymnasium_async(task: str, n: int) -> Work:
    """Gymnasium's with a process for each environment."""
    return _steps_gymnasium(task, n, "async")


def steps_envpool(task: str, n: int) -> Work:
    """EnvPool's, in C++."""
    import envpool  # pyright: ignore[reportMissingImports]

    environment: Any = envpool.make_gymnasium(task, num_envs=n, num_threads=CPUS)
    environment.reset()
    action = np.stack([environment.action_space.sample() for _ in range(n)])
    return _stepped(lambda: environment.step(action), n)


def steps_mjbatch(task: str, n: int) -> Work:
    """Physics alone."""
    import gymnasium
    import mujoco
    from mjbatch import Batch  # pyright: ignore[reportMissingImports]

    folder = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"
    name = {"Ant-v5": "ant.xml", "HalfCheetah-v5": "half_cheetah.xml"}[task]
    batch: Any = Batch(mujoco.MjModel.from_xml_path(str(folder / name)), num_sims=n)
    control = batch.bind("ctrl")
    control[:] = np.random.default_rng(0).uniform(-1.0, 1.0, control.shape)

    def step() -> None:
        for _ in range(_FRAMES[task]):
            batch.step()

    return _stepped(step, n)


def learning_simreal(task: str, seed: int) -> Work:
    """SAC with hindsight, ours."""
    import torch

    from simreal.training.build import make_environment
    from simreal.training.run_config import load_config
    from simreal.training.trainer import Trainer

    torch.set_num_threads(1)
    options = [
        f"task={task}", f"seed={seed}", "randomization.sampler=none",
        f"learner.actor_lr={RATE}", f"learner.critic_lr={RATE}", f"learner.alpha_lr={RATE}",
        f"learner.initial_alpha={ALPHA}", "train.keep=last",
    ]  # fmt: skip
    trainer = Trainer(load_config("fetch_reach", options), Path(tempfile.mkdtemp()))

    @torch.no_grad()
    def success() -> float:
        environment = make_environment(task, TRIES, seed=10_000)
        observed, hits = environment.reset(), torch.zeros(TRIES)
        for _ in range(50):
            result = environment.step(trainer.learner.policy(observed.policy))
            observed, hits = result.observed, result.success.float()
        return float(hits.mean())

    def work(limit: float) -> dict[str, float]:
        spent, reached = 0.0, 0.0
        while spent < limit and reached < ENOUGH:
            began, goal = time.perf_counter(), trainer.env_steps + EVERY
            with trainer.overlapping():
                while trainer.env_steps < goal:
                    trainer._proceed()
                    trainer._learn()
            spent += time.perf_counter() - began
            reached = success()
        return {"seconds": spent, "steps": trainer.env_steps, "success": reached}

    return work


def learning_stable_baselines3(task: str, seed: int) -> Work:
    """SAC with hindsight, theirs."""
    import gymnasium
    import stable_baselines3
    from stable_baselines3.common.vec_env import DummyVecEnv

    _with_robotics()
    vector = DummyVecEnv([lambda: gymnasium.make(task)] * 16)
    model = stable_baselines3.SAC(
        "MultiInputPolicy", vector, replay_buffer_class=stable_baselines3.HerReplayBuffer, seed=seed,
        batch_size=BATCH, learning_rate=RATE, gamma=GAMMA, tau=0.01, buffer_size=100_000, learning_starts=800,
        train_freq=1, gradient_steps=round(16 * SHARE), ent_coef=f"auto_{ALPHA}",
        policy_kwargs={"net_arch": [HIDDEN, HIDDEN]},
    )  # fmt: skip
    fresh: Any = gymnasium.make(task)

    def success() -> float:
        hits = 0.0
        for episode in range(TRIES):
            seen, _ = fresh.reset(seed=10_000 + episode)
            info: dict[str, Any] = {}
            for _ in range(50):
                seen, _, _, _, info = fresh.step(model.predict(seen, deterministic=True)[0])
            hits += float(info["is_success"])
        return hits / TRIES

    def work(limit: float) -> dict[str, float]:
        spent, reached = 0.0, 0.0
        while spent < limit and reached < ENOUGH:
            began = time.perf_counter()
            model.learn(EVERY, reset_num_timesteps=False)
            spent += time.perf_counter() - began
            reached = success()
        return {"seconds": spent, "steps": model.num_timesteps, "success": reached}

    return work


def main() -> None:
    """Do what is asked until nothing more is."""
    kind, peer, task, number = sys.argv[1:]
    work = globals()[f"{kind}_{peer.replace(' ', '_').replace('-', '_')}"](task, int(number))
    print("> ready", flush=True)
    for line in sys.stdin:
        print(">", json.dumps(work(float(line))), flush=True)


if __name__ == "__main__":
    main()
