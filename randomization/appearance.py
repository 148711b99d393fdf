"""What of a model can look different: cameras, lights and surfaces, and the names that patterns match.

The names are the model's own; unnamed objects are called `kind<index>`. Two names are ours: the camera "view" is
the one that pictures of the task are taken with, the light "headlight" shines from the camera.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco

VIEW, HEADLIGHT = "view", "headlight"
_DEFAULT_RGBA = (0.5, 0.5, 0.5, 1.0)  # of geoms: "as the material says"
_SHOWN_GROUPS = 3  # pictures show geoms of groups 0 to 2


@dataclass(frozen=True)
class Surface:
    """Geoms that share their colour: all of one material, or one geom with a colour of its own.

    Attributes:
        name: the material's or the geom's.
        geoms: indices in the model.
        rgba: nominal colour, [0, 1].
        flat: whether MuJoCo can mirror the world in it: it has a plane or a box.
    """

    name: str
    geoms: tuple[int, ...]
    rgba: tuple[float, float, float, float]
    flat: bool


def surfaces(model: mujoco.MjModel) -> list[Surface]:
    """The visible surfaces: materials in use, in order, then geoms with a colour of their own."""
    of_material: dict[int, list[int]] = {}
    own: list[int] = []
    for i in range(model.ngeom):
        material, rgba = int(model.geom_matid[i]), tuple(model.geom_rgba[i].tolist())
        owns = material < 0 or rgba != _DEFAULT_RGBA
        alpha = rgba[3] if owns else float(model.mat_rgba[material, 3])
        handle = model.body_mocapid[model.geom_bodyid[i]] >= 0  # of a body that marks a commanded pose
        if alpha == 0.0 or handle or model.geom_group[i] >= _SHOWN_GROUPS:
            continue
        if owns:
            own.append(i)
        else:
            of_material.setdefault(material, []).append(i)
    found = [
        _surface(model, _name(model, mujoco.mjtObj.mjOBJ_MATERIAL, "material", m), geoms, model.mat_rgba[m].tolist())
        for m, geoms in sorted(of_material.items())
    ]
    taken = {surface.name for surface in found}
    for i in own:
        name = _name(model, mujoco.mjtObj.mjOBJ_GEOM, "geom", i)
        name = f"geom:{name}" if name in taken else name
        found.append(_surface(model, name, [i], model.geom_rgba[i].tolist()))
    return found


def _surface(model: mujoco.MjModel, name: str, geoms: list[int], rgba: list[float]) -> Surface:
    mirrors = (int(mujoco.mjtGeom.mjGEOM_PLANE), int(mujoco.mjtGeom.mjGEOM_BOX))
    flat = any(int(model.geom_type[i]) in mirrors for i in geoms)
    return Surface(name, tuple(geoms), (rgba[0], rgba[1], rgba[2], rgba[3]), flat)


def _name(model: mujoco.MjModel, kind: mujoco.mjtObj, word: str, index: int) -> str:
    return mujoco.mj_id2name(model, kind, index) or f"{word}{index}"


def camera_names(model: mujoco.MjModel) -> list[str]:
    """The model's cameras in order, then "view"."""
    return [_name(model, mujoco.mjtObj.mjOBJ_CAMERA, "camera", i) for i in range(model.ncam)] + [VIEW]


def light_names(model: mujoco.MjModel) -> list[str]:
    """The model's lights in order, then "headlight" where it shines."""
    names = [_name(model, mujoco.mjtObj.mjOBJ_LIGHT, "light", i) for i in range(model.nlight)]
    return names + [HEADLIGHT] * bool(model.vis.headlight.active)


def appearance_names(model: mujoco.MjModel, target: str) -> list[str]:
    """Names of the objects of a visual kind of target: camera, light or material."""
    if target == "camera":
        return camera_names(model)
    if target == "light":
        return light_names(model)
    if target == "material":
        return [surface.name for surface in surfaces(model)]
    raise KeyError(f"{target} is no visual kind of object")


# What an object has to be for a visual quantity to change it, where any of its kind will not do.
SUITABLE = {
    "light_position": "light with a position of its own (it shines from the camera)",
    "light_direction": "light with a direction of its own (it shines from the camera)",
    "light_shadow": "light that can cast a shadow (it shines from the camera)",
    "light_diffuse": "light with a diffuse part, so a factor would do nothing",
    "light_ambient": "light with an ambient part, so a factor would do nothing",
    "material_reflectance": "surface of a plane or a box, and MuJoCo mirrors in nothing else",
}


def is_suitable(model: mujoco.MjModel, quantity: str, index: int) -> bool:
    """Whether a visual quantity can change object `index` of its kind; `SUITABLE` says what it would have to be."""
    headlight = index == model.nlight
    if quantity in ("light_position", "light_direction", "light_shadow"):
        return not headlight
    if quantity in ("light_diffuse", "light_ambient"):
        part = quantity.removeprefix("light_")
        values = getattr(model.vis.headlight, part) if headlight else getattr(model, quantity)[index]
        return bool(values.any())
    if quantity == "material_reflectance":
        return surfaces(model)[index].flat
    return True
