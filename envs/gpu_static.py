"""Where shapes that belong to the world are: mujoco_warp computes that once, so where it differs this does it anew."""

from __future__ import annotations

import importlib
from collections.abc import Container
from typing import Any

import mujoco

wp: Any = importlib.import_module("warp")
_kernels: Any = importlib.import_module("envs.gpu_kernels")

_PLACES = ("geom_pos", "geom_quat", "body_pos", "body_quat")  # fields of a model


class StaticGeoms:
    """The geoms of bodies that nothing moves.

    Args:
        model: which they are.
        device: Warp's.
    """

    def __init__(self, model: mujoco.MjModel, device: Any) -> None:
        bodies = model.geom_bodyid
        fixed = (model.body_weldid[bodies] == 0) & (model.body_mocapid[model.body_rootid[bodies]] < 0)
        self._geoms = wp.array(fixed.nonzero()[0], dtype=int, device=device)

    def place(self, m: Any, d: Any, fields: Container[str]) -> None:
        """Put them where the model's fields say, if one of those that differ between simulations has a say in it."""
        if not self._geoms.size or not any(name in fields for name in _PLACES):
            return
        inputs = [self._geoms, m.geom_bodyid, m.body_parentid, m.body_pos, m.body_quat, m.geom_pos, m.geom_quat]
        wp.launch(
            _kernels.place_static, (d.nworld, self._geoms.size), inputs=inputs, outputs=[d.geom_xpos, d.geom_xmat]
        )
