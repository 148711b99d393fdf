"""Estimators loaded from their runs, to be asked what pictures show."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from envs.common.safe_yaml import one_line
from envs.task import Task
from simreal.common.errors import UserError
from simreal.common.trusted_code import check_code
from simreal.training.checkpoint import MISFITS, newest_checkpoint
from simreal.training.run_config import read_yaml
from simreal.vision.estimator.config import EstimatorConfig, estimator_config
from simreal.vision.estimator.derived import follow, implied
from simreal.vision.estimator.network import EstimatorNetwork
from simreal.vision.estimator.targets import Target

_AT_ONCE = 256  # pictures


@dataclass(frozen=True)
class Estimator:
    """A trained network and what it reads.

    Attributes:
        run: its directory.
        config: of the run.
        targets: what its network reads, in order.
        task: whose components these are.
        network: in evaluation mode, on the CPU.
        looks: state of the sampler of looks at the end.
        frames: that it was trained on.
    """

    run: Path
    config: EstimatorConfig
    targets: list[Target]
    task: Task
    network: EstimatorNetwork
    looks: dict[str, object]
    frames: int

    @property
    def name(self) -> str:
        """Of the run."""
        return self.run.name or str(self.run)

    @cached_property
    def readings(self) -> list[Target]:
        """What it reads, and what follows from that."""
        return [*self.targets, *implied(self.task, self.targets)]

    @torch.no_grad()
    def estimate(self, pictures: NDArray[np.uint8] | Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """What pictures show, and what follows from it.

        Args:
            pictures: [n, cameras, height, width, 3], red, green, blue in bytes.

        Returns:
            By component, values [n, size] in its own numbers, and how unsure they are: standard deviations, in m or
            rad; of a rotation one [n, 1].

        Raises:
            UserError: pictures of another type, size, or number of cameras.
        """
        # A copy of what is mapped from a file, which torch may not share.
        given = pictures if isinstance(pictures, Tensor) else torch.from_numpy(np.require(pictures, requirements="W"))
        expected = (len(self.config.cameras), self.config.height, self.config.width, 3)
        if given.dtype != torch.uint8:
            raise UserError(f"{self.name}: expected pictures in bytes (uint8), got {str(given.dtype)[6:]}")
        if given.dim() != 5 or tuple(given.shape[1:]) != expected:
            raise UserError(
                f"{self.name}: expected pictures [n, {', '.join(map(str, expected))}] (cameras, height, width, "
                f"colours), got {list(given.shape)}"
            )
        parts = [self.network(part) for part in given.split(_AT_ONCE)] or [self.network(given)]
        outputs = {t.name: torch.cat([part[t.name] for part in parts]) for t in self.targets}
        found = {t.name: t.estimate(outputs[t.name]) for t in self.targets}
        for target in self.readings[len(self.targets) :]:
            found[target.name] = follow(self.task, target, self.targets, found)
        return found


def load_estimator(run: str | Path) -> Estimator:
    """The estimator of a run of `simreal estimate`, as its newest checkpoint has it.

    Raises:
        UserError: there is none, or it is damaged.
    """
    run = Path(run).expanduser()
    if not run.is_dir():
        raise UserError(f"{run}: no such estimator; expected the directory of a run of `simreal estimate`")
    if (run / "config.yaml").is_file():
        check_code(read_yaml(run / "config.yaml").get("task"), str(run / "config.yaml"), made=run)
    config = estimator_config(run)
    task = config.make_task()
    targets = config.find_targets(task)
    network = EstimatorNetwork(targets, len(config.cameras), config.network)
    content = newest_checkpoint(run, config.task)
    try:
        network.load_state_dict(content["network"])
        looks, frames = dict(content["looks"]), int(content["env_steps"])
    except MISFITS as error:
        raise UserError(f"{run}: its checkpoint does not fit its config.yaml: {one_line(error)}") from None
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return Estimator(run, config, targets, task, network.eval(), looks, frames)
