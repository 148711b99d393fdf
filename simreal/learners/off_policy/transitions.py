"""Transitions as a replay gives them to learners, of one control step or of several, and what it holds of a state."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from envs.environment import Observed
from simreal.learners.history import HistoryLayout
from simreal.learners.normalizer import Normalizer
from simreal.learners.off_policy.hindsight import Hindsight


@dataclass(frozen=True)
class ReplayBatch:
    """Transitions for an update. Observations include the goal that the transition is learnt for.

    A transition of several control steps leads from an observation and the action taken there to the observation at
    the end of those steps; they are fewer than asked for where the episode ends, or what is known of it.
    """

    observation: Tensor  # [B, nobs]
    action: Tensor  # [B, A] of the first step
    reward: Tensor  # [B] discounted sum over the steps
    next_observation: Tensor  # [B, nobs]
    terminated: Tensor  # [B] 0 or 1; a truncated episode goes on, so it counts as 0
    discount: Tensor | None = None  # [B] of what follows the last step: gamma to the number of steps; None: gamma
    state: Tensor | None = None  # [B, S] what a policy remembers at `observation`, as `HistoryLayout` has it, in units
    next_state: Tensor | None = None  # [B, S] and at `next_observation`
    place: Tensor | None = None  # [B] ascending: on many ranks, which transitions of the batch of all these are
    time: Tensor | None = None  # [B] control step since the beginning, where there are pictures
    env: Tensor | None = None  # [B] and environment
    privileged: Tensor | None = None  # [B, P] what critics read beside `observation`, normalized
    next_privileged: Tensor | None = None  # [B, P] and beside `next_observation`

    @property
    def known(self) -> Tensor:
        """What critics read [B, n] at `observation`."""
        return _beside(self.observation, self.privileged)

    @property
    def next_known(self) -> Tensor:
        """What critics read [B, n] at `next_observation`."""
        return _beside(self.next_observation, self.next_privileged)

    def rows(self, start: int, stop: int) -> ReplayBatch:
        """Transitions start to stop; on many ranks those of them that are this one's."""
        if self.place is not None:
            bounds = torch.tensor([start, stop], device=self.place.device)
            start, stop = torch.searchsorted(self.place, bounds).tolist()
        parts: dict[str, Any] = {k: None if v is None else v[start:stop] for k, v in vars(self).items()}
        return ReplayBatch(**parts)


def _beside(observation: Tensor, privileged: Tensor | None) -> Tensor:
    return observation if privileged is None else torch.cat((observation, privileged), dim=1)


@dataclass(frozen=True)
class Begun:
    """All that an update works on."""

    batch: ReplayBatch  # of all its gradient steps, one after the other, as networks see it
    noise: Tensor  # [NOISES, B, A]
    count: int  # of gradient steps
    told: dict[str, float]  # what to log beside losses
    generator: Tensor  # its state before this was drawn

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values."""
        return {**vars(self), "batch": {name: part for name, part in vars(self.batch).items() if part is not None}}

    @classmethod
    def of(cls, state: dict[str, Any], device: torch.device) -> Begun:
        """Of a `state_dict`."""
        batch = ReplayBatch(**{name: part.to(device) for name, part in state["batch"].items()})
        return cls(batch, state["noise"].to(device), state["count"], state["told"], state["generator"])


class Returns:
    """The discounted sum of rewards along transitions [B], step by step, until their episodes end."""

    def __init__(self, rows: Tensor, gamma: float) -> None:
        self.rows, self._gamma = rows, gamma  # of the last step that counts
        self.reward = rows[:, -2]
        self.discount = torch.full_like(self.reward, gamma)
        self.goes_on = torch.ones_like(self.reward, dtype=torch.bool)

    def add(self, rows: Tensor, exists: Tensor) -> None:
        """Take in the next step of each, where it `exists` [B]."""
        self.goes_on = self.goes_on & exists & (self.rows[:, -1] == 0)
        self.reward = self.reward + torch.where(self.goes_on, self.discount * rows[:, -2], 0.0)
        self.discount = torch.where(self.goes_on, self.discount * self._gamma, self.discount)
        self.rows = torch.where(self.goes_on[:, None], rows, self.rows)


def normalized(batch: ReplayBatch, normalizer: Normalizer, history: HistoryLayout | None = None) -> ReplayBatch:
    """The batch with observations as the networks see them, which includes what a policy remembers."""

    def seen(observation: Tensor, state: Tensor | None) -> Tensor:
        return (
            normalizer(observation)
            if history is None or state is None
            else history.features(observation, state, normalizer)
        )

    with torch.no_grad():
        return replace(
            batch,
            observation=seen(batch.observation, batch.state),
            next_observation=seen(batch.next_observation, batch.next_state),
            state=None, next_state=None,
        )  # fmt: skip


@dataclass(frozen=True)
class States:
    """What critics may read that no robot measures: where the parts of a state [B, own + privileged + goal] lie, which
    a replay holds in place of an observation.

    A state is the policy group with the privileged group (the task's, then the parameters of the world) before the
    desired goal: goals are the last values of what a replay holds. The policy is shown its own part; critics both
    (asymmetric actor critic: Pinto et al. 2017, arXiv 1710.06542). They read what the policy remembers too: a value by
    the state alone is not that of a policy that acts on what it has seen (Baisero and Amato 2022, arXiv 2105.11674).

    Attributes:
        own: values of the policy group before the goal.
        privileged: values of the privileged group; 0: a state is an observation.
        goal: values of the desired goal.
    """

    own: int
    privileged: int
    goal: int

    @property
    def size(self) -> int:
        """Values of a state."""
        return self.own + self.privileged + self.goal

    def of(self, observed: Observed) -> Tensor:
        """States [N, size]."""
        if not self.privileged:
            return observed.policy
        assert observed.privileged is not None
        own, goal = observed.policy[:, : self.own], observed.policy[:, self.own :]
        return torch.cat((own, observed.privileged.to(own), goal), dim=1)

    def split(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """The policy group [B, own + goal] and the privileged group [B, privileged] of states."""
        begin, end = self.own, self.own + self.privileged
        return torch.cat((states[:, :begin], states[:, end:]), dim=1), states[:, begin:end]

    def apart(self, batch: ReplayBatch, normalizer: Normalizer) -> ReplayBatch:
        """A batch of states as one of observations, with the privileged group, normalized, beside them."""
        if not self.privileged:
            return batch
        observation, known = self.split(batch.observation)
        next_observation, next_known = self.split(batch.next_observation)
        return replace(
            batch, observation=observation, privileged=normalizer(known),
            next_observation=next_observation, next_privileged=normalizer(next_known),
        )  # fmt: skip

    def widened(self, hindsight: Hindsight | None) -> Hindsight | None:
        """What follows from a goal in states, for what does in observations."""
        if hindsight is None or hindsight.derive is None or not self.privileged:
            return hindsight
        narrow, own = hindsight.derive, self.own

        def derive(states: Tensor) -> Tensor:
            found = narrow(self.split(states)[0])
            return torch.cat((found[:, :own], states[:, own:].to(found)), dim=1)

        return replace(hindsight, derive=derive)
