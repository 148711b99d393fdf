"""What an estimator is tried in: looks as it was trained in, looks that it never had, and pictures spoilt in ways that
no quantity describes.

| look | pictures |
|---|---|
| nominal | as the model looks |
| trained | looks drawn from the ranges that training ended with |
| held_out | every visual parameter beyond the ranges of the configuration, patterns that no training is given |
| blur | nominal, smeared along a line, as by motion |
| occluder | nominal, with a coloured board in front of a part |
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from envs.task import Task
from randomization.parameters import Parameter, build_parameters
from randomization.samplers.base import Extremes, Manual, Sampler
from randomization.samplers.frozen import frozen_parameters
from simreal.common.errors import UserError
from simreal.evaluation.worlds import beyond
from simreal.vision.datasets.plan import is_visual, worlds_of
from simreal.vision.estimator.config import EstimatorConfig

Pictures = NDArray[np.uint8]
Spoil = Callable[[Pictures, NDArray[np.int64]], Pictures]
_SMEAR = 0.06  # length of a blur, as a share of the picture's height
_BOARD = (0.2, 0.4)  # edges of an occluder, as shares of the picture's


@dataclass(frozen=True)
class LookWorlds:
    """Looks to try an estimator in.

    Attributes:
        name: in tables.
        group: the kind of claim that it supports.
        sampler: of the visual parameters.
        unseen: whether surfaces get patterns that no training is given.
        spoil: what happens to pictures [n, cameras, height, width, 3] afterwards; numbers [n] tell pictures apart.
    """

    name: str
    group: Literal["nominal", "trained", "held_out", "unmodelled"]
    sampler: Sampler
    unseen: bool = False
    spoil: Spoil | None = None


def find_look(name: str, config: EstimatorConfig, state: dict[str, Any]) -> LookWorlds:
    """A look by name.

    Args:
        name: see above.
        config: of the estimator.
        state: of its sampler of looks, at the end of training.

    Raises:
        UserError: held-out looks of a configuration without visual ranges.
    """
    if name == "trained":
        return LookWorlds(name, "trained", trained_looks(config, state))
    if name == "held_out":
        return LookWorlds(name, "held_out", _beyond(config), unseen=True)
    spoil = {"blur": smeared, "occluder": occluded}.get(name)
    return LookWorlds(name, "unmodelled" if spoil else "nominal", Manual([]), spoil=spoil)


def trained_looks(config: EstimatorConfig, state: dict[str, Any]) -> Sampler:
    """The looks that training ended with; their ranges do not move."""
    sampler = worlds_of(config.make_task(), config.randomization).looks
    sampler.load_state_dict(state)
    if isinstance(sampler, Manual):
        return sampler
    return Manual(frozen_parameters(sampler))


def visual_parameters(task: Task, config: EstimatorConfig) -> list[Parameter]:
    """The visual parameters of a configuration, whether or not its sampler draws them."""
    return [p for p in build_parameters(task, config.randomization.parameters) if is_visual(p)]


def _beyond(config: EstimatorConfig) -> Extremes:
    """All visual parameters beyond their ranges at once."""
    task = config.make_task()
    parameters = [replace(p, distribution="uniform", group="") for p in visual_parameters(task, config)]
    if not parameters:
        raise UserError(
            "held_out: the configuration has no visual parameters, beyond whose ranges to look; give some (a sampler "
            "'none' draws none of them in training)"
        )
    wide = [replace(p, limits=beyond(task, p, config.evaluate.reach)) for p in parameters]
    return Extremes(wide, torch.tensor([p.limits for p in parameters], dtype=torch.float64))


def smeared(pictures: Pictures, numbers: NDArray[np.int64]) -> Pictures:
    """Pictures smeared along a line, each in a direction of its own."""
    n, cameras, height, width, _ = pictures.shape
    reach = max(2, math.ceil(0.5 * _SMEAR * height))
    angle = np.pi * _uniform(numbers, 1)[:, 0]
    along = np.linspace(-reach, reach, 4 * reach + 1)
    kernels = np.zeros((n, 2 * reach + 1, 2 * reach + 1), np.float32)
    for i in range(n):
        x, y = np.rint(reach + along * np.cos(angle[i])), np.rint(reach + along * np.sin(angle[i]))
        np.add.at(kernels[i], (y.astype(int), x.astype(int)), 1.0 / len(along))
    values = torch.from_numpy(pictures).permute(0, 1, 4, 2, 3).reshape(1, n * cameras * 3, height, width).float()
    padded = functional.pad(values, (reach,) * 4, mode="replicate")
    weights = torch.from_numpy(kernels).repeat_interleave(cameras * 3, dim=0)[:, None]
    blurred = functional.conv2d(padded, weights, groups=n * cameras * 3)
    return _bytes(blurred.view(n, cameras, 3, height, width).permute(0, 1, 3, 4, 2))


def occluded(pictures: Pictures, numbers: NDArray[np.int64]) -> Pictures:
    """Pictures with a board of one colour in front, each at a place of its own."""
    found = pictures.copy()
    _, cameras, height, width, _ = pictures.shape
    for i, u in enumerate(_uniform(numbers, 4 * cameras + 3)):
        for c in range(cameras):
            part = u[3 + 4 * c : 7 + 4 * c]
            tall, wide = (
                int(n * (_BOARD[0] + v * (_BOARD[1] - _BOARD[0])))
                for n, v in zip((height, width), part[:2], strict=True)
            )
            top, left = int(part[2] * (height - tall)), int(part[3] * (width - wide))
            found[i, c, top : top + tall, left : left + wide] = np.rint(255.0 * u[:3])
    return found


def _uniform(numbers: NDArray[np.int64], size: int) -> NDArray[np.float64]:
    """Numbers [n, size] in (0, 1) that belong to the pictures' numbers [n]."""
    return np.stack([np.random.default_rng([977, int(n)]).random(size) for n in numbers])


def _bytes(values: Tensor) -> Pictures:
    return values.round().clamp(0.0, 255.0).to(torch.uint8).contiguous().numpy()
