"""The registry of what can be randomized, and how a configuration names it.

A *quantity* is something that can differ between worlds (mass, latency, noise of a sensor). A *parameter* is a
quantity of chosen objects with a range: one entry of lambda, the vector that describes a world. Samplers see
parameters only as numbers; `physics`, `effects` and `visual` turn the numbers into worlds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

from envs.common.messages import listed, nearest, warn_once
from envs.task import Task
from randomization.catalogue.quantity import Distribution, Quantity
from randomization.catalogue.quantity import Parameter as Parameter  # its public place, and that of the error
from randomization.catalogue.quantity import RandomizationError as RandomizationError
from randomization.catalogue.table import QUANTITIES, find_quantity, quantity_names
from randomization.targets.effective import idle_because, only_shown
from randomization.targets.frictions import Factor, warn_of_clipped_contacts, warn_of_idle_ends
from randomization.targets.names import is_pattern, matching, object_places, patterns_of, quoting_hint
from randomization.targets.suitable import (
    expected,
    has_commands_for,
    makes_sense,
    switched_off,
    usable,
    why_unsuitable,
)

_ENTRY_KEYS = ("quantity", "of", "range", "step", "distribution", "group", "nominal")


def build_parameters(task: Task, entries: Mapping[str, Any]) -> list[Parameter]:
    """The parameters of a `randomization.parameters` block, checked against a task.

    Each entry is `label: {quantity, of, range, step, distribution}`: `quantity` is the label where that names a
    quantity; `of` a pattern, or several, of names (all where it is left out); `range` the fixed range, or what
    ADR may widen to; `step` ADR's Delta (a tenth of the range); `nominal` where ADR starts, if not at the model as it
    is.

    Raises:
        RandomizationError: naming the entry, what was expected and what is nearest.
    """
    parameters = [_build(task, label, entry) for label, entry in entries.items()]
    _refuse_overlaps(parameters)
    _refuse_idle(parameters)
    _refuse_wind_without_air(task, parameters)
    _warn_of_contacts(task, parameters)
    return parameters


def _build(task: Task, label: str, entry: Any) -> Parameter:
    if not isinstance(label, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # YAML reads `no:` as false
        raise RandomizationError(f"{label!r}: expected a label{quoting_hint(label)}")
    if not isinstance(entry, Mapping):
        raise RandomizationError(f"{label}: expected a mapping with a range, got {entry!r}")
    for key in entry:
        if key not in _ENTRY_KEYS:
            raise RandomizationError(f"{label}.{key}: unknown key{nearest(str(key), _ENTRY_KEYS)}")
    name, known = entry.get("quantity", label), quantity_names()
    if not isinstance(name, str) or name not in known:
        raise RandomizationError(
            f"{label}: unknown quantity {name!r}{nearest(str(name), known)}; there are: {listed(known)}"
        )
    quantity = find_quantity(name)
    if not has_commands_for(task, quantity):
        raise RandomizationError(
            f"{label}: {task.id} writes its controls itself, once per control step, so {name} cannot act on them; "
            f"there is {quantity.instead}"
        )
    if off := switched_off(task, quantity):
        raise RandomizationError(
            f"{label}: {task.id} has {off} switched off (a flag of its model), {name} would do nothing"
        )
    if quantity.target == "none" and (reason := idle_because(task, quantity, 0)):
        raise RandomizationError(f"{label}: {reason}")
    targets = _resolve(task, label, quantity, entry)
    low, high = _range(label, quantity, entry.get("range", quantity.default_range))
    step = _number(entry.get("step", (high - low) / 10.0 or 1.0))
    if step is None:
        raise RandomizationError(f"{label}.step: expected a number, got {entry['step']!r}")
    nominal = _number(entry.get("nominal", min(max(quantity.nominal, low), high)))
    if nominal is None or not low <= nominal <= high:
        raise RandomizationError(
            f"{label}.nominal: expected a number within the range [{low:g}, {high:g}], got {entry['nominal']!r}"
        )
    parameter = Parameter(label, nominal, (low, high), step, quantity.unit, quantity.mode, name, targets)
    distribution = entry.get("distribution", "uniform")
    if distribution not in get_args(Distribution):
        raise RandomizationError(
            f"{label}.distribution: expected {', '.join(map(repr, get_args(Distribution)))}, got {distribution!r}"
        )
    group = entry.get("group", "")
    if not isinstance(group, str):
        raise RandomizationError(f"{label}.group: expected a name, got {group!r}{quoting_hint(group)}")
    return replace(parameter, distribution=distribution, writes=quantity.writes, group=group)


_EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")  # a number to YAML 1.2, text to YAML 1.1


def _number(value: Any) -> float | None:
    """A finite number, or None."""
    if isinstance(value, str) and _EXPONENT.fullmatch(value):
        value = float(value)
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if number else None


def _range(label: str, quantity: Quantity, value: Any) -> tuple[float, float]:
    ends = [_number(end) for end in value] if isinstance(value, (list, tuple)) else []
    if len(ends) != 2 or ends[0] is None or ends[1] is None:
        raise RandomizationError(f"{label}.range: expected two numbers [lower, upper], got {value!r}")
    low, high = ends[0], ends[1]
    if low > high:
        raise RandomizationError(f"{label}.range: lower end {low:g} is above upper end {high:g}")
    if low < quantity.limits[0] or high > quantity.limits[1]:
        allowed = f"[{quantity.limits[0]:g}, {quantity.limits[1]:g}]"
        raise RandomizationError(f"{label}.range: [{low:g}, {high:g}] is not within {allowed}")
    return low, high


def _exists(task: Task, quantity: Quantity) -> bool:
    """Whether a task has anything that a quantity could belong to."""
    if not has_commands_for(task, quantity) or switched_off(task, quantity):
        return False
    return quantity.target == "none" or bool(object_places(task, quantity.target))


def _resolve(task: Task, label: str, quantity: Quantity, entry: Mapping[str, Any]) -> tuple[str, ...]:
    """Labels of the objects that an entry's `of` means."""
    places = object_places(task, quantity.target)
    names = list(places)
    if quantity.target == "none":
        if entry.get("of") is not None:
            raise RandomizationError(f"{label}.of: {quantity.name} belongs to the whole task and takes no names")
        return ()
    if not names:
        others = [q.name for q in QUANTITIES.values() if q.channel == quantity.channel and _exists(task, q)]
        raise RandomizationError(
            f"{label}: {task.id} has no {quantity.target} to randomize {quantity.name} of; "
            f"of the {quantity.channel} channel it has: {listed(others)}"
        )
    try:
        patterns = patterns_of(entry.get("of", "*"))
    except ValueError as error:
        raise RandomizationError(f"{label}.of: {error}") from None
    matched: list[str] = []
    for pattern in patterns:
        hits = matching(pattern, names)
        if not hits:
            raise RandomizationError(
                f"{label}.of: no {quantity.target} matches {pattern!r}{nearest(pattern, names)}; "
                f"{task.id} has: {listed(names)}"
            )
        if is_pattern(pattern, names):  # a pattern may match what a factor does nothing to; a name may not
            found = [hit for hit in hits if usable(task, quantity, places[hit])]
            if not found:
                raise RandomizationError(
                    _nothing_left(label, quantity, pattern, task, {hit: places[hit] for hit in hits})
                )
            hits = found
        matched += [hit for hit in hits if hit not in matched]
    for name in matched:
        if reason := idle_because(task, quantity, places[name]):
            raise RandomizationError(f"{label}.of: {name} {reason}")
        if reason := only_shown(task, quantity, places[name]):
            warn_once(f"{label}.of: {name} {reason}")
        if not makes_sense(task, quantity, places[name]):
            raise RandomizationError(
                f"{label}.of: {why_unsuitable(task, quantity, name, places[name])}; name others with 'of'"
            )
    return tuple(matched)


def _nothing_left(label: str, quantity: Quantity, pattern: str, task: Task, hits: dict[str, int]) -> str:
    """Why none of the objects that a pattern matches can be used."""
    suitable = any(makes_sense(task, quantity, hit) for hit in hits.values())
    if quantity.expected and not suitable:
        return f"{label}.of: no {quantity.target} that matches {pattern!r} is a {expected(quantity)}"
    for name, hit in hits.items():
        if reason := idle_because(task, quantity, hit) or only_shown(task, quantity, hit):
            return f"{label}.of: no {quantity.target} that matches {pattern!r} would do: {name} {reason}"
    if not suitable:
        return f"{label}.of: no {quantity.target} that matches {pattern!r} is a {expected(quantity)}"
    field, kind = quantity.writes[0], quantity.target
    return f"{label}.of: {field} of every {kind} that matches {pattern!r} is zero, so a factor would do nothing"


def _refuse_idle(parameters: list[Parameter]) -> None:
    """A quantity that only shapes another one does nothing alone."""
    for parameter in parameters:
        needs = QUANTITIES[parameter.quantity].needs
        found = [p for p in parameters if p.quantity == needs]
        alone = sorted(set(parameter.targets) - {target for p in found for target in p.targets})
        if needs and (alone or not found):
            whose = f" of {listed(alone, 3)}" if alone else ""
            raise RandomizationError(f"{parameter.name}: does nothing without {needs}{whose}: add that")


def _warn_of_contacts(task: Task, parameters: list[Parameter]) -> None:
    """Warn of factors of contacts that the other geoms, or the physics step, leave without their effect."""
    places = object_places(task, "geom")
    factors = [
        Factor(p.name, part, {name: places[name] for name in p.targets}, p.limits)
        for p in parameters
        if (part := QUANTITIES[p.quantity].contact) is not None and part.compared
    ]
    if factors:
        warn_of_idle_ends(task.model, factors)
        warn_of_clipped_contacts(task.model, factors)


def has_air(task: Task) -> bool:
    """Whether a task's model has a medium for wind to blow in."""
    return bool(task.model.opt.density or task.model.opt.viscosity)


def _refuse_wind_without_air(task: Task, parameters: list[Parameter]) -> None:
    """Wind acts through density and viscosity only."""
    air = has_air(task) or any({"opt.density", "opt.viscosity"} & {*p.writes} for p in parameters)
    for parameter in parameters:
        if "opt.wind" in parameter.writes and not air:
            raise RandomizationError(f"{parameter.name}: {task.id} has no air: add air_density or air_viscosity")


def _refuse_overlaps(parameters: list[Parameter]) -> None:
    """Factors multiply, but two absolute values of one thing contradict each other."""
    owners: dict[tuple[str, str], str] = {}
    for parameter in parameters:
        if parameter.mode != "absolute":
            continue
        for target in parameter.targets or ("",):
            key = (parameter.quantity, target)
            if key in owners:
                what = f"{parameter.quantity} of {target}" if target else parameter.quantity
                raise RandomizationError(f"{parameter.name}: {what} is set by {owners[key]!r} already")
            owners[key] = parameter.name
