"""What a policy that looks at pictures reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class PixelLayout:
    """Sizes of pictures, and what is read beside them.

    Attributes:
        height, width: of the camera's pictures, pixels.
        crop: left, top, width and height of what is looked at.
        shrink: edge of the squares of pixels that are averaged.
        stack: K, pictures that are looked at.
        shift: pixels by which they are moved at random, at most.
        columns: of the policy group, read beside the pictures.
        components: their names.
        state_critic: whether the critic reads the state in place of the pictures.
        channels, features: of the encoder.
    """

    height: int
    width: int
    crop: tuple[int, int, int, int]
    shrink: int
    stack: int
    shift: int
    columns: tuple[int, ...]
    components: tuple[str, ...]
    state_critic: bool
    channels: tuple[int, ...]
    features: int

    @property
    def seen(self) -> tuple[int, int]:
        """Height and width of what is looked at, pixels of the camera."""
        return self.crop[3], self.crop[2]

    def cropped(self, pictures: Tensor) -> Tensor:
        """The part [..., h, w, 3] of pictures [..., height, width, 3] that is looked at."""
        left, top, width, height = self.crop
        return pictures[..., top : top + height, left : left + width, :]

    def beside(self, policy: Tensor) -> Tensor:
        """What is read beside the pictures [B, k] of a policy group [B, nobs]."""
        return policy[:, list(self.columns)]


@dataclass(frozen=True)
class Seen:
    """What N environments show to a policy that looks at pictures."""

    pictures: Tensor  # [N, height, width, 3] uint8, as the camera gives them
    components: Tensor  # [N, k] in SI units

    def __len__(self) -> int:
        return len(self.pictures)

    def numpy(self) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Pictures and components as arrays."""
        return self.pictures.numpy(), self.components.float().numpy()

    def cpu(self) -> Seen:
        """On the CPU."""
        return Seen(self.pictures.cpu(), self.components.cpu())


class PictureStack:
    """The last K pictures of N environments, oldest first; in an episode's first step all are its first.

    Attributes:
        held: [N, K, height, width, 3]; None before the first.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self.held: Tensor | None = None
        self._begins: Tensor | None = None  # [N] whose next picture is an episode's first; None: all

    def begin(self, mask: Tensor) -> None:
        """Episodes begin in the environments of mask [N]."""
        if self._begins is not None:
            self._begins = self._begins | mask if len(self._begins) == len(mask) else None

    def push(self, pictures: Tensor) -> Tensor:
        """The stacks [N, K, height, width, 3] with the present pictures [N, height, width, 3]."""
        new, begins = pictures[:, None], self._begins
        whole = new.expand(-1, self._count, -1, -1, -1)
        if self.held is None or begins is None or len(self.held) != len(new):
            self.held = whole.clone()
        else:
            longer = torch.cat((self.held[:, 1:], new), dim=1)
            self.held = torch.where(begins.view(-1, 1, 1, 1, 1), whole, longer)
        self._begins = torch.zeros(len(new), dtype=torch.bool)
        return self.held

    def state_dict(self) -> dict[str, Any]:
        """What is held."""
        return {"held": self.held, "begins": self._begins}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self.held, self._begins = (None if v is None else v.clone() for v in (state["held"], state["begins"]))
