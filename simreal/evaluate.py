"""Plays fresh episodes in given worlds and says how well a policy does, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from randomization.parameters import RandomizationError
from randomization.samplers import Manual, Sampler
from randomization.spec import randomization_config
from simreal.config import find_config, read_yaml
from simreal.errors import UserError
from simreal.runs import LoadedPolicy
from simreal.statistics import cvar, mean_and_error, median, wilson


@dataclass(frozen=True)
class World:
    """A distribution of worlds to evaluate in."""

    name: str
    sampler: Sampler


@dataclass(frozen=True)
class Episodes:
    """How episodes ended, in the order of their numbers: the same number is the same episode for every policy."""

    success: list[bool]  # at the last step
    returns: list[float]
    divergences: int


def find_world(name: str, policy: LoadedPolicy) -> World:
    """A world by name ("nominal", "trained"), by shipped name, or a YAML file with a `randomization:` block.

    Raises:
        UserError: naming the world and what is wrong with it.
    """
    if name == "nominal":
        return World(name, Manual([]))
    if name == "trained":
        return World(name, policy.trained_sampler())
    path = find_config(name, folder="worlds")
    document = read_yaml(path)
    unknown = [key for key in document if key not in ("name", "description", "randomization")]
    if unknown:
        raise UserError(f"{path}: {unknown[0]}: unknown key; a world has name, description and randomization")
    try:
        config = randomization_config(document.get("randomization"))
        sampler = config.sampler_for(policy.make_task())
    except RandomizationError as error:
        raise UserError(f"{path}: {error}") from None
    if config.sampler in ("adr", "doraemon"):
        raise UserError(f"{path}: randomization.sampler: a world has fixed ranges, expected 'manual' or 'frozen'")
    return World(str(document.get("name", path.stem)), sampler)


def play_episodes(policy: LoadedPolicy, sampler: Sampler, episodes: int, num_envs: int, seed: int) -> Episodes:
    """Play episodes 0 .. `episodes` - 1 of `seed` in worlds from a sampler, `num_envs` at a time."""
    n = min(num_envs, episodes)
    environment = policy.make_environment(n, sampler, seed)
    observed = environment.reset()
    policy.reset(torch.ones(n, dtype=torch.bool))
    success = torch.zeros(episodes, dtype=torch.bool)
    returns = torch.zeros(episodes, dtype=torch.float64)
    ended = torch.zeros(episodes, dtype=torch.bool)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        while not bool(ended.all()):
            number = environment.rng.episode.clone()
            result = environment.step(policy.act(observed.policy))
            observed = result.observed
            if not bool(result.done.any()):
                continue
            counted = result.done & (number < episodes)
            ids = number[counted]
            success[ids], returns[ids], ended[ids] = (
                result.success[counted],
                result.episode_return[counted].double(),
                True,
            )
            policy.reset(result.done)
    finally:
        torch.set_num_threads(threads)
    return Episodes(success.tolist(), returns.tolist(), environment.divergences)


def summarize(name: str, episodes: Episodes) -> dict[str, Any]:
    """One entry of `worlds` in evaluate's JSON."""
    count, successes = len(episodes.success), sum(episodes.success)
    mean, error = mean_and_error(episodes.returns)
    return {
        "name": name,
        "episodes": count,
        "success_rate": successes / count,
        "success_ci95": list(wilson(successes, count)),
        "return_mean": mean,
        "return_se": error,
        "return_median": median(episodes.returns),
        "return_cvar10": cvar(episodes.returns),
    }


def evaluate(policy: LoadedPolicy, worlds: Sequence[str], episodes: int, num_envs: int, seed: int) -> dict[str, Any]:
    """The document that `simreal evaluate --json` writes. Raises UserError for an unknown world."""
    found = [find_world(name, policy) for name in worlds]
    rows = [summarize(world.name, play_episodes(policy, world.sampler, episodes, num_envs, seed)) for world in found]
    return {"task": policy.task_id, "policy": policy.name, "adr_entropy_npd": policy.entropy, "worlds": rows}


def write_target(path: Path) -> Path:
    """A file to be written whose folder exists. Raises UserError otherwise."""
    if path.is_dir() or not path.parent.is_dir():
        raise UserError(f"{path}: cannot be written; expected a file name in an existing folder")
    return path
