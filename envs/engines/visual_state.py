"""What pictures of N worlds show, for any renderer: camera, lights, surfaces and background as batched tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_COLOUR = int(mujoco.mjtTextureRole.mjTEXROLE_RGB)
FROM_MATERIAL = (0.5, 0.5, 0.5, 1.0)  # a geom's rgba that says so
_PLAIN = {"specular": 0.5, "shininess": 0.5, "reflectance": 0.0, "emission": 0.0}  # surfaces without a material


@dataclass(frozen=True)
class VisualState:
    """Numbers that a renderer draws N worlds with; changed in place.

    There are L lights: the model's, the headlight where it shines, then spare ones, which are switched off; and a
    surface for each of the G geoms.
    """

    eye_pos: Tensor  # [N, 3] world frame, m
    eye_axes: Tensor  # [N, 3, 3]; columns: to the right, up, backwards
    fov_deg: Tensor  # [N], vertical
    light_pos: Tensor  # [N, L, 3] world frame, m
    light_dir: Tensor  # [N, L, 3]
    light_diffuse: Tensor  # [N, L, 3]
    light_ambient: Tensor  # [N, L, 3]
    light_specular: Tensor  # [N, L, 3]
    light_active: Tensor  # [N, L] bool
    light_castshadow: Tensor  # [N, L] bool
    rgba: Tensor  # [N, G, 4]
    specular: Tensor  # [N, G]
    shininess: Tensor  # [N, G]
    reflectance: Tensor  # [N, G]
    texture: Tensor  # [N, G] index; -1: none
    texrepeat: Tensor  # [N, G, 2]
    texuniform: Tensor  # [N, G] bool: repeats per metre instead of per surface
    sky_amount: Tensor  # [N] share of a gradient between two colours in the background; 0: the model's own
    sky_top: Tensor  # [N, 3]
    sky_bottom: Tensor  # [N, 3]

    @classmethod
    def nominal(
        cls,
        model: mujoco.MjModel,
        camera: int | None,
        *,
        hidden: Sequence[int] = (),
        spare_lights: int = 0,
        device: torch.device | str = "cpu",
    ) -> VisualState:
        """One world that looks as the model says; poses of the eye and the lights are filled in later.

        Args:
            model: with L lights, less the headlight and the spare ones, and G geoms.
            camera: of the model, whose field of view is used; None for a free one.
            hidden: geoms that are not drawn.
            spare_lights: to have in addition.
            device: of the tensors.
        """
        values = _nominal(model, camera, hidden, spare_lights)
        return cls(**{name: torch.as_tensor(value).to(device)[None] for name, value in values.items()})

    def expanded(self, num_worlds: int) -> VisualState:
        """One world, `num_worlds` times in memory of its own."""
        return VisualState(**{
            name: value.expand(num_worlds, *value.shape[1:]).clone(memory_format=torch.contiguous_format)
            for name, value in vars(self).items()
        })  # fmt: skip

    def copy_(self, other: VisualState) -> None:
        """Take over the values of N worlds, or those of one world for all."""
        for field in fields(self):
            getattr(self, field.name).copy_(getattr(other, field.name))


def surface_of(model: mujoco.MjModel, geom: int) -> dict[str, Any]:
    """How MuJoCo draws a geom: as its material says, with a colour of its own where it has one."""
    material, own = int(model.geom_matid[geom]), tuple(model.geom_rgba[geom].tolist())
    if material < 0:
        return {"rgba": own, **_PLAIN, "texture": -1, "texrepeat": (1.0, 1.0), "texuniform": False}
    return {
        "rgba": own if own != FROM_MATERIAL else tuple(model.mat_rgba[material].tolist()),
        **{name: float(getattr(model, f"mat_{name}")[material]) for name in _PLAIN},
        "texture": int(model.mat_texid[material, _COLOUR]),
        "texrepeat": tuple(model.mat_texrepeat[material].tolist()),
        "texuniform": bool(model.mat_texuniform[material]),
    }


def _nominal(model: mujoco.MjModel, camera: int | None, hidden: Sequence[int], spare: int) -> dict[str, NDArray[Any]]:
    """The fields of one world's `VisualState`."""
    single, headlight = np.float32, bool(model.vis.headlight.active)
    lights = {}
    for part in ("diffuse", "ambient", "specular"):
        shining = [getattr(model.vis.headlight, part)[None]] if headlight else []
        lights[f"light_{part}"] = np.concatenate(
            [getattr(model, f"light_{part}"), *shining, np.zeros((spare, 3))], dtype=single
        )
    on, off = np.ones(int(headlight), bool), np.zeros(spare, bool)
    count = model.nlight + headlight + spare
    surfaces = [surface_of(model, geom) for geom in range(model.ngeom)]
    each = lambda name, kind: np.array([surface[name] for surface in surfaces], kind)  # noqa: E731
    rgba = each("rgba", single).reshape(-1, 4)
    rgba[list(hidden), 3] = 0.0
    return {
        "eye_pos": np.zeros(3, single), "eye_axes": np.eye(3, dtype=single),
        "fov_deg": np.array(model.vis.global_.fovy if camera is None else model.cam_fovy[camera], single),
        "light_pos": np.zeros((count, 3), single), "light_dir": np.tile(np.array([0, 0, -1], single), (count, 1)),
        **lights,
        "light_active": np.concatenate((model.light_active.astype(bool), on, off)),
        "light_castshadow": np.concatenate((model.light_castshadow.astype(bool), ~on, off)),
        "rgba": rgba,
        **{name: each(name, single) for name in ("specular", "shininess", "reflectance")},
        "texture": each("texture", np.int32), "texuniform": each("texuniform", bool),
        "texrepeat": each("texrepeat", single).reshape(-1, 2),
        "sky_amount": np.zeros((), single), "sky_top": np.zeros(3, single), "sky_bottom": np.zeros(3, single),
    }  # fmt: skip
