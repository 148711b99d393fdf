"""What the log of a training shows of its episodes."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from torch import Tensor

from envs.common.ranks import ALONE, Ranks
from envs.environment import StepResult
from randomization.samplers.episode_reports import EpisodeQueue

_WINDOW = 100  # last episodes that are averaged over


class EpisodeStatistics:
    """Averages over the last episodes, of the reward's terms since the last row, and what the learner last reported.

    Args:
        steps: control steps whose episodes are counted at once, see `EpisodeQueue`.
        ranks: whose episodes are counted.

    Attributes:
        learner: what the last update reported; None before the first.
        episodes: ended so far.
        success, returns, successes: of the last episodes.
    """

    def __init__(self, steps: int = 1, ranks: Ranks = ALONE) -> None:
        self._ranks = ranks
        self.learner: dict[str, float] | None = None
        self.episodes = 0
        self.success, self.returns, self.successes = (deque[float](maxlen=_WINDOW) for _ in range(3))
        self._queue = EpisodeQueue(steps, ranks)
        self._terms: Tensor | None = None  # sums over environments and steps
        self._term_names: tuple[str, ...] = ()
        self._steps = 0  # that `_terms` sums up

    def add_episodes(self, result: StepResult) -> None:
        """Take in the episodes that ended with a step."""
        if self._queue.steps == 1 and not bool(result.done.any()):
            return
        if self._queue.add(
            result.done, ~result.diverged, result.success, result.episode_return, result.episode_successes
        ):
            self.flush()

    def flush(self) -> None:
        """Count the episodes that wait in the queue."""
        for sound, success, returns, successes in self._queue.take():
            self.success += success.double().tolist()
            self.returns += returns[sound].double().tolist()  # else finite, and nonsense
            self.successes += (successes * sound).double().tolist()
            self.episodes += len(sound)

    def add_reward_terms(self, terms: dict[str, Tensor]) -> None:
        """Take in the terms [N] of the reward of a step."""
        if not terms:
            return
        sums = torch.stack(tuple(terms.values())).sum(dim=1)
        self._terms = sums if self._terms is None else self._terms.to(sums) + sums
        self._term_names = tuple(terms)
        self._steps += len(next(iter(terms.values())))

    def row(self) -> dict[str, float]:
        """A row for the logs; averages of terms start anew."""
        self.flush()
        self._sum_terms()
        row = self.metrics()
        if self._terms is not None:
            means = (self._terms / max(self._steps, 1)).tolist()
            row |= {f"term/{name}": value for name, value in zip(self._term_names, means, strict=True)}
            self._terms, self._steps = None, 0
        return row

    def _sum_terms(self) -> None:
        """Add what the ranks have of the reward's terms, in the first one: the others begin anew."""
        if self._ranks.size == 1 or self._terms is None:
            return
        steps = self._terms.new_tensor(float(self._steps))
        self._ranks.sum_(self._terms, steps)
        self._steps = round(float(steps))
        if not self._ranks.first:
            self._terms, self._steps = torch.zeros_like(self._terms), 0

    def metrics(self) -> dict[str, float]:
        """Averages over episodes, 0 before the first, and of the learner."""
        recent = {"success_rate": self.success, "successes": self.successes, "return": self.returns}
        averages = {name: sum(values) / max(len(values), 1) for name, values in recent.items()}
        return {"episodes": float(self.episodes)} | averages | (self.learner or {})

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next row depends on."""
        self.flush()
        self._sum_terms()
        return {
            "success": list(self.success),
            "returns": list(self.returns),
            "successes": list(self.successes),
            "episodes": self.episodes,
            "learner": self.learner,
            "terms": self._terms,
            "term_names": list(self._term_names),
            "steps": self._steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        for name in ("success", "returns", "successes"):
            getattr(self, name).extend(state[name])
        self.episodes, self.learner = state["episodes"], state["learner"]
        self._terms, self._steps = state["terms"], state["steps"]
        if self._terms is not None and not self._ranks.first:  # the first one has those of all
            self._terms, self._steps = torch.zeros_like(self._terms), 0
        self._term_names = tuple(state["term_names"])
