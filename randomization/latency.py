"""Action delay at the resolution of a physics step, for actuators and mocap-driven arms alike.

A command that a policy sends at the start of control step t takes effect `delay` physics steps later; until
then the one before it holds. What is delayed is the command as the task computed it (actuator targets, or the
pose of the mocap body), as on a robot whose controller sits at the far end of a slow line.

With jitter, every command has a delay of its own. The line keeps commands in order: one that would arrive
before an earlier one arrives together with it, and of two that arrive together the newer counts.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from randomization.columns import chosen_rows


class CommandLine:
    """A delay line for commands of N environments.

    Args:
        num_envs: N.
        command_size: C.
        decimation: physics steps per control step.
        max_delay: longest delay, in physics steps.
        device, dtype: of commands.
    """

    def __init__(
        self,
        num_envs: int,
        command_size: int,
        decimation: int,
        max_delay: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.decimation = decimation
        self.max_delay = max_delay
        self._slots = -(-max_delay // decimation) + 1  # commands that can still be on their way, and the newest
        self._history = torch.zeros(num_envs, self._slots, command_size, device=device, dtype=dtype)
        self._delay = torch.zeros(num_envs, dtype=torch.int64, device=device)  # [N] physics steps
        # [N, slots] physics steps from the start of this control step until a command arrives; used with jitter
        self._arrival = torch.zeros(num_envs, self._slots, dtype=torch.int64, device=device)
        self._fresh = torch.ones(num_envs, dtype=torch.bool, device=device)  # no command sent yet
        self._newest = 0
        self._fixed_slots: dict[int, Tensor] = {}  # by `_newest`
        self._substep = torch.arange(decimation, device=device)

    def reset(self, mask: Tensor, delay: Tensor) -> None:
        """Empty the lines of `mask` [N] and give them a delay [N] in physics steps."""
        self._delay = torch.where(mask, delay.clamp(0, self.max_delay), self._delay)
        self._fresh = self._fresh | mask
        self._fixed_slots = {}

    @property
    def fresh(self) -> Tensor:
        """Environments [N] (bool) whose line holds nothing yet."""
        return self._fresh

    def fill(self, command: Tensor) -> None:
        """Fill empty lines with a command [N, C] that holds until the first one arrives."""
        rows = chosen_rows(self._fresh)
        if rows is None:
            self._history = torch.where(self._fresh[:, None, None], command[:, None], self._history)
        else:
            self._history[rows] = command.expand(len(self._fresh), -1)[rows, None]
        self._arrival.masked_fill_(self._fresh[:, None], 0)
        self._fresh = torch.zeros_like(self._fresh)

    def send(self, command: Tensor, delay: Tensor | None = None) -> Tensor:
        """Put in this control step's command [N, C]; returns what arrives, [N, decimation, C].

        Args:
            delay: [N] physics steps, of this command; None for the delay of the episode. A line gets one kind only.
        """
        last, self._newest = self._newest, (self._newest + 1) % self._slots
        self._history[:, self._newest] = command
        slot = self._fixed_slot() if delay is None else (self._newest - self._varying_age(delay, last)) % self._slots
        return torch.gather(self._history, 1, slot[:, :, None].expand(-1, -1, command.shape[1]))

    def _fixed_slot(self) -> Tensor:
        """Slots [N, decimation] of the commands that hold in this step; kept as long as delays stay the same."""
        if self._newest not in self._fixed_slots:
            self._fixed_slots[self._newest] = (self._newest - self._fixed_age()) % self._slots
        return self._fixed_slots[self._newest]

    def _fixed_age(self) -> Tensor:
        """At physics step s the newest command that has arrived was sent ceil((delay - s) / decimation) steps ago."""
        late = self._delay[:, None] - self._substep
        return ((late + self.decimation - 1).clamp(min=0)) // self.decimation

    def _varying_age(self, delay: Tensor, last: int) -> Tensor:
        """Commands arrive in order, so the newest that has arrived is known by how many have."""
        self._arrival -= self.decimation
        own = delay.clamp(0, self.max_delay)
        self._arrival[:, self._newest] = torch.maximum(own, self._arrival[:, last]) if self._slots > 1 else own
        arrived = (self._arrival[:, None] <= self._substep[:, None]).sum(dim=2)
        return self._slots - arrived

    def state_dict(self) -> dict[str, Any]:
        return {
            "history": self._history.clone(),
            "delay": self._delay.clone(),
            "arrival": self._arrival.clone(),
            "fresh": self._fresh.clone(),
            "newest": self._newest,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._history.copy_(state["history"])
        self._arrival.copy_(state["arrival"])
        self._delay, self._fresh = state["delay"].clone(), state["fresh"].clone()
        self._newest, self._fixed_slots = state["newest"], {}
