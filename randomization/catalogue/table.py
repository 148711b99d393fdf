"""Every quantity by name: simreal's own, those given to `register_quantity`, and those of installed packages.

An entry point of the group `simreal.quantities` is called as the quantity and names a module; importing it calls
`register_quantity`:

    [project.entry-points."simreal.quantities"]
    gyro_random_walk = "simreal_gyro_walk"

That module is imported when a configuration names the quantity, or when all are listed.
"""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import EntryPoint

from envs.platform.entry_points import entry_points
from randomization.catalogue.checks import check_quantity
from randomization.catalogue.physics import PHYSICS
from randomization.catalogue.quantity import QUANTITIES as QUANTITIES  # its public place
from randomization.catalogue.quantity import Quantity, RandomizationError
from randomization.catalogue.timing_and_noise import EFFECTS
from randomization.catalogue.visual import VISUAL

ENTRY_POINTS = "simreal.quantities"
_HOMES: dict[str, str] = {}  # modules of the quantities that are not simreal's own


def register_quantity(quantity: Quantity) -> None:
    """Make a quantity available to every sampler, under its name.

    Args:
        quantity: what is known of it.

    Raises:
        RandomizationError: the name is taken by another quantity, simreal's or that of an installed package, or the
            quantity cannot be used: one line that says why. Registering the very same thing again does nothing.
    """
    check_quantity(quantity)
    name, home = quantity.name, str(sys._getframe(1).f_globals.get("__name__"))  # as collections.namedtuple does
    if QUANTITIES.get(name, quantity) != quantity:
        raise RandomizationError(
            f"quantity {name!r} is taken by {_HOMES.get(name, 'simreal')}; register that of {home} under another name"
        )
    for announced in announced_quantities().get(name, ()):
        if _top(announced.module) != _top(home):
            raise RandomizationError(
                f"quantity {name!r} is taken by module {announced.module!r} of an installed package; "
                f"register that of {home} under another name"
            )
    QUANTITIES[name] = quantity
    _HOMES.setdefault(name, home)


def announced_quantities() -> dict[str, list[EntryPoint]]:
    """Quantities of installed packages by name, but for those that are registered; nothing is imported."""
    found: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(ENTRY_POINTS):
        if entry.name not in QUANTITIES and entry not in found.setdefault(entry.name, []):
            found[entry.name].append(entry)
    return {name: entries for name, entries in found.items() if entries}


def quantity_names() -> list[str]:
    """Every quantity's name; those of installed packages last."""
    return [*QUANTITIES, *announced_quantities()]


def find_quantity(name: str) -> Quantity:
    """The quantity of that name, whose package is imported.

    Raises:
        KeyError: there is none of that name.
        RandomizationError: its package is broken, or two packages announce it.
    """
    if name not in QUANTITIES:
        _import_announced(name, announced_quantities()[name])
    return QUANTITIES[name]


def every_quantity() -> list[Quantity]:
    """All quantities, those of installed packages imported. Raises RandomizationError, as `find_quantity`."""
    return [find_quantity(name) for name in quantity_names()]


def package_of(name: str) -> str | None:
    """The package outside simreal that a quantity comes from, as Python imports it; None for our own."""
    announced = announced_quantities().get(name)
    home = announced[0].module if announced else _HOMES.get(name)
    return None if home is None else _top(home)


def _import_announced(name: str, entries: list[EntryPoint]) -> None:
    if len(entries) > 1:
        modules = " and ".join(entry.module for entry in entries)
        raise RandomizationError(f"quantity {name!r} is announced by two packages, as {modules}; uninstall one of them")
    module = entries[0].module
    try:
        importlib.import_module(module)
    except RandomizationError:
        raise
    except (Exception, SystemExit) as error:
        said = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise RandomizationError(f"quantity {name!r}: importing {module!r} failed: {said}") from error
    if name not in QUANTITIES:
        raise RandomizationError(f"quantity {name!r}: module {module!r}, which announces it, does not register it")


def _top(module: str) -> str:
    return module.partition(".")[0]


QUANTITIES.update((quantity.name, quantity) for quantity in (*PHYSICS, *EFFECTS, *VISUAL))
