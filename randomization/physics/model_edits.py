"""What each physical quantity writes: which values of which MuJoCo model fields belong to a named object.

A quantity's writer takes the model and the object's index and returns its edits. An empty list says that the
quantity makes no sense for that object (a range of a joint without limits, the size of a mesh).
"""

from __future__ import annotations

import mujoco
import numpy as np

from envs.task import Task
from randomization.physics.contact_fields import distance, friction, solimp, solref
from randomization.physics.edit import Edit, Writer, field_values
from randomization.physics.force_limits import force_limits
from randomization.targets.objects import actuators_at, backlash_joint_of, geoms_of

COM = {"body_com": (0, 1, 2), "body_com_x": (0,), "body_com_y": (1,), "body_com_z": (2,)}  # axes of the shift
_INF = float("inf")
_FIXED_WIDTH = {int(mujoco.mjtJoint.mjJNT_FREE): 6, int(mujoco.mjtJoint.mjJNT_BALL): 3}  # dofs; hinge and slide have 1
_GEOM = mujoco.mjtGeom
_NO_SIZE = {int(g) for g in (_GEOM.mjGEOM_PLANE, _GEOM.mjGEOM_HFIELD, _GEOM.mjGEOM_MESH, _GEOM.mjGEOM_SDF)}


def row(field: str, width: int = 1, columns: tuple[int, ...] | None = None, low: float = -_INF) -> Writer:
    """Columns (all) of row `index` of a field with rows of `width` values."""
    chosen = tuple(range(width)) if columns is None else columns
    return lambda _, index: [Edit(field, tuple(width * index + c for c in chosen), low=low)]


def whole(field: str, low: float = -_INF) -> Writer:
    """The single value of a field; there is no object."""
    return lambda _, index: [Edit(field, (index,), low=low)]


def joint_dofs(field: str, low: float = -_INF) -> Writer:
    """A dof field, of all dofs of a joint."""

    def edits(model: mujoco.MjModel, index: int) -> list[Edit]:
        start = int(model.jnt_dofadr[index])
        width = _FIXED_WIDTH.get(int(model.jnt_type[index]), 1)
        return [Edit(field, tuple(range(start, start + width)), low=low)]

    return edits


def _transmitted(field: str, width: int = 1) -> Writer:
    """What the actuators at a joint contribute to it."""
    return lambda model, joint: [
        Edit(field, tuple(range(width * a, width * (a + 1)))) for a in actuators_at(model, joint)
    ]


def everywhere(*places: Writer) -> Writer:
    """Every place where MuJoCo keeps parts of one thing: those that are not zero, or the first if all are."""

    def edits(model: mujoco.MjModel, index: int) -> list[Edit]:
        found = [edit for place in places for edit in place(model, index)]
        return [edit for edit in found if any(edit_values(model, edit))] or found[:1]

    return edits


def joint_dofs_poly(model: mujoco.MjModel, joint: int) -> list[Edit]:
    """The quadratic and cubic damping of all dofs of a joint."""
    dofs = joint_dofs("dof_dampingpoly")(model, joint)[0].elements
    return [Edit("dof_dampingpoly", tuple(2 * dof + c for dof in dofs for c in (0, 1)))]


def spring(model: mujoco.MjModel, index: int) -> list[Edit]:
    """Stiffness of a joint's spring; a free body hangs on none."""
    free = int(model.jnt_type[index]) == int(mujoco.mjtJoint.mjJNT_FREE)
    return [] if free else [Edit("jnt_stiffness", (index,), low=0.0)]


def mass(model: mujoco.MjModel, index: int) -> list[Edit]:
    """Mass; the inertia scales with it, as with a change of density."""
    return [Edit("body_mass", (index,)), *inertia(model, index)]


def inertia(_: mujoco.MjModel, index: int) -> list[Edit]:
    """All three principal moments by one factor, which keeps the triangle inequality."""
    return [Edit("body_inertia", tuple(range(3 * index, 3 * index + 3)))]


def body_size(model: mujoco.MjModel, index: int) -> list[Edit]:
    """All shapes of a body about its frame at constant density: mass ~ s^3, inertia ~ s^5. Child bodies stay."""
    geoms = geoms_of(model, index)
    if not geoms or any(int(model.geom_type[g]) in _NO_SIZE for g in geoms):
        return []
    values = tuple(range(3 * geoms.start, 3 * geoms.stop))
    return [
        Edit("geom_size", values),
        Edit("geom_pos", values),
        Edit("body_ipos", tuple(range(3 * index, 3 * index + 3))),
        Edit("body_mass", (index,), power=3.0),
        Edit("body_inertia", tuple(range(3 * index, 3 * index + 3)), power=5.0),
    ]


def geom_size(model: mujoco.MjModel, index: int) -> list[Edit]:
    """A shape's size alone: what touches, not what weighs."""
    if int(model.geom_type[index]) in _NO_SIZE:
        return []
    return [Edit("geom_size", tuple(range(3 * index, 3 * index + 3)))]


def body_pos(*axes: int) -> Writer:
    """A body's place in its parent, unless its state decides (free joint) or its input does (mocap)."""

    def edits(model: mujoco.MjModel, index: int) -> list[Edit]:
        joint = int(model.body_jntadr[index])
        free = joint >= 0 and int(model.jnt_type[joint]) == int(mujoco.mjtJoint.mjJNT_FREE)
        if free or int(model.body_mocapid[index]) >= 0:
            return []
        return [Edit("body_pos", tuple(3 * index + axis for axis in axes))]

    return edits


def com(*axes: int) -> Writer:
    """A body's centre of mass in its frame; a body without mass has none."""

    def edits(model: mujoco.MjModel, index: int) -> list[Edit]:
        if not model.body_mass[index] > 0:
            return []
        return [Edit("body_ipos", tuple(3 * index + axis for axis in axes))]

    return edits


def limits(kind: str, *sides: int) -> Writer:
    """Lower (0) and upper (1) end of a joint's or tendon's range, where it is limited; neither passes the other."""
    field = {"jnt": "jnt_range", "tendon": "tendon_range"}[kind]

    def edits(model: mujoco.MjModel, index: int) -> list[Edit]:
        if not getattr(model, f"{kind}_limited")[index]:
            return []
        ball = kind == "jnt" and int(model.jnt_type[index]) == int(mujoco.mjtJoint.mjJNT_BALL)
        low, high = (float(v) for v in getattr(model, field)[index])
        bounds = {0: (-_INF, high), 1: (max(low, 0.0) if ball else low, _INF)}
        return [Edit(field, (2 * index + s,), 1.0, *bounds[s]) for s in sides if not (ball and s == 0)]

    return edits


def force_range(model: mujoco.MjModel, index: int) -> list[Edit]:
    """Both ends of every range that limits an actuator's force: its own, its tendon's, its joints'."""
    return [
        Edit(limit.field, (2 * limit.index, 2 * limit.index + 1), sharers=limit.sharers)
        for limit in force_limits(model, index)
    ]


def _prm(model: mujoco.MjModel, index: int, gain: tuple[int, ...], bias: tuple[int, ...]) -> list[Edit]:
    """Edits of chosen gain and bias parameters of an actuator."""
    g, b = index * model.actuator_gainprm.shape[1], index * model.actuator_biasprm.shape[1]
    edits = [("actuator_gainprm", tuple(g + c for c in gain)), ("actuator_biasprm", tuple(b + c for c in bias))]
    return [Edit(field, elements) for field, elements in edits if elements]


_FIXED, _AFFINE = int(mujoco.mjtGain.mjGAIN_FIXED), int(mujoco.mjtGain.mjGAIN_AFFINE)
_PID, _SO3, _MUSCLE = (
    int(g) for g in (mujoco.mjtGain.mjGAIN_PID, mujoco.mjtGain.mjGAIN_SO3, mujoco.mjtGain.mjGAIN_MUSCLE)
)
_NO_BIAS, _AFFINE_BIAS = int(mujoco.mjtBias.mjBIAS_NONE), int(mujoco.mjtBias.mjBIAS_AFFINE)
_SO3_BIAS, _MUSCLE_BIAS = int(mujoco.mjtBias.mjBIAS_SO3), int(mujoco.mjtBias.mjBIAS_MUSCLE)
_FEEDFORWARD = int(mujoco.mjtCtrlInput.mjINPUT_FF)
# Parameters of gain and bias that are gains: force = (g0 + g1 length + g2 velocity) u + b0 + b1 length + b2 velocity.
# b0 is none. A PID keeps ki in g0, and kp and kd in the bias; an orientation servo is a servo.
_GAINS: dict[int, tuple[int, ...]] = {_FIXED: (0,), _AFFINE: (0, 1, 2), _PID: (0,), _SO3: (0,)}
_BIAS_GAINS: dict[int, tuple[int, ...]] = {_NO_BIAS: (), _AFFINE_BIAS: (1, 2), _SO3_BIAS: (1, 2)}


def _kinds(model: mujoco.MjModel, index: int) -> tuple[int, int]:
    """Kinds of an actuator's gain and bias; -1 where a plugin computes its force from numbers of its own."""
    if int(model.actuator_plugin[index]) >= 0:
        return -1, -1
    return int(model.actuator_gaintype[index]), int(model.actuator_biastype[index])


def actuator_gain(model: mujoco.MjModel, index: int) -> list[Edit]:
    """All gains of a motor, servo, damper or PID; see `_GAINS`."""
    gain, bias = _kinds(model, index)
    return _prm(model, index, _GAINS[gain], _BIAS_GAINS[bias]) if gain in _GAINS and bias in _BIAS_GAINS else []


def actuator_kp(model: mujoco.MjModel, index: int) -> list[Edit]:
    """Stiffness of a position servo or PID: (kp, 0, 0), (0, -kp, -kd)."""
    gain, kind = _kinds(model, index)
    bias = model.actuator_biasprm[index]
    if gain not in (_FIXED, _PID, _SO3) or kind not in (_AFFINE_BIAS, _SO3_BIAS) or not bias[1]:
        return []
    if gain == _FIXED and model.actuator_gainprm[index, 0] * bias[1] > 0:
        return []  # not towards where the input says
    return _prm(model, index, () if gain == _PID else (0,), (1,))


def actuator_kd(model: mujoco.MjModel, index: int) -> list[Edit]:
    """Damping of a servo or PID. A velocity servo is (kd, 0, 0), (0, 0, -kd): its gain is that damping."""
    gain, kind = _kinds(model, index)
    bias = model.actuator_biasprm[index]
    if gain not in (_FIXED, _PID, _SO3) or kind not in (_AFFINE_BIAS, _SO3_BIAS) or not bias[2]:
        return []
    velocity_servo = gain == _FIXED and not bias[1] and model.actuator_gainprm[index, 0] == -bias[2]
    return _prm(model, index, (0,) if velocity_servo else (), (2,))


def actuator_ki(model: mujoco.MjModel, index: int) -> list[Edit]:
    """Integral gain of a PID that has one."""
    if _kinds(model, index)[0] != _PID or not model.actuator_gainprm[index, 0]:
        return []
    return _prm(model, index, (0,), ())


def actuator_strength(model: mujoco.MjModel, index: int) -> list[Edit]:
    """All that makes up an actuator's force, and where it saturates: force = strength * nominal."""
    force = _force(model, index)
    return [*force, *force_range(model, index)] if force else []


def _force(model: mujoco.MjModel, index: int) -> list[Edit]:
    """What an actuator's force is proportional to; nothing where there is no such thing.

    A feedforward input of a PID is added to its force as it is, and a DC motor's constant counts twice in its brake.
    """
    gain, bias = _kinds(model, index)
    if gain == _PID and int(model.actuator_ctrlspec[index]) & _FEEDFORWARD:
        return []
    of_gain, of_bias = model.actuator_gainprm[index], model.actuator_biasprm[index]
    gains = _GAINS | {_MUSCLE: (_peak_force(of_gain),)}
    biases = {_NO_BIAS: (), _AFFINE_BIAS: (0, 1, 2), _SO3_BIAS: (0, 1, 2), _MUSCLE_BIAS: (_peak_force(of_bias),)}
    if gain not in gains or bias not in biases:
        return []
    if not any(of_gain[list(gains[gain])]) and not any(of_bias[list(biases[bias])]):
        return []  # no force at all
    return _prm(model, index, gains[gain], biases[bias])


def _peak_force(prm: np.ndarray) -> int:
    """The parameter of a muscle that its force is proportional to: the peak force, or what it is derived from."""
    return 2 if prm[2] >= 0 else 3


def backlash_range(model: mujoco.MjModel, index: int) -> list[Edit]:
    """Range of the slack joint beside a driven one (MuJoCo's manual, Modeling, Backlash)."""
    return [Edit("jnt_range", (2 * index, 2 * index + 1))] if backlash_joint_of(model, index) >= 0 else []


WRITERS: dict[str, Writer] = {
    "body_mass": mass, "body_inertia": inertia, "body_size": body_size, "geom_size": geom_size,
    **{name: com(*axes) for name, axes in COM.items()},
    "body_pos": body_pos(0, 1, 2), "body_pos_x": body_pos(0), "body_pos_y": body_pos(1), "body_pos_z": body_pos(2),
    "geom_pos": row("geom_pos", 3), "geom_pos_x": row("geom_pos", 3, (0,)), "geom_pos_y": row("geom_pos", 3, (1,)),
    "geom_pos_z": row("geom_pos", 3, (2,)),
    "geom_friction": everywhere(friction(0, 1, 2)), "geom_friction_slide": everywhere(friction(0)),
    "geom_friction_spin": everywhere(friction(1)), "geom_friction_roll": everywhere(friction(2)),
    "geom_solref": solref,
    "geom_solimp_dmin": solimp(0), "geom_solimp_dmax": solimp(1), "geom_solimp_width": solimp(2),
    "geom_margin": distance("margin"), "geom_gap": distance("gap"),
    "joint_damping": everywhere(
        joint_dofs("dof_damping"), joint_dofs_poly,
        _transmitted("actuator_damping"), _transmitted("actuator_dampingpoly", 2),
    ),
    "joint_frictionloss": joint_dofs("dof_frictionloss"),
    "joint_frictionloss_added": joint_dofs("dof_frictionloss", low=0.0),
    "joint_stiffness": everywhere(row("jnt_stiffness"), row("jnt_stiffnesspoly", 2)),
    "joint_stiffness_added": spring,
    "joint_armature": everywhere(joint_dofs("dof_armature"), _transmitted("actuator_armature")),
    "joint_range": limits("jnt", 0, 1), "joint_range_lower": limits("jnt", 0), "joint_range_upper": limits("jnt", 1),
    "tendon_stiffness": everywhere(row("tendon_stiffness"), row("tendon_stiffnesspoly", 2)),
    "tendon_length_spring": row("tendon_lengthspring", 2),
    "tendon_range": limits("tendon", 0, 1), "tendon_range_lower": limits("tendon", 0),
    "tendon_range_upper": limits("tendon", 1),
    "actuator_gain": actuator_gain, "actuator_kp": actuator_kp, "actuator_kd": actuator_kd, "actuator_ki": actuator_ki,
    "actuator_force_range": force_range, "actuator_strength": actuator_strength,
    "backlash_range": backlash_range,
    "gravity": whole("opt.gravity"), "timestep": whole("opt.timestep"), "wind": whole("opt.wind"),
    "air_density": whole("opt.density", low=0.0), "air_viscosity": whole("opt.viscosity", low=0.0),
}  # fmt: skip


# What an object has to be for a quantity; named when it is not.
UNSUITABLE: dict[str, str] = {
    **dict.fromkeys(COM, "body with a movable centre of mass"),
    **dict.fromkeys(
        ("body_pos", "body_pos_x", "body_pos_y", "body_pos_z"),
        "body placed by the model (free or mocap bodies are not)",
    ),
    "body_size": "body whose shapes are all primitives (no mesh, plane or height field)",
    "geom_size": "primitive shape (mesh, plane and height field have no size of their own)",
    **dict.fromkeys(("joint_range", "joint_range_lower", "joint_range_upper"), "joint with a range"),
    **dict.fromkeys(("tendon_range", "tendon_range_lower", "tendon_range_upper"), "tendon with a range"),
    "joint_stiffness_added": "joint with an axis (a free one has none)",
    "actuator_gain": "motor, servo, damper or PID",
    "actuator_strength": "motor, servo, damper, muscle or PID (one without feedforward) with a force to scale",
    "backlash_range": "slack joint: one with a range and no actuator, beside a driven one with the same axis",
    "actuator_kp": "position servo or PID",
    "actuator_kd": "servo or PID with damping",
    "actuator_ki": "PID with an integral gain",
    "actuator_force_range": "actuator with a force range, of its own or of its joint or tendon",
}


def edits_of(model: mujoco.MjModel, quantity: str, index: int) -> list[Edit]:
    """What a physical quantity of object `index` writes; empty where it makes no sense for that object."""
    return WRITERS[quantity](model, index)


def room(task: Task, quantity: str, index: int) -> tuple[float, float]:
    """How far a physical quantity of object `index` may be shifted before its value makes less sense than in the model:
    down (at most 0) and up (at least 0)."""
    low, high = -_INF, _INF
    for edit in edits_of(task.model, quantity, index):
        for value in edit_values(task.model, edit):
            low, high = max(low, min(edit.low - value, 0.0)), min(high, max(edit.high - value, 0.0))
    return low, high


def nominal_values(task: Task, quantity: str, index: int) -> list[float]:
    """Nominal values that a physical quantity of object `index` acts on: of the first field in which any is not zero,
    or of the field that it names first."""
    of_fields = [edit_values(task.model, edit) for edit in edits_of(task.model, quantity, index)]
    return next((values for values in of_fields if any(values)), of_fields[0] if of_fields else [])


def is_zero(task: Task, quantity: str, index: int) -> bool:
    """Whether all that a factor would multiply is zero."""
    values = nominal_values(task, quantity, index)
    return bool(values) and not any(values)


def edit_values(model: mujoco.MjModel, edit: Edit) -> list[float]:
    """Nominal values of an edit's elements."""
    flat = np.ravel(field_values(model, edit.field))
    return [float(flat[e]) for e in edit.elements]
