"""What of a model can look different: cameras, lights and surfaces, and the names that patterns match.

The labels are the model's names; unnamed objects are called `kind<index>` (see `envs.common.names`). Two labels are
ours: the camera "view" is the one that pictures of the task are taken with, the light "headlight" shines from the
camera. What has the name of another thing is called by its kind too: `geom:NAME` (of a material), `camera:view`,
`light:headlight`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mujoco

from envs.common.names import free_label, labels_of, names_of, with_made_up
from envs.task import Task

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
    geom_names = names_of(model, "geom")
    materials = with_made_up(names_of(model, "material"), "material", geom_names)
    found = [
        _surface(model, materials[material], geoms, model.mat_rgba[material].tolist())
        for material, geoms in sorted(of_material.items())
    ]
    taken = {surface.name for surface in found}
    labels = with_made_up(geom_names, "geom", taken)
    for i in own:
        name = free_label(labels[i], "geom:", "", taken)
        taken.add(name)
        found.append(_surface(model, name, [i], model.geom_rgba[i].tolist()))
    return found


def _surface(model: mujoco.MjModel, name: str, geoms: list[int], rgba: list[float]) -> Surface:
    mirrors = (int(mujoco.mjtGeom.mjGEOM_PLANE), int(mujoco.mjtGeom.mjGEOM_BOX))
    flat = any(int(model.geom_type[i]) in mirrors for i in geoms)
    return Surface(name, tuple(geoms), (rgba[0], rgba[1], rgba[2], rgba[3]), flat)


def camera_names(model: mujoco.MjModel) -> list[str]:
    """The model's cameras in order, then "view"."""
    return [*_beside(labels_of(model, "camera"), "camera:", VIEW), VIEW]


def light_names(model: mujoco.MjModel) -> list[str]:
    """The model's lights in order, then "headlight" where it shines."""
    labels = labels_of(model, "light")
    return [*_beside(labels, "light:", HEADLIGHT), HEADLIGHT] if model.vis.headlight.active else labels


def _beside(labels: list[str], kind: str, ours: str) -> list[str]:
    """Labels of a model's objects beside one that is ours: what has its name is called by its kind too."""
    return [free_label(label, kind, "", {*labels, ours}) if label == ours else label for label in labels]


def appearance_names(model: mujoco.MjModel, target: str) -> list[str]:
    """Names of the objects of a visual kind of target: camera, light or material."""
    if target == "camera":
        return camera_names(model)
    if target == "light":
        return light_names(model)
    if target == "material":
        return [surface.name for surface in surfaces(model)]
    raise KeyError(f"{target} is no visual kind of object")


def is_no_headlight(task: Task, light: int) -> bool:
    """Whether a light has a place of its own."""
    return light != task.model.nlight


def shines(part: str) -> Callable[[Task, int], bool]:
    """Whether a light has a diffuse or ambient part."""

    def suits(task: Task, light: int) -> bool:
        own = getattr(task.model, f"light_{part}")
        return bool((own[light] if light < len(own) else getattr(task.model.vis.headlight, part)).any())

    return suits


def mirrors(task: Task, surface: int) -> bool:
    """Whether MuJoCo can mirror the world in a surface."""
    return surfaces(task.model)[surface].flat
