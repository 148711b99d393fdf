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

_QPOS_SIZE = {0: 7, 1: 4, 2: 1, 3: 1}  # by mjtJoint: free, ball, slide, hinge
_QVEL_SIZE = {0: 6, 1: 3, 2: 1, 3: 1}


def robotics_asset(*parts: str) -> Path:
    """Where gymnasium-robotics keeps a model. Raises ImportError where it is not installed."""
    spec = find_spec("gymnasium_robotics")
    if spec is None or spec.origin is None:
        raise ImportError("the models of these tasks come with gymnasium-robotics: pip install gymnasium-robotics")
    return Path(spec.origin).parent.joinpath("envs", "assets", *parts)


def _joint(model: Any, name: str) -> tuple[int, int]:
    """Index and mjtJoint type of a joint by name. Raises ValueError for an unknown name."""
    import mujoco

    index = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_JOINT, name)
    if index < 0:
        raise ValueError(f"joint {name!r} is not part of the model")
    return index, int(model.jnt_type[index])


def get_joint_qpos(model: Any, data: Any, name: str) -> Any:
    """Position coordinates of a joint, a copy of shape [7], [4] or [1]."""
    index, kind = _joint(model, name)
    start = model.jnt_qposadr[index]
    return data.qpos[start : start + _QPOS_SIZE[kind]].copy()


def get_joint_qvel(model: Any, data: Any, name: str) -> Any:
    """Velocity coordinates of a joint, a copy. A ball joint gives 4 values there, so it does here."""
    index, kind = _joint(model, name)
    start = model.jnt_dofadr[index]
    size = 4 if kind == 1 else _QVEL_SIZE[kind]
    return data.qvel[start : start + size].copy()


def set_joint_qpos(model: Any, data: Any, name: str, value: Any) -> None:
    """Write the position coordinates of a joint."""
    index, kind = _joint(model, name)
    start = model.jnt_qposadr[index]
    data.qpos[start : start + _QPOS_SIZE[kind]] = value


def set_joint_qvel(model: Any, data: Any, name: str, value: Any) -> None:
    """Write the velocity coordinates of a joint."""
    index, kind = _joint(model, name)
    start = model.jnt_dofadr[index]
    data.qvel[start : start + _QVEL_SIZE[kind]] = value


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
