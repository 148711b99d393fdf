"""A picture of a MuJoCo scene, drawn off screen, with textures that need not be the model's own."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.common.step_records import Mark
from envs.platform import gl
from randomization.visual.mujoco_scene import Sky
from randomization.visual.textures import PATTERNS, library, mixed_sky, nominal_sky
from simreal.common.errors import UserError

Image = NDArray[np.uint8]
_DAY = Sky(1.0, np.array([0.35, 0.55, 0.8]), np.array([0.92, 0.94, 0.96]))  # behind models that have no background
_MAX_GEOMS = 10_000  # in a scene
_MARK = 0.015  # radius of a mark's ball, as a share of the model's extent
# Of lights in pictures that people look at: MuJoCo's default, 4096, takes longer and looks the same at this size.
_SHADOW_MAP = 2048
_LARGE, _MARGIN = 480, 8  # pixels: width from which letters are large, and what MuJoCo leaves beside a label
_SKYBOX = int(mujoco.mjtTexture.mjTEXTURE_SKYBOX)
_QUALITY = ("shadowsize", "offsamples")


@dataclass(frozen=True)
class Quality:
    """What pictures cost: multisampling and large maps of shadows take most of the time of small ones.

    Attributes:
        samples: of each pixel; 0: edges are not smoothed.
        shadow_map: largest edge of a light's map of shadows, pixels.
    """

    samples: int = 0
    shadow_map: int = 512


class Offscreen:
    """Draws scenes of a model and of models that differ from it in numbers only.

    Args:
        model: whose meshes and textures are used.
        width, height: of pictures, pixels.
        textured: whether scenes may use the texture library and other backgrounds.
        daylight: give models that have no light, or no background, one of each: for pictures that people look at.
        quality: what pictures may cost; None: as the model says.
        patterns: the first of the texture library's patterns.

    Attributes:
        scene: to be filled by `compose`, and changed, before `draw`; another one may be put in its place.
        option: what `compose` shows.
        first_pattern: texture id of the library's first pattern.

    Raises:
        UserError: the machine cannot render; says what to install.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        width: int,
        height: int,
        textured: bool,
        daylight: bool = False,
        quality: Quality | None = None,
        patterns: int = 0,
    ) -> None:
        self._model = model
        self._rect = mujoco.MjrRect(0, 0, width, height)
        self.option = mujoco.MjvOption()
        self.scene = mujoco.MjvScene(model, _MAX_GEOMS)
        self.first_pattern = model.ntex + 1  # one is left for a background
        model.vis.global_.offwidth = max(model.vis.global_.offwidth, width)
        model.vis.global_.offheight = max(model.vis.global_.offheight, height)
        asked, shadow_map, samples = model.vis.quality, *(getattr(model.vis.quality, n) for n in _QUALITY)
        if quality is not None:
            asked.shadowsize, asked.offsamples = min(shadow_map, quality.shadow_map), quality.samples
        elif daylight:
            asked.shadowsize = min(shadow_map, _SHADOW_MAP)
        try:
            self._gl = mujoco.GLContext(width, height)
            self._gl.make_current()
            scale = mujoco.mjtFontScale.mjFONTSCALE_150 if width >= _LARGE else mujoco.mjtFontScale.mjFONTSCALE_100
            self._context = mujoco.MjrContext(model, scale)
        except Exception as error:  # each backend raises errors of its own
            raise UserError(
                f"cannot render here ({gl.problem or error}); without a display, set MUJOCO_GL=egl or import simreal "
                "before mujoco, and install a software renderer, on Debian: apt-get install libegl1 libgl1-mesa-dri"
            ) from None
        finally:
            asked.shadowsize, asked.offsamples = shadow_map, samples
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        # Without light, without background.
        self._bare = daylight and not model.nlight, daylight and not (model.tex_type == _SKYBOX).any()
        self._library = _Library(model, self._context, patterns) if textured or self._bare[1] else None
        # Contexts have to be freed with OpenGL current, and before it: not left to the garbage collector's order.
        self._free = weakref.finalize(self, _free, self._gl, self._context, self._library)

    def compose(self, model: mujoco.MjModel, data: mujoco.MjData, camera: mujoco.MjvCamera) -> None:
        """Fill the scene with what a camera sees."""
        everything = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(model, data, self.option, None, camera, everything, self.scene)
        if self._bare[0]:
            self._add_light()

    def _add_light(self) -> None:
        """A light from above, as from a window: for models that have none but the one at the camera."""
        light = self.scene.lights[self.scene.nlight]
        light.type = int(mujoco.mjtLightType.mjLIGHT_DIRECTIONAL)
        light.dir[:] = (0.3, 0.4, -0.87)
        light.pos[:] = (0.0, 0.0, 10.0)
        light.ambient[:], light.diffuse[:], light.specular[:] = 0.1, 0.6, 0.2
        light.castshadow = 0
        self.scene.nlight += 1

    def draw(self, sky: Sky | None = None, label: str = "") -> Image:
        """The scene as [height, width, 3]; with another background; with a word in its upper left corner."""
        self._gl.make_current()
        if self._library is not None:
            self._library.show(sky if sky is not None or not self._bare[1] else _DAY)
        mujoco.mjr_render(self._rect, self.scene, self._context)
        if label:
            font, corner = mujoco.mjtFont.mjFONT_NORMAL, mujoco.mjtGridPos.mjGRID_TOPLEFT
            mujoco.mjr_overlay(font, corner, self._rect, self._fitted(label), "", self._context)
        picture = np.empty((self._rect.height, self._rect.width, 3), dtype=np.uint8)
        mujoco.mjr_readPixels(picture, None, self._rect, self._context)
        return np.ascontiguousarray(picture[::-1])

    def _fitted(self, label: str) -> str:
        """A label in lines that fit into the picture, broken between words where that is enough."""
        room = self._rect.width - 2 * _MARGIN
        lines = []
        for line in label.split("\n"):
            lines.append("")
            for word in line.split(" "):
                longer = f"{lines[-1]} {word}" if lines[-1] else word
                if self._width(longer) <= room:
                    lines[-1] = longer
                    continue
                lines += [""] if lines[-1] else []
                for letter in word:
                    lines += [""] if lines[-1] and self._width(lines[-1] + letter) > room else []
                    lines[-1] += letter
        return "\n".join(lines)

    def _width(self, text: str) -> int:
        """Pixels of a text in the labels' font."""
        return sum(int(self._context.charWidth[min(ord(letter), 127)]) for letter in text)

    def close(self) -> None:
        """Free what OpenGL holds."""
        self._free()


def add_marks(scene: mujoco.MjvScene, model: mujoco.MjModel, marks: Sequence[Mark]) -> None:
    """Put marks into a scene that is filled: a ball each, or three axes (x red, y green, z blue)."""
    for mark in marks:
        if mark.quat is None:
            radius = mark.size if mark.size is not None else _MARK * model.stat.extent
            _add_geom(scene, mujoco.mjtGeom.mjGEOM_SPHERE, (radius, 0.0, 0.0), mark.pos, np.eye(3), mark.rgba)
            continue
        length, turned = mark.size if mark.size is not None else 5.0 * _MARK * model.stat.extent, np.zeros(9)
        mujoco.mju_quat2Mat(turned, np.asarray(mark.quat, dtype=float))
        for axis in range(3):
            colour = tuple(np.append(0.9 * np.eye(3)[axis] + 0.1, 1.0))
            # An arrow points along its own z.
            along = np.roll(turned.reshape(3, 3), 2 - axis, axis=1)
            size = (0.06 * length, 0.06 * length, length)
            _add_geom(scene, mujoco.mjtGeom.mjGEOM_ARROW, size, mark.pos, along, colour)


def _add_geom(
    scene: mujoco.MjvScene, kind: mujoco.mjtGeom, size: Sequence[float], pos: np.ndarray, rotation: np.ndarray,
    rgba: Sequence[float],
) -> None:  # fmt: skip
    if scene.ngeom < scene.maxgeom:
        colour = np.array(rgba, dtype=np.float32)
        mujoco.mjv_initGeom(scene.geoms[scene.ngeom], int(kind), np.array(size), pos, rotation.flatten(), colour)
        scene.ngeom += 1


def _free(gl: Any, context: mujoco.MjrContext, library: _Library | None) -> None:
    with gl.as_current():
        if library is not None:
            library.close()
        context.free()
    gl.free()


class _Library:
    """The texture library as additional textures of a context.

    OpenGL keeps the library's textures in a context of their own; the model's context refers to them by texture ids
    after the model's own, one for the background and then the patterns.
    """

    def __init__(self, model: mujoco.MjModel, context: mujoco.MjrContext, first: int) -> None:
        self._textures, self._context = library(first), context
        self._held = mujoco.MjrContext(self._textures, mujoco.mjtFontScale.mjFONTSCALE_50)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)
        self._count = context.ntexture
        for k in range(2 * PATTERNS):  # slots after the model's; `ntexture` stays, so that each context frees its own
            slot = self._count + 1 + k
            context.texture[slot], context.textureType[slot] = self._held.texture[k], self._held.textureType[k]
        own = np.flatnonzero(model.tex_type == _SKYBOX)
        self._slot = int(own[0]) if len(own) else self._count
        self._own = int(context.texture[self._slot])
        self._nominal, self._shown = nominal_sky(model), None

    def show(self, sky: Sky | None) -> None:
        """Use a background from now on; None for the model's."""
        context = self._context
        if sky is None:
            context.texture[self._slot], context.ntexture = self._own, self._count
            return
        if sky is not self._shown:
            image = mixed_sky(self._nominal, sky.amount, sky.top, sky.bottom)
            index = 2 * PATTERNS
            start = int(self._textures.tex_adr[index])
            self._textures.tex_data[start : start + image.size] = image.ravel()
            mujoco.mjr_uploadTexture(self._textures, self._held, index)
            self._shown = sky
        context.texture[self._slot], context.textureType[self._slot] = self._held.texture[2 * PATTERNS], _SKYBOX
        context.ntexture = max(self._count, self._slot + 1)

    def close(self) -> None:
        """Give the model's context its own textures back and free the library's."""
        self.show(None)
        self._held.free()
