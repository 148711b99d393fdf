"""Small off-policy learners of a problem with three observations and two actions, and experience for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from envs.environment import Observed, StepResult
from simreal.learners.base import LearnerSpec
from simreal.learners.off_policy.base import OffPolicyLearner
from simreal.learners.off_policy.ddpg import DDPG
from simreal.learners.off_policy.dqn import DQN
from simreal.learners.off_policy.sac import SAC
from simreal.learners.off_policy.td3 import TD3
from simreal.learners.off_policy.transitions import ReplayBatch
from simreal.learners.options import DDPGConfig, DQNConfig, SACConfig, TD3Config

PROBLEM = LearnerSpec(2, 3, 2, 0, 0, None, torch.device("cpu"))
SMALL: dict[str, Any] = {"hidden": (16, 16), "batch_size": 32, "warmup_steps": 0, "replay_size": 1000}
Learner = DDPG | SAC | TD3


def ddpg(seed: int = 0, total_steps: int | None = None, **settings: Any) -> DDPG:
    return DDPG(PROBLEM, DDPGConfig(**(SMALL | settings)), seed, total_steps)


def sac(seed: int = 0, total_steps: int | None = None, **settings: Any) -> SAC:
    return SAC(PROBLEM, SACConfig(**(SMALL | settings)), seed, total_steps)


def td3(seed: int = 0, total_steps: int | None = None, **settings: Any) -> TD3:
    return TD3(PROBLEM, TD3Config(**(SMALL | settings)), seed, total_steps)


def dqn(seed: int = 0, total_steps: int | None = None, **settings: Any) -> DQN:
    return DQN(PROBLEM, DQNConfig(**(SMALL | settings)), seed, total_steps)


def random_batch(size: int = 32, seed: int = 0) -> ReplayBatch:
    g = torch.Generator().manual_seed(seed)
    terminated = (torch.rand(size, generator=g) < 0.3).float()
    return ReplayBatch(
        torch.randn(size, 3, generator=g), torch.rand(size, 2, generator=g) * 2 - 1, torch.randn(size, generator=g),
        torch.randn(size, 3, generator=g), terminated,
    )  # fmt: skip


def result_of(final: Tensor, reward: Tensor, **flags: Tensor) -> StepResult:
    """A step of two environments that nothing special happened to, but for `flags`."""
    no = torch.zeros(len(reward), dtype=torch.bool)
    terminated, truncated = flags.get("terminated", no), flags.get("truncated", no)
    observed = Observed(final, None, None, None)
    return StepResult(
        observed=observed, final=observed, reward=reward, terminated=terminated, truncated=truncated, success=no,
        diverged=flags.get("diverged", no), done=terminated | truncated, episode_return=reward,
        episode_steps=no.long(), episode_successes=no.long(), terms={},
    )  # fmt: skip


def run(learner: OffPolicyLearner, updates: int, first: int = 0) -> None:
    """Steps of random experience with an update after each."""
    for step in range(first, first + updates):
        generator = torch.Generator().manual_seed(step)
        here, there = torch.randn(2, 2, 3, generator=generator)
        observed = Observed(here, None, None, None)
        action = learner.act(observed)
        done = torch.tensor([step % 5 == 4, False])
        learner.record(observed, action, result_of(there, -action.square().sum(1), truncated=done))
        assert learner.ready()
        learner.update()
