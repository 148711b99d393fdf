"""Fresh experience of N environments over a horizon of T steps, and the minibatches that are cut from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from envs.common.ranks import Share
from simreal.learners.on_policy.distribution import Distribution
from simreal.learners.on_policy.losses import shares, standardized


@dataclass(frozen=True)
class RolloutBatch:
    """Segments of L steps in B sequences. Without memory L is 1 and a sequence is one step.

    Old means: of the policy and critic that collected. Values are in the critic's normalized units. What is the same
    in all steps may be held once, with L = B = 1.
    """

    observation: Tensor  # [L, B, n] normalized, policy group first, then what only the critic reads
    action: Tensor  # [L, B, A] as it was drawn: before clipping or squashing
    old: Distribution  # over [L, B, A]
    old_log_prob: Tensor  # [L, B]
    old_value: Tensor  # [L, B]
    advantage: Tensor  # [L, B]
    target: Tensor  # [L, B] of the value
    weight: Tensor  # [L, B] 0 where the simulation diverged then or later in the episode, else 1
    start: Tensor  # [L, B] bool, the step begins an episode
    actor_state: Tensor  # [1, B, S] memory at the start of the segments
    critic_state: Tensor  # [1, B, S']
    place: Tensor  # [1, B] number of a step in the rollout, row by row, for a history; else [1, 1]

    def map(self, function: Callable[[Tensor], Tensor]) -> RolloutBatch:
        """With a function of every tensor."""
        values: list[Any] = [
            v.map(function) if isinstance(v, Distribution) else function(v) for v in vars(self).values()
        ]
        return RolloutBatch(*values)

    def tensors(self) -> list[Tensor]:
        """All tensors, always in the same order."""
        found: list[Tensor] = []
        self.map(lambda v: found.append(v) or v)
        return found

    def shuffled(self, order: Tensor) -> RolloutBatch:
        """The sequences in another order [B]."""
        return self.map(lambda v: v if v.shape[1] == 1 else v.index_select(1, order))

    def minibatches(self, count: int) -> Iterator[RolloutBatch]:
        """`count` parts of nearly equal size."""
        parts = [[v] * count if v.shape[1] == 1 else v.tensor_split(count, dim=1) for v in self.tensors()]
        for part in zip(*parts, strict=True):
            values = iter(part)
            yield self.map(lambda _, values=values: next(values))


@dataclass(frozen=True)
class Minibatch:
    """What one rank has of a minibatch; alone, all of it."""

    batch: RolloutBatch
    share: Tensor  # [L, B] weights in means over the minibatch of all ranks
    part: float  # of that minibatch's sequences

    @classmethod
    def alone(cls, batch: RolloutBatch, standardize: bool) -> Minibatch:
        """A whole minibatch; with `standardize` its advantages have mean 0 and standard deviation 1."""
        share = shares(batch.weight)
        if standardize:
            batch = replace(batch, advantage=standardized(batch.advantage, share))
        return cls(batch, share, 1.0)


@dataclass(frozen=True)
class WholeRollout:
    """A rollout of all ranks, of which each holds its environments, and all hold what is one number for each step.

    Minibatches are the same sets of steps on any number of ranks: all draw the same order of the whole run's sequences
    and compute those that are theirs.
    """

    batch: RolloutBatch  # of this rank
    advantage: Tensor  # [L, B] of all ranks
    weight: Tensor  # [L, B] of all ranks
    environments: Share

    def shares(self) -> Tensor:
        """Weights [L, B] of this rank's steps in means over the whole rollout."""
        return self.batch.weight / self.weight.sum().clamp(min=1.0)

    def minibatches(self, order: Tensor, count: int, standardize: bool) -> Iterator[Minibatch]:
        """`count` parts of nearly equal size, of the whole run's sequences in the order [B].

        Args:
            order: the same on all ranks.
            count: number of parts.
            standardize: bring the advantages of each part to mean 0 and standard deviation 1.
        """
        if self.environments.ranks.size == 1:
            for batch in self.batch.shuffled(order).minibatches(count):
                yield Minibatch.alone(batch, standardize)
            return
        for part in order.tensor_split(count):
            here, mine = self.environments.place(part)
            share = shares(self.weight[:, part])
            advantage = standardized(self.advantage[:, part], share) if standardize else self.advantage[:, part]
            if not len(mine):  # networks do not take a batch of none: one that counts for nothing
                here, mine, share = torch.zeros_like(part[:1]), torch.zeros_like(part[:1]), torch.zeros_like(share)
            batch = replace(self.batch.shuffled(mine), advantage=advantage[:, here])
            yield Minibatch(batch, share[:, here], int(here.bool().sum()) / len(part))


def sound(done: Tensor, diverged: Tensor) -> Tensor:
    """[T, N] False in the steps of an episode whose simulation diverged later on; both [T, N] bool."""
    horizon = len(done)
    steps = torch.arange(horizon, device=done.device)[:, None]
    ends = torch.where(done | diverged, steps, horizon)
    end = ends.flip(0).cummin(dim=0).values.flip(0)  # of the episode that a step belongs to
    return ~diverged.gather(0, end.clamp(max=horizon - 1)) | (end == horizon)


class RolloutBuffer:
    """Storage of T steps, row by row. An action fills the first half of a row, its result the second.

    Args:
        horizon: T.
        segment: L, steps that one sequence of a batch has; divides T.
        num_envs: N.
        observation_size: n, what actor and critic read.
        raw_size: values of the observation before normalization, kept for the statistics.
        action_size: A.
        parameters: shapes of the parameters of the distribution that an action is drawn from, by name.
        state_sizes: of the memories of actor and critic.
        device: where it lies.
        past: observations before the rollout that there is room for.
    """

    def __init__(
        self,
        horizon: int,
        segment: int,
        num_envs: int,
        observation_size: int,
        action_size: int,
        parameters: Mapping[str, tuple[int, ...]],
        state_sizes: tuple[int, int],
        device: torch.device,
        past: int = 0,
    ) -> None:
        def rows(*shape: int, count: int = horizon, dtype: torch.dtype | None = None) -> Tensor:
            return torch.zeros(count, num_envs, *shape, dtype=dtype, device=device)

        self.horizon, self.segment = horizon, segment
        self.time = 0  # rows that are complete
        self._rows = rows(observation_size, count=past + horizon + 1)
        self.observation = self._rows[past:]  # normalized; the last row follows the rollout
        # Far from zero, float32 would round away what varies; a GPU has no more to give.
        self.raw = rows(observation_size, dtype=torch.float64 if device.type == "cpu" else torch.float32)
        self.action = rows(action_size)
        self.distribution = {name: rows(*shape) for name, shape in parameters.items()}
        self.reward = rows()
        self.final_value = rows()  # of the state in which an episode was truncated, in units of reward
        self.terminated, self.truncated, self.diverged = (rows(dtype=torch.bool) for _ in range(3))
        self.actor_state = rows(state_sizes[0], count=horizon // segment)
        self.critic_state = rows(state_sizes[1], count=horizon // segment)

    @property
    def full(self) -> bool:
        """Whether all T steps are there."""
        return self.time == self.horizon

    @property
    def with_past(self) -> Tensor:
        """The normalized observations, those before the rollout included."""
        return self._rows

    def segments(self, rows: Tensor) -> Tensor:
        """Rows [T, N, ...] as sequences [L, T/L * N, ...]; row k of states [T/L, N, S] belongs to segment k."""
        cut = rows.unflatten(0, (-1, self.segment)).transpose(0, 1)
        return cut.flatten(1, 2)

    def joined(self, sequences: Tensor) -> Tensor:
        """The inverse of `segments`."""
        num_envs = self.reward.shape[1]
        return sequences.unflatten(1, (-1, num_envs)).transpose(0, 1).flatten(0, 1)

    def start(self) -> Tensor:
        """[T, N] True where a step begins an episode that began after the rollout did.

        Rows at which a segment starts need no mark: the stored state is that of the new episode.
        """
        done = self.terminated | self.truncated
        return torch.cat((torch.zeros_like(done[:1]), done[:-1]))

    def sound(self) -> Tensor:
        """[T, N] False in the steps of an episode whose simulation diverged in this rollout: what it showed before
        it was noticed is finite and means nothing."""
        return sound(self.terminated | self.truncated, self.diverged)

    def state_dict(self) -> dict[str, Any]:
        """What the next steps and the next update read; rows to come are not kept."""
        segments = -(-(self.time + 1) // self.segment)
        return {"time": self.time} | {
            name: value[: segments if name.endswith("_state") else self.time + 1]
            for name, value in self._kept().items()
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        kept = self._kept()
        for name, value in state.items():
            if name != "time":
                kept[name][: len(value)] = value
        self.time = state["time"]

    def _kept(self) -> dict[str, Tensor]:
        public = {name: value for name, value in vars(self).items() if isinstance(value, Tensor) and name[0] != "_"}
        return public | self.distribution
