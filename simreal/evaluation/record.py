"""Records what a policy does as a file of transitions, for learners that act in no environment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from envs.environment import Environment, Observed
from envs.task import Component, Task
from simreal.common.version import __version__
from simreal.evaluation.worlds import World
from simreal.learners.off_policy.dataset import Dataset
from simreal.training.run_directory import LoadedPolicy

_MOST_ENVS, _EPISODES = 64, 4  # as many environments as let each play so many episodes


@dataclass(frozen=True)
class Exploration:
    """What is added to a policy's actions, so that a record shows more than it would do.

    Attributes:
        noise: standard deviation of normal noise on actions in [-1, 1].
        random: share of actions that are uniformly random instead.
    """

    noise: float = 0.0
    random: float = 0.0

    def applied(self, action: Tensor, generator: torch.Generator) -> Tensor:
        """The action [N, A] that is taken."""
        shape = action.shape
        noise = torch.randn(shape, generator=generator)
        uniform = 2.0 * torch.rand(shape, generator=generator) - 1.0
        explores = torch.rand(len(action), 1, generator=generator) < self.random
        return torch.where(explores, uniform, (action + self.noise * noise).clamp(-1.0, 1.0))


def record(
    policy: LoadedPolicy,
    world: World,
    steps: int,
    seed: int,
    exploration: Exploration,
    progress: Callable[[int, int], None],
) -> Dataset:
    """Play until `steps` transitions are recorded.

    Args:
        policy: what plays.
        world: where.
        steps: transitions; those of episodes whose simulation became unstable are left out afterwards.
        seed: of episodes and exploration.
        exploration: what is added to the policy's actions.
        progress: called with the transitions recorded so far and the episodes that have ended.
    """
    limit = world.make_environment(policy, 1, seed).max_episode_steps
    num_envs = max(1, min(_MOST_ENVS, steps // (_EPISODES * limit), steps))
    environment = world.make_environment(policy, num_envs, seed)
    generator = torch.Generator().manual_seed(seed)
    observed = environment.reset()
    policy.reset(torch.ones(num_envs, dtype=torch.bool))
    read = policy.reader(environment)
    rows: list[dict[str, Tensor]] = []
    unsound: set[int] = set()
    ended = 0
    while len(rows) * num_envs < steps:
        episode = environment.rng.episode.cpu().clone()
        action = exploration.applied(policy.act(read(observed).cpu()).float(), generator)
        result = environment.step(action)
        rows.append(_row(observed, action, result.final, result, episode))
        unsound |= set(episode[result.diverged.cpu()].tolist())
        done = result.done.cpu()
        ended += int(done.sum())
        policy.reset(done)
        observed = result.observed
        progress(min(len(rows) * num_envs, steps), ended)
    arrays = {name: torch.cat([row[name] for row in rows])[:steps].numpy() for name in rows[0]}
    kept = ~np.isin(arrays["episode"], sorted(unsound))
    order = np.flatnonzero(kept)[np.argsort(arrays["episode"][kept], kind="stable")]
    about = {"policy": policy.name, "world": world.name, "seed": seed, **vars(exploration)}
    task_options = {"task_options": policy.task_options}
    return Dataset(
        {name: array[order] for name, array in arrays.items()}, _contract(environment) | task_options | about
    )


def _row(observed: Observed, action: Tensor, final: Observed, result: Any, episode: Tensor) -> dict[str, Tensor]:
    """A step of N environments as a dataset has it."""
    row = {
        "observation": observed.policy.float(), "action": action, "reward": result.reward.float(),
        "next_observation": final.policy.float(), "terminated": result.terminated, "truncated": result.truncated,
        "success": result.success, "episode": episode,
    }  # fmt: skip
    if final.achieved_goal is not None:
        row["achieved_goal"] = final.achieved_goal.float()
    return {name: value.cpu().clone() for name, value in row.items()}


def _contract(environment: Environment) -> dict[str, Any]:
    """What the numbers of a record mean."""
    task: Task = environment.task
    return {
        "task": task.id,
        "control_period_s": float(task.control_period_s),
        "goal_size": task.goal_size,
        "observation": [_component(part) for part in task.components("policy")],
        "action": [_component(part) for part in task.action],
        "simreal": __version__,
    }


def _component(part: Component | Any) -> dict[str, Any]:
    return {key: getattr(part, key) for key in ("name", "size", "unit", "frame", "description")}
