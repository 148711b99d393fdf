"""Components that follow from what pictures show: a task says how (`Task.read_through`), and how unsure they are is
worked out by letting what they follow from differ as the network says it may."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from envs.common.spatial import axis_angle_to_quat, quat_to_matrix
from envs.task import Task
from simreal.vision.estimator.targets import Target, find_target

_DRAWS = 16  # of what may be, for each picture


def implied(task: Task, targets: list[Target]) -> list[Target]:
    """What follows from some targets; its errors count as right where they are as small as the last part's."""
    read = {target.name: target for target in targets}
    return [
        find_target(task, name, "auto", read[parts[-1]].within)
        for name, parts in task.read_through.items()
        if name not in read and all(part in read for part in parts)
    ]


def follow(
    task: Task, target: Target, parts: list[Target], found: Mapping[str, tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """Values [n, size] of a component that `implied` found, and standard deviations [n, spreads], see
    `Target.estimate`.

    Args:
        task: says how.
        target: the component.
        parts: what may be asked for.
        found: values and standard deviations of these.
    """
    needed = [part for part in parts if part.name in task.read_through[target.name]]
    value = task.from_pictures(target.name, {part.name: found[part.name][0] for part in needed})
    numbers = torch.Generator().manual_seed(0)
    total = torch.zeros(len(value), target.spreads, dtype=value.dtype)
    for _ in range(_DRAWS):
        drawn = {part.name: _moved(part, *found[part.name], numbers) for part in needed}
        total += target.misses(task.from_pictures(target.name, drawn), value).square()
    dimensions = 3.0 if target.kind in ("quaternion", "euler") else 1.0
    return value, (total / _DRAWS / dimensions).sqrt()


def _moved(part: Target, value: Tensor, std: Tensor, numbers: torch.Generator) -> Tensor:
    """One draw of what the truth may be."""
    if part.kind not in ("quaternion", "euler"):
        return value + std * torch.randn(value.shape, generator=numbers, dtype=value.dtype)
    turn = std * torch.randn(len(value), 3, generator=numbers, dtype=value.dtype)
    angle = torch.linalg.vector_norm(turn, dim=1).clamp(min=1e-9)
    by = axis_angle_to_quat(turn / angle[:, None], angle)
    return part.of_matrix(quat_to_matrix(by) @ part.to_matrix(value))
