"""Forward passes of multilayer perceptrons that keep what their gradients need, and those gradients written out.

They are what torch's autograd computes, by the same operations, so with the same bits. Networks of a robot's size are
multiplied in microseconds; recording the operations of a pass and looking them up again costs about as much, most of it
Python's time, of which physics beside the update wants its share.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from envs.common.deterministic_ops import bias_gradient, weight_gradient
from simreal.learners.networks import EnsembleMLP

_threshold_backward = torch.ops.aten.threshold_backward


class Pass(ABC):
    """A forward pass through linear layers with ReLUs in between, and its gradients.

    Args:
        parameters: those of the layers, in their module's order. They may be changed in place, not replaced by others.

    Attributes:
        parameters: the same, detached.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.parameters = [p.data for p in parameters]
        self._inputs: list[Tensor] = []  # of each layer, in the last pass

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """x [B, in] -> [members, B, out]; kept until the next call."""

    @abstractmethod
    def weights(self, gradient: Tensor) -> list[Tensor]:
        """Gradients of the parameters, for that of what the last pass gave [members, B, out]."""

    @abstractmethod
    def input(self, gradient: Tensor) -> Tensor:
        """Gradient [B, in] of what the last pass was of, for that of what it gave [members, B, out]."""


class MLPPass(Pass):
    """Of a stack of `nn.Linear` and `nn.ReLU`; `members` is 1."""

    def __init__(self, net: nn.Sequential) -> None:
        linears = [layer for layer in net if isinstance(layer, nn.Linear)]
        assert all(isinstance(layer, (nn.Linear, nn.ReLU)) for layer in net)
        super().__init__([p for linear in linears for p in (linear.weight, linear.bias)])
        self._weights, self._biases = self.parameters[::2], self.parameters[1::2]
        self._transposed = [weight.t() for weight in self._weights]

    def __call__(self, x: Tensor) -> Tensor:
        self._inputs = [x]
        for bias, weight in zip(self._biases[:-1], self._transposed[:-1], strict=True):
            x = torch.addmm(bias, x, weight).relu_()
            self._inputs.append(x)
        return torch.addmm(self._biases[-1], x, self._transposed[-1]).unsqueeze(0)

    def weights(self, gradient: Tensor) -> list[Tensor]:
        g, found = gradient.squeeze(0), list[Tensor]()
        for i in reversed(range(len(self._weights))):
            x = self._inputs[i]
            found += [bias_gradient(g), weight_gradient(g, x)]
            if i > 0:
                g = _threshold_backward(g.mm(self._weights[i]), x, 0)
        return found[::-1]

    def input(self, gradient: Tensor) -> Tensor:
        g = gradient.squeeze(0)
        for i in reversed(range(1, len(self._weights))):
            g = _threshold_backward(g.mm(self._weights[i]), self._inputs[i], 0)
        return g.mm(self._weights[0])


class EnsemblePass(Pass):
    """Of an `EnsembleMLP`."""

    def __init__(self, net: EnsembleMLP) -> None:
        super().__init__([*net.weights, *net.biases])
        depth = len(net.weights)
        self._weights, self._biases = self.parameters[:depth], self.parameters[depth:]
        self._transposed = [weight.mT for weight in self._weights]

    def __call__(self, x: Tensor) -> Tensor:
        x = x.unsqueeze(0).expand(len(self._weights[0]), -1, -1)
        self._inputs = [x]
        for bias, weight in zip(self._biases[:-1], self._weights[:-1], strict=True):
            x = torch.baddbmm(bias, x, weight).relu_()
            self._inputs.append(x)
        return torch.baddbmm(self._biases[-1], x, self._weights[-1])

    def weights(self, gradient: Tensor) -> list[Tensor]:
        g, weights, biases = gradient, list[Tensor](), list[Tensor]()
        for i in reversed(range(len(self._weights))):
            x = self._inputs[i]
            biases.append(g.sum(1, keepdim=True))
            weights.append(x.mT.bmm(g))
            if i > 0:
                g = _threshold_backward(g.bmm(self._transposed[i]), x, 0)
        return [*weights[::-1], *biases[::-1]]

    def input(self, gradient: Tensor) -> Tensor:
        g = gradient
        for i in reversed(range(1, len(self._weights))):
            g = _threshold_backward(g.bmm(self._transposed[i]), self._inputs[i], 0)
        return g.bmm(self._transposed[0]).sum(0)


def pass_of(net: nn.Module) -> Pass:
    """The pass through a network of `mlp` or `EnsembleMLP`."""
    if isinstance(net, EnsembleMLP):
        return EnsemblePass(net)
    assert isinstance(net, nn.Sequential)
    return MLPPass(net)
