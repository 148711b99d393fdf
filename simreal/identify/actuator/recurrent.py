"""Actuators with a memory (a GRU): sequences to learn from, and the network that learns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from envs.parts.actuator_network import SETTLING

_WINDOW, _BATCH = 48, 64  # samples of a sequence that is learned from; sequences of a step
_BURN = 12  # samples at its beginning that are not judged: what was before it is not known


@dataclass(frozen=True)
class Runs:
    """Samples that follow each other, one period apart: values [n, T, 2] of errors and velocities, torques [n, T]."""

    values: Tensor
    torque: Tensor


class Memory(nn.Module):
    """G recurrent networks side by side; see `envs.parts.actuator_network.ActuatorNetwork.after`.

    Args:
        groups: G; 1 for one that all joints share.
        runs: to learn from.
        hidden: numbers of the memory.
        generator: of the start.
    """

    kind = "gru"

    def __init__(self, groups: int, runs: list[Runs], hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        reach = hidden**-0.5
        sizes = ((2, 3 * hidden), (hidden, 3 * hidden), (hidden, 1))
        drawn = [reach * (2.0 * torch.rand(groups, a, b, generator=generator) - 1.0) for a, b in sizes]
        self.weights = nn.ParameterList(drawn)
        self.biases = nn.ParameterList([torch.zeros(groups, 1, b) for _, b in sizes])
        values, torque = torch.cat([r.values for r in runs], 1), torch.cat([r.torque for r in runs], 1)
        if groups == 1:
            values, torque = values.flatten(0, 1)[None], torque.flatten()[None]
        self.mean, self.scale = values.mean(1, True).float(), values.std(1, keepdim=True).clamp(min=1e-6).float()
        self.torque_scale = torque.std(1, keepdim=True)[..., None].float()
        self.limit = (1.1 * torque.abs().amax(1, True))[..., None].float()

    def forward(self, values: Tensor) -> Tensor:
        """Torques [G, B, T] per torque scale, of sequences [G, B, T, 2]."""
        x = (values.float() - self.mean[:, :, None]) / self.scale[:, :, None]
        x = torch.cat((x[:, :, :1].expand(-1, -1, SETTLING, -1), x), dim=2)
        exerted: list[Tensor] = []
        for g, sequences in enumerate(x):
            ends = [w[g].T for w in self.weights[:2]], [b[g, 0] for b in self.biases[:2]]
            start = x.new_zeros(1, len(sequences), self.weights[1].shape[1])
            # torch's own: the same arithmetic as `gru` in the physics step, a tenth of the time
            memory, _ = torch.gru(sequences, start, [*ends[0], *ends[1]], True, 1, 0.0, True, False, True)
            exerted.append(memory[:, SETTLING:] @ self.weights[2][g] + self.biases[2][g])
        return torch.stack(exerted)[..., 0]

    def exerted(self, run: Runs) -> Tensor:
        """N m [n, T] as the joints of a run have it."""
        grouped = run.values[:, None] if len(self.mean) > 1 else run.values[None]
        with torch.no_grad():
            out = self(grouped) * self.torque_scale
        return torch.clamp(out, -self.limit, self.limit).view(run.torque.shape)

    def batches(self, runs: list[Runs], generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Sequences [G, B, T, 2] and their torques [G, B, T] per torque scale, without end."""
        long = [run for run in runs if run.torque.shape[1] >= _WINDOW]
        values = torch.cat([run.values.unfold(1, _WINDOW, _WINDOW // 2).transpose(2, 3) for run in long], 1)
        torque = torch.cat([run.torque.unfold(1, _WINDOW, _WINDOW // 2) for run in long], 1)
        if len(self.mean) == 1:
            values, torque = values.flatten(0, 1)[None], torque.flatten(0, 1)[None]
        values, torque = values.float(), torque.float() / self.torque_scale
        while True:
            rows = torch.randint(values.shape[1], (_BATCH,), generator=generator)
            yield values[:, rows], torque[:, rows]

    def loss(self, values: Tensor, torque: Tensor) -> Tensor:
        """How far torques of sequences are off, squared, where their beginning is known."""
        return functional.mse_loss(self(values)[..., _BURN:], torque[..., _BURN:])


def long_enough(runs: list[Runs]) -> bool:
    """Whether there is a sequence to learn from."""
    return any(run.torque.shape[1] >= _WINDOW for run in runs)
