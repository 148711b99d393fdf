"""Where MuJoCo limits the force of an actuator, and who shares a limit.

An actuator has a limit of its own (`actuator_forcerange`). A joint and a tendon may limit what all actuators together
do to them (`jnt_actfrcrange`, which every URDF with an effort has, and `tendon_actfrcrange`). Such a limit belongs, in
equal shares, to the actuators at the joint or tendon; a joint without any belongs to those that reach it through
tendons, cranks and sites. So a joint with two motors, one of which has 0.3 of its strength, has 0.65 of its limit.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from randomization.targets.objects import actuators_at, joints_above

_TRN = mujoco.mjtTrn
_TENDON, _SITE, _CRANK = int(_TRN.mjTRN_TENDON), int(_TRN.mjTRN_SITE), int(_TRN.mjTRN_SLIDERCRANK)
_WRAP = mujoco.mjtWrap
_ROUND = (int(_WRAP.mjWRAP_SPHERE), int(_WRAP.mjWRAP_CYLINDER))
_ONE_DOF = (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE))  # MuJoCo limits no others


@dataclass(frozen=True)
class Limit:
    """Where a limit is kept: row `index` of a field of two columns, which `sharers` actuators share equally."""

    field: str
    index: int
    sharers: int


def force_limits(model: mujoco.MjModel, actuator: int) -> list[Limit]:
    """All limits of an actuator's force."""
    own = [Limit("actuator_forcerange", actuator, 1)] if model.actuator_forcelimited[actuator] else []
    return [*own, *_shared(model, "tendon", actuator), *_shared(model, "jnt", actuator)]


def joints_behind(model: mujoco.MjModel, actuator: int) -> set[int]:
    """Joints that an actuator reaches through a tendon, a crank or a site."""
    kind, (first, second) = int(model.actuator_trntype[actuator]), (int(i) for i in model.actuator_trnid[actuator])
    if kind == _TENDON:
        return _joints_of_tendon(model, first)
    if kind in (_SITE, _CRANK):
        return _between(model, [int(model.site_bodyid[site]) for site in (first, second) if site >= 0])
    return set()


def _shared(model: mujoco.MjModel, kind: str, actuator: int) -> list[Limit]:
    """Limits of tendons or joints that an actuator has a share of."""
    limited = getattr(model, f"{kind}_actfrclimited")
    return [
        Limit(f"{kind}_actfrcrange", index, len(owners))
        for index in range(len(limited))
        if limited[index] and actuator in (owners := _owners(model, kind, index))
    ]


def _owners(model: mujoco.MjModel, kind: str, index: int) -> list[int]:
    """The actuators that share the limit of a tendon or joint."""
    if kind == "jnt" and int(model.jnt_type[index]) not in _ONE_DOF:
        return []
    if kind == "tendon":
        pulls = (model.actuator_trntype == _TENDON) & (model.actuator_trnid[:, 0] == index)
        return np.flatnonzero(pulls).tolist()
    return actuators_at(model, index) or [a for a in range(model.nactuator) if index in joints_behind(model, a)]


def _joints_of_tendon(model: mujoco.MjModel, tendon: int) -> set[int]:
    """Joints that change a tendon's length."""
    first = int(model.tendon_adr[tendon])
    joints: set[int] = set()
    bodies: list[int] = []
    for wrap in range(first, first + int(model.tendon_num[tendon])):
        kind, index = int(model.wrap_type[wrap]), int(model.wrap_objid[wrap])
        if kind == int(_WRAP.mjWRAP_JOINT):
            joints.add(index)
        elif kind == int(_WRAP.mjWRAP_SITE):
            bodies.append(int(model.site_bodyid[index]))
        elif kind in _ROUND:
            bodies.append(int(model.geom_bodyid[index]))
    return joints | _between(model, bodies)


def _between(model: mujoco.MjModel, bodies: list[int]) -> set[int]:
    """Joints that move some of the bodies and not all; for a single body, all that move it."""
    chains = [set(joints_above(model, body)) for body in bodies]
    if not chains:
        return set()
    everyone = set.intersection(*chains) if len(chains) > 1 else set()
    return set.union(*chains) - everyone
