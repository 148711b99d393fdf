"""Oracle episodes of gymnasium-robotics' hands, and their replay in our environments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import mujoco
import numpy as np
import torch

from conftest import build
from envs.engines.cpu import CpuEngine
from envs.environment import Environment
from envs.platform.gymnasium_robotics_patch import patch_gymnasium_robotics
from envs.registry import make_task

assert patch_gymnasium_robotics()

_STATE = int(mujoco.mjtState.mjSTATE_INTEGRATION)
Stage = Callable[[Any, int, np.random.Generator], None]


@dataclass
class Episode:
    """What the oracle did from a start state."""

    state: np.ndarray  # of the simulation: positions, velocities, warm start, time, ...
    fields: dict[str, np.ndarray]  # model fields that a reset draws
    goal: np.ndarray | None
    first: Any  # observation
    actions: list[np.ndarray] = field(default_factory=list)
    observations: list[Any] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    successes: list[bool] = field(default_factory=list)
    ends: list[tuple[bool, bool]] = field(default_factory=list)  # terminated, truncated
    contacts: int = 0  # control steps that end with one


def choose(action_size: int, episode: int, last: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Actions by episode: wild and beyond the limits (both sides clip), smooth, or gentle ones that drop nothing."""
    noise = random.uniform(-1.2, 1.2, action_size)
    if episode % 3 == 0:
        return noise.astype(np.float32)
    return (0.9 * last + (0.5 if episode % 3 == 1 else 0.02) * noise).astype(np.float32)


def play_oracle(env: gymnasium.Env[Any, Any], episode: int, drawn: Sequence[str], stage: Stage | None) -> Episode:
    """One episode of the oracle; `stage` changes its start, `drawn` are model fields that its reset writes."""
    raw: Any = env.unwrapped
    env.reset(seed=episode)
    random = np.random.default_rng(1000 * episode + 7)
    if stage is not None:
        stage(raw, episode, random)
        mujoco.mj_normalizeQuat(raw.model, raw.data.qpos)
        mujoco.mj_forward(raw.model, raw.data)
    state = np.empty(mujoco.mj_stateSize(raw.model, _STATE))
    mujoco.mj_getState(raw.model, raw.data, state, _STATE)
    goal = raw.goal.copy() if hasattr(raw, "goal") else None
    played = Episode(state, {name: getattr(raw.model, name).copy() for name in drawn}, goal, raw._get_obs())
    action = np.zeros(raw.action_space.shape, dtype=np.float32)
    done = False
    while not done:
        action = choose(len(action), episode, action, random)
        observation, reward, terminated, truncated, info = env.step(action.copy())
        done = terminated or truncated
        played.actions.append(action)
        played.observations.append(observation)
        played.rewards.append(float(reward))
        played.successes.append(bool(info["is_success"] if "is_success" in info else info["success"]))
        played.ends.append((terminated, truncated))
        played.contacts += int(raw.data.ncon > 0)
    return played


def same(ours: Any, theirs: Any) -> None:
    """Equal to 1e-8 in every entry, absolutely."""
    np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=0.0, atol=1e-8)


def take_over(env: Environment, episodes: Sequence[Episode]) -> None:
    """Put environment i where episode i of the oracle started."""
    assert isinstance(env.engine, CpuEngine)
    for name in episodes[0].fields:
        env.engine.field(name)[...] = torch.as_tensor(np.stack([e.fields[name] for e in episodes]))
    states = np.stack([e.state for e in episodes])
    env.engine.state_rows()[...] = states
    env.engine.forward()
    env.engine.state_rows()[...] = states  # the warm start too, which forward() has moved on
    if episodes[0].goal is not None:
        env.task.goal[...] = torch.as_tensor(np.stack([e.goal for e in episodes if e.goal is not None]))


def compare(task_id: str, count: int, drawn: Sequence[str] = (), stage: Stage | None = None) -> list[Episode]:
    """Whole episodes of both sides, step by step. Returns what the oracle did."""
    oracle = gymnasium.make(task_id)
    episodes = [play_oracle(oracle, i, drawn, stage) for i in range(count)]
    env = build(make_task(task_id), count, seed=99)
    take_over(env, episodes)
    check_observation(env, env.task.observe(), [e.first for e in episodes])
    steps = {len(e.actions) for e in episodes}
    assert steps == {env.task.max_episode_steps}
    for step in range(steps.pop()):
        result = env.step(torch.as_tensor(np.stack([e.actions[step] for e in episodes])))
        check_observation(env, result.final.policy, [e.observations[step] for e in episodes])
        if env.task.goal_size:
            same(result.final.achieved_goal, [e.observations[step]["achieved_goal"] for e in episodes])
            same(result.final.desired_goal, [e.observations[step]["desired_goal"] for e in episodes])
        same(result.reward, [e.rewards[step] for e in episodes])
        assert result.success.tolist() == [e.successes[step] for e in episodes]
        ends = torch.stack((result.terminated, result.truncated), dim=1)
        assert ends.tolist() == [list(e.ends[step]) for e in episodes]
    assert env.divergences == 0
    return episodes


def check_observation(env: Environment, policy: torch.Tensor, expected: Sequence[Any]) -> None:
    """Our flat observation [N, nobs] against the oracle's: for goal tasks its dictionary, the goal last."""
    if not env.task.goal_size:
        same(policy, np.stack(expected))
        return
    same(policy[:, : -env.task.goal_size], np.stack([e["observation"] for e in expected]))
    same(policy[:, -env.task.goal_size :], np.stack([e["desired_goal"] for e in expected]))


def differ(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Kolmogorov and Smirnov's distance of two samples [n], [m] in units in which 1.95 has odds of 1 in 1000."""
    both = np.sort(np.concatenate((ours, theirs)))
    gaps = np.searchsorted(np.sort(ours), both, "right") / len(ours)
    gaps = gaps - np.searchsorted(np.sort(theirs), both, "right") / len(theirs)
    return float(np.abs(gaps).max() * np.sqrt(len(ours) * len(theirs) / (len(ours) + len(theirs))))
