"""What a robot is to the controller: something that is read, written to, and made safe.

Part of `simreal.deploy`, which imports nothing else of simreal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..files import unknown_name
from .limits import Joints

SafeAction = Literal["hold", "damp", "zero_torque"]
SAFE_ACTIONS: tuple[SafeAction, ...] = get_args(SafeAction)
_EQUAL = 1e-6  # relative difference of gains


@dataclass(frozen=True)
class Reading:
    """What a robot measured last.

    Attributes:
        values: observation component -> values [size], in the contract's units, frames and order. Components that no
            sensor measures (a goal, a command) may be missing: the controller takes them from its `inputs`.
        stamps: observation component -> when it was measured, s on the controller's clock (`time.monotonic` of this
            machine); where only the arrival is known, the arrival. A component without a stamp counts as measured now.
        positions: action component -> what the joints that it drives show now [sent values], in the unit of what is
            sent: for the soft start, for `Limits` of rate and effort, and for `hold`. May be missing.
        velocities: the same per s.
    """

    values: Mapping[str, ArrayLike]
    stamps: Mapping[str, float] = field(default_factory=dict[str, float])
    positions: Mapping[str, ArrayLike] = field(default_factory=dict[str, ArrayLike])
    velocities: Mapping[str, ArrayLike] = field(default_factory=dict[str, ArrayLike])


class Robot(Protocol):
    """A robot, or the messages that lead to one. All three methods return at once: none waits for the next message.

    An exception from any of them stops the policy: the controller asks for the safe action from then on.

    A robot may also say what it is, which is compared with the contract before anything is sent: `joints`, a mapping
    from action components to names of joints in the order in which it takes targets, and `gains`, a mapping from
    action components to (stiffness, damping).
    """

    def read(self) -> Reading | Mapping[str, ArrayLike] | None:
        """The newest measurement; a mapping of values alone counts as measured now.

        The same stamps again, or None, mean that nothing has come since.
        """
        ...

    def write(self, targets: Mapping[str, NDArray[np.float64]]) -> None:
        """Tell the actuators their targets, by action component, in the units in which the contract sends them."""
        ...

    def safe(self, action: SafeAction) -> None:
        """Make the robot safe: called in every period while the controller is stopped.

        Args:
            action: "hold": stay at the positions that the joints have when it is asked for the first time;
                "damp": no stiffness, the contract's damping; "zero_torque": no torque at all.
        """
        ...


def same_robot(robot: Any, contract: Mapping[str, Joints]) -> None:
    """Compare what a robot says of itself with the contract, before anything is sent.

    Args:
        robot: may have `joints`, action component -> names of joints in the order in which it takes targets, and
            `gains`, action component -> (stiffness, damping).
        contract: the joints of each action component.

    Raises:
        ValueError: they differ; the message names the first joint.
    """
    for method in ("read", "write", "safe"):
        if not callable(getattr(robot, method, None)):
            raise ValueError(f"robot: expected methods read, write and safe; {type(robot).__name__} has no {method}")
    joints: Mapping[str, Any] = getattr(robot, "joints", None) or {}
    gains: Mapping[str, Any] = getattr(robot, "gains", None) or {}
    for key, given in (("joints", joints), ("gains", gains)):
        for name in given:
            if name not in contract:
                raise ValueError(unknown_name(f"robot.{key}: unknown action component", str(name), list(contract)))
    for name, given in joints.items():
        expected, got = list(contract[name].names), list(given)
        if expected and got != expected:
            at = next(
                (i for i, pair in enumerate(zip(expected, got, strict=False)) if pair[0] != pair[1]),
                min(len(got), len(expected)),
            )
            here = [repr(names[at]) if at < len(names) else "none" for names in (expected, got)]
            raise ValueError(
                f"the robot has other joints than the contract: {name!r} {at}: expected {here[0]}, got {here[1]}"
            )
    for name, pair in gains.items():
        if not hasattr(pair, "__len__") or len(pair) != 2:
            raise ValueError(f"robot.gains of {name!r}: expected (stiffness, damping), got {pair!r}")
        for key, values, stated in zip(
            ("stiffness", "damping"), pair, (contract[name].stiffness, contract[name].damping), strict=True
        ):
            got = None if values is None else np.asarray(values, dtype=np.float64)
            if stated is None or got is None:
                continue
            if got.shape not in ((), stated.shape) or not np.allclose(got, stated, rtol=_EQUAL, atol=0.0):
                raise ValueError(
                    f"the robot has another {key} of {name!r}: expected {stated.tolist()}, got {got.tolist()}"
                )
