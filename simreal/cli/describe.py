"""Tables of what a task observes, does and lets vary."""

from __future__ import annotations

import textwrap
from collections.abc import Collection
from dataclasses import asdict
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from envs.common.messages import nearest
from envs.task import ActionComponent, Task
from envs.validation.drives import sent_unit
from randomization.catalogue.quantity import Quantity
from randomization.catalogue.table import QUANTITIES, every_quantity
from randomization.targets.effective import idle_because
from randomization.targets.names import object_places
from randomization.targets.suitable import has_commands_for, switched_off, usable_names
from simreal.common.errors import UserError


def describe(task: Task, console: Console, groups: Collection[str] = ()) -> None:
    """Print the observation, action and randomization tables of a task; with `groups`, only these groups of quantities.

    Raises:
        UserError: there is no such group.
    """
    known = check_groups(task, groups)
    if groups:
        _print(_randomization(task, groups), console)
        return
    rate = 1.0 / task.control_period_s
    console.print(
        f"[bold]{task.id}[/bold]  control every {task.control_period_s:g} s ({rate:g} Hz, {task.decimation} physics "
        f"steps of {task.model.opt.timestep:g} s), episodes of {task.max_episode_steps} steps",
        highlight=False,
    )
    tables = [_observations(task), _actions(task)]
    tables += [_values(component) for component in task.action if not _uniform(component)]
    for table in (*tables, _randomization(task, known)):
        _print(table, console)
    console.print(
        "Scale: a factor of the nominal value. Add: added to it. Spread: standard deviation of what is added to each "
        "value in every episode. Absolute: the value itself. "
        "docs/randomize.md says how to use them.",
        highlight=False,
    )


def _print(table: Table, console: Console) -> None:
    """A table, or where its words would be broken, its rows as text: what the first columns say, then the others by
    name."""
    cells = [[str(cell) for cell in column.cells] for column in table.columns]
    headers = [str(column.header) for column in table.columns]
    words = [max(cell_len(word) for cell in (header, *column) for word in cell.split() or [""])
             for header, column in zip(headers, cells, strict=True)]  # fmt: skip
    if sum(width + 3 for width in words) + 1 <= console.width:
        for column, width in zip(table.columns, words, strict=True):
            column.min_width = width
        console.print(table)
        return
    console.print(f"\n{table.title}", style="bold", markup=False)
    for row in zip(*cells, strict=True):
        first = 2 if headers[0] == "index" else 1  # what a row is called
        told = "; ".join(f"{h} {cell}" for h, cell in list(zip(headers, row, strict=True))[first:] if cell)
        if not told:
            console.print(row[0])  # a heading
            continue
        text = textwrap.fill(
            f"{' '.join(row[:first])}: {told}", console.width, subsequent_indent="    ", break_long_words=False,
            break_on_hyphens=False,
        )  # fmt: skip
        console.print(text, markup=False, soft_wrap=True)
    if table.caption:
        console.print(str(table.caption), markup=False)


def check_groups(task: Task, groups: Collection[str]) -> list[str]:
    """The groups of quantities that a task has. Raises UserError for one that is none of them."""
    known = list(dict.fromkeys(QUANTITIES[name].channel for name in available(task)))
    for group in groups:
        if group not in known:
            raise UserError(f"--group: no group {group!r}{nearest(group, known)}; {task.id} has: {', '.join(known)}")
    return known


def description(task: Task, groups: Collection[str] = ()) -> dict[str, Any]:
    """What `describe` shows, as plain data: see docs/randomize.md. Raises UserError as `describe` does."""
    wanted = groups or check_groups(task, groups)
    check_groups(task, groups)
    quantities = {name: names for name, names in available(task).items() if QUANTITIES[name].channel in wanted}
    return {
        "task": task.id,
        "timestep_s": float(task.model.opt.timestep),
        "control_period_s": float(task.control_period_s),
        "max_episode_steps": task.max_episode_steps,
        "observation": [asdict(component) for component in task.observation],
        "action": [asdict(component) for component in task.action],
        "randomization": [_quantity(task, name, names) for name, names in quantities.items()],
    }


def _quantity(task: Task, name: str, names: list[str]) -> dict[str, Any]:
    quantity = QUANTITIES[name]
    return {
        "name": name, "group": quantity.channel, "mode": quantity.mode, "unit": quantity.unit,
        "nominal": nominal_text(task, quantity, names), "default_range": list(sensible_range(task, quantity, names)),
        "of": names, "meaning": quantity.description,
    }  # fmt: skip


def _observations(task: Task) -> Table:
    table = _table("Observation", "index", "component", "unit", "frame", "values", "of", "meaning")
    for group in ("policy", "privileged"):
        slices = task.slices(group)
        for c in task.components(group):
            where = slices[c.name]
            index = f"{where.start}" if c.size == 1 else f"{where.start}-{where.stop - 1}"
            index = index if group == "policy" else f"({index})"
            meaning = c.description + (f" (from {', '.join(c.derived_from)})" if c.derived_from else "")
            of = ", ".join(c.joints or c.bodies)
            table.add_row(index, c.name, c.unit, c.frame, ", ".join(c.elements), of, meaning)
    return table


def _actions(task: Task) -> Table:
    table = _table("Action, in [-1, 1]", "index", "component", "unit", "frame", "values", "target", "meaning")
    start = 0
    for c in task.action:
        index = f"{start}" if c.size == 1 else f"{start}-{start + c.size - 1}"
        target = _affine(c.scale[0], c.offset[0]) if _uniform(c) else "see below"
        meaning = "; ".join(filter(None, (c.description, c.afterwards)))
        table.add_row(index, c.name, c.unit, c.frame, ", ".join(c.elements), target, meaning)
        start += c.size
    return table


def _uniform(c: ActionComponent) -> bool:
    """Whether one line says how all values of a component become targets."""
    return len(set(c.scale)) == 1 and len(set(c.offset)) == 1 and not c.stiffness


def _values(c: ActionComponent) -> Table:
    """Every value of a component by itself: its target, and the controller that follows it."""
    columns: dict[str, list[str]] = {"value": list(c.elements)} if c.inverse is None else {}
    columns |= {"joint": list(c.joints)} if c.joints != c.elements else {}
    columns |= {"actuator": list(c.actuators)} if c.actuators != c.elements else {}
    if c.inverse is None:
        columns[f"target, {c.unit}"] = [_affine(*pair) for pair in zip(c.scale, c.offset, strict=True)]
    if c.target_limits is not None:
        columns["limits"] = [f"{low:.4g} to {high:.4g}" for low, high in zip(*c.target_limits, strict=True)]
    per = {"rad": ("N m/rad", "N m s/rad", "N m"), "m": ("N/m", "N s/m", "N")}.get(sent_unit(c), ("", "", ""))
    for name, values, unit in zip(
        ("stiffness (kp)", "damping (kd)", "effort limit"), (c.stiffness, c.damping, c.effort_limit), per, strict=True
    ):
        columns[f"{name}, {unit}" if unit else name] = [f"{value:.4g}" for value in values]
    columns = {name: cells for name, cells in columns.items() if cells}
    table = _table(f"{c.name}, value by value", *columns)
    for row in zip(*columns.values(), strict=True):
        table.add_row(*row)
    said = [] if c.relative is None else [
        "Targets are added to " + ("the last command." if c.relative == "target" else f"what {c.relative} shows.")
    ]  # fmt: skip
    if c.smoothing < 1.0:
        said.append(f"What is sent moves by {c.smoothing:g} of the way to the target in each control step.")
    table.caption = " ".join(said) or None
    return table


def _affine(scale: float, offset: float) -> str:
    return f"{scale:.4g} * a" + (f" {offset:+.4g}" if offset else "")


_UNITS = {  # of what physical quantities act on
    "body_mass": "kg", "body_inertia": "kg m^2", "body_ipos": "m", "body_pos": "m", "geom_size": "m", "geom_pos": "m",
    "geom_solref": "s", "geom_margin": "m", "geom_gap": "m", "dof_damping": "N m s/rad or N s/m",
    "dof_frictionloss": "N m or N", "jnt_stiffness": "N m/rad or N/m", "dof_armature": "kg m^2 or kg",
    "jnt_range": "rad or m", "tendon_stiffness": "N/m", "tendon_lengthspring": "m", "tendon_range": "m",
    "actuator_forcerange": "N m or N", "opt.gravity": "m/s^2", "opt.timestep": "s", "opt.wind": "m/s",
    "opt.density": "kg/m^3", "opt.viscosity": "Pa s",
}  # fmt: skip


def available(task: Task) -> dict[str, list[str]]:
    """Quantities that make sense for a task, and the objects that each may name (none where it takes no names)."""
    found: dict[str, list[str]] = {}
    for quantity in every_quantity():
        names = usable_names(task, quantity)
        if names or (
            quantity.target == "none"
            and has_commands_for(task, quantity)
            and not switched_off(task, quantity)
            and not idle_because(task, quantity, 0)
        ):
            found[quantity.name] = names
    return found


_ERRORS = {  # of sensors, by the unit of what they measure, in units of 0.01: an encoder's is not a gyroscope's
    "rad": 1.0, "m": 0.5, "rad/s": 10.0, "m/s": 5.0, "m/s^2": 20.0, "N m": 10.0, "N": 50.0,
}  # fmt: skip
_SHARE = 0.25  # of a nominal value, that what is added to it may reach
_OF_NOMINAL = ("dof_frictionloss", "jnt_stiffness")  # fields whose additions follow what is there already


def sensible_range(task: Task, quantity: Quantity, names: list[str]) -> tuple[float, float]:
    """The quantity's default range, made for these objects: by the unit of what sensors measure, as a share of what is
    there already, and less what leads half of the way to values that make no sense."""
    low, high = quantity.default_range
    if quantity.unit == "unit":
        units = {c.unit for c in task.components("policy") if c.name in names}
        factor = _ERRORS.get(units.pop(), 1.0) if len(units) == 1 else 1.0
        return low * factor, high * factor
    if quantity.channel != "physics" or quantity.mode != "add":
        return low, high
    indices = [object_places(task, quantity.target)[name] for name in names] or [0]
    if quantity.writes and quantity.writes[0] in _OF_NOMINAL:
        most = max((abs(v) for i in indices for v in quantity.nominal_values(task.model, i)), default=0.0)
        high = _SHARE * most if most > 0.0 else high
    for index in indices:
        down, up = quantity.room(task.model, index)
        low, high = max(low, 0.5 * down), min(high, 0.5 * up)
    return low, high


def nominal_text(task: Task, quantity: Quantity, names: list[str]) -> str:
    """Smallest and largest nominal value over objects, with the unit; lambda's for what writes no model field."""
    if quantity.channel != "physics":
        return f"{quantity.nominal:g}"
    indices = [object_places(task, quantity.target)[name] for name in names] or [0]
    values = [v for i in indices for v in quantity.nominal_values(task.model, i)]
    if "actuator_gainprm" in quantity.writes:
        values = [abs(v) for v in values]  # gains: a servo's bias is (0, -kp, -kd)
    unit = _UNITS.get(quantity.writes[0], "")
    if quantity.writes[0] == "geom_solref":  # (time constant, damping ratio), or (-stiffness, -damping)
        values = [quantity.nominal_values(task.model, i)[0] for i in indices]
        unit = unit if min(values) > 0 else ""
    low, high = min(values), max(values)
    return (f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}") + (f" {unit}" if unit else "")


def _randomization(task: Task, groups: Collection[str]) -> Table:
    table = _table(
        "Randomization", "quantity", "mode", "unit", "nominal", "default range", "names that 'of' may match", "meaning"
    )
    group = ""
    for name, names in available(task).items():
        quantity = QUANTITIES[name]
        if quantity.channel not in groups:
            continue
        if quantity.channel != group:
            group = quantity.channel
            table.add_section()
            table.add_row(f"[bold]{group}[/bold]")
        low, high = sensible_range(task, quantity, names)
        unit = "the component's" if quantity.unit == "unit" else quantity.unit
        table.add_row(
            name, quantity.mode, unit, nominal_text(task, quantity, names), f"{low:g} to {high:g}",
            _shown(names) if names else "(the whole task)", quantity.description,
        )  # fmt: skip
    return table


def quantity_tables() -> str:
    """Every quantity as Markdown, a table per channel: what docs/randomize.md shows."""
    lines: list[str] = []
    channel = ""
    for q in every_quantity():
        if q.channel != channel:
            channel = q.channel
            lines += ["", f"**{channel.capitalize()}**", ""]
            lines += ["| quantity | mode | unit | of | writes | meaning |", "|---|---|---|---|---|---|"]
        unit = "the component's" if q.unit == "unit" else q.unit
        lines.append(f"| `{q.name}` | {q.mode} | {unit} | {q.target} | {', '.join(q.writes)} | {q.description} |")
    return "\n".join(lines) + "\n"


def _shown(names: list[str], most: int = 3) -> str:
    return ", ".join(names) if len(names) <= most else ", ".join(names[:most]) + f", ... ({len(names)})"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold", expand=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
