"""Gymnasium's observation spaces as components of a flat vector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from envs.registry import TaskError
from envs.task import ActionComponent, Component

Array = NDArray[Any]
_GOAL_KEYS = {"observation", "achieved_goal", "desired_goal"}
_UNKNOWN = "unknown"  # units and frames: a Gymnasium space does not tell them


@dataclass(frozen=True)
class Part:
    """A Box somewhere in an observation space."""

    path: tuple[str, ...]  # keys that lead to it; empty where the space is a Box itself
    size: int

    def read(self, observation: Any) -> Array:
        """Its values [size] in an observation."""
        for key in self.path:
            observation = observation[key]
        return np.asarray(observation).reshape(-1)


@dataclass(frozen=True)
class Layout:
    """How an environment's observation becomes a flat vector and, for goal tasks, an achieved goal."""

    components: tuple[Component, ...]
    parts: tuple[Part, ...]  # of the policy's vector, in order
    achieved: Part | None  # goal tasks only

    @property
    def size(self) -> int:
        """Values in the policy's vector."""
        return sum(part.size for part in self.parts)

    @property
    def goal_size(self) -> int:
        """Values in a goal; 0 where the task has none."""
        return 0 if self.achieved is None else self.achieved.size


def observation_layout(env_id: str, space: spaces.Space[Any]) -> Layout:
    """The layout of an observation space: a Box, or a Dict of Boxes (of Dicts).

    Where a Dict has the three keys of a goal environment with Boxes of one size for both goals, the policy's vector
    ends with "desired_goal".

    Raises:
        TaskError: it holds anything else.
    """
    boxes = dict(_boxes(env_id, space, ()))
    goals = [boxes.get((key,)) for key in ("achieved_goal", "desired_goal")]
    is_goal = isinstance(space, spaces.Dict) and set(space.keys()) == _GOAL_KEYS
    achieved, desired = goals if is_goal else (None, None)
    if achieved is None or desired is None or achieved.shape != desired.shape:
        parts = [Part(path, _size(box)) for path, box in boxes.items()]
        achieved_part = None
    else:
        last = ("desired_goal",)
        others = [Part(path, _size(box)) for path, box in boxes.items() if path[0] == "observation"]
        parts, achieved_part = [*others, Part(last, _size(desired))], Part(("achieved_goal",), _size(achieved))
    components = tuple(_component(env_id, part, boxes[part.path], achieved_part is not None) for part in parts)
    return Layout(components, tuple(parts), achieved_part)


def _boxes(env_id: str, space: spaces.Space[Any], path: tuple[str, ...]) -> list[tuple[tuple[str, ...], spaces.Box]]:
    if isinstance(space, spaces.Box):
        return [(path, space)]
    if isinstance(space, (spaces.Dict, Mapping)):
        return [found for key in space for found in _boxes(env_id, space[key], (*path, str(key)))]
    where = ".".join(path) or "observation"
    raise TaskError(f"task: gymnasium:{env_id}: {where} is a {type(space).__name__}; expected a Box or a Dict of Boxes")


def _size(box: spaces.Box) -> int:
    return int(np.prod(box.shape, dtype=np.int64))


def _component(env_id: str, part: Part, box: spaces.Box, is_goal_task: bool) -> Component:
    name = ".".join(part.path) or "observation"
    low, high = float(box.low.min()), float(box.high.max())
    goal = is_goal_task and part.path == ("desired_goal",)
    return Component(
        name, part.size, _UNKNOWN, _UNKNOWN, measured=not goal,
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
        raise TaskError(f"task: gymnasium:{env_id}: its action space {space} has no finite bounds")
    return ActionComponent(
        "action", len(low), _UNKNOWN, tuple(((high - low) / 2.0).tolist()), tuple(((high + low) / 2.0).tolist()),
        frame=_UNKNOWN, description=f"as {env_id} takes it; which actuators it drives, the environment does not state",
    )  # fmt: skip
