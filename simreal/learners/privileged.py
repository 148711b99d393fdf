"""What a policy that reads the privileged group is shown where worlds have other parameters than in its training.

The last values of the group are the parameters of the world, each brought to [-1, 1] over its limits. A policy knows
those of its training, with the limits that they had there. Elsewhere a parameter may have other limits or stand at
another place; where there is none, it is at its nominal value.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

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
        same = tuple(known) == tuple(present)
        self._columns = None if same else [_column(parameter, present) for parameter in known]

    def __call__(self, observed: Observed) -> Tensor:
        """What the policy reads [N, nobs + nprivileged]: the policy group, the task's privileged group, the world."""
        policy, privileged = observed.policy, observed.privileged
        if privileged is None:
            privileged = policy[:, :0]
        if self._columns is None:
            return torch.cat((policy, privileged.to(policy.dtype)), dim=1)
        cut = privileged.shape[1] - self._present
        shown = privileged[:, cut:].double()
        world = [shift + (0.0 if index is None else shown[:, index]) * factor for index, factor, shift in self._columns]
        columns = [torch.as_tensor(c, device=policy.device).expand(len(policy)).to(policy.dtype) for c in world]
        return torch.cat((policy, privileged[:, :cut].to(policy.dtype), *(c[:, None] for c in columns)), dim=1)


def _column(known: Parameter, present: Sequence[Parameter]) -> tuple[int | None, float, float]:
    """Index, factor and shift that make the value of a known parameter of the values [N, d] that are shown."""
    middle, half = _scale(known)
    for index, parameter in enumerate(present):
        alike = parameter.quantity == known.quantity and set(parameter.targets) >= set(known.targets)
        if alike and bool(parameter.targets) == bool(known.targets):
            other_middle, other_half = _scale(parameter)
            return index, other_half / half, (other_middle - middle) / half
    return None, 0.0, (known.nominal - middle) / half


def _scale(parameter: Parameter) -> tuple[float, float]:
    """Middle of the limits and half their width, as `DomainRandomizer.reveal` has them."""
    low, high = parameter.limits
    return (low + high) / 2.0, max((high - low) / 2.0, 1e-12)
