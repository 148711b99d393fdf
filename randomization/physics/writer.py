"""Writes physical quantities into per-environment model fields.

Every write starts from the nominal value and touches only the named entries, so that a thousand resets do not
drift and other entries keep their values. Parameters that share a field are written together:

    field[e] = nominal[e] * product of lambda ** power + sum of lambda + sum of lambda * n,   n ~ N(0, 1) per episode

over the factors, shifts and spreads (see `Quantity`) that name e. Where several objects own e (actuators the
limit of their joint) the product is the mean of theirs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import mujoco
import torch
from torch import Tensor

from envs.common.messages import listed
from envs.common.names import labels_of
from envs.common.rng import EpisodeRandom
from envs.engines.base import Engine
from envs.engines.histories import shortened_delay
from envs.task import Task
from randomization.catalogue.table import QUANTITIES
from randomization.parameters import Parameter, RandomizationError
from randomization.targets.names import object_places


@dataclass
class _Element:
    """A value of a model field, and which parameters act on it."""

    nominal: float
    factors: list[tuple[int, float]] = field(default_factory=list)  # (column of lambda, power)
    shared: dict[str, list[int]] = field(default_factory=dict)  # by owner: columns
    sharers: int = 1  # how many owners there are, named or not
    shifts: list[int] = field(default_factory=list)  # columns
    spreads: list[tuple[int, int]] = field(default_factory=list)  # (column, normal number)
    low: float = -math.inf
    high: float = math.inf


_Elements = dict[str, dict[int, _Element]]  # by field and flat index, in ascending order


@dataclass(frozen=True)
class _Field:
    """Where the values of one field go."""

    live: Tensor  # [N, size] view of the engine's field
    elements: Tensor  # [m] flat indices written


@dataclass(frozen=True)
class _Formula:
    """The formula above for the elements of all fields at once, [M]: many small operations cost more than large ones.

    Columns of lambda are its length where nothing acts.
    """

    nominal: Tensor  # [M]
    factors: Tensor  # [layers, M] columns of lambda
    powers: Tensor  # [layers, P], of the elements `powered`; of others they are all 1
    powered: Tensor  # [P]
    owners: Tensor  # [layers, owners, Q] columns of lambda, of the elements `shared`
    owned: Tensor  # [owners, Q], 1 or, where an element has fewer owners, 0
    shared: Tensor  # [Q]
    shifts: Tensor  # [layers, M] columns of lambda
    spreads: Tensor  # [layers, S] columns of lambda, of the elements `spread`
    normals: Tensor  # [layers, S] columns of the episode's normal numbers
    spread: Tensor  # [S]
    low: Tensor  # [S]
    high: Tensor  # [S]

    def values(self, lam: Tensor, normal: Tensor | None) -> Tensor:
        """What worlds lam [k, d] and normals [k, ...] make of the nominal values, [k, M]."""
        scale = torch.cat((lam, torch.ones_like(lam[:, :1])), dim=1)
        add = torch.cat((lam, torch.zeros_like(lam[:, :1])), dim=1)
        factors = scale[:, self.factors]
        if len(self.powered):
            factors[:, :, self.powered] = factors[:, :, self.powered] ** self.powers
        factor = factors.prod(dim=1)
        if len(self.shared):
            factor[:, self.shared] *= (scale[:, self.owners].prod(dim=1) * self.owned).sum(dim=1) / self.owned.sum(
                dim=0
            )
        values = (self.nominal * factor).add_(add[:, self.shifts].sum(dim=1))
        if normal is not None:
            spread = (add[:, self.spreads] * normal[:, self.normals]).sum(dim=1).add_(values[:, self.spread])
            values[:, self.spread] = torch.minimum(torch.maximum(spread, self.low), self.high)
        return values


class PhysicsWriter:
    """Writes the physics parameters of lambda.

    Args:
        task, engine: attached to each other.
        parameters: all of lambda, in order; those of other channels are ignored.
        rng: draws what `spread` parameters add; needed where there are such.

    Raises:
        RandomizationError: for a factor on entries that are zero, which would silently do nothing, and for ranges
            that lead to values which make no sense.
    """

    def __init__(
        self, task: Task, engine: Engine, parameters: Sequence[Parameter], rng: EpisodeRandom | None = None
    ) -> None:
        for body in simple_bodies(task, parameters):
            name = labels_of(task.model, "body")[body]
            raise RandomizationError(
                f"the centre of mass of {name} cannot move: the model is compiled with a diagonal inertia for it; "
                "call task.compile_full first"
            )
        self._shortest = float(task.model.opt.timestep) * shortest_timestep(parameters)
        if short := shortened_delay(task.model, self._shortest):
            names = ", ".join(p.name for p in parameters if QUANTITIES[p.quantity].changes_timestep) or "timestep"
            raise RandomizationError(f"{names}: {short}")
        elements, self._normals = _elements(task, engine, parameters)
        _refuse_impossible(elements, parameters)
        self._rng = rng
        if self._normals and rng is None:
            raise ValueError("spread parameters need random numbers")
        # mj_setConst derives constants from these fields; they go stale without it.
        self.needs_set_const = any(name in mujoco.MjModel._setconst_inputs for name in elements)
        self._fields = [
            _Field(engine.field(name).view(engine.num_envs, -1), torch.tensor(list(touched), device=engine.device))
            for name, touched in elements.items()
        ]
        self._sizes = [len(field.elements) for field in self._fields]
        if elements:
            every = [element for touched in elements.values() for element in touched.values()]
            self._formula = _formula(every, len(parameters), engine.device)
        nominal_s = float(task.model.opt.timestep)
        varied = "opt.timestep" in elements
        self._timestep = (
            engine.field("opt.timestep").view(-1)
            if varied
            else torch.full((engine.num_envs,), nominal_s, dtype=torch.float64, device=engine.device)
        )

    @property
    def timestep_s(self) -> Tensor:
        """Duration of a physics step in each environment, s [N] (live where it differs between them)."""
        return self._timestep

    @property
    def shortest_timestep_s(self) -> float:
        """The shortest physics step that any world may have, s."""
        return self._shortest

    def change(self, mask: Tensor, before: Tensor, lam: Tensor) -> None:
        """Turn the worlds `before` [N, d] of the environments in mask [N] into lam [N, d] within an episode.

        A value that something else has written since the episode began is moved by as much as it would have been.
        """
        if not self._fields:
            return
        normal = self._rng.episode_normal("physics", self._normals) if self._normals and self._rng is not None else None
        old, new = (self._formula.values(world, normal).split(self._sizes, dim=1) for world in (before, lam))
        for target, was, becomes in zip(self._fields, old, new, strict=True):
            present = target.live[:, target.elements]
            was, becomes = was.to(present.dtype), becomes.to(present.dtype)
            moved = torch.where(present == was, becomes, present + (becomes - was))
            target.live[:, target.elements] = torch.where(mask[:, None] & (becomes != was), moved, present)

    def write(self, mask: Tensor, lam: Tensor) -> None:
        """Write the worlds lam [N, d] of the environments in mask [N]."""
        if not self._fields:
            return
        chosen = None
        if mask.device.type == "cpu":  # where choosing rows costs no synchronisation: often few episodes begin at once
            chosen = mask.nonzero()[:, 0]
            lam = lam[chosen]
        normal = None
        if self._normals and self._rng is not None:
            normal = self._rng.episode_normal("physics", self._normals, chosen)
        values = self._formula.values(lam, normal)
        for target, part in zip(self._fields, values.split(self._sizes, dim=1), strict=True):
            part = part.to(target.live.dtype)
            if chosen is not None:
                target.live[chosen[:, None], target.elements] = part
            else:
                present = target.live[:, target.elements]
                target.live[:, target.elements] = torch.where(mask[:, None], part, present)


def shortest_timestep(parameters: Sequence[Parameter]) -> float:
    """The shortest timestep that any world may have, as a factor on the model's."""
    return math.prod(p.limits[0] for p in parameters if QUANTITIES[p.quantity].changes_timestep)


def simple_bodies(task: Task, parameters: Sequence[Parameter]) -> list[int]:
    """Bodies whose centre of mass is to move and which MuJoCo compiled as if it never could."""
    places = object_places(task, "body")
    bodies = [places[name] for p in parameters if QUANTITIES[p.quantity].shifts_com for name in p.targets]
    return sorted({i for i in bodies if task.model.body_simple[i]})


def _elements(task: Task, engine: Engine, parameters: Sequence[Parameter]) -> tuple[_Elements, int]:
    """The values that parameters write, and how many normal numbers an episode needs."""
    found: _Elements = {}
    normals, changed = 0, set[tuple[str, int, int]]()
    for column, parameter in enumerate(parameters):
        quantity = QUANTITIES[parameter.quantity]
        if quantity.channel != "physics":
            continue
        places = object_places(task, quantity.target) or {"": 0}
        owned = {name: places[name] for name in parameter.targets or ("",)}
        if quantity.mode == "scale":
            _refuse_zeros(task, parameter, owned)
        edits = [(name, edit) for name, index in owned.items() for edit in quantity.edits(task.model, index)]
        for owner, edit in edits:
            nominal, of_field = engine.nominal(edit.field).flatten(), found.setdefault(edit.field, {})
            for index in edit.elements:
                if edit.once and (edit.field, index, column) in changed:
                    continue
                changed.add((edit.field, index, column))
                element = of_field.setdefault(index, _Element(float(nominal[index])))
                element.low, element.high = max(edit.low, element.low), min(edit.high, element.high)
                if quantity.mode == "scale" and edit.sharers > 1:
                    element.sharers = edit.sharers
                    element.shared.setdefault(owner, []).append(column)
                elif quantity.mode == "scale":
                    element.factors.append((column, edit.power))
                elif quantity.mode == "add":
                    element.shifts.append(column)
                else:
                    element.spreads.append((column, normals))
                    normals += 1
    return {name: dict(sorted(of_field.items())) for name, of_field in found.items()}, normals


def _refuse_zeros(task: Task, parameter: Parameter, owned: dict[str, int]) -> None:
    """Refuse a factor that would do nothing to an object."""
    quantity = QUANTITIES[parameter.quantity]
    zero = [name for name, index in owned.items() if quantity.multiplies_zero(task.model, index)]
    if zero:
        field = quantity.edits(task.model, owned[zero[0]])[0].field
        raise RandomizationError(
            f"{parameter.name}: {field} of {listed(zero, 3)} is zero, so a factor would do nothing; "
            "name others with 'of'"
        )


def _formula(elements: Sequence[_Element], neutral: int, device: torch.device) -> _Formula:
    """The tensors of all elements; `neutral` is the column of what does nothing."""
    powered = [i for i, e in enumerate(elements) if any(power != 1.0 for _, power in e.factors)]
    spread, shared = [e for e in elements if e.spreads], [e for e in elements if e.shared]

    def table(uses: Sequence[Sequence[float]], pad: float, layers: int = 1) -> Tensor:
        layers = max([layers] + [len(values) for values in uses])
        padded = [[(*values, *[pad] * layers)[layer] for values in uses] for layer in range(layers)]
        return torch.tensor(padded, device=device, dtype=torch.float64)

    def real(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, device=device, dtype=torch.float64)

    def index(values: Sequence[int]) -> Tensor:
        return torch.tensor(values, device=device, dtype=torch.int64)

    columns = table([[c for c, _ in e.factors] for e in elements], neutral).long()
    owners, owned = _owners(shared, neutral)
    return _Formula(
        nominal=real([e.nominal for e in elements]),
        factors=columns,
        powers=table([[power for _, power in elements[i].factors] for i in powered], 1.0, len(columns)),
        powered=index(powered),
        owners=owners.to(device),
        owned=owned.to(device),
        shared=index([i for i, e in enumerate(elements) if e.shared]),
        shifts=table([e.shifts for e in elements], neutral).long(),
        spreads=table([[c for c, _ in e.spreads] for e in spread], neutral).long(),
        normals=table([[number for _, number in e.spreads] for e in spread], 0).long(),
        spread=index([i for i, e in enumerate(elements) if e.spreads]),
        low=real([e.low for e in spread]),
        high=real([e.high for e in spread]),
    )


def _owners(shared: Sequence[_Element], neutral: int) -> tuple[Tensor, Tensor]:
    """Columns [layers, owners, Q] of what multiplies values that several objects own, and which owners there are."""
    most = max((element.sharers for element in shared), default=1)
    layers = max((len(columns) for element in shared for columns in element.shared.values()), default=1)
    owners = torch.full((layers, most, len(shared)), neutral, dtype=torch.int64)
    owned = torch.zeros((most, len(shared)), dtype=torch.float64)
    for place, element in enumerate(shared):
        owned[: element.sharers, place] = 1.0  # those that nothing names have a factor of 1
        for owner, columns in enumerate(element.shared.values()):
            owners[: len(columns), owner, place] = torch.tensor(columns)
    return owners, owned


def _refuse_impossible(elements: _Elements, parameters: Sequence[Parameter]) -> None:
    """Refuse ranges of factors and shifts that together lead outside of what a field may hold."""
    for name, element in ((name, element) for name, touched in elements.items() for element in touched.values()):
        low = high = value = element.nominal
        for column, power in element.factors:
            ends = [end**power for end in parameters[column].limits]
            products = [bound * end for bound in (low, high) for end in ends]
            low, high = min(products), max(products)
        for column in element.shifts:
            low, high = low + parameters[column].limits[0], high + parameters[column].limits[1]
        # a model may hold more than makes sense: MuJoCo takes an impedance of 1 for 0.9999
        if low < min(element.low, value) or high > max(element.high, value):
            columns = [c for c, _ in element.factors] + element.shifts
            raise RandomizationError(
                f"{', '.join(parameters[c].name for c in columns)}: with this range {name} would go from {low:g} to "
                f"{high:g} (nominal {value:g}), expected within [{element.low:g}, {element.high:g}]"
            )
