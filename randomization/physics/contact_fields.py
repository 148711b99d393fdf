"""Where the parameters of contacts are kept: with the geoms, and with every `<pair>` that names one of them."""

from __future__ import annotations

import mujoco

from randomization.physics.contacts import LEAST_CONDIM, ContactPart, contacts_of
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


def solref(part: ContactPart) -> Writer:
    """Spring and damper of contacts, by the powers of a `ContactPart`."""

    def edits(model: mujoco.MjModel, geom: int) -> list[Edit]:
        contacts = contacts_of(model)
        found = _spring(model, "geom_solref", geom, part) if contacts.takes("solref", geom) else []
        for pair in contacts.pairs_of("solref", geom):
            found += _spring(model, "pair_solref", pair, part)
            if model.pair_solreffriction[pair].any():
                found += _spring(model, "pair_solreffriction", pair, part)
        return found

    return edits


def _spring(model: mujoco.MjModel, field: str, index: int, part: ContactPart) -> list[Edit]:
    """Of (time constant, damping ratio), or of (-stiffness, -damping), what follows a factor."""
    once = field.startswith("pair")
    powers = part.time_powers if getattr(model, field)[index, 0] > 0 else (part.stiffness, part.damping)
    return [Edit(field, (2 * index + i,), power=power, once=once) for i, power in enumerate(powers) if power]


def stiffness(part: ContactPart) -> Writer:
    """Spring and damper of contacts, and the depth over which their impedance rises: all depths change alike.

    At a depth r MuJoCo's contact presses with m K r d^2 / (1 - d), where the impedance d depends on r / width. With s K
    and width / s it presses as much at r / s.
    """
    springs, width = solref(part), solimp(2, power=-part.stiffness)

    def edits(model: mujoco.MjModel, geom: int) -> list[Edit]:
        found = springs(model, geom)
        return [*found, *width(model, geom)] if found else []

    return edits


def solimp(column: int, power: float = 1.0) -> Writer:
    """dmin (0), dmax (1) or width (2) of the impedance; the first two lie within 0 and 1."""
    low, high = (0.0, 0.9999) if column < 2 else (-float("inf"), float("inf"))

    def edits(model: mujoco.MjModel, geom: int) -> list[Edit]:
        contacts = contacts_of(model)
        own = [Edit("geom_solimp", (5 * geom + column,), power, low, high)] if contacts.takes("solimp", geom) else []
        pairs = contacts.pairs_of("solimp", geom)
        return [*own, *(Edit("pair_solimp", (5 * pair + column,), power, low, high, once=True) for pair in pairs)]

    return edits


def distance(name: str) -> Writer:
    """Margin or gap. A contact has the sum of its geoms', so what is added to both geoms of a pair is added twice."""

    def edits(model: mujoco.MjModel, geom: int) -> list[Edit]:
        contacts = contacts_of(model)
        own = [Edit(f"geom_{name}", (geom,), low=0.0)] if contacts.takes(name, geom) else []
        return [*own, *(Edit(f"pair_{name}", (pair,), low=0.0) for pair in contacts.pairs_of(name, geom))]

    return edits
