"""What the GPU engine computes up to each stage of MuJoCo's pipeline, and what mujoco_warp computes only once."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Container
from typing import Any

import mujoco

from envs.engines.base import Stage

mjw: Any = importlib.import_module("mujoco_warp")
wp: Any = importlib.import_module("warp")
_kernels: Any = importlib.import_module("envs.engines.gpu.kernels")

_POSES = ("geom_pos", "geom_quat", "body_pos", "body_quat")  # fields of a model


def _kinematics(m: Any, d: Any) -> None:
    mjw.fwd_kinematics(m, d)
    mjw.transmission(m, d)
    mjw.sensor_pos(m, d)


def _position(m: Any, d: Any) -> None:
    mjw.fwd_position(m, d)
    mjw.sensor_pos(m, d)


def _velocity(m: Any, d: Any) -> None:
    _position(m, d)
    mjw.fwd_velocity(m, d)
    mjw.sensor_vel(m, d)


STAGES: dict[Stage, Callable[[Any, Any], None]] = {
    "kinematics": _kinematics,
    "position": _position,
    "velocity": _velocity,
    "acceleration": mjw.forward,
}


class StaticGeoms:
    """Poses in the world of geoms on bodies that nothing moves, which mujoco_warp computes once: where the model's
    poses differ between simulations they have to be computed anew.

    Args:
        model: which geoms there are.
        device: Warp's.
    """

    def __init__(self, model: mujoco.MjModel, device: Any) -> None:
        bodies = model.geom_bodyid
        fixed = (model.body_weldid[bodies] == 0) & (model.body_mocapid[model.body_rootid[bodies]] < 0)
        self._geoms = wp.array(fixed.nonzero()[0], dtype=int, device=device)

    def place(self, m: Any, d: Any, fields: Container[str]) -> None:
        """Put them where the model's fields say, if one of `fields`, which differ between simulations, is a pose."""
        if not self._geoms.size or not any(name in fields for name in _POSES):
            return
        inputs = [self._geoms, m.geom_bodyid, m.body_parentid, m.body_pos, m.body_quat, m.geom_pos, m.geom_quat]
        wp.launch(
            _kernels.place_static, (d.nworld, self._geoms.size), inputs=inputs, outputs=[d.geom_xpos, d.geom_xmat]
        )
