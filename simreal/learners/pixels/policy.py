"""What is evaluated and exported of a learner that looks at pictures."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from simreal.learners.normalizer import Normalizer
from simreal.learners.pixels.encoder import Encoder
from simreal.learners.pixels.layout import PixelLayout


class PixelPolicy(nn.Module):
    """Encoder, normalizer of the components beside the pictures, and actor. Puts out the most likely action.

    Args:
        layout: what it reads.
        normalizer: of the components [k].
        actor: makes actions [B, A] in [-1, 1] of what networks see, with `of_features`.
    """

    def __init__(self, layout: PixelLayout, normalizer: Normalizer, actor: nn.Module) -> None:
        super().__init__()
        self.layout = layout
        self.encoder = Encoder(layout)
        self.normalizer = normalizer
        self.actor: Any = actor

    def seen(self, features: Tensor, components: Tensor) -> Tensor:
        """What the actor sees [B, k + features] of pictures' features and components in SI units."""
        return torch.cat((self.normalizer(components), features), dim=1)

    def forward(self, pictures: Tensor, components: Tensor) -> Tensor:
        """Pictures [B, K, height, width, 3] uint8 as the camera gives them, oldest first, components [B, k] in SI
        units -> action [B, A] in [-1, 1]."""
        return self.of_features(self.seen(self.encoder(self.layout.cropped(pictures)), components))

    def of_features(self, x: Tensor) -> Tensor:
        """What the actor sees -> action [B, A] in [-1, 1]."""
        found = self.actor(x)
        return found if isinstance(found, Tensor) else found[0].mode()
