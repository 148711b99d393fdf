"""Where shapes that belong to the world are: mujoco_warp computes that once, so randomizing it takes a hand."""

from __future__ import annotations

from collections.abc import Container

import mujoco
import torch
from torch import Tensor

from envs.engine import EngineError

_MOVES = ("geom_pos", "body_pos")
_TURNS = ("geom_quat", "body_quat")


class StaticGeoms:
    """The geoms of bodies that nothing moves.

    Args:
        model: which they are.
        device: where indices lie.
    """

    def __init__(self, model: mujoco.MjModel, device: torch.device) -> None:
        bodies = model.geom_bodyid
        fixed = (model.body_weldid[bodies] == 0) & (model.body_mocapid[model.body_rootid[bodies]] < 0)
        self._geoms = torch.as_tensor(fixed.nonzero()[0], device=device)
        self._bodies = torch.as_tensor(bodies[fixed].astype("int64"), device=device)

    def check(self, field: str) -> None:
        """Raise EngineError for a model field that would turn them, which `place` does not do."""
        if field in _TURNS and len(self._geoms):
            raise EngineError(
                f"engine: {field!r} cannot differ between simulations on the GPU, as shapes of the world do not turn "
                "there: use the CPU engine"
            )

    def move(self, fields: Container[str]) -> bool:
        """Whether their places differ between simulations, where these model fields do."""
        return len(self._geoms) > 0 and any(name in fields for name in _MOVES)

    def place(self, geom_xpos: Tensor, xpos: Tensor, xmat: Tensor, geom_pos: Tensor) -> Tensor:
        """geom_xpos [N, ngeom, 3] with their positions, from poses of bodies and geom_pos [N or 1, ngeom, 3]."""
        offset = xmat[:, self._bodies] @ geom_pos[:, self._geoms, :, None]
        placed = geom_xpos.clone()
        placed[:, self._geoms] = xpos[:, self._bodies] + offset[..., 0]
        return placed
