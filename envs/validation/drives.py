"""Which actuators an action component drives, and what a unit of their `ctrl` is in the component's unit.

MuJoCo's actuators need not have one input, act on one joint, or follow a target. Where they do, what reaches `ctrl` can
be compared with what the component says; where they do not, this module finds nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import mujoco
import numpy as np

from envs.task import ActionComponent, Task

Quantity = Literal["position", "velocity", "force"]

# Quantity, and whether it belongs to something that turns.
UNITS: dict[str, tuple[Quantity, bool]] = {
    "rad": ("position", True), "m": ("position", False), "rad/s": ("velocity", True), "m/s": ("velocity", False),
    "N m": ("force", True), "Nm": ("force", True), "N*m": ("force", True), "N": ("force", False),
}  # fmt: skip
# Other units of the same, and by what values in SI units are multiplied.
FACTORS = {"deg": 180.0 / np.pi, "deg/s": 180.0 / np.pi, "rpm": 30.0 / np.pi, "mm": 1e3, "mm/s": 1e3, "cm": 1e2,
           "cm/s": 1e2, "N mm": 1e3}  # fmt: skip
UNITS |= {
    "deg": ("position", True), "deg/s": ("velocity", True), "rpm": ("velocity", True), "N mm": ("force", True),
    "mm": ("position", False), "cm": ("position", False), "mm/s": ("velocity", False), "cm/s": ("velocity", False),
}  # fmt: skip
_OBJECT, _TRN, _DYN = mujoco.mjtObj, mujoco.mjtTrn, mujoco.mjtDyn
_ON_JOINT, _ON_TENDON = (int(_TRN.mjTRN_JOINT), int(_TRN.mjTRN_JOINTINPARENT)), int(_TRN.mjTRN_TENDON)
_FIXED = int(mujoco.mjtGain.mjGAIN_FIXED)
_AFFINE, _NO_BIAS = int(mujoco.mjtBias.mjBIAS_AFFINE), int(mujoco.mjtBias.mjBIAS_NONE)
_DIRECT = (int(_DYN.mjDYN_NONE), int(_DYN.mjDYN_FILTER), int(_DYN.mjDYN_FILTEREXACT))
_HINGE, _SLIDE = int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE)


@dataclass(frozen=True)
class Drive:
    """An actuator with one input.

    Attributes:
        actuator: its index.
        name: its name, or what is said in place of one.
        column: of `ctrl`.
        joint: the hinge or slide that it acts on, or None.
        tendon: the tendon that it acts on, or None.
        turns: whether that is a hinge; None where it is neither hinge nor slide.
        follows: what its input is; None for anything but the three.
        gear: actuator length per joint or tendon length.
    """

    actuator: int
    name: str
    column: int
    joint: int | None
    tendon: int | None
    turns: bool | None
    follows: Quantity | None
    gear: float

    def per_ctrl(self, model: mujoco.MjModel, unit: str) -> float | None:
        """What one unit of `ctrl` is in `unit`; None where the input is something else.

        The input of muscles and the like has no unit, and is compared with what has none.
        """
        if self.follows is None and unit == "1":
            return 1.0
        quantity, angular = UNITS.get(unit, (None, None))
        if quantity is None or quantity != self.follows or self.gear == 0.0:
            return None
        if self.joint is None and self.tendon is None:
            return None
        if self.turns is not None and self.turns != angular:
            return None
        if quantity == "force":
            return FACTORS.get(unit, 1.0) * float(model.actuator_gainprm[self.actuator, 0]) * self.gear
        return FACTORS.get(unit, 1.0) / self.gear

    def clips(self, model: mujoco.MjModel) -> tuple[float, float] | None:
        """Lowest and highest `ctrl` that MuJoCo lets through; None without limits."""
        if model.opt.disableflags & int(mujoco.mjtDisableBit.mjDSBL_CLAMPCTRL):
            return None
        if not model.actuator_ctrllimited[self.column]:
            return None
        low, high = model.actuator_ctrlrange[self.column].tolist()
        return low, high


def find_drive(model: mujoco.MjModel, actuator: int) -> Drive | None:
    """The drive that an actuator is; None if it has no input or several."""
    if int(model.actuator_ctrlnum[actuator]) != 1:
        return None
    kind, target = int(model.actuator_trntype[actuator]), int(model.actuator_trnid[actuator, 0])
    joint = target if kind in _ON_JOINT and int(model.jnt_type[target]) in (_HINGE, _SLIDE) else None
    turns = None if joint is None else int(model.jnt_type[joint]) == _HINGE
    name = mujoco.mj_id2name(model, _OBJECT.mjOBJ_ACTUATOR, actuator) or f"number {actuator}"
    return Drive(
        actuator, name, int(model.actuator_ctrladr[actuator]), joint, target if kind == _ON_TENDON else None, turns,
        _follows(model, actuator), float(model.actuator_gear[actuator, 0]),
    )  # fmt: skip


def _follows(model: mujoco.MjModel, i: int) -> Quantity | None:
    gain, bias = model.actuator_gainprm[i], model.actuator_biasprm[i]
    if int(model.actuator_gaintype[i]) != _FIXED or int(model.actuator_dyntype[i]) not in _DIRECT or gain[0] == 0.0:
        return None
    if int(model.actuator_biastype[i]) == _NO_BIAS:
        return "force"
    if int(model.actuator_biastype[i]) != _AFFINE or bias[0] != 0.0 or gain[0] < 0.0:
        return None
    if np.isclose(bias[1], -gain[0], rtol=1e-6, atol=0.0):
        return "position"
    return "velocity" if bias[1] == 0.0 and np.isclose(bias[2], -gain[0], rtol=1e-6, atol=0.0) else None


def named_drives(model: mujoco.MjModel, part: ActionComponent) -> tuple[Drive, ...] | None:
    """The drives of a component's targets, by its actuators or else by its joints (or tendons); None where they are
    not one for each target."""
    if len(part.actuators) == part.sent_size:
        ids = [mujoco.mj_name2id(model, _OBJECT.mjOBJ_ACTUATOR, name) for name in part.actuators]
    elif len(part.joints) == part.sent_size and not part.actuators:
        ids = [_only_actuator(model, name) for name in part.joints]
    else:
        return None
    return _drives(model, ids)


def sent_unit(part: ActionComponent) -> str:
    """The unit of a component's targets."""
    return part.unit if part.inverse is None else part.inverse.unit


def sent_name(part: ActionComponent, i: int) -> str:
    """What target number i is called in messages."""
    names = part.elements if part.inverse is None else part.joints
    return names[i] if names else str(i)


def drives_by_order(task: Task, part: ActionComponent) -> tuple[Drive, ...] | None:
    """The drives of a component that names neither joints nor actuators, if it cannot be any others: where the task
    has one value for each of the actuators, which have one input each."""
    model = task.model
    if part.joints or part.actuators or task.command_fields != ("ctrl",) or task.action_size != model.nactuator:
        return None
    start = sum(p.size for p in task.action[: task.action.index(part)])
    return _drives(model, list(range(start, start + part.size)))


def _only_actuator(model: mujoco.MjModel, name: str) -> int:
    """The one actuator on a joint or tendon of that name; -1 for none or several."""
    joint, tendon = (
        mujoco.mj_name2id(model, _OBJECT.mjOBJ_JOINT, name),
        mujoco.mj_name2id(model, _OBJECT.mjOBJ_TENDON, name),
    )
    found = [
        i for i, (kind, target) in enumerate(zip(model.actuator_trntype, model.actuator_trnid[:, 0], strict=True))
        if (int(kind) in _ON_JOINT and target == joint) or (int(kind) == _ON_TENDON and joint < 0 and target == tendon)
    ]  # fmt: skip
    return found[0] if len(found) == 1 else -1


def _drives(model: mujoco.MjModel, ids: list[int]) -> tuple[Drive, ...] | None:
    found = tuple(drive for i in ids if i >= 0 and (drive := find_drive(model, i)) is not None)
    return found if len(found) == len(ids) == len({drive.actuator for drive in found}) else None
