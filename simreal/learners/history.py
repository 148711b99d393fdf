"""What a policy remembers of its episode: its last measured observations and its own last actions.

With a delay of several control steps what happens next depends on commands that are still on their way. A policy that
sees its last actions knows them; without them the same observation leads to different futures, and hindsight
relabelling in particular credits actions with what earlier ones did. What one observation does not show (velocities, a
payload, friction, how late sensors are) shows in how the last ones followed from the last actions.

Networks see the normalized present observation, then the k observations before it, oldest first, then the actions
before it, oldest first. Observations are stacked as they were measured, late or stale as they may have been, and
normalized as the present one is. The desired goal of a task with goals is in the present one only. At the start of an
episode the robot is taken to have stood still before: the observations that there were not are the episode's first one,
and the actions are zeros.

All of it is a vector [S] that follows from step to step, `HistoryLayout`: in training for N environments (`History`)
and in a replay's batches with observations in their units, in an exported policy (`HistoryPolicy`) normalized.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from simreal.common.layers import History as HistoryLayer
from simreal.common.layers import Layer, layers_of
from simreal.learners.normalizer import Normalizer
from simreal.learners.options import HistoryOptions


@dataclass(frozen=True)
class HistoryLayout:
    """Sizes of what is remembered, and where it lies in a state [B, S].

    k observations of `kept` values, oldest first; then the last actions, oldest first; then, if k > 0, 1 where the
    episode has begun. Zeros at its start. Batches leave that last value out: all of their k observations are there.

    Attributes:
        observations: k, earlier observations that are remembered.
        actions: last actions that are remembered.
        kept: values of an observation that are, the first ones: all but the desired goal.
        action_size: A.
    """

    observations: int
    actions: int
    kept: int
    action_size: int

    @classmethod
    def of(cls, options: HistoryOptions, observation_size: int, goal_size: int, action_size: int) -> HistoryLayout:
        """As settings say. Earlier observations come with the actions that followed each of them."""
        k = options.observation_history
        return cls(k, max(options.action_history, k), observation_size - goal_size, action_size)

    @property
    def steps(self) -> int:
        """Control steps that are looked back."""
        return max(self.observations, self.actions)

    @property
    def inputs(self) -> int:
        """Values that networks see beside the present observation."""
        return self.observations * self.kept + self.actions * self.action_size

    @property
    def size(self) -> int:
        """S."""
        return self.inputs + (1 if self.observations else 0)

    def split(self, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Observations [B, k * kept], actions [B, actions * A] and whether the episode has begun [B, 1] (k = 0: none)
        of a state [B, S]."""
        at = self.observations * self.kept
        return state[:, :at], state[:, at : self.inputs], state[:, self.inputs :]

    def before(self, state: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Observations [B, k * kept] and actions [B, actions * A] before the present observation [B, >= kept]."""
        observations, actions, begun = self.split(state)
        if begun.shape[1]:
            present = torch.cat([present[:, : self.kept].to(state.dtype)] * self.observations, dim=1)
            observations = torch.where(begun > 0.5, observations, present)
        return observations, actions

    def after(self, state: Tensor, present: Tensor, action: Tensor) -> Tensor:
        """The state [B, S] after `action` [B, A] was taken at the present observation [B, >= kept]."""
        observations, actions = self.before(state, present)
        parts = [actions[:, self.action_size :], action.to(state.dtype)] if self.actions else []
        if self.observations:
            begun = (self.split(state)[2] + 1.0).clamp(max=1.0)
            parts = [observations[:, self.kept :], present[:, : self.kept].to(state.dtype), *parts, begun]
        return torch.cat(parts, dim=1) if parts else state

    def features(self, observation: Tensor, state: Tensor, normalizer: Normalizer) -> Tensor:
        """What networks see [B, nobs + inputs] float32 of observations [B, nobs] and states [B, S], in their units."""
        if not self.size:
            return normalizer(observation)
        observations, actions = self.before(state, observation)
        parts = [normalizer(observation)]
        if self.observations:
            parts.append(normalizer(observations.unflatten(1, (-1, self.kept))).flatten(1))
        return torch.cat([*parts, actions.float()], dim=1)

    def gathered(self, observation: Tensor, action: Tensor, age: Tensor, place: tuple[Tensor, Tensor]) -> Tensor:
        """What networks see beside the present observation [B, inputs], from rows in which every step stands once.

        Args:
            observation: [R, N, >= kept], as networks see it. Row 0 follows row R - 1.
            action: [R', N, A] that was taken at these observations, likewise.
            age: [B] steps of the episode before the present observation; what is looked back on must be in the rows.
            place: rows [B] and environments [B] of the present observations.
        """
        row, column, seen = place[0][:, None], place[1][:, None], age[:, None]
        back = torch.arange(self.steps, 0, -1, device=row.device)  # oldest first
        ago = back[self.steps - self.observations :]
        observations = observation[(row - torch.minimum(ago, seen)) % len(observation), column][..., : self.kept]
        ago = back[self.steps - self.actions :]
        actions = action[(row - ago) % len(action), column] * (ago <= seen).unsqueeze(2)
        return torch.cat((observations.flatten(1), actions.flatten(1)), dim=1)


class History:
    """What the policy of N environments remembers at present.

    Args:
        layout: what that is.
        num_envs: N.
        device: where it lies.
        dtype: of the observations in it.

    Attributes:
        state: [N, S].
    """

    def __init__(
        self, layout: HistoryLayout, num_envs: int, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> None:
        self.layout = layout
        self.state = torch.zeros(num_envs, layout.size, dtype=dtype, device=device)

    def features(self, observation: Tensor, normalizer: Normalizer) -> Tensor:
        """What networks see [N, nobs + inputs] at present observations [N, nobs]."""
        return self.layout.features(observation, self.state, normalizer)

    def after(self, observation: Tensor, action: Tensor) -> Tensor:
        """The state [N, S] after `action` [N, A] at `observation` [N, nobs], where the episode goes on: the one that
        belongs to the final observation of an episode that ends."""
        return self.layout.after(self.state, observation.to(self.state.device), action)

    def advance(self, observation: Tensor, action: Tensor, done: Tensor) -> None:
        """Remember a step; forget everything where the episode ended with it (`done` [N])."""
        if self.layout.size:
            self.state = self.after(observation, action).masked_fill(done[:, None], 0.0)


class HistoryPolicy(nn.Module):
    """A policy whose recurrent state is what it remembers; exported like any recurrent policy.

    Args:
        network: with a `normalizer` of observations, and `of_features`, which makes actions [B, A] in [-1, 1] of what
            networks see.
        layout: what is remembered.
    """

    def __init__(self, network: Any, layout: HistoryLayout) -> None:
        super().__init__()
        self.network, self.layout = network, layout

    @property
    def normalizer(self) -> Normalizer:
        """Of the observation."""
        return self.network.normalizer

    def initial_state(self, batch: int) -> Tensor:
        """State [batch, S] at the start of an episode."""
        return torch.zeros(batch, self.layout.size)

    def forward(self, observation: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Observation [B, nobs] and state [B, S], whose observations are normalized -> action [B, A] and next state."""
        normalized = self.normalizer(observation)
        action = self.network.of_features(torch.cat((normalized, *self.layout.before(state, normalized)), dim=1))
        return action, self.layout.after(state, normalized, action)

    def undecided(self, tolerance: float, observation: Tensor, state: Tensor) -> Tensor:
        """[B] where rounding may decide between two actions; see `simreal.learners.on_policy.distribution`."""
        normalized = self.normalizer(observation)
        return self.network.undecided_at(tolerance, torch.cat((normalized, *self.layout.before(state, normalized)), 1))

    def layers(self) -> list[Layer]:
        """From an observation to an action, what is remembered in between."""
        layers, begin, its = layers_of(self.network), len(layers_of(self.normalizer)), self.layout
        memory = HistoryLayer(its.observations, its.kept, its.actions, its.action_size)
        return [*layers[:begin], memory, *layers[begin:]]
