"""Policies that nobody trained, for tests of what is done with policies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from envs.registry import make_task
from randomization.parameters import build_parameters
from simreal.training.run_directory import LoadedPolicy


def reaching(entries: Mapping[str, Any] | None = None, gain: float = 10.0, name: str = "reaching") -> LoadedPolicy:
    """FetchReach by proportional control; `entries` are the ranges that it claims to be trained in."""
    task = make_task("FetchReach-v4")
    at = task.slices()

    def act(observation: Tensor) -> Tensor:
        way = gain * (observation[:, at["desired_goal"]] - observation[:, at["grip_pos"]])
        return torch.cat((way, torch.zeros_like(way[:, :1])), dim=1)

    return _policy(name, task.id, act, entries)


def standing(task_id: str, entries: Mapping[str, Any] | None = None) -> LoadedPolicy:
    """An action of zero in any task."""
    size = make_task(task_id).action_size
    return _policy("standing", task_id, lambda observation: torch.zeros(len(observation), size), entries)


def _policy(name: str, task_id: str, act: Any, entries: Mapping[str, Any] | None) -> LoadedPolicy:
    parameters = build_parameters(make_task(task_id), entries or {})
    return LoadedPolicy(name, task_id, act, lambda mask: None, parameters, None, None)
