"""Tests that need robot models of MuJoCo Menagerie: run where these can be had, skipped with the reason elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import pytest

from envs.platform.menagerie import NOT_HERE, ModelUnavailableError, UnknownRobotError, robot_path

GO1 = "unitree_go1"
ALLEGRO, SHADOW = "wonik_allegro/right_hand", "shadow_hand/right_hand"


@cache
def missing(robot: str) -> str:
    """Why a robot's model cannot be had; empty where it can."""
    try:
        robot_path(robot)
    except UnknownRobotError:
        raise
    except ModelUnavailableError as error:
        return str(error)
    return ""


def needs(*robots: str) -> pytest.MarkDecorator:
    """A mark for tests of robots, named as in `robot_path`."""
    reasons = [reason for robot in robots if (reason := missing(robot))]
    return pytest.mark.skipif(bool(reasons), reason="; ".join(reasons))


@contextmanager
def skipping_missing() -> Iterator[None]:
    """Skip the test where what runs within needs a robot that cannot be had."""
    try:
        yield
    except UnknownRobotError:
        raise
    except ModelUnavailableError as error:
        pytest.skip(str(error))


def skip_if_missing(said: str) -> None:
    """Skip the test where a program said that a robot cannot be had."""
    for line in said.splitlines():
        if NOT_HERE in line:
            pytest.skip(line)
