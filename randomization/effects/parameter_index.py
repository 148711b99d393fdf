"""Which values of an action, an observation or a list of objects each parameter drives; random numbers of a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from envs.common.rng import EpisodeRandom
from envs.common.stateful import Stateful
from randomization.catalogue.quantity import QUANTITIES, Parameter

Index = slice | Tensor


class ParameterIndex:
    """The places that a quantity acts on, and the columns of lambda that drive them.

    Attributes:
        size: number of places.
        places: their indices, in ascending order.
        index: `places` for indexing a dimension: a slice where they are consecutive.
    """

    def __init__(
        self, quantity: str, parameters: list[Parameter], where: Mapping[str, Sequence[int]], device: torch.device
    ) -> None:
        pairs = sorted(
            (place, column)
            for column, parameter in enumerate(parameters)
            if parameter.quantity == quantity
            for name in (parameter.targets or ("",))
            for place in where[name]
        )
        self.places = [place for place, _ in pairs]
        self.size = len(pairs)
        self.index = index_of(self.places, device)
        self._nominal = QUANTITIES[quantity].nominal
        self._column = index_of([column for _, column in pairs], device)

    def of(self, lam: Tensor) -> Tensor:
        """Values [N, size] of the quantity in the worlds lam [N, d]."""
        return lam[:, self._column]

    def or_nominal(self, lam: Tensor) -> Tensor:
        """Values [N, 1] of a quantity of the whole task, or its nominal value where it is not a parameter."""
        return self.of(lam) if self.size else torch.full_like(lam[:, :1], self._nominal)


class ContiguousSlice(Stateful):
    """Numbers of a quantity in each environment for the slice from its first to its last place: computing on a slice is
    cheaper than on an index.

    Args:
        index: the places.
        num_envs: N.
        neutral: number of places in between, where nothing acts.
        device: of the numbers.

    Attributes:
        where: the slice.
        length: of the slice.
        values: [N, length].
    """

    _state = ("values",)

    def __init__(self, index: ParameterIndex, num_envs: int, neutral: float, device: torch.device) -> None:
        first, last = (index.places[0], index.places[-1] + 1) if index.size else (0, 0)
        self.index, self.where, self.length = index, slice(first, last), last - first
        self.values = torch.full((num_envs, self.length), neutral, dtype=torch.float64, device=device)
        self._inner = torch.tensor([place - first for place in index.places], dtype=torch.int64, device=device)

    def put(self, values: Tensor, mask: Tensor, rows: Tensor | None) -> None:
        """Write the numbers of the places [number of rows, places] of environments mask [N].

        Args:
            rows: `chosen_rows` of the mask.
        """
        if rows is not None:
            self.values[rows[:, None], self._inner] = values
        else:
            self.values[:, self._inner] = torch.where(mask[:, None], values, self.values[:, self._inner])


def chosen_rows(mask: Tensor) -> Tensor | None:
    """The rows [k] that a mask [N] names; None on a GPU, where counting them would wait for all work in progress."""
    return mask.nonzero()[:, 0] if mask.device.type == "cpu" else None


def index_of(numbers: list[int], device: torch.device) -> Index:
    """Indices of a dimension: a slice where they are consecutive, which is much cheaper."""
    if numbers and numbers == list(range(numbers[0], numbers[0] + len(numbers))):
        return slice(numbers[0], numbers[0] + len(numbers))
    return torch.tensor(numbers, dtype=torch.int64, device=device)


class StepRandomNumbers:
    """One draw of random numbers per control step, shared by all effects: small draws cost as much as large ones.

    Effects reserve numbers when they are made and find them, from `draw` on, in `uniform` and `normal`. The numbers of
    a step serve its observation and the action that follows.

    Args:
        rng: the environment's random numbers.
    """

    uniform: Tensor  # [N, reserved]
    normal: Tensor  # [N, reserved]

    def __init__(self, rng: EpisodeRandom) -> None:
        self._rng = rng
        self._uniforms = self._normals = 0
        self.uniform = self.normal = torch.zeros(rng.num_envs, 0, dtype=torch.float64, device=rng.device)
        self._ready = False

    def reserve_uniform(self, size: int) -> slice:
        """Columns of `uniform` that belong to the caller."""
        self._uniforms += size
        return slice(self._uniforms - size, self._uniforms)

    def reserve_normal(self, size: int) -> slice:
        """Columns of `normal` that belong to the caller."""
        self._normals += size
        return slice(self._normals - size, self._normals)

    def draw(self) -> None:
        """Draw the numbers of the present step: it has just begun."""
        if self._uniforms or self._normals:
            self.uniform, self.normal = self._rng.mixed("step", self._uniforms, self._normals)
        self._ready = True

    def ensure_drawn(self) -> None:
        """Draw the numbers of the present step unless its observation did; the action is the last that uses them."""
        if not self._ready:
            self.draw()
        self._ready = False

    def forget(self) -> None:
        """Draw anew: the state of the random numbers has been replaced."""
        self._ready = False
