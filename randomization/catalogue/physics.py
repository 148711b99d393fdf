"""The physical part of the catalogue; `physics.model_edits` says which values of the model each quantity writes."""

from __future__ import annotations

from randomization.catalogue.quantity import RandomizableQuantity, Target

_INF = float("inf")
_Range = tuple[float, float]


def _factor(
    name: str, target: Target, default_range: _Range, writes: tuple[str, ...], description: str, positive: bool = False
) -> RandomizableQuantity:
    """A factor of nominal values; `positive` where zero makes no sense."""
    limits = (1e-3 if positive else 0.0, _INF)
    return RandomizableQuantity(name, "physics", "scale", target, "1", 1.0, limits, default_range, writes, description)


def _shift(
    name: str, target: Target, unit: str, default_range: _Range, writes: tuple[str, ...], description: str
) -> RandomizableQuantity:
    """Something added to nominal values."""
    return RandomizableQuantity(
        name, "physics", "add", target, unit, 0.0, (-_INF, _INF), default_range, writes, description
    )


def _spread(
    name: str, target: Target, unit: str, default_range: _Range, writes: tuple[str, ...], description: str
) -> RandomizableQuantity:
    """The standard deviation of what is added to each nominal value, drawn anew in every episode."""
    return RandomizableQuantity(
        name, "physics", "spread", target, unit, 0.0, (0.0, _INF), default_range, writes, description
    )


PHYSICS: tuple[RandomizableQuantity, ...] = (
    _factor("body_mass", "body", (0.5, 2.0), ("body_mass", "body_inertia"),
        "mass; the inertia scales with it, as with a change of density", positive=True),
    _factor("body_inertia", "body", (0.7, 1.4), ("body_inertia",),
        "rotational inertia, all axes alike, so that it stays physical", positive=True),
    _spread("body_com", "body", "m", (0.0, 0.01), ("body_ipos",),
        "standard deviation of a shift of the centre of mass, along every axis of the body's frame"),
    _shift("body_com_x", "body", "m", (-0.01, 0.01), ("body_ipos",),
        "shift of the centre of mass along x of the body's frame"),
    _shift("body_com_y", "body", "m", (-0.01, 0.01), ("body_ipos",),
        "shift of the centre of mass along y of the body's frame"),
    _shift("body_com_z", "body", "m", (-0.01, 0.01), ("body_ipos",),
        "shift of the centre of mass along z of the body's frame"),
    _factor("body_size", "body", (0.95, 1.05), ("geom_size", "geom_pos", "body_ipos", "body_mass", "body_inertia"),
        "shapes at constant density: mass ~ s^3, inertia ~ s^5", positive=True),
    _spread("body_pos", "body", "m", (0.0, 0.005), ("body_pos",),
        "standard deviation of a shift of a body in its parent, along every axis"),
    _shift("body_pos_x", "body", "m", (-0.01, 0.01), ("body_pos",), "shift of a body along x of its parent's frame"),
    _shift("body_pos_y", "body", "m", (-0.01, 0.01), ("body_pos",), "shift of a body along y of its parent's frame"),
    _shift("body_pos_z", "body", "m", (-0.01, 0.01), ("body_pos",), "shift of a body along z of its parent's frame"),
    _factor("geom_size", "geom", (0.95, 1.05), ("geom_size",),
        "size of a shape alone; mass and inertia stay (body_size changes them too)", positive=True),
    _spread("geom_pos", "geom", "m", (0.0, 0.002), ("geom_pos",),
        "standard deviation of a shift of a shape in its body, along every axis"),
    _shift("geom_pos_x", "geom", "m", (-0.002, 0.002), ("geom_pos",), "shift of a shape along x of its body's frame"),
    _shift("geom_pos_y", "geom", "m", (-0.002, 0.002), ("geom_pos",), "shift of a shape along y of its body's frame"),
    _shift("geom_pos_z", "geom", "m", (-0.002, 0.002), ("geom_pos",), "shift of a shape along z of its body's frame"),
    _factor("geom_friction", "geom", (0.7, 1.3), ("geom_friction", "pair_friction"),
        "sliding, spinning and rolling friction; a contact uses the larger of its two geoms"),
    _factor("geom_friction_slide", "geom", (0.7, 1.3), ("geom_friction", "pair_friction"),
        "sliding friction; a contact uses the larger of its two geoms"),
    _factor("geom_friction_spin", "geom", (0.7, 1.3), ("geom_friction", "pair_friction"),
        "friction against spinning about the normal, where condim is 4 or 6"),
    _factor("geom_friction_roll", "geom", (0.7, 1.3), ("geom_friction", "pair_friction"),
        "friction against rolling, where condim is 6"),
    _factor("geom_solref", "geom", (0.8, 1.5), ("geom_solref", "pair_solref", "pair_solreffriction"),
        "time constant of contacts: larger is softer", positive=True),
    _shift("geom_solimp_dmin", "geom", "1", (-0.1, 0.005), ("geom_solimp", "pair_solimp"),
        "impedance of a contact at first touch"),
    _shift("geom_solimp_dmax", "geom", "1", (-0.1, 0.005), ("geom_solimp", "pair_solimp"),
        "impedance of a deep contact"),
    _factor("geom_solimp_width", "geom", (0.5, 2.0), ("geom_solimp", "pair_solimp"),
        "depth over which the impedance rises", positive=True),
    _shift("geom_margin", "geom", "m", (0.0, 0.0005), ("geom_margin", "pair_margin"),
        "distance at which a contact begins to act"),
    _shift("geom_gap", "geom", "m", (0.0, 0.0005), ("geom_gap", "pair_gap"),
        "distance beyond the margin at which a contact is seen but does not act yet"),
    _factor("joint_damping", "joint", (0.5, 2.0),
        ("dof_damping", "dof_dampingpoly", "actuator_damping", "actuator_dampingpoly"),
        "viscous damping of a joint, its actuators' included"),
    _factor("joint_frictionloss", "joint", (0.5, 2.0), ("dof_frictionloss",), "dry friction of a joint"),
    _shift("joint_frictionloss_added", "joint", "N m or N", (0.0, 0.05), ("dof_frictionloss",),
        "dry friction added to a joint, for models that have none"),
    _factor("joint_stiffness", "joint", (0.75, 1.33), ("jnt_stiffness", "jnt_stiffnesspoly"),
        "stiffness of a joint's spring"),
    _shift("joint_stiffness_added", "joint", "N m/rad or N/m", (0.0, 0.01), ("jnt_stiffness",),
        "stiffness added to a joint's spring, for models that have none"),
    _factor("joint_armature", "joint", (0.5, 2.0), ("dof_armature", "actuator_armature"),
        "inertia of a joint's rotor, as felt at the joint"),
    _spread("joint_range", "joint", "rad or m", (0.0, 0.05), ("jnt_range",),
        "standard deviation of a shift of each end of a joint's range"),
    _shift("joint_range_lower", "joint", "rad or m", (-0.1, 0.1), ("jnt_range",),
        "shift of the lower end of a joint's range"),
    _shift("joint_range_upper", "joint", "rad or m", (-0.1, 0.1), ("jnt_range",),
        "shift of the upper end of a joint's range"),
    _factor("tendon_stiffness", "tendon", (0.75, 1.33), ("tendon_stiffness", "tendon_stiffnesspoly"),
        "stiffness of a tendon's spring"),
    _factor("tendon_length_spring", "tendon", (0.95, 1.05), ("tendon_lengthspring",),
        "resting length of a tendon's spring, both ends of its dead band"),
    _spread("tendon_range", "tendon", "m or rad", (0.0, 0.01), ("tendon_range",),
        "standard deviation of a shift of each end of a tendon's range"),
    _shift("tendon_range_lower", "tendon", "m or rad", (-0.01, 0.01), ("tendon_range",),
        "shift of the lower end of a tendon's range"),
    _shift("tendon_range_upper", "tendon", "m or rad", (-0.01, 0.01), ("tendon_range",),
        "shift of the upper end of a tendon's range"),
    _factor("actuator_gain", "actuator", (0.75, 1.5), ("actuator_gainprm", "actuator_biasprm"),
        "gain with its bias (kp and kd of a servo together)"),
    _factor("actuator_kp", "actuator", (0.75, 1.5), ("actuator_gainprm", "actuator_biasprm"),
        "stiffness of a position servo, P gain of a PID"),
    _factor("actuator_kd", "actuator", (0.75, 1.5), ("actuator_gainprm", "actuator_biasprm"),
        "damping of a servo, D gain of a PID"),
    _factor("actuator_ki", "actuator", (0.75, 1.5), ("actuator_gainprm",), "I gain of a PID"),
    _factor("actuator_force_range", "actuator", (0.75, 1.25),
        ("actuator_forcerange", "jnt_actfrcrange", "tendon_actfrcrange"),
        "largest force of an actuator: its own limit and its share of its joints' and tendon's"),
    _factor("actuator_strength", "actuator", (0.7, 1.0),
        ("actuator_gainprm", "actuator_biasprm", "actuator_forcerange", "jnt_actfrcrange", "tendon_actfrcrange"),
        "force of an actuator, and where it saturates (itself, its joints, its tendon): below 1 it is weak"),
    _factor("backlash_range", "joint", (0.5, 2.0), ("jnt_range",), "play of a slack joint (two-joint backlash)"),
    _shift("gravity", "axis", "m/s^2", (-0.5, 0.5), ("opt.gravity",), "added to gravity along a world axis: x, y or z"),
    _factor("timestep", "none", (0.9, 1.1), ("opt.timestep",),
        "duration of a physics step, and so of a control step", positive=True),
    _shift("wind", "axis", "m/s", (-2.0, 2.0), ("opt.wind",),
        "wind along a world axis; acts where density or viscosity is not zero"),
    _shift("air_density", "none", "kg/m^3", (0.0, 1.2), ("opt.density",),
        "density of the medium (air has 1.2), for lift and drag"),
    _shift("air_viscosity", "none", "Pa s", (0.0, 2e-5), ("opt.viscosity",),
        "viscosity of the medium (air has 1.8e-5)"),
)  # fmt: skip
