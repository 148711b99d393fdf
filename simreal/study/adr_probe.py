"""ADR around a policy that no longer learns: how wide its ranges become before the policy fails at their ends.

It gives fixed ranges, and no randomization at all, a figure that compares with the entropy of an ADR run: the starred
upper bound of arXiv 1910.07113, tables 3 and 6.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from randomization.config import RandomizationConfig
from randomization.parameters import RandomizationError
from randomization.samplers.adr import ADR
from simreal.common.errors import UserError
from simreal.training.build import make_environment
from simreal.training.run_directory import LoadedPolicy

WIDENED = "widened.json"  # in a run directory
_SOON_S, _WORDS_S = 2.0, 10.0  # until it says how far it is, and from then on
QUIET_DECISIONS = 4  # about every boundary, none of which sets a new mark, end it


def widen(
    policy: LoadedPolicy,
    block: RandomizationConfig,
    episodes: int,
    num_envs: int = 128,
    seed: int = 2_000_003,
    say: Callable[[str], object] = lambda text: None,
) -> dict[str, Any]:
    """Play boundary episodes only and let ADR move the bounds, with the policy as it is.

    Ends when QUIET_DECISIONS * (movable boundaries) * buffer_size episodes have passed in which no boundary came
    further out than it had been before, or after `episodes`. What is reported is where the bounds are then.

    Args:
        policy: acts without exploration.
        block: with sampler "adr": its parameters, steps, limits, thresholds and buffer size are used.
        episodes: the budget.
        num_envs: episodes played at a time; the order in which they end, and so the result, depends on it.
        seed: of the episodes.
        say: told now and then how far it is.

    Returns:
        {"schema", "task", "policy", "entropy_npd", "episodes", "stopped": "quiet" or "budget", "quiet_episodes",
        "request": {"episodes", "num_envs", "seed", "randomization"}, "parameters": [{"name", "unit", "lower", "upper",
        "limits"}]}.

    Raises:
        UserError, RandomizationError: the block is not one of ADR, or does not fit the task.
    """
    if block.sampler != "adr":
        raise UserError(f"randomization.sampler: widening needs a block of sampler 'adr', got {block.sampler!r}")
    adr = block.sampler_for(policy.make_task())
    assert isinstance(adr, ADR)
    if not adr.movable_sides:
        raise RandomizationError("randomization.parameters: no boundary can move; give ADR at least one range")
    adr.boundary_probability = 1.0  # ordinary episodes would teach nobody
    quiet = QUIET_DECISIONS * adr.movable_sides * adr.buffer_size
    played, stopped = _run(policy, adr, block, episodes, quiet, min(num_envs, episodes), seed, say)
    return {
        "schema": 1,
        "task": policy.task_id,
        "policy": policy.name,
        "entropy_npd": adr.entropy(),
        "episodes": played,
        "stopped": stopped,
        "quiet_episodes": quiet,
        "request": {"episodes": episodes, "num_envs": num_envs, "seed": seed, "randomization": _plain(block)},
        "parameters": [
            {"name": p.name, "unit": p.unit, "lower": low, "upper": high, "limits": list(p.limits)}
            for p, low, high in zip(adr.parameters, adr.lower.tolist(), adr.upper.tolist(), strict=True)
        ],
    }


def _run(
    policy: LoadedPolicy,
    adr: ADR,
    block: RandomizationConfig,
    budget: int,
    quiet: int,
    num_envs: int,
    seed: int,
    say: Callable[[str], object],
) -> tuple[int, str]:
    """Episodes played, and why it ended."""
    environment = make_environment(
        policy.task_id, num_envs, block, sampler=adr, seed=seed, task_options=policy.task_options
    )
    observed = environment.reset()
    policy.reset(torch.ones(num_envs, dtype=torch.bool))
    read = policy.reader(environment)
    played = last_mark = 0
    next_word = time.monotonic() + _SOON_S
    furthest = adr.upper - adr.nominal, adr.nominal - adr.lower
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        while played < budget:
            result = environment.step(policy.act(read(observed)))
            observed = result.observed
            if not bool(result.done.any()):
                continue
            policy.reset(result.done)
            played += int(result.done.sum())
            if time.monotonic() > next_word:
                say(f"{played:,} of at most {budget:,} episodes, entropy {adr.entropy():+.2f} npd ...")
                next_word = time.monotonic() + _WORDS_S
            reached = adr.upper - adr.nominal, adr.nominal - adr.lower
            if any(bool((now > before).any()) for now, before in zip(reached, furthest, strict=True)):
                last_mark = played
            furthest = torch.maximum(reached[0], furthest[0]), torch.maximum(reached[1], furthest[1])
            if played - last_mark >= quiet:
                return played, "quiet"
    finally:
        torch.set_num_threads(threads)
    return played, "budget"


def same_request(path: Path, block: RandomizationConfig, episodes: int) -> bool:
    """Whether a file holds what `widen` was asked for with this block and budget."""
    try:
        request = json.loads(path.read_text())["request"]
        return request["randomization"] == _plain(block) and request["episodes"] == episodes
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _plain(block: RandomizationConfig) -> Any:
    return json.loads(block.model_dump_json(include={"performance", "adr", "parameters"}))
