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

from envs.common.stateful import Stateful
from randomization.effects.parameter_index import chosen_rows


class CommandDelayBuffer(Stateful):
    """Commands of N environments that are on their way.

    Args:
        num_envs: N.
        command_size: C.
        decimation: physics steps per control step.
        max_delay: longest delay, in physics steps.
        device, dtype: of commands.
    """

    _state = ("_history", "_delay", "_arrival", "_fresh", "_newest")

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
        self._fixed_slots: dict[int, Tensor] = {}  # [N, decimation] of the commands that hold, by `_newest`
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
        last, slots = self._newest, self._slots
        self._newest = newest = (last + 1) % slots
        self._history[:, newest] = command
        if delay is None:
            # At physics step s the newest command that has arrived was sent ceil((delay - s) / decimation) steps ago.
            if newest not in self._fixed_slots:
                late = (self._delay[:, None] - self._substep + self.decimation - 1).clamp(min=0)
                self._fixed_slots[newest] = (newest - late // self.decimation) % slots
            slot = self._fixed_slots[newest]
        else:
            # Commands arrive in order, so the newest that has arrived is known by how many have.
            self._arrival -= self.decimation
            own = delay.clamp(0, self.max_delay)
            self._arrival[:, newest] = torch.maximum(own, self._arrival[:, last]) if slots > 1 else own
            arrived = (self._arrival[:, None] <= self._substep[:, None]).sum(dim=2)
            slot = (newest - (slots - arrived)) % slots
        return torch.gather(self._history, 1, slot[:, :, None].expand(-1, -1, command.shape[1]))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        super().load_state_dict(state)
        self._fixed_slots = {}
