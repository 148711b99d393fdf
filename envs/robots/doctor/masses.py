"""Masses and inertias of a compiled model that no robot has."""

from __future__ import annotations

from collections.abc import Iterator

import mujoco
import numpy as np

from envs.common.names import label_of
from envs.robots.doctor.symptom import Symptom

_TINY_KG = 1e-5
_HEAVY, _LIGHT = 40_000.0, 0.05  # kg/m3 of the box round a body's shapes: lead has 11,340, and fills no box
_BULKY, _SLIM = 2.3, 0.02  # radius of gyration over the size of the body
_ASIDE = 3.0  # centre of mass beside the shapes, in sizes of the body
_SMALL_M = 0.02


def examine_masses(model: mujoco.MjModel) -> Iterator[Symptom]:
    """Bodies that move with no mass, with an impossible inertia, or as heavy as no material is."""
    moving = [b for b in range(1, model.nbody) if model.body_dofnum[b]]
    bases = {int(model.body_rootid[b]) for b in moving} - set(moving)  # of a URDF, which may float in the end
    for body in bases:
        yield from _shape(model, body, f"body {label_of(model, 'body', body)!r}")
    for body in moving:
        welded = [b for b in range(1, model.nbody) if model.body_weldid[b] == body]
        mass = float(model.body_mass[welded].sum())
        of = f"body {label_of(model, 'body', body)!r}"
        if mass < _TINY_KG:
            yield Symptom("error", "mass", of, f"moves and weighs {mass:g} kg", "give it the mass of the part")
            continue
        yield from _shape(model, body, of)


def _box(model: mujoco.MjModel, body: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Corners of the box round a body's shapes, in its frame, m; None without any."""
    corners = []
    for geom in np.flatnonzero(model.geom_bodyid == body):
        if int(model.geom_type[geom]) in (int(mujoco.mjtGeom.mjGEOM_PLANE), int(mujoco.mjtGeom.mjGEOM_HFIELD)):
            continue
        center, half = model.geom_aabb[geom, :3], model.geom_aabb[geom, 3:]
        turned = np.zeros(9)
        mujoco.mju_quat2Mat(turned, model.geom_quat[geom])
        rot = turned.reshape(3, 3)
        middle, reach = model.geom_pos[geom] + rot @ center, np.abs(rot) @ half
        corners += [middle - reach, middle + reach]
    return (np.min(corners, axis=0), np.max(corners, axis=0)) if corners else None


def _shape(model: mujoco.MjModel, body: int, of: str) -> Iterator[Symptom]:
    box, mass = _box(model, body), float(model.body_mass[body])
    if box is None or mass < _TINY_KG:
        return
    low, high = box
    half = np.maximum(0.5 * (high - low), 1e-4)
    size, volume = float(np.linalg.norm(half)), float(np.prod(2.0 * half))
    density = mass / volume
    told = f"weighs {mass:.3g} kg in a box of {_sides(half)} m: {density:.2g} kg/m3"
    remedy = "state masses in kg, and meshes in m (scale)"
    if density > _HEAVY and size > _SMALL_M:
        yield Symptom("warning", "units", of, f"{told}, more than any metal", remedy)
    elif density < _LIGHT:
        yield Symptom("warning", "units", of, f"{told}, less than air", remedy)
    aside = float(
        np.linalg.norm(np.maximum(0.0, np.maximum(low - model.body_ipos[body], model.body_ipos[body] - high)))
    )
    if aside > _ASIDE * size + _SMALL_M:
        told = f"its centre of mass lies {aside:.3g} m beside its shape of {size:.3g} m"
        yield Symptom("warning", "inertia", of, told, "state it in m, in the frame of the body")
        return
    reach = float(np.linalg.norm(np.maximum(np.abs(low - model.body_ipos[body]), np.abs(high - model.body_ipos[body]))))
    gyration = float(np.sqrt(model.body_inertia[body].max() / mass))
    if gyration > _BULKY * reach + _SMALL_M:
        yield Symptom(
            "warning", "inertia", of,
            f"turns as if its mass lay {gyration:.3g} m from its centre, and its shape ends at {reach:.3g} m",
            "state the inertia in kg m2, about the centre of mass",
        )  # fmt: skip
    elif gyration < _SLIM * reach:
        yield Symptom(
            "warning", "inertia", of,
            f"turns as if its mass lay within {1000 * gyration:.2g} mm, and its shape reaches {1000 * reach:.3g} mm",
            "state the inertia in kg m2: it is too small for the mass",
        )  # fmt: skip


def _sides(half: np.ndarray) -> str:
    return " x ".join(f"{2.0 * side:.2g}" for side in half)
