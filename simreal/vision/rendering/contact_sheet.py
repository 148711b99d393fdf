"""A contact sheet: many sampled worlds of a task in one picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from envs.task import Task
from randomization.catalogue.visual import VISUAL
from randomization.config import RandomizationConfig
from randomization.parameters import RandomizationError, build_parameters
from randomization.targets.appearance import VIEW
from simreal.common.errors import UserError
from simreal.vision.rendering.offscreen import Image
from simreal.vision.rendering.scene import Scene

ROWS = COLUMNS = 5
_CELL, _GAP = 256, 4  # pixels
_MOST_DISPLACED = 0.06  # camera, as a share of the model's extent
_FORMATS = (".png", ".jpg", ".jpeg", ".webp")


def visual_block(task: Task, camera: str = VIEW) -> dict[str, Any]:
    """A `randomization:` block of every visual quantity that a task has, as seen by one camera.

    Two-sided quantities have their usual ranges, spreads the upper half of theirs.
    """
    parameters: dict[str, Any] = {}
    for quantity in VISUAL:
        entry = {"of": camera} if quantity.target == "camera" else {}
        try:
            build_parameters(task, {quantity.name: entry})
        except RandomizationError:  # this task has nothing that it could change
            continue
        low, high = quantity.default_range
        if quantity.name == "camera_position":  # what is small or near would leave the picture
            share = _MOST_DISPLACED if camera == VIEW else _MOST_DISPLACED / 5.0
            high = min(high, share * float(task.model.stat.extent))
        differs = (quantity.nominal + high) / 2.0 if low == quantity.nominal else low  # show more than the mild half
        parameters[quantity.name] = entry | {"range": [differs, high]}
    return {"sampler": "manual", "parameters": parameters}


def contact_sheet(
    task_id: str,
    randomization: str | Path | Mapping[str, Any] | RandomizationConfig | None = None,
    camera: str = VIEW,
    seed: int = 0,
    cell: int = _CELL,
) -> Image:
    """The nominal world, labelled, and 24 sampled ones at the start of an episode, [height, width, 3].

    Args:
        task_id: see `simreal envs`.
        randomization: the worlds; None for all visual quantities in their usual ranges.
        camera: "view" or one of the model's.
        seed: of the episodes.
        cell: edge of each picture, pixels.
    """
    from simreal.training.build import make_environment

    if randomization is None:
        from envs.registry import make_task

        randomization = visual_block(make_task(task_id), camera)
    environment = make_environment(
        task_id, ROWS * COLUMNS, randomization, engine="cpu", seed=seed, threads=1, explore=False
    )
    scene = Scene(environment, cell, cell, camera)
    environment.reset()
    pictures = [
        scene.picture(i, nominal=i == 0, label="nominal" if i == 0 else "") for i in range(environment.num_envs)
    ]
    scene.close()
    return tiled(pictures, COLUMNS, _GAP)


def tiled(pictures: list[Image], columns: int, gap: int) -> Image:
    """Pictures of one size, row by row, on white with gaps in pixels between them."""
    height, width = pictures[0].shape[:2]
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, dtype=np.uint8)
    for k, picture in enumerate(pictures):
        top, left = k // columns * (height + gap), k % columns * (width + gap)
        sheet[top : top + height, left : left + width] = picture
    return sheet


def save_sheet(path: Path, task_id: str, randomization: Path | None, camera: str) -> None:
    """Write a contact sheet. Raises UserError for a path that cannot be written, before anything is rendered."""
    import imageio.v3 as imageio

    if path.suffix.lower() not in _FORMATS:
        raise UserError(f"{path}: expected a file name that ends in one of {', '.join(_FORMATS)}")
    if not path.parent.is_dir():
        raise UserError(f"{path}: the folder {path.parent} does not exist")
    if randomization is not None and not randomization.is_file():
        raise UserError(f"{randomization}: no such file")
    sheet = contact_sheet(task_id, randomization, camera)
    try:
        imageio.imwrite(path, sheet)
    except OSError as error:
        raise UserError(f"{path}: cannot write the picture: {error}") from None
