"""Which bodies and actuators of a model an effect can act on."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np

_FREE, _SLIDE = int(mujoco.mjtJoint.mjJNT_FREE), int(mujoco.mjtJoint.mjJNT_SLIDE)
_FIXED, _PID = int(mujoco.mjtGain.mjGAIN_FIXED), int(mujoco.mjtGain.mjGAIN_PID)
_POSITION = int(mujoco.mjtCtrlInput.mjINPUT_POS)
_BIASES = (int(mujoco.mjtBias.mjBIAS_NONE), int(mujoco.mjtBias.mjBIAS_AFFINE))
_INTEGRATOR = int(mujoco.mjtDyn.mjDYN_INTEGRATOR)
_TO_JOINT = (int(mujoco.mjtTrn.mjTRN_JOINT), int(mujoco.mjtTrn.mjTRN_JOINTINPARENT))
_HORIZONTAL = 0.99  # length of a unit axis' projection on the ground
_LOCKED = 1e6  # a joint with so much damping is there to be moved by hand, as the base of the Fetch robot


def moving_bodies(model: mujoco.MjModel) -> list[int]:
    """Bodies with mass that some joint moves."""
    return [
        i
        for i in range(1, model.nbody)
        if model.body_weldid[i] != 0 and model.body_mass[i] > 0 and model.body_dofnum[model.body_weldid[i]] > 0
    ]


def floating_bodies(model: mujoco.MjModel) -> list[int]:
    """Bodies in the world with mass that nothing holds: free ones, and roots of planar robots."""
    return [
        i
        for i in range(1, model.nbody)
        if model.body_parentid[i] == 0 and model.body_mass[i] > 0 and horizontal_dofs(model, i)
    ]


def horizontal_dofs(model: mujoco.MjModel, body: int) -> list[tuple[int, tuple[float, float]]]:
    """Dofs that move a body along the ground, unless an actuator drives them, with their directions in the world."""
    dofs: list[tuple[int, tuple[float, float]]] = []
    first = int(model.body_jntadr[body])
    for joint in range(first, first + int(model.body_jntnum[body])):
        dof, axis = int(model.jnt_dofadr[joint]), model.jnt_axis[joint]
        if int(model.jnt_type[joint]) == _FREE:
            return [(dof, (1.0, 0.0)), (dof + 1, (0.0, 1.0))]
        level = (axis[0] ** 2 + axis[1] ** 2) ** 0.5 > _HORIZONTAL
        if int(model.jnt_type[joint]) == _SLIDE and level and not _driven(model, joint):
            dofs.append((dof, (float(axis[0]), float(axis[1]))))
    return [] if any(model.dof_damping[dof] >= _LOCKED for dof, _ in dofs) else dofs


def _driven(model: mujoco.MjModel, joint: int) -> bool:
    """Whether an actuator acts on a joint."""
    return any(
        int(model.actuator_trntype[i]) in _TO_JOINT and int(model.actuator_trnid[i, 0]) == joint
        for i in range(model.nactuator)
    )


def is_motor_or_servo(model: mujoco.MjModel, actuator: int) -> bool:
    """Whether an actuator has one input, and its force at rest is gain * (command - rest command)."""
    gain, plugin = int(model.actuator_gaintype[actuator]), int(model.actuator_plugin[actuator])
    follows = gain == _FIXED or (gain == _PID and int(model.actuator_ctrlspec[actuator]) == _POSITION)
    return (
        follows
        and plugin < 0
        and int(model.actuator_biastype[actuator]) in _BIASES
        and int(model.actuator_dyntype[actuator]) != _INTEGRATOR
        and int(model.actuator_ctrlnum[actuator]) == 1
    )


def has_gear(model: mujoco.MjModel, actuator: int) -> bool:
    """Whether an actuator's force acts through its gear: that of adhesion and of orientation servos does not."""
    adheres = int(model.actuator_trntype[actuator]) == int(mujoco.mjtTrn.mjTRN_BODY)
    return not adheres and int(model.actuator_gaintype[actuator]) != int(mujoco.mjtGain.mjGAIN_SO3)


def controls_of(model: mujoco.MjModel, actuators: Sequence[int]) -> tuple[list[int], list[int]]:
    """The controls of actuators, and for each which of the actuators (by its place in the list) it belongs to.

    An actuator may have several controls or none.
    """
    return _spread(model.actuator_ctrladr, model.actuator_ctrlnum, actuators)


def outputs_of(model: mujoco.MjModel, actuators: Sequence[int]) -> tuple[list[int], list[int]]:
    """The force outputs of actuators, by which MuJoCo keeps gear and length, and whose each is; see `controls_of`."""
    return _spread(model.actuator_outadr, model.actuator_outnum, actuators)


def _spread(address: np.ndarray, number: np.ndarray, actuators: Sequence[int]) -> tuple[list[int], list[int]]:
    pairs = [(int(address[i]) + k, owner) for owner, i in enumerate(actuators) for k in range(int(number[i]))]
    return [place for place, _ in pairs], [owner for _, owner in pairs]


def has_input(model: mujoco.MjModel, actuator: int) -> bool:
    """Whether an actuator takes commands; MuJoCo has some without inputs, as a motor that only brakes."""
    return int(model.actuator_ctrlnum[actuator]) > 0


def slack_partner(model: mujoco.MjModel, joint: int) -> int:
    """The driven joint whose slack this one is (MuJoCo's manual, Modeling, Backlash), or -1.

    Both are joints of one body with the same type, place and axis; the slack has a range and no actuator.
    """
    if not model.jnt_limited[joint] or _driven(model, joint):
        return -1
    body = int(model.jnt_bodyid[joint])
    first = int(model.body_jntadr[body])
    for other in range(first, first + int(model.body_jntnum[body])):
        alike = all(
            (getattr(model, field)[other] == getattr(model, field)[joint]).all() for field in ("jnt_pos", "jnt_axis")
        )
        if other != joint and model.jnt_type[other] == model.jnt_type[joint] and alike and _driven(model, other):
            return other
    return -1


BODIES = {"moving body": moving_bodies, "floating body": floating_bodies}  # targets that are some of the bodies
