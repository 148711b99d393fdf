"""Tables of what a task observes, does and lets vary."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from envs.task import Task
from randomization.fields import nominal_values
from randomization.parameters import object_index, object_names
from randomization.quantities import QUANTITIES, Quantity


def describe(task: Task, console: Console) -> None:
    """Print the observation, action and randomization tables of a task."""
    rate = 1.0 / task.control_period_s
    console.print(
        f"[bold]{task.id}[/bold]  control every {task.control_period_s:g} s ({rate:g} Hz, {task.decimation} physics "
        f"steps of {task.model.opt.timestep:g} s), episodes of {task.max_episode_steps} steps",
        highlight=False,
    )
    console.print(_observations(task))
    console.print(_actions(task))
    console.print(_randomization(task))
    console.print(
        "Scale: a factor of the nominal value. Add: added to it. Absolute: the value itself. "
        "docs/randomize.md says how to use them.",
        highlight=False,
    )


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
        same = len(set(c.scale)) == 1 and len(set(c.offset)) == 1
        target = _affine(c.scale[0], c.offset[0]) if same else "per value: see policy.json"
        table.add_row(index, c.name, c.unit, c.frame, ", ".join(c.elements), target, c.description)
        start += c.size
    return table


def _affine(scale: float, offset: float) -> str:
    return f"{scale:g} * a" + (f" {offset:+g}" if offset else "")


def _randomization(task: Task) -> Table:
    table = _table(
        "Randomization", "quantity", "mode", "unit", "nominal", "default range", "names that 'of' may match", "meaning"
    )
    for quantity in QUANTITIES.values():
        names = object_names(task, quantity.target)
        if quantity.target != "none" and not names:
            continue
        low, high = quantity.default_range
        unit = "the component's" if quantity.unit == "unit" else quantity.unit
        table.add_row(
            quantity.name, quantity.mode, unit, _nominal(task, quantity, names), f"{low:g} to {high:g}",
            _shown(names) if names else "(the whole task)", quantity.description,
        )  # fmt: skip
    return table


def _nominal(task: Task, quantity: Quantity, names: list[str]) -> str:
    """Range of nominal values over all objects, with their unit where the parameter is a factor."""
    if quantity.channel != "physics":
        return f"{quantity.nominal:g}"
    indices = [object_index(task, quantity.target, name) for name in names]
    values = [v for i in indices for v in nominal_values(task, quantity.writes[0], i)]
    low, high = min(values), max(values)
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"


def _shown(names: list[str], most: int = 6) -> str:
    return ", ".join(names) if len(names) <= most else ", ".join(names[:most]) + f", ... ({len(names)})"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold", expand=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
