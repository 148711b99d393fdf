"""Which pictures: of which task, cameras, states and worlds. Two equal plans give the same pictures, bit for bit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from envs.common.messages import nearest
from envs.registry import make_task
from envs.task import Task
from randomization.catalogue.table import QUANTITIES
from randomization.config import RandomizationConfig, make_sampler
from randomization.parameters import Parameter, RandomizationError, build_parameters
from randomization.samplers.base import Manual, Sampler
from randomization.targets.appearance import camera_names
from simreal.common.errors import UserError
from simreal.vision.rendering.mounts import Mount, mounted

RANDOM = "random"  # states that random actions lead to
MOST_CAMERAS = 3
_LARGEST, _SMALLEST = 1024, 8  # pixels along an edge
FRAMES = 256  # of a chunk, about
_PER_EPISODE = 16  # pictures of a short episode
_MOST_APART = 5  # control steps between two pictures of an episode


@dataclass(frozen=True)
class PicturePlan:
    """What is rendered. Frame i depends on this record and on i, and on nothing else.

    Attributes:
        task, task_options: see `make_task`.
        cameras: one to three: "view", the model's, or those of `mounts`.
        mounts: cameras beside the model's, by name.
        width, height: pixels.
        seed: of states and looks.
        states: "random" actions, or the run or bundle whose policy acts.
        randomization: the block of the worlds. What of it is physics is drawn per episode, what is visual per frame.
        looks: "frame": each has a look of its own; "episode": one look for all pictures of an episode.
        unseen: whether surfaces get patterns of textures that no training is given.
        per_episode: pictures of an environment before it begins anew; None: as many as an episode gives, up to 64.
    """

    task: str
    cameras: tuple[str, ...]
    width: int
    height: int
    seed: int = 0
    states: str = RANDOM
    task_options: Mapping[str, Any] = field(default_factory=dict)
    mounts: Mapping[str, Mount] = field(default_factory=dict)
    randomization: Mapping[str, Any] = field(default_factory=dict)
    looks: Literal["frame", "episode"] = "frame"
    unseen: bool = False
    per_episode: int | None = None

    def plain(self) -> dict[str, Any]:
        """As it stands in a JSON file."""
        mounts = {name: mount.model_dump(mode="json") for name, mount in self.mounts.items()}
        return asdict(self) | {"cameras": list(self.cameras), "mounts": mounts}


@dataclass(frozen=True)
class Chunking:
    """How frames are dealt with: a chunk is rendered as a whole, so that nothing in it depends on how many are wanted.

    Attributes:
        environments: that run side by side in a chunk.
        pictures: of each of them.
        every: control steps between two of an environment's pictures.
    """

    environments: int
    pictures: int
    every: int

    @classmethod
    def of(cls, episode_steps: int, most: int | None = None) -> Chunking:
        """For episodes of that length, of each of which there are to be at most so many pictures."""
        every = max(1, min(episode_steps // _PER_EPISODE, _MOST_APART))
        pictures = max(1, min(episode_steps // every, most or FRAMES // 4))
        return cls(max(1, FRAMES // pictures), pictures, every)

    @property
    def size(self) -> int:
        """Frames of a chunk."""
        return self.environments * self.pictures

    def steps(self, frames: int) -> int:
        """Pictures of each environment that a chunk's first `frames` take."""
        return min(self.pictures, -(-frames // self.environments))

    def episode_of(self, frame: int) -> int:
        """A number that two frames share if they are of one stretch of an environment."""
        return frame // self.size * self.environments + frame % self.size % self.environments


def chunk_seed(seed: int, chunk: int) -> int:
    """The seed of a chunk's states: chunks have nothing in common."""
    return int.from_bytes(hashlib.sha256(f"{seed} {chunk}".encode()).digest()[:8], "little") >> 1


@dataclass(frozen=True)
class Worlds:
    """A randomization block divided into physics, which an episode has, and looks, which a picture has."""

    physics: Sampler
    looks: Sampler

    @property
    def parameters(self) -> list[Parameter]:
        """All of lambda: physics, then looks."""
        return [*self.physics.parameters, *self.looks.parameters]


def is_visual(parameter: Parameter) -> bool:
    """Whether a parameter is of what pictures show, and of nothing else."""
    return QUANTITIES[parameter.quantity].channel == "visual"


def worlds_of(task: Task, block: RandomizationConfig) -> Worlds:
    """Samplers of a block.

    Raises:
        RandomizationError: naming the key; also where ranges that widen are to be of physics, or numbers are tied
            across physics and looks.
    """
    block = block.resolved(task)
    parameters = build_parameters(task, block.parameters)
    if block.sampler == "none":
        return Worlds(Manual([]), Manual([]))
    looks = [p for p in parameters if is_visual(p)]
    physics = [p for p in parameters if not is_visual(p)]
    seen = {p.name for p in looks}
    if block.sampler != "manual":
        for parameter in physics:
            raise RandomizationError(
                f"randomization.{parameter.name}: {parameter.quantity} is no quantity of pictures: expected sampler "
                f"'manual' for it, got {block.sampler!r}, which is judged by pictures"
            )
        return Worlds(Manual([]), make_sampler(block, looks))
    for a, b, _ in block.correlations:
        if len(seen & {a, b}) == 1:
            raise RandomizationError(f"correlations: [{a}, {b}]: physics is drawn per episode, looks per picture")
    if shared := {p.group for p in looks if p.group} & {p.group for p in physics}:
        raise RandomizationError(f"group {min(shared)!r}: physics is drawn per episode, looks per picture")
    tied = [pair for pair in block.correlations if seen >= {*pair[:2]}]
    rest = [pair for pair in block.correlations if pair not in tied]
    return Worlds(Manual(physics, rest), Manual(looks, tied))


def check_cameras(task: Task, cameras: Sequence[str]) -> tuple[str, ...]:
    """The cameras, if a task has them. Raises UserError."""
    names = camera_names(task.model)
    if not 1 <= len(cameras) <= MOST_CAMERAS or len(set(cameras)) < len(cameras):
        raise UserError(f"cameras: expected one to {MOST_CAMERAS}, each once, got {', '.join(cameras) or 'none'}")
    for name in cameras:
        if name not in names:
            raise UserError(f"camera: no camera {name!r}{nearest(name, names)}; there are: {', '.join(names)}")
    return tuple(cameras)


def check_size(width: int, height: int) -> None:
    """Raise UserError for pictures that are too small or too large."""
    if not (_SMALLEST <= width <= _LARGEST and _SMALLEST <= height <= _LARGEST):
        raise UserError(f"size: expected {_SMALLEST} to {_LARGEST} pixels along an edge, got {width} x {height}")


def make(plan: PicturePlan) -> Task:
    """A new instance of a plan's task, with its cameras."""
    with mounted(plan.mounts):
        return make_task(plan.task, **plan.task_options)
