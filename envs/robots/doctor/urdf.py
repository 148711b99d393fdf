"""What a URDF's own XML says that is wrong, or that MuJoCo does not take over."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from envs.robots.doctor.symptom import Symptom, several
from envs.robots.urdf import MOVING, Urdf, UrdfJoint, UrdfLink

DEGREES = 8.0 * math.pi  # rad; the range of a joint that turns four times is one of degrees, or none
_TYPES = (*MOVING, "fixed")
_BOUNDED = ("revolute", "prismatic")
_FOREIGN = ("dae", "fbx", "glb", "gltf", "ply")  # forms of meshes that MuJoCo does not read
_TINY_KG = 1e-5
_INERTIA_SLACK = 0.01  # by which the triangle inequality may be broken by rounding


def examine_urdf(urdf: Urdf) -> Iterator[Symptom]:
    """What is wrong with a URDF, by its XML."""
    yield from _structure(urdf)
    yield from _meshes(urdf)
    for link in urdf.links.values():
        yield from _link(urdf, link)
    yield from _limits(urdf)
    yield from _efforts(urdf)
    yield from _mimics(urdf)


def _structure(urdf: Urdf) -> Iterator[Symptom]:
    for joint in urdf.joints.values():
        if joint.type not in _TYPES:
            yield Symptom("error", "structure", f"joint {joint.name!r}", f"is of the type {joint.type!r}",
                          f"expected one of {', '.join(_TYPES)}")  # fmt: skip
        for end, link in (("parent", joint.parent), ("child", joint.child)):
            if link not in urdf.links:
                yield Symptom("error", "structure", f"joint {joint.name!r}", f"its {end} {link!r} is no link",
                              f"name a link of this file as its {end}")  # fmt: skip
        if joint.type in MOVING and joint.type != "floating" and not 0.0 < float(np.linalg.norm(joint.axis)) < math.inf:
            yield Symptom("error", "structure", f"joint {joint.name!r}", "its axis has no direction",
                          "give <axis xyz> a vector that is not zero")  # fmt: skip
    if urdf.links and urdf.root is None:
        yield Symptom("error", "structure", "the tree of links", "has several bases, or none",
                      "connect all links to one base with joints, without loops")  # fmt: skip


def _meshes(urdf: Urdf) -> Iterator[Symptom]:
    """Meshes by what is wrong with them."""
    groups: dict[tuple[bool, bool], list[str]] = {}
    for name in urdf.lost:
        unread = name.lower().rsplit(".", 1)[-1] in _FOREIGN
        groups.setdefault((name in urdf.unseen, unread), []).append(name)
    for (looks, unread), names in groups.items():
        yield Symptom(
            ("note" if unread else "warning") if looks else "error", "mesh", several("mesh", names, "meshes"),
            "in a form that MuJoCo does not read" if unread else "not found",
            "convert to STL or OBJ, beside it" if unread else
            "put the package's folder beside the URDF, name its parent in ROS_PACKAGE_PATH, or give a path that exists",
        )  # fmt: skip


def _moves(urdf: Urdf, link: str) -> UrdfJoint | None:
    return next((j for j in urdf.joints.values() if j.child == link and j.type in MOVING), None)


def _carried(urdf: Urdf, link: str) -> float:
    """Mass of a link and of what is fixed to it, kg."""
    fixed = [j.child for j in urdf.joints.values() if j.parent == link and j.type == "fixed"]
    mass = urdf.links[link].mass if link in urdf.links else 0.0
    return (mass or 0.0) + sum(_carried(urdf, child) for child in fixed if child != link)


def _link(urdf: Urdf, link: UrdfLink) -> Iterator[Symptom]:
    of, joint = f"link {link.name!r}", _moves(urdf, link.name)
    if link.mass is None or link.mass <= _TINY_KG:
        carries = _carried(urdf, link.name) > _TINY_KG
        if joint is not None and not carries:
            nothing = link.mass is None
            yield Symptom(
                "error" if not nothing else "warning", "inertia" if nothing else "mass", of,
                "moves and has no <inertial>" if nothing else f"moves and weighs {link.mass:g} kg",
                "MuJoCo gives it that of its shape at 1000 kg/m3, other simulators something else: state them"
                if nothing else "give it the mass of the part",
            )  # fmt: skip
        return
    if not math.isfinite(link.mass):
        yield Symptom("error", "mass", of, "its mass is no number", "state it in kg")
        return
    if link.inertia is None:
        yield Symptom("error", "inertia", of, "has a mass and no inertia", "state it in kg m2")
        return
    matrix = link.matrix()
    if not np.isfinite(matrix).all():
        yield Symptom("error", "inertia", of, "its inertia has values that are no numbers", "state it in kg m2")
        return
    low, middle, high = np.linalg.eigvalsh(matrix).tolist()
    if low <= 0.0:
        if joint is None and high <= 0.0:
            return  # of what does not turn, nobody asks
        yield Symptom("error", "inertia", of, f"its smallest principal inertia is {low:.3g} kg m2",
                      "no body has none or less: take it from CAD, and check signs of ixy, ixz, iyz")  # fmt: skip
    elif high > (low + middle) * (1.0 + _INERTIA_SLACK):
        yield Symptom(
            "error", "inertia", of,
            f"its largest principal inertia, {high:.3g} kg m2, exceeds the sum of the others, {low + middle:.3g}",
            "no distribution of mass has this: take it from CAD, about the centre of mass; or let MuJoCo spread it: "
            '<mujoco><compiler balanceinertia="true"/></mujoco> in the URDF',
        )  # fmt: skip


def _limits(urdf: Urdf) -> Iterator[Symptom]:
    missing, degrees = list[str](), list[UrdfJoint]()
    for joint in urdf.joints.values():
        if joint.type not in _BOUNDED:
            continue
        low, high = joint.lower, joint.upper
        if not joint.limited or (low is None and high is None):
            missing.append(joint.name)
            continue
        low, high = low or 0.0, high or 0.0
        if not low < high:
            yield Symptom("error", "limits", f"joint {joint.name!r}", f"its limits are {low:g} and {high:g}",
                          "expected lower < upper")  # fmt: skip
        elif joint.type == "revolute" and high - low > DEGREES:
            degrees.append(joint)
    if missing:
        yield Symptom("error", "limits", several("joint", missing),
                      "no lower and upper limit, as revolute and prismatic joints need them",
                      "state <limit lower upper> in rad or m, or make it continuous")  # fmt: skip
    if degrees:
        low, high = degrees[0].lower or 0.0, degrees[0].upper or 0.0
        yield Symptom(
            "error", "limits", several("joint", [j.name for j in degrees]), f"limits of {low:g} to {high:g} rad",
            f"URDF is in radians: these look like degrees, {math.radians(low):.4g} to {math.radians(high):.4g} rad",
        )  # fmt: skip


def _efforts(urdf: Urdf) -> Iterator[Symptom]:
    moving = [j for j in urdf.joints.values() if j.type in ("revolute", "continuous", "prismatic") and j.mimic is None]
    none = [j.name for j in moving if j.effort is None]
    zero = [j.name for j in moving if j.effort is not None and not j.effort > 0.0]
    if zero:
        yield Symptom("warning", "effort", several("joint", zero), "effort is 0, which MuJoCo takes for no limit",
                      "state the motor's largest torque in N m, or force in N")  # fmt: skip
    if none and len(none) < len(moving):
        yield Symptom("warning", "effort", several("joint", none), "no effort limit, while other joints have one",
                      "state the motor's largest torque in N m, or force in N")  # fmt: skip
    elif none:
        yield Symptom("warning", "effort", several("joint", none), "no effort limit",
                      "state the motor's largest torque in N m, or force in N")  # fmt: skip
    slow = [j.name for j in moving if j.velocity is not None and not j.velocity > 0.0]
    if slow:
        yield Symptom("warning", "velocity", several("joint", slow), "velocity limit is 0: a joint that cannot move",
                      "state the motor's largest speed in rad/s or m/s")  # fmt: skip
    kept = [j.velocity for j in moving if j.velocity is not None and j.velocity > 0.0]
    if kept:
        yield Symptom("note", "velocity", f"{len(kept)} joints",
                      f"velocity limits of {min(kept):g} to {max(kept):g} are not in MuJoCo's model",
                      "adopt keeps them, as what motors can do")  # fmt: skip


def _mimics(urdf: Urdf) -> Iterator[Symptom]:
    for joint in urdf.joints.values():
        if joint.mimic is None:
            continue
        leader = urdf.joints.get(joint.mimic)
        if leader is None or leader.mimic is not None or leader.type == "fixed":
            yield Symptom("error", "mimic", f"joint {joint.name!r}",
                          f"mimics {joint.mimic!r}, which is no joint that moves by itself",
                          "name the joint that it follows")  # fmt: skip
        else:
            yield Symptom(
                "warning", "mimic", f"joint {joint.name!r}", f"mimics {joint.mimic!r}",
                "MuJoCo makes it a soft constraint that lags and gives way: it gets no actuator; check how it follows",
            )  # fmt: skip
