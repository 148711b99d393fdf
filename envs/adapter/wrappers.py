"""Gymnasium wrappers within an adapted environment that stand between a policy and what a robot has.

A policy learns on what the outermost wrapper returns. A robot has none of them: what they make of observations and
actions is part of the policy's world, but not of what is exported.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
from gymnasium import wrappers

# Values, order and number of observations, and of actions within their bounds, stay as they are.
_TRANSPARENT = (
    wrappers.Autoreset,
    wrappers.ClipAction,
    wrappers.DtypeObservation,
    wrappers.OrderEnforcing,
    wrappers.PassiveEnvChecker,
    wrappers.RecordEpisodeStatistics,
    wrappers.RecordVideo,
    wrappers.RenderCollection,
    wrappers.ReshapeObservation,
    wrappers.TimeLimit,
    gymnasium.RewardWrapper,
    wrappers.NormalizeReward,
)


def wrappers_of(env: Any) -> Iterator[Any]:
    """The wrappers around an environment, outermost first."""
    while isinstance(env, gymnasium.Wrapper):
        yield env
        env = env.env


def between(env: Any) -> list[str]:
    """Names of the wrappers that change what a policy observes or does, or may: those that nobody here knows."""
    return [type(wrapper).__name__ for wrapper in wrappers_of(env) if not isinstance(wrapper, _TRANSPARENT)]


def bounded_action_space(env: Any) -> gymnasium.Space[Any]:
    """The action space, below wrappers that take any number and clip it to the bounds of theirs."""
    for wrapper in wrappers_of(env):
        if isinstance(wrapper, wrappers.ClipAction):
            return bounded_action_space(wrapper.env)
        if wrapper.action_space is not wrapper.env.action_space:
            break
    return env.action_space


def statistics_in(env: Any) -> list[str]:
    """Names of the wrappers that go on learning a normalization while the policy is used."""
    found = (wrappers.NormalizeObservation, wrappers.NormalizeReward)
    return [type(wrapper).__name__ for wrapper in wrappers_of(env) if isinstance(wrapper, found)]
