"""Whether the range of a friction, or of a solref, leads to contacts that differ, and by as much as it says.

A contact takes the larger of two frictions, and the stiffer of two solref in the direct format, so that whether a
factor shows depends on the partner, and on whether that has a factor too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from envs.common.messages import listed, warn_once
from randomization.physics.contacts import LEAST_CONDIM, ContactPart, Contacts, contacts_of, shape_name

_RELATIVE = 1e-12
_UNSAFE = int(mujoco.mjtDisableBit.mjDSBL_REFSAFE)
_DISCRETE = int(mujoco.mjtIntegrator.mjINT_DISCRETE)  # has limits of its own, which depend on the impedance


@dataclass(frozen=True)
class Factor:
    """A factor of geoms' friction or solref.

    Attributes:
        label: in the configuration.
        part: friction or solref.
        geoms: indices, by name.
        limits: lowest and highest value.
    """

    label: str
    part: ContactPart
    geoms: dict[str, int]
    limits: tuple[float, float]


def warn_of_idle_ends(model: mujoco.MjModel, factors: Sequence[Factor]) -> None:
    """Warn of ends of ranges at which a geom has no contact that differs.

    No error: a range that an earlier run arrived at may be such a one, and has to load.
    """
    contacts = contacts_of(model)
    for factor in factors:
        others = [other for other in factors if other is not factor]
        for end in dict.fromkeys(factor.limits):
            changed = _changed(contacts, factor, end, others)
            idle = [name for name, geom in factor.geoms.items() if not _shows(contacts, factor, changed, geom)]
            if idle and end != 1.0:
                warn_once(f"{factor.label}: {_why(model, contacts, factor, idle[0], end)}")
                break  # one line per parameter says enough


def warn_of_clipped_contacts(model: mujoco.MjModel, factors: Sequence[Factor]) -> None:
    """Warn of ranges in which contacts get faster than two physics steps, which MuJoCo does not let them be (manual,
    Modeling, Solver parameters: `refsafe`). What is given in the direct format is not limited."""
    faster = [(factor, end) for factor in factors if (end := _fastest(factor)) != 1.0]
    least = 2.0 * float(model.opt.timestep)
    if not faster or int(model.opt.disableflags) & _UNSAFE or int(model.opt.integrator) == _DISCRETE:
        return
    contacts, of_pairs = contacts_of(model), model.pair_solref.copy()
    of_shapes = contacts.nominal["solref"].copy()
    for factor, end in faster:
        _apply(of_shapes, factor, end, "solref")
        pairs = {pair for geom in factor.geoms.values() for pair in contacts.pairs_of("solref", geom)}
        of_pairs[sorted(pairs), 0] *= end ** factor.part.time_powers[0]
    time = contacts.mixed("solref", of_shapes)[:, 0]
    declared = contacts.pair >= 0
    time[declared] = np.where(model.pair_solref[:, 0] > 0, of_pairs[:, 0], -1.0)[contacts.pair[declared]]
    clipped = (time > 0) & (time < least * (1.0 - _RELATIVE))
    for name, geom in {name: geom for factor, _ in faster for name, geom in factor.geoms.items()}.items():
        if (mine := clipped & contacts.of(geom)).any():
            touching = {int(shape) for shape in contacts.shapes[mine].ravel()}
            labels = [factor.label for factor, _ in faster if touching & {*factor.geoms.values()}]
            warn_once(
                f"{listed(labels)}: contacts of {name!r} would have a time constant of {time[mine].min():.3g} s at an "
                f"end of the range; MuJoCo takes none below two physics steps ({least:g} s), so near that end less is "
                "changed than it says"
            )
            return


def _fastest(factor: Factor) -> float:
    """The end of a factor's range at which contacts are fastest; 1 if none makes them faster than they are."""
    power = factor.part.time_powers[0] if factor.part.name == "solref" else 0.0
    return min((1.0, *factor.limits), key=lambda end: end**power)


def _shows(contacts: Contacts, factor: Factor, changed: np.ndarray, geom: int) -> bool:
    """Whether a geom has a contact of which a factor changes something."""
    pairs = contacts.pairs_of(factor.part.name, geom, factor.part.least_condim)
    return bool((changed & contacts.of(geom)).any()) or bool(pairs)


def _changed(contacts: Contacts, factor: Factor, end: float, others: Sequence[Factor]) -> np.ndarray:
    """Contacts [C] (bool) that differ at an end of a factor's range, whatever the other factors are."""
    field = factor.part.name
    found = np.zeros(len(contacts.shapes), dtype=bool)
    for side in (None, 0, 1):
        values = contacts.nominal[field].copy()
        for other in others:
            _apply(values, other, 1.0 if side is None else other.limits[side], field)
        before = contacts.mixed(field, values)
        _apply(values, factor, end, field)
        after = contacts.mixed(field, values)
        differs = np.abs(after - before) > _RELATIVE * np.abs(before)
        if field == "friction":
            differs &= contacts.dim[:, None] >= np.array(LEAST_CONDIM)
        found |= differs.any(axis=1) & (contacts.pair < 0)
    return found


def _apply(values: np.ndarray, factor: Factor, value: float, field: str) -> None:
    """Multiply the values [shapes, k] of a factor's geoms, in place."""
    if field != factor.part.name:
        return
    rows = sorted(factor.geoms.values())
    if field == "friction":
        values[np.ix_(rows, factor.part.kinds)] *= value
        return
    direct = values[rows, 0] <= 0
    for column, power in enumerate((factor.part.stiffness, factor.part.damping)):
        values[rows, column] *= value ** np.where(direct, power, factor.part.time_powers[column])


def _why(model: mujoco.MjModel, contacts: Contacts, factor: Factor, name: str, end: float) -> str:
    """Why a factor does nothing to a geom at an end of its range, and what to name."""
    geom, way = factor.geoms[name], "raising" if end > 1.0 else "lowering"
    partners = [int(b if a == geom else a) for a, b in contacts.shapes[contacts.of(geom) & contacts.equal]]
    if factor.part.name == "solref":
        other = shape_name(model, partners[0]) if partners else "the other geom"
        return (
            f"a contact takes the stiffer solref of the two: that of {name!r} times {end:g} leaves {other!r} to "
            "decide; name both"
        )
    column = factor.part.kinds[0]
    friction = contacts.nominal["friction"][:, column]
    partner = max(partners, key=lambda other: float(friction[other]), default=geom)
    return (
        f"friction of a contact is the larger of the two: {way} {name!r} ({friction[geom]:g}) to {end:g} times that "
        f"does nothing beside {shape_name(model, partner)!r} ({friction[partner]:g}); name both"
    )
