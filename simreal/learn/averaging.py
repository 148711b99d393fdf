"""The policy that leaves a training: its weights averaged over the last updates.

Policies learnt off-policy change from update to update, and the last one may by chance be a bad one. An average of the
weights along the way is steadier (Nikishin et al. 2018, "Improving stability in deep reinforcement learning with weight
averaging"; Polyak and Juditsky 1992). Learning does not see it: actions and targets come from the weights themselves.
"""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

from torch import nn

from simreal.learn.networks import polyak_

Network = TypeVar("Network", bound=nn.Module)


class WeightAverage(Generic[Network]):
    """A copy of a network whose weights follow those of the original; both share one normalizer.

    Args:
        original: with a submodule `normalizer`.
        updates: n > 0; a weight of k updates ago counts (1 - 1/n)^k, and the first n updates count alike.

    Attributes:
        network: the copy.
    """

    def __init__(self, original: Network, updates: int) -> None:
        self.network = copy.deepcopy(original)
        self.network.normalizer = original.normalizer
        self._updates = updates
        self._mean = [p.data for p in self.network.parameters()]
        self._online = [p.data for p in original.parameters()]

    def add(self, before: int) -> None:
        """Take in the weights after an update; `before`: how many were made before it."""
        polyak_(self._mean, self._online, 1.0 / min(before + 1, self._updates))
