"""Untrained policies to compare with: random actions, and action 0."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from envs.environment import Environment
from simreal.training.run_directory import LoadedPolicy

BASELINES = ("random", "zero", "still")


def baseline(name: str, run: LoadedPolicy) -> LoadedPolicy:
    """A baseline for the task of a run, with its options and in the worlds of its training.

    Args:
        name: "random": every action uniform in [-1, 1]; "zero" or "still": action 0.
        run: whose place it takes.
    """
    size = run.make_task().action_size
    untrained: dict[str, Any] = {
        "name": name, "reset": lambda mask: None, "entropy": None, "randomization": None, "module": None,
    }  # fmt: skip
    if name != "random":
        return replace(run, act=lambda observation: torch.zeros(len(observation), size), **untrained)
    playing: list[Environment] = []

    def act(_: Tensor) -> Tensor:
        return 2.0 * playing[0].rng.uniform("random policy", size).cpu() - 1.0

    return _InEnvironment(**vars(run) | untrained | {"act": act, "playing": playing})


@dataclass(frozen=True)
class _InEnvironment(LoadedPolicy):
    """A policy that draws from the episodes' own random numbers, of the environment that was made for it last.

    So its actions are as repeatable as the episodes: they depend on the seed, the episode and the step alone.
    """

    playing: list[Environment] = field(default_factory=list)

    def make_environment(self, *args: Any, **kwargs: Any) -> Environment:
        self.playing[:] = [super().make_environment(*args, **kwargs)]
        return self.playing[0]
