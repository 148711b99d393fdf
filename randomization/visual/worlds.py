"""Makes pictures of environments look like their worlds: cameras, lights, surfaces, background, image filters.

Visual quantities are entries of lambda like all others, but nothing is done about them until pictures are taken: the
model is never written, so nothing drifts, and environments that nobody looks at pay nothing. What a world looks like is
computed here, for all worlds at once and for every renderer alike; MuJoCo's scenes (`mujoco_scene`) and mujoco_warp's
camera (`envs.engines.gpu.camera`) are given the numbers.

A *spread* (camera_position, material_hue, ...) says how far things may differ; where in that range each named
object lies is drawn per episode from the environment's counter-based random numbers, so that an episode looks
the same whatever the number of environments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mujoco
import torch
from torch import Tensor

from envs.common.rng import EpisodeRandom
from envs.engines.visual_state import VisualState
from envs.task import Task
from randomization.catalogue.quantity import Quantity
from randomization.catalogue.table import QUANTITIES
from randomization.parameters import Parameter, RandomizationError
from randomization.targets.appearance import camera_names, surfaces
from randomization.targets.names import object_places
from randomization.visual.effects import MOST_LIGHTS, SceneView, Targets
from randomization.visual.image_filters import NEUTRAL, ImageFilter, postprocess


def refuse_unseen(parameters: list[Parameter], model: mujoco.MjModel, camera: str) -> None:
    """Raise RandomizationError for a visual parameter that pictures of the GPU engine by a camera cannot show."""
    index = camera_names(model).index(camera)
    lens = index < model.ncam and bool(model.cam_sensorsize[index].any() or model.cam_projection[index])
    for parameter in parameters:
        look = QUANTITIES[parameter.quantity].look
        if why := f"takes the lens of {camera!r} from the model" if lens and look.by_lens else look.unseen:
            raise RandomizationError(
                f"{parameter.name}: pictures of the GPU engine cannot show {parameter.quantity}, since mujoco_warp's "
                f"renderer {why}: leave it out or use the CPU engine"
            )


@dataclass(frozen=True)
class _Entry:
    """One visual parameter."""

    column: int  # of lambda
    parameter: Parameter
    quantity: Quantity
    named: int  # number of objects
    rows: slice  # which of the named objects matter: all, or the camera in use
    targets: Targets  # those that matter


class BatchVisualRandomizer:
    """The visual part of lambda, for N worlds at once.

    Args:
        task: whose model is shown.
        parameters: all of lambda, in order; those of other channels are ignored.
        rng: of the environment.
        camera: name of the camera in use.
        device: of states and pictures; that of `rng` if None.

    Attributes:
        active: whether there is any visual parameter.
        spare_lights: that a renderer has to have beyond the model's.
        patterned: whether it has to have the texture library's patterns.
        sky: whether the background changes.
    """

    def __init__(
        self,
        task: Task,
        parameters: list[Parameter],
        rng: EpisodeRandom,
        camera: str,
        device: torch.device | str | None = None,
    ) -> None:
        self._device = rng.device if device is None else torch.device(device)
        self._rng, self._model, self._surfaces = rng, task.model, surfaces(task.model)
        index = camera_names(task.model).index(camera)
        entries = [self._entry(task, column, parameter, index) for column, parameter in enumerate(parameters)]
        self._entries = [entry for entry in entries if entry is not None]
        needs = {entry.quantity.look.needs for entry in self._entries}
        self.active = bool(self._entries)
        self.spare_lights = MOST_LIGHTS if "lights" in needs else 0
        self.patterned, self.sky = "patterns" in needs, "sky" in needs

    def _entry(self, task: Task, column: int, parameter: Parameter, camera: int) -> _Entry | None:
        """The entry of a visual parameter of what the camera in use shows; None for any other."""
        quantity = QUANTITIES.get(parameter.quantity)
        if quantity is None or quantity.channel != "visual":
            return None
        places = object_places(task, quantity.target)
        objects, rows = [places[name] for name in parameter.targets] or [0], slice(None)
        if quantity.target == "camera":
            if camera not in objects:
                return None
            rows = slice(objects.index(camera), objects.index(camera) + 1)
        of_surfaces = self._surfaces if quantity.target == "material" else []
        targets = Targets.of(objects[rows], of_surfaces, task.model, self._device)
        return _Entry(column, parameter, quantity, len(objects), rows, targets)

    def apply(self, state: VisualState, lam: Tensor, first_pattern: int, rows: Tensor | None = None) -> None:
        """Change the nominal state, in place, to that of the worlds lam [N, d].

        Args:
            first_pattern: texture index of the texture library's first pattern.
            rows: of the environments whose worlds these are [N]; None for all.
        """
        view = SceneView(state, self._model, self._surfaces, first_pattern)
        for entry in self._entries:
            change, draws = entry.quantity.look.change, entry.quantity.look.draws
            value = lam[:, entry.column]
            if change is None or _is_nominal(value, entry):
                continue
            drawn = self._rng.episode_uniform(f"visual {entry.parameter.name}", entry.named * draws, rows)
            u = drawn.view(len(lam), entry.named, draws)
            change(view, value[:, None], u[:, entry.rows].to(self._device), entry.targets)

    def postprocess(self, pictures: Tensor, lam: Tensor, rows: Tensor | None = None) -> Tensor:
        """What the cameras make of pictures [N, height, width, 3] uint8 of worlds lam [N, d]; rows as in `apply`."""
        how: dict[str, Any] = {}
        for entry in self._entries:
            name, value = entry.quantity.look.filter, lam[:, entry.column]
            if not name or _is_nominal(value, entry):
                continue
            present = how.get(name, torch.full_like(value, NEUTRAL[name]))  # parameters of one quantity act together
            how[name] = present * value if entry.parameter.mode == "scale" else present + value
            if name == "blur":
                how["most_blur"] = entry.parameter.limits[1]
        size = pictures[0].numel()
        noise = self._rng.quick_normal("visual noise", size, rows) if "noise" in how else None
        return postprocess(pictures, ImageFilter(**how), None if noise is None else noise.to(pictures.device))


def _is_nominal(value: Tensor, entry: _Entry) -> bool:
    """Whether a parameter [N] does nothing in any of the worlds; a GPU is not asked: it would have to be waited for."""
    return value.device.type == "cpu" and bool((value == entry.quantity.nominal).all())


def paint_sky(pictures: Tensor, state: VisualState, background: Tensor, rays: Tensor) -> Tensor:
    """Mix the background of pictures [N, height, width, 3] with the gradients of their worlds.

    Args:
        background: where it shows, [N, height, width] bool.
        rays: of the pixels, [N, height, width, 3] in the world frame.
    """
    top, bottom = (255.0 * colour[:, None, None].double() for colour in (state.sky_top, state.sky_bottom))
    level = rays[..., 2] / rays[..., :2].abs().amax(dim=-1).clamp(min=1e-12)  # on a cube around the world
    share = (0.5 + 0.5 * level.clamp(-1.0, 1.0))[..., None]
    amount = state.sky_amount.double()[:, None, None, None]
    mixed = (1.0 - amount) * pictures + amount * (bottom + share * (top - bottom))
    return torch.where(background[..., None], mixed.round().to(pictures.dtype), pictures)
