"""Gymnasium's observation spaces as components of a flat vector."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.spaces.utils import flatdim, flatten
from numpy.typing import NDArray

from envs.common.errors import TaskError
from envs.task import ActionComponent, Component

Array = NDArray[Any]
_GOALS = ("achieved_goal", "desired_goal")
_GOAL_KEYS = {"observation", *_GOALS}
_UNKNOWN = "unknown"  # units and frames: a Gymnasium space does not tell them
_COUNTED = (spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)  # as `flatten` has them: one value per choice


@dataclass(frozen=True)
class Part:
    """A space of numbers somewhere in an observation space."""

    path: tuple[str | int, ...]  # keys that lead to it; empty where it is the whole space
    space: spaces.Space[Any]

    @property
    def name(self) -> str:
        """As the contract calls it."""
        return ".".join(str(key) for key in self.path) or "observation"

    @property
    def size(self) -> int:
        """Numbers in it."""
        return flatdim(self.space)

    def read(self, observation: Any) -> Array:
        """Its values [size] in an observation."""
        for key in self.path:
            observation = observation[key]
        if isinstance(self.space, spaces.Box):
            return np.asarray(observation).reshape(-1)
        return np.asarray(flatten(self.space, observation)).reshape(-1)


@dataclass(frozen=True)
class Layout:
    """How an environment's observation becomes a flat vector and, for goal tasks, an achieved goal."""

    components: tuple[Component, ...]
    parts: tuple[Part, ...]  # of the policy's vector, in order
    achieved: Part | None  # goal tasks only
    odd_goals: bool = False  # goals are there, but of a form that cannot be a task's: they are observed as any key

    @property
    def size(self) -> int:
        """Values in the policy's vector."""
        return sum(part.size for part in self.parts)

    @property
    def goal_size(self) -> int:
        """Values in a goal; 0 where the task has none."""
        return 0 if self.achieved is None else self.achieved.size

    @property
    def goal_shape(self) -> tuple[int, ...]:
        """Of one goal, as the environment has it."""
        return () if self.achieved is None else self.achieved.space.shape or ()


def observation_layout(env_id: str, space: spaces.Space[Any]) -> Layout:
    """The layout of an observation space: numbers, in Dicts and Tuples of any depth.

    Where a Dict has the three keys of a goal environment, the policy's vector ends with "desired_goal" and does not
    hold "achieved_goal"; other keys are observed as any.

    Raises:
        TaskError: it holds what is no numbers.
    """
    parts = list(_parts(env_id, space, ()))
    achieved, odd = None, False
    if isinstance(space, spaces.Dict) and set(space.keys()) >= _GOAL_KEYS:
        boxes = [space[key] for key in _GOALS]
        odd = not all(isinstance(box, spaces.Box) for box in boxes) or boxes[0].shape != boxes[1].shape
        if not odd:
            achieved, desired = (Part((key,), space[key]) for key in _GOALS)
            parts = [part for part in parts if part.path[0] not in _GOALS] + [desired]
    components = tuple(_component(env_id, part, achieved is not None) for part in parts)
    return Layout(components, tuple(parts), achieved, odd)


def _parts(env_id: str, space: spaces.Space[Any], path: tuple[str | int, ...]) -> Iterator[Part]:
    if isinstance(space, (spaces.Dict, Mapping)):
        for key in space:
            yield from _parts(env_id, space[key], (*path, key))
    elif isinstance(space, spaces.Tuple):
        for i, inner in enumerate(space.spaces):
            yield from _parts(env_id, inner, (*path, i))
    elif isinstance(space, (spaces.Box, *_COUNTED)) and flatdim(space) > 0:
        yield Part(path, space)
    else:
        raise TaskError(f"task: gymnasium:{env_id}: {Part(path, space).name} is {space}; expected numbers")


def _component(env_id: str, part: Part, is_goal_task: bool) -> Component:
    low, high = 0.0, 1.0
    if isinstance(part.space, spaces.Box):
        low, high = float(part.space.low.min()), float(part.space.high.max())
    goal = is_goal_task and part.path == ("desired_goal",)
    return Component(
        part.name, part.size, _UNKNOWN, _UNKNOWN, measured=not goal,
        limits=(low, high) if np.isfinite((low, high)).all() else None,
        description=f"as {env_id} gives it; which joints and units its values have, the environment does not state",
    )  # fmt: skip


def action_component(env_id: str, space: spaces.Space[Any]) -> ActionComponent:
    """The action of an environment, whose bounds are -1 and 1 for the policy.

    Raises:
        TaskError: the space is not a Box [A] with finite bounds.
    """
    if not isinstance(space, spaces.Box) or len(space.shape) != 1:
        raise TaskError(f"task: gymnasium:{env_id}: its action space is {space}; expected a Box of one dimension")
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
        raise TaskError(
            f"task: gymnasium:{env_id}: its action space {space} has no finite bounds, the lower ones below"
        )
    return ActionComponent(
        "action", len(low), _UNKNOWN, tuple(((high - low) / 2.0).tolist()), tuple(((high + low) / 2.0).tolist()),
        frame=_UNKNOWN, description=f"as {env_id} takes it; which actuators it drives, the environment does not state",
    )  # fmt: skip
