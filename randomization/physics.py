"""Writes physical quantities into per-environment model fields.

Every write starts from the nominal value and touches only the named entries, so that a thousand resets do not
drift and other entries keep their values. Parameters that share a field are written together:

    field[e] = nominal[e] * product of factors that name e + sum of offsets that name e
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from envs.engine import Engine
from envs.task import Task
from randomization.fields import field_elements
from randomization.parameters import Parameter, RandomizationError, listed, object_index
from randomization.quantities import QUANTITIES

# mj_setConst derives constants from these fields; they go stale without it.
_NEEDS_SET_CONST = frozenset({"body_mass", "body_inertia"})


@dataclass(frozen=True)
class _FieldWrite:
    """All parameters that write one field."""

    live: Tensor  # [N, size] view of the engine's field
    elements: Tensor  # [m] flat indices written
    nominal: Tensor  # [m]
    factors: Tensor  # [layers, m] columns of lambda, or its length for 1
    offsets: Tensor  # [layers, m] columns of lambda, or its length for 0


class PhysicsWriter:
    """Writes the physics parameters of lambda.

    Args:
        task, engine: attached to each other.
        parameters: all of lambda, in order; those of other channels are ignored.

    Raises:
        RandomizationError: for a factor on entries that are zero, which would silently do nothing.
    """

    def __init__(self, task: Task, engine: Engine, parameters: list[Parameter]) -> None:
        chosen = [(i, p) for i, p in enumerate(parameters) if QUANTITIES[p.quantity].channel == "physics"]
        fields = dict.fromkeys(f for _, p in chosen for f in QUANTITIES[p.quantity].writes)
        self.needs_set_const = any(name in _NEEDS_SET_CONST for name in fields)
        self._writes = [_plan(task, engine, name, chosen, len(parameters)) for name in fields]

    def write(self, mask: Tensor, lam: Tensor) -> None:
        """Write the worlds lam [N, d] of the environments in mask [N]."""
        if not self._writes:
            return
        ones, zeros = torch.ones_like(lam[:, :1]), torch.zeros_like(lam[:, :1])
        scale, add = torch.cat((lam, ones), dim=1), torch.cat((lam, zeros), dim=1)
        rows = mask[:, None]
        for write in self._writes:
            values = write.nominal * scale[:, write.factors].prod(dim=1) + add[:, write.offsets].sum(dim=1)
            present = write.live[:, write.elements]
            write.live[:, write.elements] = torch.where(rows, values.to(present.dtype), present)


def _plan(task: Task, engine: Engine, field: str, chosen: list[tuple[int, Parameter]], size: int) -> _FieldWrite:
    """Which parameters act on which elements of a field; `size` is the length of lambda."""
    nominal = engine.nominal(field).flatten()
    factors: dict[int, list[int]] = {}
    offsets: dict[int, list[int]] = {}
    for column, parameter in chosen:
        quantity = QUANTITIES[parameter.quantity]
        if field not in quantity.writes:
            continue
        owned = {
            name: field_elements(task, field, object_index(task, quantity.target, name)) for name in parameter.targets
        }
        if quantity.mode == "scale" and field == quantity.writes[0]:
            zero = [name for name, elements in owned.items() if not bool(nominal[elements].any())]
            if zero:
                raise RandomizationError(
                    f"{parameter.name}: {field} of {listed(zero, 3)} is zero, so a factor would do nothing; "
                    "name others with 'of'"
                )
        for element in (e for elements in owned.values() for e in elements):
            (factors if quantity.mode == "scale" else offsets).setdefault(element, []).append(column)
    touched = sorted(factors.keys() | offsets.keys())
    elements = torch.tensor(touched, device=engine.device)
    return _FieldWrite(
        live=engine.field(field).view(engine.num_envs, -1),
        elements=elements,
        nominal=nominal[touched].to(engine.device, engine.dtype),
        factors=_columns(factors, touched, size).to(engine.device),
        offsets=_columns(offsets, touched, size).to(engine.device),
    )


def _columns(uses: dict[int, list[int]], touched: list[int], neutral: int) -> Tensor:
    """[layers, m] columns of lambda acting on each touched element, padded with the neutral column."""
    layers = max([1] + [len(columns) for columns in uses.values()])
    table = torch.full((layers, len(touched)), neutral)
    for j, element in enumerate(touched):
        for layer, column in enumerate(uses.get(element, [])):
            table[layer, j] = column
    return table
