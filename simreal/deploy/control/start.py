"""The soft start: from where a robot's joints are to where the policy's episodes begin, smoothly and not too fast.

Part of `simreal.deploy`, which imports nothing else of simreal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ..bundle_reader import Layout
from ..files import Array
from ..targets import Numbers
from .limits import Bounds, Joints

_STEEPEST = 1.5  # largest slope of 3 x^2 - 2 x^3, whose mean is 1


class SoftStart:
    """Targets on the way to the stance.

    Joints that are told positions go from where they are to where episodes began in training: `initial_target`, or the
    target of an action of zero, or, where that depends on where they are, nowhere. Everything else (torques,
    velocities, displacements) is told what an action of zero leads to.

    Args:
        layout: of the policy.
        joints: of each action component.
        bounds: of what is sent.
        position: [S] where the joints are; NaN where that is not known.
        observation: [nobs] the first one.
        period: time between targets, s.
        least: that the way takes, s.

    Raises:
        ValueError: a joint is outside the start envelope, or it is not known where it is.
    """

    def __init__(
        self, layout: Layout, joints: Mapping[str, Joints], bounds: Bounds, position: Numbers, observation: Array,
        period: float, least: float,
    ) -> None:  # fmt: skip
        size = layout.action[-1].sent.stop
        self.begin, self.stance, self._step = np.zeros(size), np.zeros(size), 0
        moves = False
        for part in layout.action:
            where, known = part.sent, joints[part.name]
            neutral = np.clip(part.offset, part.low, part.high) if part.inverse is None else np.zeros(len(part.low))
            if not known.position:
                self.begin[where] = self.stance[where] = neutral
                continue
            here = position[where]
            shown = part.initial_columns if part.onto_columns is None else part.onto_columns
            if np.isnan(here).any() and shown is not None:
                here = observation[shown].astype(np.float64)
            if np.isnan(here).any():
                if least == 0.0 and self._fixed(part.initial, part.onto_last, shown is not None):
                    here = neutral if part.initial is None else part.initial
                else:
                    raise ValueError(
                        f"the robot does not say where the joints of {part.name!r} are, where the soft start begins: "
                        f"give Reading.positions[{part.name!r}], {len(here)} values in {known.unit}"
                    )
            self._envelope(part.name, here, bounds.start_low[where], bounds.start_high[where], known)
            self.begin[where] = here
            if part.initial is not None:
                self.stance[where] = part.initial
            else:
                self.stance[where] = here if shown is not None or part.onto_last else neutral
            moves = True
        self.stance = np.clip(self.stance, bounds.low, bounds.high)
        way, speed = np.abs(self.stance - self.begin), np.minimum(bounds.speed, bounds.rate)
        slowest = float(np.max(way / speed, initial=0.0))
        self.seconds = max(least, _STEEPEST * slowest) if moves else 0.0
        self.steps = math.ceil(self.seconds / period - 1e-9)

    @staticmethod
    def _fixed(initial: Numbers | None, onto_last: bool, shown: bool) -> bool:
        """Whether the stance does not depend on where the joints are."""
        return initial is not None or not (onto_last or shown)

    @staticmethod
    def _envelope(name: str, here: Numbers, low: Numbers, high: Numbers, joints: Joints) -> None:
        outside = (here < low) | (here > high)
        if outside.any():
            at = int(np.argmax(outside))
            who = joints.names[at] if joints.names else f"value {at}"
            raise ValueError(
                f"{name!r}: {who} is at {here[at]:.4g} {joints.unit}, a start needs {low[at]:.4g} to {high[at]:.4g} "
                f"(Limits.start says otherwise)"
            )

    @property
    def done(self) -> bool:
        """Whether the stance has been sent."""
        return self._step >= self.steps

    def advance(self) -> Numbers:
        """The next targets [S]."""
        self._step += 1
        x = min(1.0, self._step / max(self.steps, 1))
        return self.begin + (self.stance - self.begin) * (x * x * (3.0 - 2.0 * x))
