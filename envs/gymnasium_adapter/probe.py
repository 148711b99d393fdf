"""What an environment does not state: learnt from its wrappers, and by playing an episode or the beginning of one.

A policy learns on what the outermost wrapper returns. A robot has no wrappers: what they make of observations and
actions is part of the policy's world, but not of what is exported.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
from gymnasium import wrappers
from numpy.typing import NDArray

from envs.common.errors import TaskError
from envs.gymnasium_adapter.make import GymnasiumEnv, quiet, refusals
from envs.gymnasium_adapter.spaces import Layout

SUCCESS = ("is_success", "success")  # keys of `info`; the first that is there counts
MOST_STEPS = 1000  # of an episode: 0.1 s of a HalfCheetah
_ENOUGH = 30  # steps that show whether wrappers change anything
# Values, order and number of observations, and of actions within their bounds, stay as they are.
_TRANSPARENT = (
    wrappers.Autoreset, wrappers.ClipAction, wrappers.DtypeObservation, wrappers.OrderEnforcing,
    wrappers.PassiveEnvChecker, wrappers.RecordEpisodeStatistics, wrappers.RecordVideo, wrappers.RenderCollection,
    wrappers.ReshapeObservation, wrappers.TimeLimit, gymnasium.RewardWrapper, wrappers.NormalizeReward,
)  # fmt: skip


@dataclass
class Findings:
    """What an episode showed.

    Attributes:
        decimation: physics steps in one of its steps.
        success: whether some `info` told success.
        terms: keys that hold one number in every `info`.
        altered: wrappers through which observations or actions came out otherwise than they went in.
        info: of the last step.
    """

    decimation: int = 0
    success: bool = False
    terms: tuple[str, ...] = ()
    altered: tuple[str, ...] = ()
    info: dict[str, Any] = field(default_factory=dict)


def is_number(value: Any) -> bool:
    """Whether a value is a single number or truth value."""
    return np.ndim(value) == 0 and np.asarray(value).dtype.kind in "biuf"


class _Inside:
    """Looks at what goes through the wrappers of an environment: its own `step` before they see it."""

    def __init__(self, env: GymnasiumEnv) -> None:
        self.calls = 0
        self.action: Any = None
        self.observation: Any = None
        raw: Any = env.unwrapped
        step = raw.step

        def watched(action: Any) -> Any:
            self.calls, self.action = self.calls + 1, np.array(action)
            result = step(action)
            self.observation = _copied(result[0])
            return result

        raw.step = watched

    def differs(self, calls: int, action: NDArray[Any], observation: Any) -> bool:
        """Whether one of these is not what the environment itself got and returned."""
        same = self.calls == calls and np.array_equal(self.action, action)
        return not (same and _equal(self.observation, _copied(observation)))


def _copied(observation: Any) -> Any:
    if isinstance(observation, (tuple, list)):
        observation = dict(enumerate(observation))
    return {k: _copied(v) for k, v in observation.items()} if isinstance(observation, dict) else np.array(observation)


def _equal(a: Any, b: Any) -> bool:
    """Whether two observations hold the same numbers in the same order; a difference of float32 does not count."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, dict) or isinstance(b, dict) or a.size != b.size:
        return False
    return np.allclose(a.ravel().astype(float), b.ravel().astype(float), rtol=1e-6, atol=1e-6)


def probe(env: GymnasiumEnv, layout: Layout, low: NDArray[Any], high: NDArray[Any], dtype: Any, label: str) -> Findings:
    """Play an episode with random actions, as far as is needed: to its end where success has not been told.

    Raises:
        TaskError: the environment cannot be reset or stepped, or does not return what its spaces say.
    """
    raw: Any = env.unwrapped
    names = between(env)
    with quiet(), refusals(label):
        env.reset(seed=0)
        inside = _Inside(env) if names else None
        before, timestep = raw.data.time, raw.model.opt.timestep
        action = as_action((low + high) / 2.0, dtype)
        observation, _, terminated, truncated, info = env.step(action)
        found = Findings(round((raw.data.time - before) / timestep), info=info)
    _check(found, layout, observation, label)
    terms = {str(key) for key, value in info.items() if key not in SUCCESS and is_number(value)}
    random, steps, altered = np.random.default_rng(0), 1, False
    while True:
        found.success |= any(key in found.info for key in SUCCESS)
        terms &= {str(key) for key, value in found.info.items() if is_number(value)}
        altered |= inside is not None and inside.differs(steps, action, observation)
        unsure = not found.success or (inside is not None and steps < _ENOUGH) or steps < 2
        if terminated or truncated or steps >= MOST_STEPS or not unsure:
            break
        action = as_action(random.uniform(low, high), dtype)
        try:
            with quiet():
                observation, _, terminated, truncated, found.info = env.step(action)
        except Exception:  # it stumbles over where random actions lead; a trained policy may never go there
            break
        steps += 1
    found.terms = tuple(str(key) for key in info if str(key) in terms)
    found.altered = tuple(names) if altered else ()
    return found


def as_action(values: NDArray[Any], dtype: Any) -> NDArray[Any]:
    """Values as an action of a dtype: the nearest integers where it has integers."""
    return (np.rint(values) if np.dtype(dtype).kind in "iu" else values).astype(dtype)


def _check(found: Findings, layout: Layout, observation: Any, label: str) -> None:
    if found.decimation < 1:
        raise TaskError(f"{label}: its step does not advance the time of its mjData")
    for part in layout.parts if layout.achieved is None else (*layout.parts, layout.achieved):
        try:
            got = part.read(observation).size
        except Exception as error:  # a key or an entry that the space promises
            raise TaskError(f"{label}: its observation has no {part.name}: {type(error).__name__}: {error}") from None
        if got != part.size:
            raise TaskError(f"{label}: {part.name}: expected {part.size} values, got {got}")


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
