"""What another simulator has to do to be an engine: hold one mechanism, and step it under given joint forces."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from envs.common.errors import EngineError
from envs.engines.bridge.mechanism import Mechanism

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Touch:
    """One point at which two shapes pressed on each other during the last step.

    Attributes:
        geoms: indices of the model's geoms.
        pos: in the world's frame [3], m.
        force: on the second geom, in the world's axes [3], N.
    """

    geoms: tuple[int, int]
    pos: Array
    force: Array


class Simulator(Protocol):
    """One mechanism in another simulator. State is in MuJoCo's coordinates.

    A free joint is position and quaternion (w first) of the body's frame; its velocity is linear in the world's axes,
    angular in the body's; forces go with these velocities.
    """

    def write(self, qpos: Array, qvel: Array) -> None:
        """Put the mechanism into a state, qpos [nq], qvel [nv]."""
        ...

    def read(self) -> tuple[Array, Array]:
        """The present state, qpos [nq] and qvel [nv]."""
        ...

    def step(self, force: Array) -> None:
        """Advance by the mechanism's timestep under forces [nv] of all that is no joint of its own. Raises RuntimeError
        where the simulator gives up."""
        ...

    def touches(self) -> list[Touch]:
        """Where shapes pressed on each other during the last step."""
        ...

    def close(self) -> None:
        """Free what the simulator holds."""
        ...


@dataclass(frozen=True)
class Kind:
    """One of the other simulators.

    Attributes:
        title: as people call it.
        package: that has to be installed; the extra of simreal that brings it is called as the simulator.
        module, name: where its `Simulator` is.
        own_damping: whether it has the damping of joints itself; else that is among the forces that it is given.
        own_rotors: whether its joints have inertia of their own; else see `envs.engines.bridge.rotors`.
    """

    title: str
    package: str
    module: str
    name: str
    own_damping: bool
    own_rotors: bool


KINDS: dict[str, Kind] = {
    "drake": Kind("Drake", "pydrake", "envs.engines.bridge.drake", "DrakeSimulator", own_damping=True, own_rotors=True),
    "pybullet": Kind(
        "PyBullet", "pybullet", "envs.engines.bridge.bullet", "BulletSimulator", own_damping=False, own_rotors=False
    ),
    "newton": Kind(
        "Newton", "newton", "envs.engines.bridge.newton", "NewtonSimulator", own_damping=False, own_rotors=True
    ),
}


def check_installed(name: str) -> None:
    """Raise EngineError where a simulator of `KINDS` is not installed, with the extra that brings it."""
    if importlib.util.find_spec(KINDS[name].package) is None:
        raise EngineError(f"{name} is not installed: pip install 'simreal[{name}]'")


def simulator_class(name: str) -> Callable[[Mechanism], Simulator]:
    """What makes simulators of a kind from a mechanism. Raises EngineError where it is not installed."""
    check_installed(name)
    found: Any = getattr(importlib.import_module(KINDS[name].module), KINDS[name].name)
    return found
