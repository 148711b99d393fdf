"""The physical part of the catalogue: what each quantity is, what it writes of the model, and for which objects."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import mujoco

from randomization.catalogue.quantity import Quantity, Target
from randomization.physics.contact_fields import distance, friction, solimp, solref, stiffness
from randomization.physics.contacts import ContactPart
from randomization.physics.edit import Writer
from randomization.physics.model_edits import (
    actuator_gain,
    actuator_kd,
    actuator_ki,
    actuator_kp,
    actuator_strength,
    backlash_range,
    body_pos,
    body_size,
    com,
    everywhere,
    force_range,
    geom_size,
    limits,
    mass,
    row,
    spring,
    with_actuators,
)
from randomization.targets.effective import (
    body_idle,
    contact_idle,
    gap_unread,
    impedance_level,
    slack_spring,
    slides_past,
    still_air,
    untouched,
)

_OFF = mujoco.mjtDisableBit
_LIMITS, _SPRINGS = (_OFF.mjDSBL_LIMIT, _OFF.mjDSBL_CONSTRAINT), (_OFF.mjDSBL_SPRING,)
_DRY_FRICTION = (_OFF.mjDSBL_FRICTIONLOSS, _OFF.mjDSBL_CONSTRAINT)
_COM: dict[str, Any] = {"expected": "body with a movable centre of mass", "idle": body_idle}
_PLACED: dict[str, Any] = {"expected": "body placed by the model (free or mocap bodies are not)"}
_TOUCH: dict[str, Any] = {"idle": contact_idle, "switches": (_OFF.mjDSBL_CONTACT, _OFF.mjDSBL_CONSTRAINT)}
_SOLREF = ("geom_solref", "pair_solref", "pair_solreffriction")
_TIME = ContactPart("solref", stiffness=-2.0, damping=-1.0)
_STIFFNESS, _DAMPING = ContactPart("solref", stiffness=1.0, damping=0.5), ContactPart("solref", damping=1.0)
_Range = tuple[float, float]
_Fields = tuple[str, ...]


def _factor(
    name: str, target: Target, default_range: _Range, writes: _Fields, description: str,
    writer: Writer | None = None, positive: bool = False, **more: Any,
) -> Quantity:  # fmt: skip
    """A factor of nominal values; `positive` where zero makes no sense."""
    if positive:
        more["limits"] = (1e-3, float("inf"))
    return Quantity(
        name=name, channel="physics", mode="scale", target=target, default_range=default_range, writes=writes,
        description=description, writer=writer, **more,
    )  # fmt: skip


def _shift(
    name: str, target: Target, unit: str, default_range: _Range, writes: _Fields, description: str,
    writer: Writer | None = None, **more: Any,
) -> Quantity:  # fmt: skip
    """Something added to nominal values."""
    return Quantity(
        name=name, channel="physics", mode=more.pop("mode", "add"), target=target, unit=unit,
        default_range=default_range, writes=writes, description=description, writer=writer, **more,
    )  # fmt: skip


def _shifts(
    name: str, target: Target, default_range: _Range, field: str, description: str,
    along: Callable[[int], Writer], **more: Any,
) -> tuple[Quantity, ...]:  # fmt: skip
    """Shifts along x, y and z, m."""
    return tuple(
        _shift(f"{name}_{axis}", target, "m", default_range, (field,), description.format(axis), along(column), **more)
        for column, axis in enumerate("xyz")
    )


def _spread(*entry: Any, **more: Any) -> Quantity:
    """The standard deviation of what is added to each nominal value, drawn anew in every episode."""
    return _shift(*entry, mode="spread", **more)


PHYSICS: tuple[Quantity, ...] = (
    _factor("body_mass", "body", (0.5, 2.0), ("body_mass", "body_inertia"),
        "mass; the inertia scales with it, as with a change of density", mass, positive=True, idle=body_idle,
        suggested=True),
    _factor("body_inertia", "body", (0.7, 1.4), ("body_inertia",),
        "rotational inertia, all axes alike, so that it stays physical", positive=True, idle=body_idle),
    _spread("body_com", "body", "m", (0.0, 0.01), ("body_ipos",),
        "standard deviation of a shift of the centre of mass, along every axis of the body's frame", com(0, 1, 2),
        **_COM, suggested=True),
    *_shifts("body_com", "body", (-0.01, 0.01), "body_ipos", "shift of the centre of mass along {} of the body's frame",
        com, **_COM),
    _factor("body_size", "body", (0.95, 1.05), ("geom_size", "geom_pos", "body_ipos", "body_mass", "body_inertia"),
        "shapes at constant density: mass ~ s^3, inertia ~ s^5", body_size, positive=True,
        expected="body whose shapes are all primitives (no mesh, plane or height field)", idle=body_idle,
        suggested=True, usual="loose"),
    _spread("body_pos", "body", "m", (0.0, 0.005), ("body_pos",),
        "standard deviation of a shift of a body in its parent, along every axis", body_pos(0, 1, 2), **_PLACED),
    *_shifts("body_pos", "body", (-0.01, 0.01), "body_pos", "shift of a body along {} of its parent's frame", body_pos,
        **_PLACED),
    _factor("geom_size", "geom", (0.95, 1.05), ("geom_size",),
        "size of a shape alone; mass and inertia stay (body_size changes them too)", geom_size, positive=True,
        expected="primitive shape (mesh, plane and height field have no size of their own)", shown=untouched),
    _spread("geom_pos", "geom", "m", (0.0, 0.002), ("geom_pos",),
        "standard deviation of a shift of a shape in its body, along every axis", shown=untouched),
    *_shifts("geom_pos", "geom", (-0.002, 0.002), "geom_pos", "shift of a shape along {} of its body's frame",
        partial(row, "geom_pos"), idle=slides_past, shown=untouched),
    _factor("geom_friction", "geom", (0.7, 1.3), ("geom_friction", "pair_friction"),
        "sliding, spinning and rolling friction; a contact uses the larger of its two geoms",
        everywhere(friction(0, 1, 2)), contact=ContactPart("friction", (0, 1, 2)), **_TOUCH, suggested=True),
    _factor("geom_friction_slide", "geom", (0.7, 1.3), ("geom_friction", "pair_friction"),
        "sliding friction; a contact uses the larger of its two geoms", everywhere(friction(0)),
        contact=ContactPart("friction", (0,)), **_TOUCH),
    _factor("geom_friction_spin", "geom", (0.7, 1.3), ("geom_friction", "pair_friction"),
        "friction against spinning about the normal, where condim is 4 or 6", everywhere(friction(1)),
        contact=ContactPart("friction", (1,)), **_TOUCH),
    _factor("geom_friction_roll", "geom", (0.7, 1.3), ("geom_friction", "pair_friction"),
        "friction against rolling, where condim is 6", everywhere(friction(2)), contact=ContactPart("friction", (2,)),
        **_TOUCH),
    _factor("contact_stiffness", "geom", (0.5, 2.0), (*_SOLREF, "geom_solimp", "pair_solimp"),
        "stiffness of contacts, damping ratio kept: a factor of 2 halves how deep bodies sink", stiffness(_STIFFNESS),
        positive=True, contact=_STIFFNESS, **_TOUCH),
    _factor("contact_damping", "geom", (0.7, 1.4), _SOLREF, "damping of contacts, stiffness kept", solref(_DAMPING),
        positive=True, contact=_DAMPING, **_TOUCH),
    _factor("geom_solref", "geom", (0.8, 1.5), _SOLREF, "time constant of contacts: larger is softer", solref(_TIME),
        positive=True, contact=_TIME, **_TOUCH, suggested=True),
    _shift("geom_solimp_dmin", "geom", "1", (-0.1, 0.005), ("geom_solimp", "pair_solimp"),
        "impedance of a contact at first touch", solimp(0), contact=ContactPart("solimp"), **_TOUCH),
    _shift("geom_solimp_dmax", "geom", "1", (-0.1, 0.005), ("geom_solimp", "pair_solimp"),
        "impedance of a deep contact", solimp(1), contact=ContactPart("solimp"), **_TOUCH),
    _factor("geom_solimp_width", "geom", (0.5, 2.0), ("geom_solimp", "pair_solimp"),
        "depth over which the impedance rises", solimp(2), positive=True, contact=ContactPart("solimp"),
        shown=impedance_level, **_TOUCH),
    _shift("geom_margin", "geom", "m", (0.0, 0.0005), ("geom_margin", "pair_margin"),
        "distance at which a contact begins to act", distance("margin"), contact=ContactPart("margin"), **_TOUCH),
    _shift("geom_gap", "geom", "m", (0.0, 0.0005), ("geom_gap", "pair_gap"),
        "distance beyond the margin at which a contact is seen but does not act yet", distance("gap"),
        contact=ContactPart("gap"), shown=gap_unread, **_TOUCH),
    _factor("joint_damping", "joint", (0.5, 2.0),
        ("dof_damping", "dof_dampingpoly", "actuator_damping", "actuator_dampingpoly"),
        "viscous damping of a joint, its actuators' included", with_actuators("dof_damping", "dof_dampingpoly"),
        switches=(_OFF.mjDSBL_DAMPER,), suggested=True),
    _factor("joint_frictionloss", "joint", (0.5, 2.0), ("dof_frictionloss",), "dry friction of a joint",
        switches=_DRY_FRICTION, suggested=True),
    _shift("joint_frictionloss_added", "joint", "N m or N", (0.0, 0.05), ("dof_frictionloss",),
        "dry friction added to a joint, for models that have none", row("dof_frictionloss", low=0.0),
        switches=_DRY_FRICTION),
    _factor("joint_stiffness", "joint", (0.75, 1.33), ("jnt_stiffness", "jnt_stiffnesspoly"),
        "stiffness of a joint's spring", switches=_SPRINGS, suggested=True),
    _shift("joint_stiffness_added", "joint", "N m/rad or N/m", (0.0, 0.01), ("jnt_stiffness",),
        "stiffness added to a joint's spring, for models that have none", spring,
        expected="joint with an axis (a free one has none)", switches=_SPRINGS),
    _factor("joint_armature", "joint", (0.5, 2.0), ("dof_armature", "actuator_armature"),
        "inertia of a joint's rotor, as felt at the joint", with_actuators("dof_armature"), suggested=True),
    _spread("joint_range", "joint", "rad or m", (0.0, 0.05), ("jnt_range",),
        "standard deviation of a shift of each end of a joint's range", limits("jnt", 0, 1),
        expected="joint with a range", switches=_LIMITS, suggested=True),
    _shift("joint_range_lower", "joint", "rad or m", (-0.1, 0.1), ("jnt_range",),
        "shift of the lower end of a joint's range", limits("jnt", 0), expected="joint with a range", switches=_LIMITS),
    _shift("joint_range_upper", "joint", "rad or m", (-0.1, 0.1), ("jnt_range",),
        "shift of the upper end of a joint's range", limits("jnt", 1), expected="joint with a range", switches=_LIMITS),
    _factor("tendon_stiffness", "tendon", (0.75, 1.33), ("tendon_stiffness", "tendon_stiffnesspoly"),
        "stiffness of a tendon's spring", switches=_SPRINGS, suggested=True),
    _factor("tendon_length_spring", "tendon", (0.95, 1.05), ("tendon_lengthspring",),
        "resting length of a tendon's spring, both ends of its dead band", idle=slack_spring, switches=_SPRINGS,
        suggested=True),
    _spread("tendon_range", "tendon", "m or rad", (0.0, 0.01), ("tendon_range",),
        "standard deviation of a shift of each end of a tendon's range", limits("tendon", 0, 1),
        expected="tendon with a range", switches=_LIMITS, suggested=True),
    _shift("tendon_range_lower", "tendon", "m or rad", (-0.01, 0.01), ("tendon_range",),
        "shift of the lower end of a tendon's range", limits("tendon", 0), expected="tendon with a range",
        switches=_LIMITS),
    _shift("tendon_range_upper", "tendon", "m or rad", (-0.01, 0.01), ("tendon_range",),
        "shift of the upper end of a tendon's range", limits("tendon", 1), expected="tendon with a range",
        switches=_LIMITS),
    _factor("actuator_gain", "actuator", (0.75, 1.5), ("actuator_gainprm", "actuator_biasprm"),
        "gain with its bias (kp and kd of a servo together)", actuator_gain, expected="motor, servo, damper or PID",
        suggested=True),
    _factor("actuator_kp", "actuator", (0.75, 1.5), ("actuator_gainprm", "actuator_biasprm"),
        "stiffness of a position servo, P gain of a PID", actuator_kp, expected="position servo or PID"),
    _factor("actuator_kd", "actuator", (0.75, 1.5), ("actuator_gainprm", "actuator_biasprm"),
        "damping of a servo, D gain of a PID", actuator_kd, expected="servo or PID with damping"),
    _factor("actuator_ki", "actuator", (0.75, 1.5), ("actuator_gainprm",), "I gain of a PID", actuator_ki,
        expected="PID with an integral gain"),
    _factor("actuator_force_range", "actuator", (0.75, 1.25),
        ("actuator_forcerange", "jnt_actfrcrange", "tendon_actfrcrange"),
        "largest force of an actuator: its own limit and its share of its joints' and tendon's", force_range,
        expected="actuator with a force range, of its own or of its joint or tendon", suggested=True),
    _factor("actuator_strength", "actuator", (0.7, 1.0),
        ("actuator_gainprm", "actuator_biasprm", "actuator_forcerange", "jnt_actfrcrange", "tendon_actfrcrange"),
        "force of an actuator, and where it saturates (itself, its joints, its tendon): below 1 it is weak",
        actuator_strength,
        expected="motor, servo, damper, muscle or PID (one without feedforward) with a force to scale"),
    _factor("backlash_range", "joint", (0.5, 2.0), ("jnt_range",), "play of a slack joint (two-joint backlash)",
        backlash_range,
        expected="slack joint: one with a range and no actuator, beside a driven one with the same axis",
        switches=_LIMITS),
    _shift("gravity", "axis", "m/s^2", (-0.5, 0.5), ("opt.gravity",), "added to gravity along a world axis: x, y or z",
        switches=(_OFF.mjDSBL_GRAVITY,), suggested=True, usual="z"),
    _factor("timestep", "none", (0.9, 1.1), ("opt.timestep",), "duration of a physics step, and so of a control step",
        positive=True, suggested=True),
    _shift("wind", "axis", "m/s", (-2.0, 2.0), ("opt.wind",),
        "wind along a world axis; acts where density or viscosity is not zero", idle=still_air, usual="x"),
    _shift("air_density", "none", "kg/m^3", (0.0, 1.2), ("opt.density",),
        "density of the medium (air has 1.2), for lift and drag", row("opt.density", low=0.0), idle=still_air),
    _shift("air_viscosity", "none", "Pa s", (0.0, 2e-5), ("opt.viscosity",), "viscosity of the medium (air has 1.8e-5)",
        row("opt.viscosity", low=0.0), idle=still_air),
)  # fmt: skip
