"""Whether a quantity of an object can change anything, and if not, why: what naming it is refused with.

A quantity changes nothing where a flag of the model switches off what it acts on, where nothing can move the object,
where every contact takes the parameter from elsewhere, or where the motion does not depend on it (the inertia of a body
that never turns, gravity along the axis of a planar robot).
"""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np

from envs.task import Task
from randomization.catalogue.quantity import Quantity
from randomization.physics.contacts import contacts_of, shape_name
from randomization.physics.edit import edit_values
from randomization.targets.objects import geoms_of, locked_dofs, moving_joints
from randomization.targets.probe import probe_of

_ACTUATION = int(mujoco.mjtDisableBit.mjDSBL_ACTUATION)
_PASSIVE = int(mujoco.mjtDisableBit.mjDSBL_SPRING) | int(mujoco.mjtDisableBit.mjDSBL_DAMPER)
_OVERRIDE = int(mujoco.mjtEnableBit.mjENBL_OVERRIDE)
_PLANE = int(mujoco.mjtGeom.mjGEOM_PLANE)
_ALIGNED = 1e-9
_HINGE = int(mujoco.mjtJoint.mjJNT_HINGE)
_BALL = (int(mujoco.mjtJoint.mjJNT_FREE), int(mujoco.mjtJoint.mjJNT_BALL))
_FRICTIONS = ("sliding", "spinning", "rolling")
_STRONG = {"opt.viscosity": 1e3}  # times the widest default: little of it is felt
_TRIED = 3.0
_OFF = "changes nothing: the model has {} switched off"


def idle_because(task: Task, quantity: Quantity, index: int) -> str:
    """Why a quantity of object `index` of its kind would change nothing, to follow the object's name; "" if it does."""
    if quantity.target == "joint" and locked_dofs(task.model)[task.model.jnt_dofadr[index]]:
        return "changes nothing: the joint is locked by its damping"
    return quantity.idle(task, quantity, index) if quantity.idle else ""


def only_shown(task: Task, quantity: Quantity, index: int) -> str:
    """Why a quantity of an object may be named though it changes no motion here, to follow the object's name; "" if it
    does. A geom is seen; of the axes of the world one file serves robots that follow all and planar ones."""
    if quantity.target == "axis" and not _probed(task, quantity, index):
        return "changes nothing: nothing in the model can follow it along this axis"
    return quantity.shown(task, quantity, index) if quantity.shown else ""


def no_action(task: Task, quantity: Quantity, index: int) -> str:  # noqa: ARG001
    """Of what happens to actions."""
    if not task.action_size:
        return "changes nothing: the task has no action"
    off = task.command_fields == ("ctrl",) and task.model.opt.disableflags & _ACTUATION
    return _OFF.format("actuation") if off else ""


def even_ground(task: Task, quantity: Quantity, index: int) -> str:  # noqa: ARG001
    """Of ground with levels."""
    return "" if task.terrain_levels else f"changes nothing: the ground of {task.id} has no levels to choose from"


def still_air(task: Task, quantity: Quantity, index: int) -> str:
    """Of the medium. That wind along an axis is followed by nothing is `only_shown`."""
    if task.model.opt.disableflags & _PASSIVE == _PASSIVE:
        return _OFF.format("spring and damper")
    felt = quantity.target == "axis" or _probed(task, quantity, index)
    return "" if felt else "changes nothing: nothing in the model can follow it"


def steady_base(task: Task, quantity: Quantity, index: int) -> str:  # noqa: ARG001
    """Of a base that moves sideways."""
    felt = any(probe_of(task.model).acts([("opt.gravity", (axis,), (3.0,))]) for axis in (0, 1))
    return "" if felt else "changes nothing: nothing in the model can move sideways"


def slack_spring(task: Task, quantity: Quantity, tendon: int) -> str:  # noqa: ARG001
    """Of the resting length of a tendon's spring."""
    stiff = task.model.tendon_stiffness[tendon] or task.model.tendon_stiffnesspoly[tendon].any()
    return "" if stiff else "changes nothing: the tendon has no stiffness"


def slides_past(task: Task, quantity: Quantity, geom: int) -> str:
    """Of a shift of a geom along an axis of its body."""
    (edit,) = quantity.edits(task.model, geom)
    past = _slides_past(task.model, geom, edit.elements[0] % 3)
    return "changes nothing: all that touches it is the same along that axis" if past else ""


def untouched(task: Task, quantity: Quantity, geom: int) -> str:  # noqa: ARG001
    """Of the shape of a geom."""
    return "" if _felt(task.model, geom) else "touches nothing: this changes what is seen of it and no motion"


def gap_unread(task: Task, quantity: Quantity, geom: int) -> str:  # noqa: ARG001
    """Of the gap of contacts."""
    if _gap_read(task.model, geom):
        return ""
    return "changes no motion: without adhesion and contact sensors a gap changes only which contacts are reported"


def impedance_level(task: Task, quantity: Quantity, geom: int) -> str:  # noqa: ARG001
    """Of the width over which the impedance of contacts rises."""
    if _impedance_rises(task.model, geom):
        return ""
    return "changes no motion: dmin equals dmax, so that the impedance is the same at any depth"


def _impedance_rises(model: mujoco.MjModel, geom: int) -> bool:
    """Whether the impedance of any contact of a geom depends on depth, over a width that is the geom's."""
    contacts = contacts_of(model)
    solimp = contacts.mixed("solimp", contacts.nominal["solimp"])
    declared = contacts.pair >= 0
    solimp[declared] = model.pair_solimp[contacts.pair[declared]]
    return bool((contacts.of(geom) & (solimp[:, 0] != solimp[:, 1])).any())


def _felt(model: mujoco.MjModel, geom: int) -> bool:
    """Whether anything physical depends on the shape of a geom: contacts, tendons around it, lift and drag."""
    rounds = (int(mujoco.mjtWrap.mjWRAP_SPHERE), int(mujoco.mjtWrap.mjWRAP_CYLINDER))
    wrapped = bool(((model.wrap_objid == geom) & np.isin(model.wrap_type, rounds)).any())
    return wrapped or bool(model.geom_fluid[geom].any()) or bool(contacts_of(model).of(geom).any())


def contact_idle(task: Task, quantity: Quantity, geom: int) -> str:
    """Of what contacts take from a geom."""
    part, model = quantity.contact, task.model
    assert part is not None
    if part.name != "gap" and model.opt.enableflags & _OVERRIDE:
        return _OFF.format("parameters of single contacts (override)")
    contacts = contacts_of(model)
    mine = contacts.of(geom)
    if not mine.any():
        return "touches nothing: contype, conaffinity, exclude and joints leave it no partner, and no pair names it"
    if quantity.edits(model, geom):
        return ""
    if part.kinds and not (contacts.dim[mine] >= part.least_condim).any():
        return (
            f"changes nothing: no contact of it has the condim of at least {part.least_condim} that "
            f"{_FRICTIONS[min(part.kinds)]} friction needs"
        )
    partner = contacts.shapes[mine][0]
    other = shape_name(model, int(partner[partner != geom][0]))
    return (
        f"changes nothing: its contacts take this from the other geom (priority, solmix or format), such as {other!r}"
    )


def _gap_read(model: mujoco.MjModel, geom: int) -> bool:
    """Whether anything depends on contacts of a geom that do not act yet."""
    if (model.sensor_type == int(mujoco.mjtSensor.mjSENS_CONTACT)).any():
        return True
    contacts = contacts_of(model)
    mine = contacts.of(geom)
    shapes, pairs = contacts.shapes[mine], contacts.pair[mine]
    geoms = shapes[shapes < model.ngeom]
    drawn = model.actuator_trnid[model.actuator_trntype == int(mujoco.mjtTrn.mjTRN_BODY), 0]
    adhesive = model.geom_adhesion[geoms].any() and bool((pairs < 0).any())
    return bool(
        adhesive or model.pair_adhesion[pairs[pairs >= 0]].any() or np.isin(model.geom_bodyid[geoms], drawn).any()
    )


def body_idle(task: Task, quantity: Quantity, body: int) -> str:
    """Of the inertia of a body."""
    model = task.model
    if "geom_size" in quantity.writes and any(contacts_of(model).of(geom).any() for geom in geoms_of(model, body)):
        return ""
    if not moving_joints(model, body):
        return "changes nothing: no joint moves it"
    axes = tuple(e % 3 for edit in quantity.edits(model, body) for e in edit.elements)
    if quantity.shifts_com and model.body_simple[body] and axes:
        acts = _turns_about_another_axis(model, body, axes)
    else:
        acts = _probed(task, quantity, body)
    if acts:
        return ""
    if quantity.writes == ("body_inertia",):
        return "changes nothing: no joint turns it"
    return "changes nothing: the joints that move it do not feel it"


def _turns_about_another_axis(model: mujoco.MjModel, body: int, axes: tuple[int, ...]) -> bool:
    """Whether a shift of the centre of mass along axes of its frame leaves the axis of a joint that turns a body.

    For bodies compiled as if it never moved, on which no trial shows anything: they hang on nothing that turns.
    """
    for joint in moving_joints(model, body):
        if int(model.jnt_type[joint]) in _BALL:
            return True
        along = {axis for axis in range(3) if model.jnt_axis[joint, axis]}
        if int(model.jnt_type[joint]) == _HINGE and any({axis} != along for axis in axes):
            return True
    return False


def _slides_past(model: mujoco.MjModel, geom: int, axis: int) -> bool:
    """Whether a geom may be shifted along an axis of its body and nothing that it touches shows it: a plane along
    itself; a shape along planes, of a body that only turns about that axis (planar robots)."""
    contacts = contacts_of(model)
    data = probe_of(model).rest
    along = data.xmat[model.geom_bodyid[geom]].reshape(3, 3)[:, axis]
    if int(model.geom_type[geom]) == _PLANE:
        return bool(abs(data.geom_xmat[geom].reshape(3, 3)[:, 2] @ along) < _ALIGNED)
    for joint in moving_joints(model, int(model.geom_bodyid[geom])):
        turns = int(model.jnt_type[joint]) in (*_BALL, _HINGE)
        if int(model.jnt_type[joint]) in _BALL or (
            turns and np.linalg.norm(np.cross(data.xaxis[joint], along)) > _ALIGNED
        ):
            return False
    shapes = contacts.shapes[contacts.of(geom)]
    others = shapes[shapes != geom]
    if not len(others) or model.geom_fluid[geom].any() or not (others < model.ngeom).all():
        return False
    normals = data.geom_xmat[others].reshape(-1, 3, 3)[:, :, 2]
    return bool((model.geom_type[others] == _PLANE).all() and (np.abs(normals @ along) < _ALIGNED).all())


def _probed(task: Task, quantity: Quantity, index: int) -> bool:
    """Whether a large value of a quantity that writes smooth dynamics is felt anywhere."""
    changes: list[tuple[str, Sequence[int], Sequence[float]]] = []
    amount = _TRIED * max(abs(end) for end in quantity.default_range) * _STRONG.get(quantity.writes[0], 1.0)
    for edit in quantity.edits(task.model, index):
        values = edit_values(task.model, edit)
        if quantity.mode == "scale":
            changes.append((edit.field, edit.elements, [value * 1.7**edit.power for value in values]))
        else:
            changes.append((edit.field, edit.elements, [value + amount for value in values]))
    return not changes or probe_of(task.model).acts(changes, given="opt.wind" in quantity.writes)
