"""Makes pictures of an environment look like its world: cameras, lights, surfaces, background, development.

Visual quantities are entries of lambda like all others, but nothing is done about them until a picture is
taken. Then they change MuJoCo's abstract scene (`mjvScene`), which is built anew from the model for every
picture: the model itself is never written, so nothing drifts, and environments that nobody looks at pay nothing.

A *spread* (camera_position, material_hue, ...) says how far things may differ; where in that range each named
object lies is drawn per episode from the environment's counter-based random numbers, so that an episode looks
the same whatever the number of environments.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray

from envs.rng import EpisodeRandom
from envs.task import Task
from randomization.appearance import camera_names, surfaces
from randomization.images import Development, process
from randomization.names import object_places
from randomization.parameters import Parameter
from randomization.quantities import QUANTITIES
from randomization.visual_effects import EFFECTS, Array, Shot, Sky


@dataclass(frozen=True)
class Entry:
    """One visual parameter."""

    column: int  # of lambda
    parameter: Parameter
    nominal: float  # where it does nothing
    objects: tuple[int, ...]
    draws: int  # random numbers per object


class VisualWorlds:
    """The visual part of lambda.

    Args:
        task: whose model is shown.
        parameters: all of lambda, in order; those of other channels are ignored.
        rng: of the environment.

    Attributes:
        active: whether there is any visual parameter.
        textured: whether pictures need the texture library.
    """

    def __init__(self, task: Task, parameters: list[Parameter], rng: EpisodeRandom) -> None:
        self._rng = rng
        self._entries = visual_entries(task, parameters)
        self._surfaces = surfaces(task.model)
        self._cameras = camera_names(task.model)
        self._stream: torch.Tensor | None = None
        self._draws: dict[str, Array] = {}
        names = {entry.parameter.quantity for entry in self._entries}
        self.active = bool(names)
        self.textured = bool(names & {"material_texture", "background_color"})

    def compose(
        self, scene: mujoco.MjvScene, model: mujoco.MjModel, lam: torch.Tensor, index: int, camera: str, pattern: int
    ) -> Sky | None:
        """Change environment `index`'s scene, freshly built from `model`, to its world lam [d].

        Args:
            camera: name of the camera in use.
            pattern: texture id of the texture library's first pattern.

        Returns:
            The background, where it differs from the nominal one.
        """
        shot = Shot(scene, model, self._cameras.index(camera), self._surfaces, pattern)
        for entry in self._entries:
            value = float(lam[entry.column])
            if value == entry.nominal or entry.parameter.quantity not in EFFECTS:
                continue
            effect = EFFECTS[entry.parameter.quantity][0]
            u = self._numbers(entry, index)
            for row, target in enumerate(entry.objects):
                effect(shot, value, u[row], target)
        shot.finish()
        return shot.sky

    def develop(self, picture: NDArray[np.uint8], lam: torch.Tensor, index: int) -> NDArray[np.uint8]:
        """What the camera of environment `index` makes of a picture [height, width, 3] in its world lam [d]."""
        how = Development()
        for entry in self._entries:
            name, value = entry.parameter.quantity.removeprefix("image_"), float(lam[entry.column])
            if name != entry.parameter.quantity:  # parameters of one quantity act together
                present = getattr(how, name)
                together = present * value if entry.parameter.mode == "scale" else present + value
                how = replace(how, **{name: together})
        if how.noise:  # fresh at every control step
            how = replace(how, seed=int(2**52 * float(self._rng.uniform("visual noise", 1)[index, 0])))
        return process(picture, how)

    def _numbers(self, entry: Entry, index: int) -> Array:
        """Random numbers [objects, draws] of environment `index`'s episode; drawn for all environments at once."""
        stream = self._rng.stream
        if self._stream is None or stream[index] != self._stream[index]:
            self._stream, self._draws = stream.clone(), {}
        name = entry.parameter.name
        if name not in self._draws:
            shape = (self._rng.num_envs, len(entry.objects), entry.draws)
            drawn = self._rng.episode_uniform(f"visual {name}", shape[1] * shape[2])
            self._draws[name] = drawn.cpu().numpy().reshape(shape)
        return self._draws[name][index]


def visual_entries(task: Task, parameters: list[Parameter]) -> list[Entry]:
    """The visual ones of lambda's parameters."""
    return [
        _entry(task, column, parameter)
        for column, parameter in enumerate(parameters)
        if parameter.quantity in QUANTITIES and QUANTITIES[parameter.quantity].channel == "visual"
    ]


def _entry(task: Task, column: int, parameter: Parameter) -> Entry:
    quantity = QUANTITIES[parameter.quantity]
    places = object_places(task, quantity.target)
    objects = tuple(places[name] for name in parameter.targets) or (0,)
    draws = EFFECTS[quantity.name][1] if quantity.name in EFFECTS else 0
    return Entry(column, parameter, quantity.nominal, objects, draws)
