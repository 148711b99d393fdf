"""One camera of every simulation of the GPU engine, drawn by mujoco_warp's ray tracer: all pictures in one call.

Colours, lights and the camera of each world are arrays of the camera's own: what the engine steps is not written.
What a task paints (`geom_rgba` of single simulations) is read anew for every picture.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Sequence
from typing import Any

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from envs.common.errors import EngineError
from envs.engines.base import WarpEngine
from envs.engines.visual_state import FROM_MATERIAL, VisualState, surface_of

mjw: Any = importlib.import_module("mujoco_warp")
wp: Any = importlib.import_module("warp")
_kernels: Any = importlib.import_module("envs.engines.gpu.kernels")

_DIRECTIONAL = int(mujoco.mjtLightType.mjLIGHT_DIRECTIONAL)
_SHOWN_GROUPS = (0, 1, 2)
_COLOUR = int(mujoco.mjtTextureRole.mjTEXROLE_RGB)


class Camera:
    """Draws every simulation of an engine.

    Args:
        engine: on mujoco_warp.
        model: the engine's.
        view: from where; a camera of the model, free, or tracking a body.
        width, height: of pictures, pixels.
        hidden: geoms that are not drawn.
        spare_lights: to have in addition, directional, without shadows.
        patterns: textures [height, width, 3] to have after the model's.

    Attributes:
        state: what the last pictures showed, or the next ones will.

    Raises:
        EngineError: mujoco_warp cannot draw the model or the view.
    """

    def __init__(
        self,
        engine: Any,
        model: mujoco.MjModel,
        view: mujoco.MjvCamera,
        width: int,
        height: int,
        *,
        hidden: Sequence[int] = (),
        spare_lights: int = 0,
        patterns: Sequence[NDArray[np.uint8]] = (),
    ) -> None:
        if not isinstance(engine, WarpEngine):
            raise EngineError("engine: only the GPU engine's simulations can be drawn in one call")
        self._engine, self._model, self._view = engine, model, view
        self._size, self._n, self._device = (width, height), engine.num_envs, engine.device
        fixed = view.type == int(mujoco.mjtCamera.mjCAMERA_FIXED)
        self._camera_id: int | None = view.fixedcamid if fixed else None
        refuse_undrawable(model, view)
        self._wp_device = wp.device_from_torch(self._device)
        self._headlight = bool(model.vis.headlight.active)
        self._nlight = model.nlight + self._headlight + spare_lights
        self._nominal = VisualState.nominal(
            model, self._camera_id, hidden=hidden, spare_lights=spare_lights, device=self._device
        )
        self.state = self._nominal.expanded(self._n)
        self._own_rgba = torch.as_tensor(model.geom_rgba, device=self._device)  # [G, 4], before a task paints
        self._texid = torch.full((self._n, model.ngeom, 10), -1, dtype=torch.int32, device=self._device)
        with _kernels.on_torch_stream(self._wp_device):
            lens, static = _lens(model, self._camera_id), _static(model, self._headlight, spare_lights)
            self._arrays = lens | static | self._share()  # by mujoco_warp's names
            self._context = self._make_context(patterns)
        self.pixels = wp.to_torch(self._context.rgb_data)

    def _share(self) -> dict[str, Any]:
        """The state as Warp arrays on the same memory, by mujoco_warp's names."""
        k, n = self.state, self._n
        vectors = {
            "light_diffuse": k.light_diffuse, "light_ambient": k.light_ambient, "light_specular": k.light_specular,
            "light_xpos": k.light_pos, "light_xdir": k.light_dir, "cam_xpos": k.eye_pos.view(n, 1, 3),
        }  # fmt: skip
        return {
            **{name: wp.from_torch(view, dtype=wp.vec3) for name, view in vectors.items()},
            "cam_xmat": wp.from_torch(k.eye_axes.view(n, 1, 3, 3), dtype=wp.mat33),
            "cam_fovy": wp.from_torch(k.fov_deg.view(n, 1)),
            "light_active": wp.from_torch(k.light_active),
            "light_castshadow": wp.from_torch(k.light_castshadow),
            "mat_rgba": wp.from_torch(k.rgba, dtype=wp.vec4),
            "mat_specular": wp.from_torch(k.specular),
            "mat_shininess": wp.from_torch(k.shininess),
            "mat_texid": wp.from_torch(self._texid),
            "mat_texrepeat": wp.from_torch(k.texrepeat, dtype=wp.vec2),
            "mat_texuniform": wp.from_torch(k.texuniform),
        }

    def _make_context(self, patterns: Sequence[NDArray[np.uint8]]) -> Any:
        """mujoco_warp's render context for this one camera."""
        (width, height), model = self._size, self._model
        context = mjw.create_render_context(
            model, self._n, cam_active=[], use_shadows=True, use_precomputed_rays=False, render_skybox=True
        )
        context.headlight_active = False  # it is among the lights
        context.nrender, context.total_rays = 1, width * height
        context.cam_res = wp.array([[width, height]], dtype=wp.vec2i)
        for name in ("cam_id_map", "rgb_adr", "depth_adr", "seg_adr"):
            setattr(context, name, wp.zeros(1, dtype=int))
        context.render_rgb, context.render_seg = (wp.ones(1, dtype=bool) for _ in range(2))
        context.render_depth = wp.zeros(1, dtype=bool)
        context.rgb_data = wp.zeros((self._n, width * height), dtype=wp.uint32)
        context.seg_data = wp.zeros((self._n, width * height), dtype=wp.vec2i)
        registry = [*context.textures_registry, *(_texture(pattern) for pattern in patterns)]
        context.textures_registry, context.textures = registry, wp.array(registry, dtype=wp.Texture2D)
        context.has_orthographic_camera = self._camera_id is not None and bool(model.cam_projection[self._camera_id])
        return context

    def _place(self, d: Any) -> None:
        """Put the eye and the lights where the present state has them."""
        state, model, view = self.state, self._model, self._view
        if self._camera_id is not None:
            state.eye_pos.copy_(wp.to_torch(d.cam_xpos)[:, self._camera_id])
            state.eye_axes.copy_(wp.to_torch(d.cam_xmat)[:, self._camera_id])
        else:
            axes = torch.as_tensor(_free_axes(view.azimuth, view.elevation)).to(state.eye_axes)
            tracking = view.type == int(mujoco.mjtCamera.mjCAMERA_TRACKING)
            lookat = torch.as_tensor(np.array(view.lookat)).to(state.eye_pos)
            centre = wp.to_torch(d.subtree_com)[:, view.trackbodyid] if tracking else lookat
            state.eye_axes.copy_(axes.expand_as(state.eye_axes))
            state.eye_pos.copy_(centre + view.distance * axes[:, 2])
        if model.nlight:
            state.light_pos[:, : model.nlight] = wp.to_torch(d.light_xpos)
            state.light_dir[:, : model.nlight] = wp.to_torch(d.light_xdir)
        if self._headlight:  # shines from the camera
            state.light_pos[:, model.nlight] = state.eye_pos
            state.light_dir[:, model.nlight] = -state.eye_axes[:, :, 2]

    def _paint(self) -> None:
        """Give geoms that the task has painted their colours; those that are not drawn stay so."""
        colours = self._engine.differing("geom_rgba")
        if colours is not None:
            colours = colours.to(self.state.rgba.dtype)
            painted = ((colours != self._own_rgba).any(dim=2) & (self.state.rgba[..., 3] > 0.0))[..., None]
            self.state.rgba.copy_(torch.where(painted, colours, self.state.rgba))

    def render(self, change: Callable[[VisualState], None] | None = None) -> Tensor:
        """Pictures [N, height, width, 3] uint8 of the present state; a tensor of its own.

        Args:
            change: makes each world's `state` of the nominal one, in place.
        """
        self.state.copy_(self._nominal)
        self._paint()
        with self._engine.pose_context() as (m, d), _kernels.on_torch_stream(self._wp_device):
            self._place(d)
            if change is not None:
                change(self.state)
            self._texid[:, :, _COLOUR] = self.state.texture
            m, d = copy.copy(m), copy.copy(d)
            for name, array in self._arrays.items():
                setattr(d if hasattr(d, name) else m, name, array)
            m.nlight = self._nlight
            mjw.refit_bvh(m, d, self._context)
            mjw.render(m, d, self._context)
        width, height = self._size
        bgra = self.pixels.view(torch.uint8).view(self._n, height, width, 4)  # each a little-endian ARGB word
        return bgra[..., [2, 1, 0]]

    def background(self) -> Tensor:
        """Where nothing was hit in the last pictures, [N, height, width] bool."""
        width, height = self._size
        return (wp.to_torch(self._context.seg_data)[..., 0] < 0).view(self._n, height, width)

    def rays(self) -> Tensor:
        """Directions [N, height, width, 3] in the world frame, not normalized, of the pixels' middles; perspective."""
        (width, height), state = self._size, self.state
        top = torch.tan(torch.deg2rad(state.fov_deg) / 2.0)[:, None]
        across = lambda count: (2.0 * torch.arange(count, device=self._device) + 1.0) / count - 1.0  # noqa: E731
        x = (top * across(width) * (width / height))[:, None, :].expand(-1, height, -1)
        y = (-top * across(height))[:, :, None].expand(-1, -1, width)
        local = torch.stack((x, y, -torch.ones_like(x)), dim=-1)
        return torch.einsum("nij,nhwj->nhwi", state.eye_axes, local)


def refuse_undrawable(model: mujoco.MjModel, view: mujoco.MjvCamera) -> None:
    """Raise EngineError for what mujoco_warp 4.0 draws wrongly: it lays all faces of a cube texture on each."""
    if view.type != int(mujoco.mjtCamera.mjCAMERA_FIXED) and model.vis.global_.orthographic:
        raise EngineError("engine: the GPU engine draws free cameras with perspective only: use the CPU engine")
    for geom in np.flatnonzero(np.isin(model.geom_group, _SHOWN_GROUPS)):
        surface = surface_of(model, int(geom))
        texture = surface["texture"]
        cube = texture >= 0 and model.tex_type[texture] == int(mujoco.mjtTexture.mjTEXTURE_CUBE)
        if cube and model.tex_height[texture] > model.tex_width[texture] and surface["rgba"][3] > 0.0:
            material = mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_MATERIAL, int(model.geom_matid[geom]))
            raise EngineError(
                f"engine: pictures of the GPU engine cannot show material {material!r}, whose texture has six faces: "
                "use the CPU engine"
            )


def _free_axes(azimuth_deg: float, elevation_deg: float) -> NDArray[np.float64]:
    """Columns right, up and backwards of a free camera, as MuJoCo places it."""
    a, e = np.radians(azimuth_deg), np.radians(elevation_deg)
    forward = np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
    up = np.array([-np.sin(e) * np.cos(a), -np.sin(e) * np.sin(a), np.cos(e)])
    return np.stack((np.cross(forward, up), up, -forward), axis=1)


def _static(model: mujoco.MjModel, headlight: bool, spare: int) -> dict[str, Any]:
    """Arrays that all worlds share, by mujoco_warp's names: lights beyond the model's, a material for each geom."""
    more = int(headlight) + spare
    pad = lambda values, row: np.concatenate((values, np.array([row] * int(more)).reshape(more, *values.shape[1:])))  # noqa: E731
    emission = np.array([[surface_of(model, geom)["emission"] for geom in range(model.ngeom)]])
    return {
        "light_type": wp.array(pad(model.light_type, _DIRECTIONAL)[None], dtype=int),
        "light_attenuation": wp.array(pad(model.light_attenuation, (1.0, 0.0, 0.0))[None], dtype=wp.vec3),
        "light_cutoff": wp.array(pad(model.light_cutoff, 45.0)[None], dtype=float),
        "light_exponent": wp.array(pad(model.light_exponent, 10.0)[None], dtype=float),
        "geom_matid": wp.array(np.arange(model.ngeom)[None], dtype=int),
        "geom_rgba": wp.array(np.tile(FROM_MATERIAL, (1, model.ngeom, 1)), dtype=wp.vec4),
        "mat_emission": wp.array(emission, dtype=float),
    }


def _lens(model: mujoco.MjModel, camera: int | None) -> dict[str, Any]:
    """What the picture's camera is beside its pose and field of view, by mujoco_warp's names."""
    mine = slice(camera, None if camera is None else camera + 1)
    own = {
        "cam_projection": np.zeros(1, int) if camera is None else model.cam_projection[mine],
        "cam_sensorsize": np.zeros((1, 2)) if camera is None else model.cam_sensorsize[mine],
        "cam_intrinsic": np.zeros((1, 1, 4)) if camera is None else model.cam_intrinsic[mine][None],
    }
    kinds = {"cam_projection": int, "cam_sensorsize": wp.vec2, "cam_intrinsic": wp.vec4}
    return {name: wp.array(values, dtype=kinds[name]) for name, values in own.items()}


def _texture(pattern: NDArray[np.uint8]) -> Any:
    """A picture [height, width, 3] as a texture on the device."""
    opaque = np.concatenate((pattern, np.full((*pattern.shape[:2], 1), 255, np.uint8)), axis=2)
    pixels = wp.array(np.ascontiguousarray(opaque / 255.0), dtype=float)
    return wp.Texture2D(pixels, filter_mode=wp.TextureFilterMode.LINEAR)
