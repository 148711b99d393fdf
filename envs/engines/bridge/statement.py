"""What another simulator lacks of a model, or does otherwise than MuJoCo: a line for each thing that the model uses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import mujoco
import numpy as np

from envs.common.messages import listed
from envs.engines.bridge.forces import parts_for_contacts
from envs.engines.bridge.mechanism import Mechanism, name_of

_INTEGRATORS = {
    int(mujoco.mjtIntegrator.mjINT_EULER): "Euler", int(mujoco.mjtIntegrator.mjINT_RK4): "RK4",
    int(mujoco.mjtIntegrator.mjINT_IMPLICIT): "implicit", int(mujoco.mjtIntegrator.mjINT_IMPLICITFAST): "implicitfast",
}  # fmt: skip
_STEPS = {
    "drake": "semi-implicit Euler with contacts, limits and damping implicit (its approximation 'lagged')",
    "pybullet": "semi-implicit Euler, contacts and limits as constraints of velocities",
    "newton": "semi-implicit Euler in single precision, contacts and limits as forces that hold over a step (its "
    "SolverFeatherstone, for its SolverMuJoCo is MuJoCo)",
}
_CONTACTS = {
    "drake": "one point for each pair of shapes (a box rests on one corner)",
    "pybullet": "up to four points for each pair of shapes",
    "newton": "springs at the points of each pair of shapes; friction below its limit is a damper, so things creep",
}
_ARMATURE = "armature: inertia of links, corrected by forces that follow from the accelerations of the steps before"
_FRICTION_LOSS = "frictionloss: a motor that wants velocity 0 with that force at most, in place of a soft constraint"
_FRICTION_LOSS_AS_FORCE = "frictionloss: forces with that limit that stop a joint within some steps"
_CUT = ", but no stiffer than its steps bear"
_SHOWN = 4  # names in a line
_ALMOST = 0.01  # share by which friction may differ before it is said


def combined(kind: str, first: float, second: float) -> float:
    """Friction that a simulator makes of two shapes' coefficients."""
    if kind == "pybullet":
        return first * second
    if kind == "newton":
        return 0.5 * (first + second)
    return 2.0 * first * second / (first + second) if first + second > 0.0 else 0.0


def coefficients(kind: str, found: Mechanism) -> dict[int, float]:
    """What each shape's coefficient has to be, for its friction against the static world to be MuJoCo's.

    PyBullet multiplies the coefficients of two shapes; Drake takes their harmonic mean, Newton their mean.
    """
    static = {shape.geom for shape in found.static}
    moving = [shape for shape in found.shapes if shape.geom not in static]
    against = {geom for pair in found.pairs if static.intersection(pair) for geom in pair}
    most = max((shape.friction for shape in moving if shape.geom in against), default=1.0) or 1.0
    if kind == "newton":  # no shape's may be negative
        least = min((shape.friction for shape in moving if shape.geom in against), default=most)
        world = min(most, 2.0 * least)
    else:
        world = 1.0 if kind == "pybullet" else most
    result = dict.fromkeys(static, world)
    for shape in moving:
        wanted = shape.friction
        if shape.geom not in against:
            result[shape.geom] = wanted**0.5 if kind == "pybullet" else wanted
        elif kind == "newton":
            result[shape.geom] = 2.0 * wanted - world
        else:
            result[shape.geom] = wanted if kind == "pybullet" else wanted * world / (2.0 * world - wanted)
    return result


def statement(kind: str, model: mujoco.MjModel, found: Mechanism, varied: Sequence[str] = ()) -> list[str]:
    """The lines.

    Args:
        kind: a name of `KINDS`.
        model: the nominal model.
        found: its translation.
        varied: fields that differ between simulations and have no counterpart.
    """
    steps = round(float(model.opt.timestep) / found.timestep_s)
    lines = [
        f"steps: {_STEPS[kind]}, {steps} of {found.timestep_s:.3g} s in each physics step; MuJoCo has "
        f"{_INTEGRATORS.get(int(model.opt.integrator), 'another integrator')} at {float(model.opt.timestep):.3g} s"
    ]
    if kind == "newton" and (parts := parts_for_contacts(found)) > 1:
        lines.append(
            f"contacts: each of these steps in {parts} parts of one mass matrix, as they are stiffer than actuators"
        )
    if model.nactuator:
        lines.append("actuators: MuJoCo's equations, held over each of these steps")
    return [*lines, *_of_joints(kind, model), *_of_contacts(kind, model, found), *_rest(model, varied)]


def _of_joints(kind: str, model: mujoco.MjModel) -> Iterator[str]:
    if kind != "drake" and (model.dof_damping > 0).any():
        yield "joint damping: held over each of these steps, as forces of actuators are"
    if kind == "pybullet" and (model.dof_armature > 0).any():
        yield _ARMATURE
    if (model.dof_frictionloss > 0).any():
        yield _FRICTION_LOSS_AS_FORCE if kind == "newton" else _FRICTION_LOSS
    if model.jnt_limited.any():
        yield "limits of joints: stops of its own, in place of solreflimit and solimplimit"


def _of_contacts(kind: str, model: mujoco.MjModel, found: Mechanism) -> Iterator[str]:
    if not found.pairs:
        return
    yield f"contacts: {_CONTACTS[kind]}"
    springs = [shape.compliance for shape in found.shapes if shape.compliance is not None]
    if springs:
        ends = dict.fromkeys(f(spring.stiffness for spring in springs) for f in (min, max))
        yield (
            "solref, solimp: springs and dampers at points, as MuJoCo's contact with the world "
            f"is at the last step's depth ({' to '.join(f'{end:.3g}' for end in ends)} N/m under half the weight)"
            + (_CUT if kind == "newton" else "")
        )
    static = {shape.geom for shape in found.static}
    if kind == "newton" and any(not static.intersection(pair) for pair in found.pairs):
        yield "contacts of bodies with each other: the sum of both shapes' springs and dampers"
    elif len(springs) < len(found.shapes) - len(found.static):
        yield "contacts of bodies with each other: as stiff as its defaults are"
    sliding = [pair for pair, friction in found.pairs.items() if friction > 0.0]
    if sliding and int(model.opt.cone) == int(mujoco.mjtCone.mjCONE_PYRAMIDAL):
        yield "friction: a round cone in place of a pyramid"
    geoms = sorted({geom for pair in found.pairs for geom in pair})
    names = lambda those: listed([name_of(model, mujoco.mjtObj.mjOBJ_GEOM, g) for g in those][:_SHOWN])  # noqa: E731
    rolling = [g for g in geoms if model.geom_condim[g] > 3]
    if rolling:
        most = int(model.geom_condim[rolling].max())
        yield f"condim {most}: friction of turning and rolling is left out, of {names(rolling)}"
    if wide := [g for g in geoms if model.geom_margin[g] > 0 or model.geom_gap[g] > 0]:
        yield f"margin and gap: left out, of {names(wide)}"
    if kind == "pybullet" and (round_ := [s.geom for s in found.shapes if s.kind == "ellipsoid"]):
        yield f"ellipsoids: convex hulls of points on them, {names(round_)}"
    own, other = coefficients(kind, found), []
    for (a, b), friction in found.pairs.items():
        got = combined(kind, own[a], own[b])
        if abs(got - friction) > _ALMOST * max(friction, 0.01):
            other.append((a, b, friction, got))
    if other:
        a, b, friction, got = max(other, key=lambda entry: abs(entry[3] - entry[2]))
        pair = " and ".join(name_of(model, mujoco.mjtObj.mjOBJ_GEOM, g) for g in (a, b))
        yield (
            f"friction of {len(other)} of {len(found.pairs)} pairs of shapes: what it makes of a coefficient for each; "
            f"furthest off: {got:.3g} for {friction:.3g}, {pair}"
        )


def _rest(model: mujoco.MjModel, varied: Sequence[str]) -> Iterator[str]:
    if (model.sensor_needstage == int(mujoco.mjtStage.mjSTAGE_ACC)).any():
        yield "sensors of accelerations and forces: of its velocities' difference over a physics step and its contacts"
    if (np.abs(model.opt.wind) > 0).any() or model.opt.density or model.opt.viscosity:
        yield "fluid: MuJoCo's equations, held over each of these steps"
    if varied:
        yield f"varies between episodes without effect, for want of a counterpart: {', '.join(sorted(set(varied)))}"
