"""The network that policies and critics of the on-policy learners are: a memory, if asked for, then an MLP.

It maps segments of L steps in B sequences, x [L, B, n], and a memory state [B, S] at their start to outputs [L, B, m]
and the state at their end. `start` [L, B] is True where a step begins an episode: what was remembered until then is
forgotten. A network without memory has S = 0 and passes the state on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from envs.common.deterministic_ops import gru
from simreal.common.layers import Layer, layers_of
from simreal.learners.networks import mlp
from simreal.learners.options import ActorOptions

# In place: on large batches half the time of an activation goes into new memory.
_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "elu": lambda: nn.ELU(inplace=True),
    "relu": lambda: nn.ReLU(inplace=True),
    "tanh": nn.Tanh,
}


class Trunk(nn.Module):
    """An optional recurrent layer that reads the input, then an MLP.

    Args:
        inputs, outputs: n, m.
        hidden: units of the MLP's hidden layers.
        config: activation and memory.
        output_gain: scale of the last layer's initial weights.
    """

    def __init__(
        self, inputs: int, hidden: Sequence[int], outputs: int, config: ActorOptions, output_gain: float
    ) -> None:
        super().__init__()
        size = config.memory_size
        self.memory: nn.LSTM | nn.GRU | None = None
        self.state_size = 0
        if config.memory == "lstm":
            self.memory, self.state_size = nn.LSTM(inputs, size), 2 * size
        elif config.memory == "gru":
            self.memory, self.state_size = nn.GRU(inputs, size), size
        sizes = [inputs if self.memory is None else size, *hidden, outputs]
        self.head = mlp(sizes, _ACTIVATIONS[config.activation], output_gain)

    @property
    def last(self) -> nn.Linear:
        """The layer that puts out the result."""
        layer = self.head[-1]
        assert isinstance(layer, nn.Linear)
        return layer

    def forward(self, x: Tensor, state: Tensor, start: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x [L, B, n], state [B, S], start [L, B] (None: no step begins an episode) -> [L, B, m], [B, S]."""
        if self.memory is not None:
            x, state = self._remember(x, state, start)
        return self.head(x.flatten(0, 1)).unflatten(0, x.shape[:2]), state

    def hidden(self, x: Tensor, state: Tensor, start: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What goes into the last layer [L, B, H], and the state, for the same arguments as `forward`."""
        if self.memory is not None:
            x, state = self._remember(x, state, start)
        return self.head[:-1](x.flatten(0, 1)).unflatten(0, x.shape[:2]), state

    def layers(self) -> list[Layer]:
        """From input to output."""
        return [*([] if self.memory is None else layers_of(self.memory)), *layers_of(self.head)]

    def of_hidden(self, hidden: Tensor) -> Tensor:
        """The output [L, B, m] of what goes into the last layer [L, B, H]."""
        return self.last(hidden.flatten(0, 1)).unflatten(0, hidden.shape[:2])

    def _remember(self, x: Tensor, state: Tensor, start: Tensor | None) -> tuple[Tensor, Tensor]:
        """The recurrent layer over x. It runs at once over all steps between which no sequence begins an episode."""
        if start is None:
            return self._run(x, state)
        bounds = [0, *(start[1:].any(dim=1).nonzero().flatten() + 1).tolist(), len(x)]
        outputs = []
        for first, stop in pairwise(bounds):
            state = state.masked_fill(start[first].unsqueeze(1), 0.0)
            output, state = self._run(x[first:stop], state)
            outputs.append(output)
        return torch.cat(outputs), state

    def _run(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        if isinstance(self.memory, nn.LSTM):
            h, c = state.unsqueeze(0).chunk(2, dim=2)
            output, (h, c) = self.memory(x, (h.contiguous(), c.contiguous()))
            return output, torch.cat((h, c), dim=2).squeeze(0)
        assert isinstance(self.memory, nn.GRU)
        output, h = gru(self.memory, x, state.unsqueeze(0))
        return output, h.squeeze(0)
