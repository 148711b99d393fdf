"""Whether what a task observes of joints is what its components say: compared with the coordinates of a rehearsal.

Angles, lengths and speeds that belong to named joints are looked at. A difference that does not change is a matter of
where zero is. Certain are only joints in another order, and another scale; whatever else a component may show (late,
filtered, wrapped, estimated) is not judged.
"""

from __future__ import annotations

import mujoco
import numpy as np

from envs.common.errors import TaskError
from envs.task import Component, Task
from envs.validation.contract_frames import check_frames, multiple
from envs.validation.contract_model import problem
from envs.validation.drives import FACTORS, UNITS
from envs.validation.rehearsal import Rehearsal

_SAME = 1e-5
_MOVES = 1e-3  # rad, m, rad/s or m/s: joints that moved less tell nothing
_ONE_DOF = (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE))


def check_seen(task: Task, rehearsal: Rehearsal) -> None:
    """Compare observed joints with their coordinates. Raises TaskError, naming the component and the joint."""
    for group, seen in rehearsal.seen.items():
        for part, where in zip(task.components(group), task.slices(group).values(), strict=True):
            truth = _coordinates(task.model, part, rehearsal)
            values = seen[..., where].reshape(-1, part.size)
            if part.derived_from or not part.measured or not np.isfinite(values).all():
                continue
            _check_quantity(task, part, values, rehearsal)
            if truth is not None:
                _compare(task, part, values, truth)
    check_frames(task, rehearsal)


def _coordinates(model: mujoco.MjModel, part: Component, rehearsal: Rehearsal) -> np.ndarray | None:
    """Positions or velocities [K, size] of a component's joints; None if it does not show one for each."""
    quantity, ids = _stated(part.unit), _joints(model, part)
    if quantity not in ("position", "velocity") or ids is None:
        return None
    return FACTORS.get(part.unit, 1.0) * _of_joints(model, ids, rehearsal, quantity)


def _stated(unit: str) -> str | None:
    """What a unit is of, or several units of hinges and slides ("rad, m"); None where it does not say."""
    quantities = {UNITS.get(one.strip(), (None, None))[0] for one in unit.split(",")}
    return quantities.pop() if len(quantities) == 1 else None


def _joints(model: mujoco.MjModel, part: Component) -> list[int] | None:
    """The hinges and slides that a component shows one value of each; None where it does not."""
    ids = [mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_JOINT, name) for name in part.joints]
    if len(ids) != part.size or len(set(ids)) < len(ids):
        return None
    return None if any(i < 0 or int(model.jnt_type[i]) not in _ONE_DOF for i in ids) else ids


def _of_joints(model: mujoco.MjModel, ids: list[int], rehearsal: Rehearsal, quantity: str) -> np.ndarray:
    if quantity == "position":
        return rehearsal.qpos[..., model.jnt_qposadr[ids]].reshape(-1, len(ids))
    return rehearsal.qvel[..., model.jnt_dofadr[ids]].reshape(-1, len(ids))


def _check_quantity(task: Task, part: Component, seen: np.ndarray, rehearsal: Rehearsal) -> None:
    """Raise TaskError where a component shows just the positions or velocities of its joints, and its unit is that of
    something else."""
    ids = _joints(task.model, part)
    if ids is None or part.unit == "unknown":
        return
    stated = _stated(part.unit)
    kinds = {int(task.model.jnt_type[i]) for i in ids}
    for quantity, units in (("position", ("rad", "m")), ("velocity", ("rad/s", "m/s"))):
        unit = ", ".join(one for one, kind in zip(units, _ONE_DOF, strict=True) if kind in kinds)
        truth = _of_joints(task.model, ids, rehearsal, quantity)
        shows = np.ptp(truth, axis=0).max() > _MOVES and np.ptp(seen - truth, axis=0).max() <= _tolerance(truth)
        if shows and (stated != quantity or part.unit in FACTORS):
            raise problem(task, f"observation {part.name!r}: unit", f"expected {unit!r}, as it shows the {quantity} of "
                          f"joint {part.joints[0]!r}", repr(part.unit))  # fmt: skip


def _compare(task: Task, part: Component, seen: np.ndarray, truth: np.ndarray) -> None:
    differs = [i for i in range(part.size) if np.ptp(seen[:, i] - truth[:, i]) > _tolerance(truth[:, i])]
    shown = {i: k for i in differs if (k := _shown_instead(seen[:, i], truth, i)) is not None}
    where = f"observation {part.name!r}"
    if differs and len(shown) == len(differs) and sorted(shown.values()) == differs:
        i = differs[0]
        raise problem(task, where, f"expected joint {part.joints[i]!r} as number {i}, as the contract says",
                      f"{part.joints[shown[i]]!r}: another order")  # fmt: skip
    for i, said in enumerate(part.relative_to):
        shown_less = float((truth[:, i] - seen[:, i]).mean())
        if i not in differs and abs(shown_less - said) > _tolerance(truth[:, i]):
            raise problem(task, f"{where}: relative_to", f"expected {shown_less:.4g}, which is subtracted from joint "
                          f"{part.joints[i]!r}", f"{said:.4g}")  # fmt: skip
    for i in differs:
        scale = multiple(seen[:, i], truth[:, i])
        if scale not in (None, 1.0):
            what = "velocity" if part.unit.endswith("/s") else "position"
            raise TaskError(
                f"task: {task.id}: {where}: shows {scale:.4g} times the {what} of joint {part.joints[i]!r}, where the "
                f"contract says {part.unit}: another scale"
            )


def _tolerance(values: np.ndarray) -> float:
    return _SAME * (1.0 + float(np.abs(values).max()))


def _shown_instead(seen: np.ndarray, truth: np.ndarray, own: int) -> int | None:
    """The one other joint that a value shows, but for a constant; of moving joints only."""
    found = [
        k for k in range(truth.shape[1])
        if k != own and np.ptp(truth[:, k]) > _MOVES and np.ptp(seen - truth[:, k]) <= _tolerance(truth[:, k])
    ]  # fmt: skip
    return found[0] if len(found) == 1 else None
