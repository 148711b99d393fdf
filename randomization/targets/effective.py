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
from randomization.catalogue.quantity import RandomizableQuantity
from randomization.physics.contacts import LEAST_CONDIM, contacts_of, shape_name
from randomization.physics.model_edits import COM, edit_values, edits_of
from randomization.targets.objects import geoms_of, locked_dofs, moving_joints
from randomization.targets.probe import probe_of

_ACTUATION = int(mujoco.mjtDisableBit.mjDSBL_ACTUATION)
_PASSIVE = int(mujoco.mjtDisableBit.mjDSBL_SPRING) | int(mujoco.mjtDisableBit.mjDSBL_DAMPER)
_OVERRIDE = int(mujoco.mjtEnableBit.mjENBL_OVERRIDE)
_PLANE = int(mujoco.mjtGeom.mjGEOM_PLANE)
_ALIGNED = 1e-9
_HINGE = int(mujoco.mjtJoint.mjJNT_HINGE)
_BALL = (int(mujoco.mjtJoint.mjJNT_FREE), int(mujoco.mjtJoint.mjJNT_BALL))
_INERTIAL = ("body_mass", "body_inertia", "body_size", *COM)
_OF_CONTACTS = ("geom_friction", "geom_solref", "geom_solimp", "geom_margin", "geom_gap")
_AIR = ("wind", "air_density", "air_viscosity")
_PLACES = ("geom_size", "geom_pos")
_SHIFTS = {"geom_pos_x": 0, "geom_pos_y": 1, "geom_pos_z": 2}
_ENOUGH = {"geom_friction": 0, "geom_friction_slide": 0, "geom_friction_spin": 1, "geom_friction_roll": 2}
_FRICTIONS = ("sliding", "spinning", "rolling")
_STRONG = {"air_viscosity": 1e3}  # times the widest default: little of it is felt
_TRIED = 3.0


def idle_because(task: Task, quantity: RandomizableQuantity, index: int) -> str:
    """Why a quantity of object `index` of its kind would change nothing, to follow the object's name; "" if it does."""
    model, name = task.model, quantity.name
    if not task.action_size and name.startswith(("action_", "adversary_action")):
        return "changes nothing: the task has no action"
    if off := _off(task, name):
        return f"changes nothing: the model has {off} switched off"
    if quantity.target == "joint" and _locked(model, index):
        return "changes nothing: the joint is locked by its damping"
    if name.startswith(_OF_CONTACTS):
        return _contact_reason(model, name, index)
    if name in _SHIFTS and _slides_past(model, index, _SHIFTS[name]):
        return "changes nothing: all that touches it is the same along that axis"
    if name in _INERTIAL:
        return _body_reason(task, quantity, index)
    if name in ("air_density", "air_viscosity"):
        return "" if _probed(task, quantity, index) else "changes nothing: nothing in the model can follow it"
    if name.startswith("base_"):
        felt = any(probe_of(model).acts([("opt.gravity", (axis,), (3.0,))]) for axis in (0, 1))
        return "" if felt else "changes nothing: nothing in the model can move sideways"
    if name == "tendon_length_spring" and not (
        model.tendon_stiffness[index] or model.tendon_stiffnesspoly[index].any()
    ):
        return "changes nothing: the tendon has no stiffness"
    return ""


def only_shown(task: Task, quantity: RandomizableQuantity, index: int) -> str:
    """Why a quantity of an object may be named though it changes no motion here, to follow the object's name; "" if it
    does. A geom is seen; of the axes of the world one file serves robots that follow all and planar ones."""
    if quantity.target == "axis" and not _probed(task, quantity, index):
        return "changes nothing: nothing in the model can follow it along this axis"
    if quantity.name.startswith(_PLACES) and not _felt(task.model, index):
        return "touches nothing: this changes what is seen of it and no motion"
    if quantity.name == "geom_gap" and not _gap_read(task.model, index):
        return "changes no motion: without adhesion and contact sensors a gap changes only which contacts are reported"
    if quantity.name == "geom_solimp_width" and not _impedance_rises(task.model, index):
        return "changes no motion: dmin equals dmax, so that the impedance is the same at any depth"
    return ""


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


def _off(task: Task, name: str) -> str:
    """What of a quantity's way to act the model has switched off, as its file calls it; `suitable.switched_off` knows
    the plain cases."""
    model = task.model
    if name in _AIR and model.opt.disableflags & _PASSIVE == _PASSIVE:
        return "spring and damper"
    if name.startswith(_OF_CONTACTS) and name != "geom_gap" and model.opt.enableflags & _OVERRIDE:
        return "parameters of single contacts (override)"
    driven = name.startswith(("action_", "adversary_action")) and task.command_fields == ("ctrl",)
    return "actuation" if driven and model.opt.disableflags & _ACTUATION else ""


def _locked(model: mujoco.MjModel, joint: int) -> bool:
    return bool(locked_dofs(model)[model.jnt_dofadr[joint]])


def _contact_reason(model: mujoco.MjModel, name: str, geom: int) -> str:
    contacts = contacts_of(model)
    mine = contacts.of(geom)
    if not mine.any():
        return "touches nothing: contype, conaffinity, exclude and joints leave it no partner, and no pair names it"
    if edits_of(model, name, geom):
        return ""
    if name in _ENOUGH:
        kind = _ENOUGH[name]
        if not (contacts.dim[mine] >= LEAST_CONDIM[kind]).any():
            return (
                f"changes nothing: no contact of it has the condim of at least {LEAST_CONDIM[kind]} that "
                f"{_FRICTIONS[kind]} friction needs"
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


def _body_reason(task: Task, quantity: RandomizableQuantity, body: int) -> str:
    model = task.model
    if quantity.name == "body_size" and any(contacts_of(model).of(geom).any() for geom in geoms_of(model, body)):
        return ""
    if not moving_joints(model, body):
        return "changes nothing: no joint moves it"
    if quantity.name in COM and model.body_simple[body]:
        acts = _turns_about_another_axis(model, body, COM[quantity.name])
    else:
        acts = _probed(task, quantity, body)
    if acts:
        return ""
    if quantity.name == "body_inertia":
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


def _probed(task: Task, quantity: RandomizableQuantity, index: int) -> bool:
    """Whether a large value of a quantity that writes smooth dynamics is felt anywhere."""
    changes: list[tuple[str, Sequence[int], Sequence[float]]] = []
    amount = _TRIED * max(abs(end) for end in quantity.default_range) * _STRONG.get(quantity.name, 1.0)
    for edit in edits_of(task.model, quantity.name, index):
        values = edit_values(task.model, edit)
        if quantity.mode == "scale":
            changes.append((edit.field, edit.elements, [value * 1.7**edit.power for value in values]))
        else:
            changes.append((edit.field, edit.elements, [value + amount for value in values]))
    return not changes or probe_of(task.model).acts(changes, given=quantity.name == "wind")
