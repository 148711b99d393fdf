"""What physical quantities write: which values of which MuJoCo model fields belong to a named object.

A writer takes the model and the object's index and returns its edits. An empty list says that the quantity makes no
sense for that object (a range of a joint without limits, the size of a mesh). The catalogue says whose each writer is.
"""

from __future__ import annotations

import mujoco
import numpy as np

from randomization.physics.edit import Edit, Writer, edit_values, field_values
from randomization.physics.force_limits import force_limits
from randomization.targets.objects import actuators_at, backlash_joint_of, geoms_of

_INF = float("inf")
_DOFS = {int(mujoco.mjtJoint.mjJNT_FREE): 6, int(mujoco.mjtJoint.mjJNT_BALL): 3}  # of a joint; hinge and slide have 1
_GEOM = mujoco.mjtGeom
_NO_SIZE = {int(g) for g in (_GEOM.mjGEOM_PLANE, _GEOM.mjGEOM_HFIELD, _GEOM.mjGEOM_MESH, _GEOM.mjGEOM_SDF)}


def row(field: str, *columns: int, low: float = -_INF) -> Writer:
    """Columns (all) of the rows of a field that belong to object `index`: one, or those of all dofs of a joint. Of
    mjOption, value `index`."""

    def edits(model: mujoco.MjModel, index: int) -> list[Edit]:
        if field.startswith("opt."):
            return [Edit(field, (index,), low=low)]
        first, count = index, 1
        if field.startswith("dof_"):
            first, count = int(model.jnt_dofadr[index]), _DOFS.get(int(model.jnt_type[index]), 1)
        width = field_values(model, field)[0].size
        chosen = columns or range(width)
        return [Edit(field, tuple(width * r + c for r in range(first, first + count) for c in chosen), low=low)]

    return edits


def _transmitted(field: str) -> Writer:
    """What the actuators at a joint contribute to it."""
    return lambda model, joint: [edit for a in actuators_at(model, joint) for edit in row(field)(model, a)]


def everywhere(*places: Writer) -> Writer:
    """Every place where MuJoCo keeps parts of one thing: those that are not zero, or the first if all are."""

    def edits(model: mujoco.MjModel, index: int) -> list[Edit]:
        found = [edit for place in places for edit in place(model, index)]
        return [edit for edit in found if any(edit_values(model, edit))] or found[:1]

    return edits


def rows(*fields: str) -> Writer:
    """The rows of an object in fields that keep parts of one thing."""
    return everywhere(*map(row, fields))


def with_actuators(*fields: str) -> Writer:
    """What a joint has of one thing and, in fields of the same name, what the actuators at it contribute."""
    return everywhere(*map(row, fields), *(_transmitted(f.replace("dof_", "actuator_")) for f in fields))


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
