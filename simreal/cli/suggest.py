"""A `randomization:` block to start from: every quantity that a task has, with sensible ranges."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any

import mujoco

from envs.common.names import labels_of
from envs.task import Task
from randomization.catalogue.quantity import Quantity
from randomization.catalogue.table import QUANTITIES
from randomization.parameters import has_air
from simreal.cli.describe import available, nominal_text, sensible_range

_FREE = int(mujoco.mjtJoint.mjJNT_FREE)


def suggested_yaml(task: Task) -> str:
    """The block as YAML; it loads as it stands, and so does every entry in a comment."""
    lines = [
        f"# Worlds for {task.id}. Measure what you can, keep what you cannot, and see `simreal describe {task.id}`.",
        "randomization:",
        "  sampler: manual # or adr, doraemon: start at the calibrated world and widen up to these ranges",
        "  parameters:",
    ]
    channel = ""
    offered = available(task)
    for name, names in offered.items():
        quantity = QUANTITIES[name]
        if quantity.needs and quantity.needs not in offered:
            continue
        if quantity.channel != channel:
            channel = quantity.channel
            lines.append(f"    # {channel}")
        for label, chosen in by_unit(task, quantity, names).items():
            of = _of(task, quantity, chosen) if label == name else json.dumps(chosen)
            on = quantity.suggested and not (quantity.usual == "loose" and of == '"*"')
            lines.append(f"    {'' if on else '# '}{_entry(task, quantity, chosen, of, label)}")
    return "\n".join(lines) + "\n"


def suggested_block(task: Task, only: Collection[str] | None = None) -> dict[str, Any]:
    """The block with every entry on that is not about looks, or with those of `only` that the task has."""
    offered = available(task)
    parameters: dict[str, Any] = {}
    for name, names in offered.items():
        quantity = QUANTITIES[name]
        missing = bool(quantity.needs) and quantity.needs not in offered
        if missing or quantity.channel == "visual" or (only is not None and name not in only):
            continue
        for label, chosen in by_unit(task, quantity, names).items():
            of: dict[str, Any] = {"of": _patterns(task, quantity, names)} if names else {}
            of = of if label == name else {"quantity": name, "of": chosen}
            parameters[label] = of | {"range": list(sensible_range(task, quantity, chosen))}
    return {"sampler": "manual", "parameters": parameters}


def by_unit(task: Task, quantity: Quantity, names: list[str]) -> dict[str, list[str]]:
    """Labels of a quantity's entries and the names of each: one entry, or one for each unit that sensors measure in."""
    if quantity.unit != "unit":
        return {quantity.name: names}
    units = {c.name: c.unit for c in task.components("policy")}
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(units.get(name, "1"), []).append(name)
    if len(groups) < 2:
        return {quantity.name: names}
    return {f"{quantity.name}_{_WORDS.get(unit) or _word(unit)}": chosen for unit, chosen in groups.items()}


_WORDS = {"1": "plain", "rad": "angles", "m": "positions", "rad/s": "turning", "m/s": "speeds"}


def _word(unit: str) -> str:
    return re.sub(r"\W+", "_", unit).strip("_") or "other"


def _of(task: Task, quantity: Quantity, names: list[str]) -> str:
    """What `of` says, as YAML."""
    pattern = _patterns(task, quantity, names)
    return pattern if quantity.target == "axis" and isinstance(pattern, str) and pattern != "y" else json.dumps(pattern)


def _patterns(task: Task, quantity: Quantity, names: list[str]) -> str | list[str]:
    """What `of` says: everything, one axis, or the loose objects for their size."""
    if quantity.target == "axis":  # one at a time: one lambda for all of them would move along a diagonal
        return quantity.usual if quantity.usual in names else names[0]
    loose = _loose_bodies(task) if quantity.usual == "loose" else []
    return [name for name in names if name in loose] or "*"


def _entry(task: Task, quantity: Quantity, names: list[str], of: str, label: str) -> str:
    low, high = sensible_range(task, quantity, names)
    settings = [] if label == quantity.name else [f"quantity: {quantity.name}"]
    settings += [f"of: {of}"] if names else []
    settings.append(f"range: [{_number(low)}, {_number(high)}]")
    measured = {c.unit for c in task.components("policy") if c.name in names}
    inherited = f", {measured.pop()}" if len(measured) == 1 else ", in the component's unit"
    unit = {"1": "", "unit": inherited}.get(quantity.unit, f", {quantity.unit}")
    nominal = f"; nominal {nominal_text(task, quantity, names)}" if quantity.channel == "physics" else ""
    needs = quantity.needs or (
        "air_density or air_viscosity" if "opt.wind" in quantity.writes and not has_air(task) else ""
    )
    needs = f"; goes with {needs}" if needs else ""
    return f"{label}: {{{', '.join(settings)}}} # {quantity.mode}{unit}: {quantity.description}{nominal}{needs}"


def _number(value: float) -> str:
    """As YAML 1.1 reads it back: 2e-05 would be a string, 2.0e-05 is a number."""
    text = f"{value:g}"
    return text.replace("e", ".0e") if "e" in text and "." not in text else text


def _loose_bodies(task: Task) -> list[str]:
    """Bodies with a free joint and nothing attached: objects rather than robots."""
    model = task.model
    parents = set(model.body_parentid.tolist())
    return [
        label
        for i, label in enumerate(labels_of(model, "body"))
        if model.body_jntnum[i] and int(model.jnt_type[model.body_jntadr[i]]) == _FREE and i not in parents
    ]
