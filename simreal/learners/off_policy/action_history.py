"""A memory of the last actions, which makes a delayed robot predictable again.

With a delay of several control steps what happens next depends on commands that are still on their way. A policy that
sees its last actions knows them; without them the same observation leads to different futures, and hindsight
relabelling in particular credits actions with what earlier ones did.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from simreal.common.layers import History, Layer, layers_of
from simreal.learners.normalizer import Normalizer


class ActionHistory:
    """The last `length` actions of N environments, newest last, zeros at the start of an episode."""

    def __init__(self, num_envs: int, length: int, action_size: int, device: torch.device) -> None:
        self.actions = torch.zeros(num_envs, length * action_size, device=device)
        self._step = action_size

    @property
    def size(self) -> int:
        """Values remembered per environment."""
        return self.actions.shape[1]

    def after(self, action: Tensor) -> Tensor:
        """The memory [N, size] after `action` [N, A]."""
        return torch.cat((self.actions[:, self._step :], action.float()), dim=1) if self.size else self.actions

    def advance(self, action: Tensor, done: Tensor) -> None:
        """Remember `action` [N, A]; forget everything where an episode ended (`done` [N])."""
        if self.size:
            self.actions = self.after(action).masked_fill(done[:, None], 0.0)


def stored(observation: Tensor, past: Tensor) -> Tensor:
    """Past actions and observation [N, size + nobs] for the replay, where the desired goal has to stay last."""
    return torch.cat((past, observation.float()), dim=1) if past.shape[1] else observation


def features(values: Tensor, past_size: int, normalizer: Normalizer) -> Tensor:
    """Stored values [B, size + nobs] as networks see them: normalized observation, then past actions."""
    if not past_size:
        return normalizer(values)
    return torch.cat((normalizer(values[:, past_size:]), values[:, :past_size]), dim=1)


class HistoryPolicy(nn.Module):
    """A policy whose recurrent state is its own last actions; exported like any recurrent policy.

    Args:
        network: the policy network.
        length: actions remembered.
        action_size: A.
    """

    def __init__(self, network: Any, length: int, action_size: int) -> None:
        super().__init__()
        self.network = network
        self._size, self._step = length * action_size, action_size

    @property
    def normalizer(self) -> Normalizer:
        """Of the observation."""
        return self.network.normalizer

    def initial_state(self, batch: int) -> Tensor:
        """State [batch, length * A] at the start of an episode."""
        return torch.zeros(batch, self._size)

    def forward(self, observation: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Observation [B, nobs] and state -> action [B, A] in [-1, 1] and next state."""
        action = self.network(observation, state)
        return action, torch.cat((state[:, self._step :], action), dim=1)

    def layers(self) -> list[Layer]:
        """From an observation to an action, the last actions in between."""
        layers, begin = layers_of(self.network), len(layers_of(self.normalizer))
        return [*layers[:begin], History(0, 0, self._size // self._step, self._step), *layers[begin:]]
