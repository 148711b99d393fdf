"""Times as steps, where worlds may differ in the duration of a physics step."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class StepDurations:
    """Durations of physics and control steps.

    Attributes:
        timestep_s: of a physics step in each environment [N]; live where worlds differ in it.
        shortest_s: the shortest physics step that any world may have.
        decimation: physics steps per control step.
    """

    timestep_s: Tensor
    shortest_s: float
    decimation: int

    @property
    def period_s(self) -> Tensor:
        """Of a control step [N, 1]."""
        return self.timestep_s[:, None] * self.decimation

    def most_physics_steps(self, time_s: float) -> int:
        """The largest number of physics steps that a time may take."""
        return round(time_s / self.shortest_s)

    def most_control_steps(self, time_s: float) -> int:
        """The largest number of control steps that a time may take."""
        return round(time_s / (self.shortest_s * self.decimation))
