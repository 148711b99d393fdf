"""What the GPU engine computes up to each stage of MuJoCo's pipeline."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from envs.engine import Stage

mjw: Any = importlib.import_module("mujoco_warp")


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
