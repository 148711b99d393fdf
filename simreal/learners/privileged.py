"""What a policy that reads the privileged group is shown where worlds have other parameters than in its training.

The last values of the group are the parameters of the world, each brought to [-1, 1] over its limits. A policy knows
those of its training, with the limits that they had there. Elsewhere a parameter may have other limits or stand at
another place; where there is none, it is at its nominal value.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from envs.environment import Observed
from randomization.parameters import Parameter


class PrivilegedView:
    """Observations with the privileged group, as a policy knows them.

    Args:
        known: the parameters of the worlds of its training.
        present: those of the worlds that are shown now.
    """

    def __init__(self, known: Sequence[Parameter], present: Sequence[Parameter]) -> None:
        self._present = len(present)
        columns = [_column(parameter, present) for parameter in known]
        self._same = tuple(known) == tuple(present)
        self._index = torch.tensor([index for index, _, _ in columns], dtype=torch.int64)
        self._factor, self._shift = (torch.tensor([c[i] for c in columns], dtype=torch.float64) for i in (1, 2))

    def __call__(self, observed: Observed) -> Tensor:
        """What the policy reads [N, nobs + nprivileged]: the policy group, the task's privileged group, the world."""
        policy, privileged = observed.policy, observed.privileged
        if privileged is None:
            privileged = policy[:, :0]
        if self._same:
            return torch.cat((policy, privileged.to(policy.dtype)), dim=1)
        if self._index.device != policy.device:
            self._index, self._factor, self._shift = (
                value.to(policy.device) for value in (self._index, self._factor, self._shift)
            )
        cut = privileged.shape[1] - self._present
        shown = functional.pad(privileged[:, cut:].double(), (0, 1))  # the last one stands for what is not there
        world = shown[:, self._index] * self._factor + self._shift
        return torch.cat((policy, privileged[:, :cut].to(policy.dtype), world.to(policy.dtype)), dim=1)


def _column(known: Parameter, present: Sequence[Parameter]) -> tuple[int, float, float]:
    """Index, factor and shift that make the value of a known parameter of the values [N, d + 1] that are shown."""
    middle, half = _scale(known)
    for index, parameter in enumerate(present):
        alike = parameter.quantity == known.quantity and set(parameter.targets) >= set(known.targets)
        if alike and bool(parameter.targets) == bool(known.targets):
            other_middle, other_half = _scale(parameter)
            return index, other_half / half, (other_middle - middle) / half
    return len(present), 0.0, (known.nominal - middle) / half


def _scale(parameter: Parameter) -> tuple[float, float]:
    """Middle of the limits and half their width, as `DomainRandomizer.reveal` has them."""
    low, high = parameter.limits
    return (low + high) / 2.0, max((high - low) / 2.0, 1e-12)
