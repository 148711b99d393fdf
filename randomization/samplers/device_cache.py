"""CPU tensors on another device, copied there only when they have changed."""

from __future__ import annotations

import torch
from torch import Tensor


class DeviceCache:
    """Copies of CPU tensors on another device, made again when a tensor has changed."""

    def __init__(self) -> None:
        self._copies: dict[str, tuple[Tensor, int, Tensor]] = {}

    def __call__(self, name: str, tensor: Tensor, device: torch.device) -> Tensor:
        """`tensor` on a device; itself where it is there already. `name` is the caller's name for it."""
        if tensor.device == device:
            return tensor
        source, version, copy = self._copies.get(name, (None, -1, tensor))
        if source is not tensor or version != tensor._version:
            copy = tensor.to(device)
            self._copies[name] = (tensor, tensor._version, copy)
        return copy
