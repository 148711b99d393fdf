"""What a network that reads the privileged group is shown where worlds have other parameters than in its training.

The last values of the group are the parameters of the world, each brought to [-1, 1] over its limits. A policy knows
those of its training, with the limits that they had there. Elsewhere a parameter may have other limits or stand at
another place; where there is none, it is at its nominal value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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


def critic_of_worlds(
    state: Mapping[str, Any], known: Sequence[Parameter], present: Sequence[Parameter]
) -> dict[str, Any]:
    """The state of an on-policy critic that read worlds of the parameters `known`, for worlds of those `present`.

    Parameters that are also here, with the same limits, it reads as before; to others it is blind until it learns.
    """
    move = _Move(known, present)
    first = "trunk.memory.weight_ih_l0" if "trunk.memory.weight_ih_l0" in state else "trunk.head.0.weight"
    blank = {"normalizer.mean": 0.0, "normalizer.var": 1.0, first: 0.0}
    return {name: move(value, blank[name]) if name in blank else value for name, value in state.items()}


def critics_of_worlds(
    state: Mapping[str, Any], known: Sequence[Parameter], present: Sequence[Parameter], actions: int, goal: int
) -> dict[str, Any]:
    """The same for the state of an off-policy learner, whose critics read `actions` values after the worlds, and with
    pictures a goal of `goal` values before those."""
    move = _Move(known, present)
    name, after = ("privileged_normalizer", 0) if "privileged_normalizer" in state else ("states", goal)
    statistics = {"mean": 0.0, "var": 1.0}
    found = dict(state)
    found[name] = {
        part: move(value, statistics[part], after=after) if part in statistics else value
        for part, value in state[name].items()
    }
    for critic in ("critic", "target_critic"):
        found[critic] = {
            part: move(value, 0.0, dim=_FIRST_LAYER[part], after=after + actions) if part in _FIRST_LAYER else value
            for part, value in state[critic].items()
        }
    return found


_FIRST_LAYER = {"net.0.weight": 1, "net.weights.0": 1}
"""The dimension of inputs in the first layer of a `QNetwork`, alone [out, in] or several [members, in, out]."""


class _Move:
    """Rearranges values of the parameters `known` to those of the parameters `present`."""

    def __init__(self, known: Sequence[Parameter], present: Sequence[Parameter]) -> None:
        self._known = len(known)
        self._places = [next((i for i, p in enumerate(known) if _alike(p, each)), len(known)) for each in present]

    def __call__(self, values: Tensor, new: float, dim: int = -1, after: int = 0) -> Tensor:
        """Along a dimension, where they are followed by `after` others; `new` for what is not known."""
        values = values.movedim(dim, -1)
        end = values.shape[-1] - after
        begin = end - self._known
        shown = functional.pad(values[..., begin:end], (0, 1), value=new)[..., self._places]
        return torch.cat((values[..., :begin], shown, values[..., end:]), dim=-1).movedim(-1, dim)


def _alike(a: Parameter, b: Parameter) -> bool:
    return (a.quantity, set(a.targets), a.limits) == (b.quantity, set(b.targets), b.limits)


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
