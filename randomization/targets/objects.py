"""Which bodies and actuators of a model an effect can act on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

import mujoco
import numpy as np

_FREE, _SLIDE = int(mujoco.mjtJoint.mjJNT_FREE), int(mujoco.mjtJoint.mjJNT_SLIDE)
_FIXED, _PID = int(mujoco.mjtGain.mjGAIN_FIXED), int(mujoco.mjtGain.mjGAIN_PID)
_POSITION = int(mujoco.mjtCtrlInput.mjINPUT_POS)
_BIASES = (int(mujoco.mjtBias.mjBIAS_NONE), int(mujoco.mjtBias.mjBIAS_AFFINE))
_INTEGRATOR = int(mujoco.mjtDyn.mjDYN_INTEGRATOR)
_TO_JOINT = (int(mujoco.mjtTrn.mjTRN_JOINT), int(mujoco.mjtTrn.mjTRN_JOINTINPARENT))
_LEVEL = 0.14  # a slope (8 degrees) up to which what slides along it slides along the ground
_LOCKED = 1e6  # a joint with so much damping is there to be moved by hand, as the base of the Fetch robot


def moving_bodies(model: mujoco.MjModel) -> list[int]:
    """Bodies with mass that some joint moves, unless it is locked."""
    return [i for i in range(1, model.nbody) if model.body_mass[i] > 0 and moving_joints(model, i)]


def moving_joints(model: mujoco.MjModel, body: int) -> list[int]:
    """Joints that move a body, its own and those it hangs on, but for locked ones."""
    locked = locked_dofs(model)
    return [joint for joint in joints_above(model, body) if not locked[model.jnt_dofadr[joint]]]


def geoms_of(model: mujoco.MjModel, body: int) -> range:
    """The geoms of a body."""
    first = int(model.body_geomadr[body])
    return range(first, first + int(model.body_geomnum[body]))


def joints_above(model: mujoco.MjModel, body: int) -> list[int]:
    """A body's own joints and those of the bodies that it hangs on."""
    joints: list[int] = []
    while body:
        first = int(model.body_jntadr[body])
        joints += range(first, first + int(model.body_jntnum[body]))
        body = int(model.body_parentid[body])
    return joints


def locked_dofs(model: mujoco.MjModel) -> np.ndarray:
    """Dofs [nv] (bool) with so much damping that nothing but the task moves them."""
    damped = not model.opt.disableflags & int(mujoco.mjtDisableBit.mjDSBL_DAMPER)
    return (model.dof_damping >= _LOCKED) & damped


def floating_bodies(model: mujoco.MjModel) -> list[int]:
    """Bodies with mass that nothing holds: free ones, and roots of planar robots. Of bodies that are welded together
    the first one with mass."""
    found: dict[int, int] = {}  # root of what is welded together: first of it with mass
    for i in range(1, model.nbody):
        root = int(model.body_weldid[i])
        if root != 0 and model.body_mass[i] > 0 and root not in found and horizontal_dofs(model, i):
            found[root] = i
    return sorted(found.values())


def horizontal_dofs(model: mujoco.MjModel, body: int) -> list[tuple[int, tuple[float, float]]]:
    """Dofs that move a floating body along the ground, with their directions: a dof's velocity is what it has of x and
    of y of the world times the body's velocity along these.

    Free joints have velocities in the world's frame. Slides lie in the body's frame, which may be turned, and may only
    together lead along the ground. Those that an actuator drives do not count, nor those that a hinge turns.
    """
    root = int(model.body_weldid[body])
    joint = int(model.body_jntadr[root])
    turn = _static_frame(model, root)
    if joint < 0 or turn is None:
        return []
    if int(model.jnt_type[joint]) == _FREE:
        dof = int(model.jnt_dofadr[joint])
        return [(dof, (1.0, 0.0)), (dof + 1, (0.0, 1.0))]
    slides = list(
        takewhile(lambda j: int(model.jnt_type[j]) == _SLIDE, range(joint, joint + int(model.body_jntnum[root])))
    )
    slides = [j for j in slides if not actuators_at(model, j)]
    ways = _along_ground(turn @ model.jnt_axis[slides].T) if slides else np.zeros((0, 2))
    chosen = zip(model.jnt_dofadr[slides].tolist(), ways.tolist(), strict=True)
    dofs = [(int(dof), (float(x), float(y))) for dof, (x, y) in chosen if x or y]
    return [] if any(locked_dofs(model)[dof] for dof, _ in dofs) else dofs


def _static_frame(model: mujoco.MjModel, body: int) -> np.ndarray | None:
    """Axes [3, 3] (columns) of a body's frame in the world before its own joints act; None where it hangs on something
    that moves."""
    turn, here = np.array([1.0, 0.0, 0.0, 0.0]), body
    while here != 0:
        moves = here != body and int(model.body_jntnum[here]) > 0
        if moves or int(model.body_mocapid[here]) >= 0:
            return None
        mujoco.mju_mulQuat(turn, model.body_quat[here], turn.copy())
        here = int(model.body_parentid[here])
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, turn)
    return matrix.reshape(3, 3)


def _along_ground(axes: np.ndarray) -> np.ndarray:
    """Velocities [k, 2] along slides with axes [3, k] in the world, for a body's velocity of 1 along x and along y.

    A body that slides cannot reach, as one on a rail, moves by as much of it as it can.
    """
    basis, sizes, _ = np.linalg.svd(axes, full_matrices=False)
    basis = basis[:, sizes > 1e-6]
    rise = basis[2]  # of what the slides span, how far up each direction leads
    if float(np.linalg.norm(rise)) > _LEVEL:
        basis = basis @ np.linalg.svd(rise[None])[2][1:].T  # those of the span that lead along the ground
    ways = np.linalg.pinv(axes) @ basis @ basis[:2].T
    return ways.round(12) + 0.0


def actuators_at(model: mujoco.MjModel, joint: int) -> list[int]:
    """The actuators that act on a joint directly."""
    mine = np.isin(model.actuator_trntype, _TO_JOINT) & (model.actuator_trnid[:, 0] == joint)
    return np.flatnonzero(mine).tolist()


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
    """The force outputs of actuators, by which MuJoCo keeps gear and length, and their owners as in `controls_of`."""
    return _spread(model.actuator_outadr, model.actuator_outnum, actuators)


def _spread(address: np.ndarray, number: np.ndarray, actuators: Sequence[int]) -> tuple[list[int], list[int]]:
    pairs = [(int(address[i]) + k, owner) for owner, i in enumerate(actuators) for k in range(int(number[i]))]
    return [place for place, _ in pairs], [owner for _, owner in pairs]


def has_input(model: mujoco.MjModel, actuator: int) -> bool:
    """Whether an actuator takes commands; MuJoCo has some without inputs, as a motor that only brakes."""
    return int(model.actuator_ctrlnum[actuator]) > 0


def backlash_joint_of(model: mujoco.MjModel, joint: int) -> int:
    """The driven joint whose slack this one is (MuJoCo's manual, Modeling, Backlash), or -1.

    Both are joints of one body with the same type, place and axis; the slack has a range and no actuator.
    """
    if not model.jnt_limited[joint] or actuators_at(model, joint):
        return -1
    body = int(model.jnt_bodyid[joint])
    first = int(model.body_jntadr[body])
    for other in range(first, first + int(model.body_jntnum[body])):
        alike = all(
            (getattr(model, field)[other] == getattr(model, field)[joint]).all() for field in ("jnt_pos", "jnt_axis")
        )
        if other != joint and model.jnt_type[other] == model.jnt_type[joint] and alike and actuators_at(model, other):
            return other
    return -1


BODIES = {"moving body": moving_bodies, "floating body": floating_bodies}  # targets that are some of the bodies
