"""Where the parameters of contacts are kept: with the geoms, and with every `<pair>` that names one of them."""

from __future__ import annotations

import mujoco

from randomization.physics.contacts import LEAST_CONDIM, contacts_of
from randomization.physics.edit import Edit, Writer

_PAIR_FRICTION = ((0, 1), (2,), (3, 4))  # columns of pair_friction: sliding, spinning, rolling


def friction(*kinds: int) -> Writer:
    """Sliding (0), spinning (1) and rolling (2) friction, where condim lets a contact use any of these."""

    def edits(model: mujoco.MjModel, geom: int) -> list[Edit]:
        contacts, least = contacts_of(model), LEAST_CONDIM[min(kinds)]
        own = [Edit("geom_friction", tuple(3 * geom + kind for kind in kinds))]
        columns = [column for kind in kinds for column in _PAIR_FRICTION[kind]]
        shared = [
            Edit("pair_friction", tuple(5 * pair + column for column in columns), once=True)
            for pair in contacts.pairs_of("friction", geom, least)
        ]
        return [*(own if contacts.takes("friction", geom, least) else []), *shared]

    return edits


def solref(model: mujoco.MjModel, geom: int) -> list[Edit]:
    """Time constant of contacts. In the direct format (-stiffness, -damping) they go as 1/t^2 and 1/t."""
    contacts = contacts_of(model)
    edits = _time_constant(model, "geom_solref", geom) if contacts.takes("solref", geom) else []
    for pair in contacts.pairs_of("solref", geom):
        edits += _time_constant(model, "pair_solref", pair)
        if model.pair_solreffriction[pair].any():
            edits += _time_constant(model, "pair_solreffriction", pair)
    return edits


def _time_constant(model: mujoco.MjModel, field: str, index: int) -> list[Edit]:
    once = field.startswith("pair")
    if getattr(model, field)[index, 0] > 0:
        return [Edit(field, (2 * index,), once=once)]
    stiffness = Edit(field, (2 * index,), power=-2.0, once=once)
    return [stiffness, Edit(field, (2 * index + 1,), power=-1.0, once=once)]


def solimp(column: int) -> Writer:
    """dmin (0), dmax (1) or width (2) of the impedance; the first two lie within 0 and 1."""
    low, high = (0.0, 0.9999) if column < 2 else (-float("inf"), float("inf"))

    def edits(model: mujoco.MjModel, geom: int) -> list[Edit]:
        contacts = contacts_of(model)
        own = [Edit("geom_solimp", (5 * geom + column,), low=low, high=high)] if contacts.takes("solimp", geom) else []
        pairs = contacts.pairs_of("solimp", geom)
        return [*own, *(Edit("pair_solimp", (5 * pair + column,), once=True, low=low, high=high) for pair in pairs)]

    return edits


def distance(name: str) -> Writer:
    """Margin or gap. A contact has the sum of its geoms', so what is added to both geoms of a pair is added twice."""

    def edits(model: mujoco.MjModel, geom: int) -> list[Edit]:
        contacts = contacts_of(model)
        own = [Edit(f"geom_{name}", (geom,), low=0.0)] if contacts.takes(name, geom) else []
        return [*own, *(Edit(f"pair_{name}", (pair,), low=0.0) for pair in contacts.pairs_of(name, geom))]

    return edits
