"""What shows only when the robot moves: instability at rest, damping that the timestep cannot bear, motors too weak."""

from __future__ import annotations

from collections.abc import Iterator

import mujoco
import numpy as np

from envs.common.errors import TaskError
from envs.locomotion.legged.legs import find_base, find_legs
from envs.locomotion.legged.stance import find_stance
from envs.robots.doctor.contacts import examine_overlaps, let_neighbours_through
from envs.robots.doctor.symptom import Severity, Symptom
from envs.robots.ready import add_floor, home_of
from envs.validation.health.checkup import checkup
from envs.validation.health.finding import Finding
from envs.validation.health.subject import USUAL_PERIOD_S, Subject, without_contacts

_AS: dict[str, tuple[Severity, str]] = {  # finding of health -> severity and kind
    "energy": ("error", "rest"), "unstable": ("error", "rest"), "sign_flips": ("warning", "damping"),
    "saturated": ("warning", "rest"), "does_not_arrive": ("warning", "rest"), "too_fast": ("note", "gain"),
    "control_period": ("warning", "damping"),
}  # fmt: skip
_STIFF = 2.0  # decay rate times timestep beyond which explicit damping explodes
_EULER, _RK4 = int(mujoco.mjtIntegrator.mjINT_EULER), int(mujoco.mjtIntegrator.mjINT_RK4)
_SLOW_S = 10.0  # that damping takes to let a joint move by its spring or under its motor


def examine_moving(spec: mujoco.MjSpec, name: str) -> Iterator[Symptom]:
    """Hold the robot at its stance and command it at random; a floor is added to `spec` where it needs one."""
    add_floor(spec)
    model = spec.compile()
    data = mujoco.MjData(model)
    data.qpos[:] = _start(model)
    mujoco.mj_forward(model, data)
    subject = Subject(name, model, [data], USUAL_PERIOD_S)
    touching = let_neighbours_through(subject)
    yield from _overdamped(model)
    yield from examine_overlaps(subject)
    subject = without_contacts(subject) if touching else subject
    if not model.nv:
        return
    for finding in checkup(subject, short=True):
        if finding.kind != "penetration":
            yield _symptom(finding)


def _start(model: mujoco.MjModel) -> np.ndarray:
    """Where the robot starts [nq]: standing on its legs, where its file does not say how."""
    home = home_of(model)
    base = find_base(model)
    if model.nkey or not base:
        return home
    data = mujoco.MjData(model)
    data.qpos[:] = home
    mujoco.mj_kinematics(model, data)
    try:
        legs = find_legs(model, data, base)
    except TaskError:
        return home
    return find_stance(model, base, legs, home).qpos if len(legs) > 1 else home


def _symptom(finding: Finding) -> Symptom:
    severity, kind = _AS[finding.kind]
    return Symptom(severity, kind, finding.of, finding.evidence, finding.remedy)  # pyright: ignore[reportArgumentType]


def _overdamped(model: mujoco.MjModel) -> Iterator[Symptom]:
    """Joints that their damping holds: the strongest motor turns them by less than a tenth of a radian per second."""
    force = np.zeros(model.nv)
    for i in range(model.nactuator):
        joint = int(model.actuator_trnid[i, 0])
        if int(model.actuator_trntype[i]) != int(mujoco.mjtTrn.mjTRN_JOINT) or not model.actuator_forcelimited[i]:
            continue
        dof = int(model.jnt_dofadr[joint])
        force[dof] += float(np.abs(model.actuator_forcerange[i]).max()) * abs(float(model.actuator_gear[i, 0]))
    for joint in range(model.njnt):
        dof = int(model.jnt_dofadr[joint])
        if model.jnt_actfrclimited[joint]:
            most = float(np.abs(model.jnt_actfrcrange[joint]).max())
            force[dof] = min(force[dof], most) if force[dof] else most
        damping = float(model.dof_damping[dof])
        if force[dof] and damping > _SLOW_S * force[dof]:
            yield Symptom(
                "warning", "damping", f"joint {model.joint(joint).name!r}",
                f"damping of {damping:g} against a motor of {force[dof]:g}: {force[dof] / damping:.2g} rad/s at most",
                "damping is in N m s/rad, as friction of the gear: 0.01 to 1 is usual for robots of this size",
            )  # fmt: skip
