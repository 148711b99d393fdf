"""What a quantity from another package has to be: refused is what contradicts itself or names what does not exist."""

from __future__ import annotations

import keyword
import math
from functools import cache
from typing import Any, get_args

from mujoco.batch import MODEL_FIELDS

from envs.common.messages import listed, nearest
from randomization.catalogue.quantity import Channel, Mode, Quantity, RandomizationError, Target
from randomization.effects.actions.commands import CommandDelay
from randomization.effects.effect import STAGES, Effect

_HOOKS = (*STAGES.values(), "reset")
_OBJECTS = {"body": "nbody", "geom": "ngeom", "joint": "njnt", "tendon": "ntendon", "actuator": "nactuator"}


def check_quantity(quantity: Any) -> None:
    """Raise RandomizationError, in one line, unless this is a quantity that can be used."""
    if not isinstance(quantity, Quantity):
        raise RandomizationError(f"expected a simreal.Quantity, got {quantity!r:.80}")
    for problem in (_of_names, _of_numbers, _of_effect, _of_fields):
        if said := problem(quantity):
            raise RandomizationError(f"quantity {quantity.name!r:.80}: {said}")


def _of_names(quantity: Quantity) -> str:
    if not (isinstance(quantity.name, str) and quantity.name.isidentifier() and not keyword.iskeyword(quantity.name)):
        return "expected a name of letters, digits and underscores"
    for key, kinds in (("channel", Channel), ("target", Target), ("mode", Mode)):
        value, known = getattr(quantity, key), get_args(kinds)
        if value not in known:
            return f"{key} {value!r:.80} does not exist{nearest(str(value), known)}; there are: {', '.join(known)}"
    if not quantity.description or "\n" in quantity.description:
        return "description: expected one line for people"
    if quantity.suits is not None and not quantity.expected:
        return "suits: say in `expected` what an object has to be, to follow 'is no'"
    return ""


def _of_numbers(quantity: Quantity) -> str:
    """What is wrong with mode, nominal value, limits and default range."""
    for key in ("limits", "default_range"):
        ends = getattr(quantity, key)
        numbers = isinstance(ends, (tuple, list)) and len(ends) == 2 and all(isinstance(e, (int, float)) for e in ends)
        if not numbers or not ends[0] <= ends[1]:
            return f"{key}: expected (lower, upper), got {ends!r}"
    (low, high), (first, last) = quantity.limits, quantity.default_range
    within = f"its limits [{low:g}, {high:g}]"
    if not (math.isfinite(first) and math.isfinite(last) and low <= first and last <= high):
        return f"default_range [{first:g}, {last:g}] is not within {within}"
    if not low <= quantity.nominal <= high:
        return f"nominal {quantity.nominal:g} is not within {within}"
    natural = {"scale": 1.0, "add": 0.0, "spread": 0.0}.get(quantity.mode, quantity.nominal)
    if quantity.nominal != natural:
        return f"nominal: mode {quantity.mode!r} does nothing at {natural:g}, expected that, got {quantity.nominal:g}"
    if quantity.mode in ("scale", "spread") and low < 0:
        kind = "factor" if quantity.mode == "scale" else "standard deviation"
        return f"limits: a {kind} is not below 0, got {low:g}"
    return ""


def _of_effect(quantity: Quantity) -> str:
    """What is wrong with what it does."""
    effect, look = quantity.effect, quantity.look
    acts = effect is not None or bool(quantity.needs)
    if bool(quantity.writes) + acts + bool(look.change or look.filter) != 1:
        return "expected either `writes`, the fields of the model, or `effect`, a subclass of simreal.Effect"
    if bool(quantity.writes) != (quantity.channel == "physics"):
        return "channel 'physics' and `writes` go together"
    if acts and quantity.channel == "visual":
        return "channel 'visual' is for what only pictures show, and an effect acts on the robot: expected another"
    if effect is None:
        return ""
    if not (isinstance(effect, type) and issubclass(effect, Effect)):
        return f"effect: expected a subclass of simreal.Effect, got {effect!r:.80}"
    if not any(effect.overrides(hook) for hook in _HOOKS):
        public = [name for name in vars(effect) if not name.startswith("_")]
        hint = next((found for name in public if (found := nearest(name, _HOOKS))), "")
        return f"effect: {effect.__name__} has no hook{hint}; expected one of: {', '.join(_HOOKS)}"
    if effect is not CommandDelay and effect.overrides("on_command") and effect.order >= CommandDelay.order:
        return f"effect: {effect.__name__} comes after action_delay ({CommandDelay.order}), expected a lower `order`"
    if quantity.mode != "absolute":
        return f"mode: an effect is given its own values, expected 'absolute', got {quantity.mode!r}"
    return ""


@cache
def _rows() -> dict[str, str]:
    """Fields of real numbers of mjModel and mjOption that can differ between worlds, and what they have a row for."""
    from mujoco.introspect.structs import STRUCTS  # 30 ms, which only a plug-in's author should wait for

    found: dict[str, str] = {}
    for struct, before in (("mjModel", ""), ("mjOption", "opt.")):
        fields: tuple[Any, ...] = STRUCTS[struct].fields
        for field in fields:
            kind = getattr(field.type, "inner_type", field.type)
            if before + field.name in MODEL_FIELDS and getattr(kind, "name", "") in ("mjtNum", "float"):
                extent = getattr(field, "array_extent", None) or getattr(field.type, "extents", None) or ("",)
                found[before + field.name] = str(extent[0])
    return found


def _of_fields(quantity: Quantity) -> str:
    """What is wrong with the fields that it writes."""
    if not quantity.writes:
        return ""
    if quantity.mode == "absolute":
        return "mode: what writes fields is 'scale', 'add' or 'spread' of the nominal value, got 'absolute'"
    kind = quantity.target.split(" ")[-1]
    for field in quantity.writes:
        if field not in _rows():
            return f"writes: MuJoCo's model has no field {field!r} of numbers that can differ{nearest(field, _rows())}"
        of, option = _rows()[field], field.startswith("opt.")
        fits = of in (_OBJECTS.get(kind), "nv" if kind == "joint" else None) and not option
        if option:
            fits = kind == ("axis" if of == "3" else "none")
        if not fits and quantity.writer is None:
            here = [name for name, rows in _rows().items() if rows == _OBJECTS.get(kind)]
            return f"writes: {field} has no row for each {quantity.target}; of that kind are {listed(sorted(here), 8)}"
    if quantity.changes_timestep and quantity.mode != "scale":
        return "mode: a timestep is changed by factors, expected 'scale'"
    return ""
