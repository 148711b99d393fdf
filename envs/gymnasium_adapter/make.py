"""Makes a Gymnasium environment by id, and says in one line why it cannot be used."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import gymnasium
import mujoco
from gymnasium.envs.registration import EnvSpec, load_env_creator

from envs.common.errors import TaskError, UnknownOptionError, UnknownTaskError
from envs.platform.gymnasium_robotics_patch import patch_gymnasium_robotics

GymnasiumEnv = gymnasium.Env[Any, Any]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """MuJoCo's warnings are not printed, nor written to MUJOCO_LOG.TXT: those that matter are counted in mjData."""
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda _: None)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)


@contextlib.contextmanager
def refusals(label: str) -> Iterator[None]:
    """What an environment raises because of how it was made is one line: its own checks of options vary."""
    try:
        yield
    except TaskError:
        raise
    except Exception as error:
        raise TaskError(f"{label}: {type(error).__name__}: {' '.join(str(error).split())}") from error


def find_spec(env_id: str) -> EnvSpec:
    """What Gymnasium knows of an id; "module:id" imports the module first, which registers it.

    Raises:
        UnknownTaskError: the id does not exist; names the nearest.
    """
    patch_gymnasium_robotics()
    module, _, name = env_id.rpartition(":")
    if module:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise UnknownTaskError(f"task: gymnasium:{env_id}: {error}") from None
    if name not in gymnasium.registry:
        known = [key for key in gymnasium.registry if not key.startswith("simreal/")]
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.3)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise UnknownTaskError(f"task: Gymnasium has no environment {name!r}: {hint}`gymnasium.registry` holds all")
    return gymnasium.registry[name]


def make_env(env_id: str, options: Mapping[str, Any], max_episode_steps: int) -> GymnasiumEnv:
    """A new environment with a time limit and without Gymnasium's checks at every call.

    The limit is the task's too, but wrappers outside of Gymnasium's may do something when an episode reaches it.

    Raises:
        UnknownTaskError: the id does not exist.
        UnknownOptionError: the environment does not take an option.
        TaskError: it cannot be made, or holds no mjModel and mjData.
    """
    spec, label = find_spec(env_id), f"task: gymnasium:{env_id}"
    if "render_mode" in options:
        raise UnknownOptionError(f"{label}: render_mode: simreal draws pictures itself, leave it out")
    with quiet(), refusals(label):
        try:
            env: GymnasiumEnv = gymnasium.make(
                spec, max_episode_steps=max_episode_steps, disable_env_checker=True, **options
            )
        except TypeError as error:
            if "unexpected keyword" not in str(error):
                raise
            known = sorted(_options(spec))
            raise UnknownOptionError(f"{label}: {error}: options: {', '.join(known) or 'none'}") from None
    raw: Any = env.unwrapped
    model, data = getattr(raw, "model", None), getattr(raw, "data", None)
    if not (isinstance(model, mujoco.MjModel) and isinstance(data, mujoco.MjData)):
        env.close()
        raise TaskError(
            f"{label}: {type(raw).__name__} holds no mjModel and mjData as .model and .data; expected an environment "
            "on MuJoCo's own Python package, such as HalfCheetah-v5 or AdroitHandDoor-v1"
        )
    return env


def _options(spec: EnvSpec) -> set[str]:
    """Names of the arguments of an environment's constructor."""
    entry = spec.entry_point
    if isinstance(entry, str):
        entry = load_env_creator(entry)
    return set() if entry is None else set(inspect.signature(entry).parameters) - {"kwargs"}
