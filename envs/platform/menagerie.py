"""Robot models of MuJoCo Menagerie, by name.

The `mujoco-menagerie` package downloads a model on first use and keeps it; the environment variable MENAGERIE_ROOT
names a folder that holds the models already, for machines without a network. Other packages that carry some of these
robots have other editions of them: see docs/surprises.md.
"""

from __future__ import annotations

from pathlib import Path

import mujoco

from envs.common.errors import ModelUnavailableError, UnknownRobotError

NOT_HERE = "is not on this machine"  # in the message of every ModelUnavailableError but UnknownRobotError


def robot_path(name: str, scene: bool = False) -> Path:
    """The XML file of a robot.

    Args:
        name: a robot's name ("unitree_go1"), or one of its models ("wonik_allegro/right_hand").
        scene: the robot's own scene (floor and lights) where `name` says no model.

    Raises:
        UnknownRobotError: there is no such robot.
        ModelUnavailableError: its files cannot be had.
    """
    try:
        import mujoco_menagerie
    except ImportError:
        raise ModelUnavailableError(
            f"{name}: its model {NOT_HERE}: robot models come with mujoco-menagerie: pip install mujoco-menagerie"
        ) from None
    robot_name, _, entry = name.partition("/")
    try:
        robot = mujoco_menagerie.get(robot_name)
        file = robot.entry(entry or (robot.default_scene if scene else robot.default_model)).file
        path = robot.path() / file
    except LookupError as error:
        raise UnknownRobotError(f"{name}: {error}") from None
    except (mujoco_menagerie.MenagerieError, OSError) as error:
        raise ModelUnavailableError(
            f"{name}: its model {NOT_HERE} and could not be fetched ({error}); "
            f"set MENAGERIE_ROOT to a folder that holds {robot_name}/, or run once with a network"
        ) from None
    if not path.is_file():
        raise ModelUnavailableError(
            f"{name}: its model {NOT_HERE}: {path}: no such file; MENAGERIE_ROOT should name a copy of the Menagerie"
        )
    return path


def load_robot(name: str, scene: bool = False) -> mujoco.MjSpec:
    """A robot as a specification to edit and compile; arguments and errors as in `robot_path`."""
    return mujoco.MjSpec.from_file(str(robot_path(name, scene)))
