"""What a robot is to the controller: something that is read, written to, and made safe.

Part of `simreal.deploy`, which imports nothing else of simreal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

SafeAction = Literal["hold", "damp", "zero_torque"]
SAFE_ACTIONS: tuple[SafeAction, ...] = get_args(SafeAction)


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
    stamps: Mapping[str, float] = field(default_factory=dict)
    positions: Mapping[str, ArrayLike] = field(default_factory=dict)
    velocities: Mapping[str, ArrayLike] = field(default_factory=dict)


@runtime_checkable
class Robot(Protocol):
    """A robot, or the messages that lead to one. All three methods return at once: none waits for the next message.

    An exception from any of them stops the policy: the controller asks for the safe action from then on.
    """

    def read(self) -> Reading | Mapping[str, ArrayLike]:
        """The newest measurement; a mapping of values alone counts as measured now.

        The same stamps again mean that nothing has come since.
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
