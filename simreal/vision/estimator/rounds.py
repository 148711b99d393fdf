"""Rounds of pictures to learn from: fresh ones, rendered beside the learning, or those of a folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from envs.platform.processors import available_threads
from randomization.config import randomization_config
from simreal.common.errors import UserError
from simreal.vision.datasets.folder import PictureFolder
from simreal.vision.datasets.maker import Chunk
from simreal.vision.datasets.workers import ChunkSource
from simreal.vision.estimator.config import EstimatorConfig
from simreal.vision.estimator.targets import Target


@dataclass(frozen=True)
class Round:
    """Pictures that are learnt from together.

    Attributes:
        pictures: [n, cameras, height, width, 3] bytes.
        truths: by target, [n, size].
        worlds: of looks, [n, d]; boundary [n], see `Sampler.draw`.
    """

    pictures: Tensor
    truths: dict[str, Tensor]
    worlds: Tensor
    boundary: Tensor

    def __len__(self) -> int:
        return len(self.pictures)

    def where(self, mask: Tensor) -> Round:
        """Those of a mask [n], or of indices."""
        truths = {name: values[mask] for name, values in self.truths.items()}
        return Round(self.pictures[mask], truths, self.worlds[mask], self.boundary[mask])


class Rounds(Protocol):
    """Where rounds come from: each is asked for before the one before it is taken."""

    def ask(self, number: int, looks: dict[str, Any]) -> None:
        """Begin round `number`, whose looks a sampler in that state draws."""

    def take(self) -> Round:
        """The round that was asked for first."""
        ...

    def close(self) -> None:
        """Free everything."""


class FreshRounds:
    """Rounds that are rendered.

    Args:
        config: of the estimator.
        targets: what is read.
        trusted: see `ChunkMaker`.
    """

    def __init__(self, config: EstimatorConfig, targets: Sequence[Target], trusted: str | None) -> None:
        workers = config.pictures.workers
        if workers is None:
            workers = max(available_threads() - 1, 0)
        self._source = ChunkSource(config.plan(), workers, trusted)
        self._targets, self._chunks = list(targets), config.train.round_chunks
        self._looks = len(self._source.maker.worlds.physics.parameters)

    def ask(self, number: int, looks: dict[str, Any]) -> None:
        for chunk in range(number * self._chunks, (number + 1) * self._chunks):
            self._source.ask(chunk, looks)

    def take(self) -> Round:
        chunks = [self._source.take() for _ in range(self._chunks)]
        return round_of(chunks, self._targets, self._looks)

    def close(self) -> None:
        self._source.close()


def round_of(chunks: Sequence[Chunk], targets: Sequence[Target], physics: int) -> Round:
    """Chunks, one after the other; the first `physics` numbers of their worlds are not of looks."""
    one = lambda name: np.concatenate([getattr(chunk, name) for chunk in chunks])  # noqa: E731
    truths = {
        t.name: torch.from_numpy(np.concatenate([chunk.states[t.name] for chunk in chunks])).float() for t in targets
    }
    worlds = torch.from_numpy(one("worlds"))[:, physics:]
    return Round(torch.from_numpy(one("pictures")), truths, worlds, torch.from_numpy(one("boundary")))


class FolderRounds:
    """Rounds of a folder's pictures, each once before any comes again.

    Args:
        config: of the estimator; its task, cameras and size have to be the folder's.
        targets: what is read.

    Raises:
        UserError: naming what is not the folder's.
    """

    def __init__(self, config: EstimatorConfig, targets: Sequence[Target]) -> None:
        assert config.pictures.folder is not None
        self._folder = folder_of(config)
        self._targets, self._seed = list(targets), config.seed
        self._size = config.train.round_chunks * self._folder.chunking.size
        self._asked: list[int] = []
        self._states = {t.name: torch.from_numpy(np.array(self._folder.state(t.name))).float() for t in targets}

    def ask(self, number: int, looks: dict[str, Any]) -> None:
        self._asked.append(number)

    def take(self) -> Round:
        number, frames = self._asked.pop(0), self._folder.frames
        rows = self._rows(number * self._size, frames)
        pictures = torch.from_numpy(self._folder.pictures(rows))
        nothing = torch.zeros(len(rows), 0, dtype=torch.float64)
        truths = {name: values[rows] for name, values in self._states.items()}
        return Round(pictures, truths, nothing, torch.full((len(rows),), -1))

    def _rows(self, start: int, frames: int) -> np.ndarray:
        """Frames that come `start` to `start` + size in a sequence of shuffled passes."""
        at = np.arange(start, start + min(self._size, frames))
        orders = {e: np.random.default_rng([self._seed, int(e)]).permutation(frames) for e in np.unique(at // frames)}
        return np.array([orders[i // frames][i % frames] for i in at], dtype=np.int64)

    def close(self) -> None:
        """Nothing."""


def folder_of(config: EstimatorConfig) -> PictureFolder:
    """The folder that a configuration learns from. Raises UserError, naming what is not as configured."""
    assert config.pictures.folder is not None
    folder = PictureFolder.open(Path(config.pictures.folder).expanduser())
    plan, wanted = folder.plan, config.plan().plain()
    if (plan["width"], plan["height"]) != (config.width, config.height):
        raise UserError(
            f"pictures.folder: {folder.folder}: holds pictures of {plan['width']} x {plan['height']} pixels, expected "
            f"{config.width} x {config.height} (size)"
        )
    for key in ("task", "task_options", "cameras", "mounts"):
        if plan[key] != wanted[key]:
            raise UserError(f"pictures.folder: {folder.folder}: {key} is {plan[key]}, expected {wanted[key]}")
    return folder


def with_folder(config: EstimatorConfig) -> EstimatorConfig:
    """The configuration with the worlds of its folder, if it learns from one: what it was trained in. Raises
    UserError where it asks for others."""
    if config.pictures.folder is None:
        return config
    block = randomization_config(folder_of(config).plan["randomization"] or None)
    given = config.randomization
    if (given.parameters or given.sampler != "none") and given.parameters != block.parameters:
        raise UserError("randomization: the pictures of pictures.folder have been rendered; leave it out")
    return config.model_copy(update={"randomization": block})
