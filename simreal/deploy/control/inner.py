"""Between two actions of the policy: targets on the way, and torques from targets with the contract's gains.

Part of `simreal.deploy`, which imports nothing else of simreal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..policy import Policy
from ..targets import Numbers
from .limits import Joints, joints_of

Interpolation = Literal["hold", "linear"]
INTERPOLATIONS: tuple[Interpolation, ...] = get_args(Interpolation)
_FORCES = {"rad": "N m", "m": "N"}


def joints_by_part(policy: Policy) -> dict[str, Joints]:
    """What the contract says of the joints of each action component."""
    parts = policy.layout.action
    return {part.name: joints_of(entry, part) for part, entry in zip(parts, policy.contract["action"], strict=True)}


def ticks_of(inner_hz: Any, period: float) -> int:
    """Commands per action. Raises ValueError unless that is a whole number."""
    if inner_hz is None:
        return 1
    if not isinstance(inner_hz, (int, float)) or not 0.0 < inner_hz < 1e6:
        raise ValueError(f"inner_hz: expected a rate in Hz, got {inner_hz!r}")
    ticks = round(inner_hz * period)
    if ticks < 1 or abs(inner_hz * period - ticks) > 1e-6 * ticks:
        raise ValueError(f"inner_hz: expected a multiple of the policy's {1 / period:g} Hz, got {inner_hz!r}")
    return ticks


class PD:
    """Torques from the targets of a policy with its contract's gains, for robots that take torques.

        torque = stiffness * (target - position) - damping * velocity       within +-effort_limit

    as the position servos of MuJoCo in training (XML reference, actuator/position). Each action component by itself;
    call it at the robot's own rate with the newest positions and velocities.

    Args:
        policy: whose gains.

    Raises:
        ValueError: the contract does not state the gains of a component.
    """

    def __init__(self, policy: Policy) -> None:
        self._joints = joints_by_part(policy)
        for name, joints in self._joints.items():
            if not joints.position or joints.unit not in _FORCES or joints.stiffness is None or joints.damping is None:
                raise ValueError(
                    f"the contract states no gains of {name!r}: the robot has to take its targets as they are"
                )

    @property
    def units(self) -> dict[str, str]:
        """Of the torques, by action component."""
        return {name: _FORCES[joints.unit] for name, joints in self._joints.items()}

    def torques(
        self, targets: Mapping[str, ArrayLike], positions: Mapping[str, ArrayLike], velocities: Mapping[str, ArrayLike]
    ) -> dict[str, Numbers]:
        """Torques [sent] by action component, N m (N for slides).

        Args:
            targets: what `Policy.targets` gives, in rad (m).
            positions, velocities: of the same joints, in rad and rad/s (m, m/s).
        """
        found: dict[str, Numbers] = {}
        for name, joints in self._joints.items():
            assert joints.stiffness is not None
            assert joints.damping is not None
            way = np.asarray(targets[name], dtype=np.float64) - np.asarray(positions[name], dtype=np.float64)
            torque = joints.stiffness * way - joints.damping * np.asarray(velocities[name], dtype=np.float64)
            found[name] = torque if joints.effort is None else np.clip(torque, -joints.effort, joints.effort)
        return found

    def damping(self, velocities: Mapping[str, ArrayLike]) -> dict[str, Numbers]:
        """Torques of the safe action "damp": those of the damping alone."""
        zeros = {name: np.zeros(np.shape(values)) for name, values in velocities.items()}
        return self.torques(zeros, zeros, velocities)


class Between:
    """Targets between two of the policy's.

    Args:
        steps: commands per control period.
        interpolation: "hold": the policy's target at once; "linear": evenly, the last command of a period is it.
    """

    def __init__(self, steps: int, interpolation: Interpolation) -> None:
        self._steps, self._linear = steps, interpolation == "linear" and steps > 1
        self._begin: NDArray[np.float64] | None = None
        self._end: NDArray[np.float64] | None = None

    def reset(self) -> None:
        """Forget the targets before."""
        self._begin = self._end = None

    def towards(self, asked: Numbers, last: Numbers) -> None:
        """New targets [S]; `last` is what was sent before, NaN where nothing was."""
        self._begin = np.where(np.isnan(last), asked, last)
        self._end = asked

    def at(self, number: int) -> Numbers:
        """What command `number`, from 0, of the period tells [S]."""
        assert self._begin is not None
        assert self._end is not None
        if not self._linear or number >= self._steps - 1:
            return self._end
        return self._begin + (self._end - self._begin) * ((number + 1) / self._steps)
