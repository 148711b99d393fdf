"""Whether a run is long enough: to learn at all, and for its ADR settings."""

from __future__ import annotations

from randomization.samplers.adr import ADR
from randomization.samplers.base import Sampler
from simreal.training.run_config import RunConfig

ENOUGH_MOVES = 10.0  # a parameter's default step is a tenth of its range


def untrained_warning(config: RunConfig) -> str | None:
    """One line for a run that ends before its learner has learnt anything; None otherwise."""
    first = config.learner.first_update(config.num_envs)
    if config.train.env_steps > first - config.num_envs:  # steps are taken in all environments at once
        return None
    return (
        f"warning: the first update comes after {first:,} steps, this run ends after {config.train.env_steps:,}: its "
        "policy will be untrained; raise train.env_steps"
    )


def expected_moves(adr: ADR, env_steps: int, max_episode_steps: int) -> float:
    """Decisions about each boundary that a run leads to, and so the most moves that it can make.

    Every boundary that can move gets the same share of `boundary_probability` of the episodes, and decides once in
    `buffer_size` of them. Episodes that end early make it more.
    """
    if not adr.movable_sides:
        return float("inf")
    episodes = env_steps / max_episode_steps
    return episodes * adr.boundary_probability / (adr.movable_sides * adr.buffer_size)


def budget_warning(sampler: Sampler, env_steps: int, max_episode_steps: int) -> str | None:
    """One line for a run under ADR whose boundaries can hardly move, with what to change; None otherwise."""
    if not isinstance(sampler, ADR):
        return None
    moves = expected_moves(sampler, env_steps, max_episode_steps)
    if moves >= ENOUGH_MOVES:
        return None
    smaller = int(sampler.buffer_size * moves / ENOUGH_MOVES)
    first = f"set randomization.adr.buffer_size to {smaller}" if smaller >= 4 else "randomize fewer parameters"
    longer = -(-round(env_steps * ENOUGH_MOVES / max(moves, 1e-9)) // 1000) * 1000
    more = f", raise train.env_steps to {longer:,}" if moves > 0 else ", raise randomization.adr.boundary_probability"
    return (
        f"ADR: each of {sampler.movable_sides} boundaries can move about {moves:.1f} times in this run, fewer than "
        f"{ENOUGH_MOVES:g}: {first}{more}, or give the parameters larger steps (docs/randomize.md)"
    )
