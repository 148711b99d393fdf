"""What the losses of PPO and TRPO ask of a policy: a distribution over actions in every state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor

from envs.common.ranks import Share


def drawn(
    draw: Callable[..., Tensor],
    shape: torch.Size,
    generator: torch.Generator,
    device: torch.device,
    share: Share | None,
) -> Tensor:
    """Random numbers [..., N, A] for the environments of a rank: all ranks draw those of the whole run."""
    if share is None or share.ranks.size == 1:
        return draw(shape, generator=generator, device=device)
    whole = (*shape[:-2], share.total, shape[-1])
    return share.mine(draw(whole, generator=generator, device=device), dim=-2)


class Distribution(ABC):
    """Over the actions of a policy. Subclasses are frozen records of their parameters, tensors [..., P].

    What is drawn, and stored, is u [..., A]; the action [..., A] in [-1, 1] follows from it.
    """

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """The same kind of distribution with a function of every parameter."""
        return type(self)(*(function(value) for value in vars(self).values()))

    def rowwise(self) -> Self:
        """This distribution, in a form whose gradient does not depend on the number of threads."""
        return self

    @abstractmethod
    def sample(self, generator: torch.Generator, share: Share | None = None) -> Tensor:
        """u [..., N, A]; with the numbers of these N of a run's environments."""

    @abstractmethod
    def action(self, u: Tensor) -> Tensor:
        """The action [..., A] in [-1, 1] for u [..., A]."""

    @abstractmethod
    def mode(self) -> Tensor:
        """The most likely action [..., A]."""

    def undecided(self, tolerance: float) -> Tensor:
        """[...] bool, where rounding may decide which action is the most likely: a small part of states.

        Args:
            tolerance: relative error of the parameters.
        """
        return torch.zeros(self.mode().shape[:-1], dtype=torch.bool)

    @abstractmethod
    def std(self) -> Tensor:
        """Standard deviations [..., A] of what is drawn, on the scale of actions."""

    @abstractmethod
    def log_prob(self, u: Tensor) -> Tensor:
        """log density or probability [...] of u [..., A]."""

    @abstractmethod
    def entropy(self, u: Tensor) -> Tensor:
        """Entropy [...] of the action in nats ([] where it is the same in all states); u [..., A] are samples."""

    @abstractmethod
    def kl(self, new: Any) -> Tensor:
        """KL(this || new) [...] in nats, for one of the same kind."""

    @abstractmethod
    def imitation_loss(self, action: Tensor) -> Tensor:
        """How far [...] it is from acting as another policy, whose actions are [..., A]: mean over actuators."""

    @abstractmethod
    def asymmetry(self, image: Any, index: Tensor, sign: Tensor) -> Tensor:
        """Squared distance [...] from the mirror image of the distributions in mirrored states.

        Args:
            image: the policy's distribution in the mirrored states.
            index, sign: [A] of the mirrored action: component i is `sign[i]` times component `index[i]`.
        """
