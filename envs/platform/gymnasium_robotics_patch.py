"""Keeps gymnasium-robotics 1.4 working under MuJoCo 4.0.

Its joint accessors compare ``model.jnt_type[i]`` (a NumPy integer) with members of ``mujoco.mjtJoint``;
since MuJoCo 3.8 that comparison is false, and every Fetch, Hand and Adroit environment fails in its
constructor. The four accessors below cast to int first and are otherwise equivalent.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# Field, addresses, and numbers of a free and of a ball joint (mjtJoint 0 and 1); slides and hinges have one.
_POSITION = "qpos", "jnt_qposadr", {0: 7, 1: 4}
_VELOCITY = "qvel", "jnt_dofadr", {0: 6, 1: 3}
_SHOWN_VELOCITY = "qvel", "jnt_dofadr", {0: 6, 1: 4}  # gymnasium-robotics reads 4 of a ball joint, so it does here


def robotics_asset(*parts: str) -> Path:
    """Where gymnasium-robotics keeps a model. Raises ImportError where it is not installed."""
    spec = find_spec("gymnasium_robotics")
    if spec is None or spec.origin is None:
        raise ImportError("the models of these tasks come with gymnasium-robotics: pip install gymnasium-robotics")
    return Path(spec.origin).parent.joinpath("envs", "assets", *parts)


def _coordinates(model: Any, data: Any, name: str, kind: tuple[str, str, dict[int, int]]) -> Any:
    """Live coordinates of a joint. Raises ValueError for an unknown name."""
    import mujoco

    field, addresses, sizes = kind
    index = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_JOINT, name)
    if index < 0:
        raise ValueError(f"joint {name!r} is not part of the model")
    start = getattr(model, addresses)[index]
    return getattr(data, field)[start : start + sizes.get(int(model.jnt_type[index]), 1)]


def get_joint_qpos(model: Any, data: Any, name: str) -> Any:
    """Position coordinates of a joint, a copy."""
    return _coordinates(model, data, name, _POSITION).copy()


def get_joint_qvel(model: Any, data: Any, name: str) -> Any:
    """Velocity coordinates of a joint, a copy."""
    return _coordinates(model, data, name, _SHOWN_VELOCITY).copy()


def set_joint_qpos(model: Any, data: Any, name: str, value: Any) -> None:
    """Write the position coordinates of a joint."""
    _coordinates(model, data, name, _POSITION)[:] = value


def set_joint_qvel(model: Any, data: Any, name: str, value: Any) -> None:
    """Write the velocity coordinates of a joint."""
    _coordinates(model, data, name, _VELOCITY)[:] = value


def patch_gymnasium_robotics() -> bool:
    """Register gymnasium-robotics' environments and make them run. False when it is not installed."""
    try:
        import gymnasium

        # Its import prints a notice about reward versions of environments that nobody asked for.
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            import gymnasium_robotics
            from gymnasium_robotics.utils import mujoco_utils
    except Exception:  # it raises errors of its own where MuJoCo is missing
        return False
    gymnasium.register_envs(gymnasium_robotics)
    for function in (get_joint_qpos, get_joint_qvel, set_joint_qpos, set_joint_qvel):
        setattr(mujoco_utils, function.__name__, function)
    return True
