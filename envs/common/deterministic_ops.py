"""Sums, layers and gradients that are bitwise equal for any number of torch threads.

torch divides a sum over many numbers, a dot product, and the gradient of a layer's weights over many rows among its
threads; every share is rounded on its own, so that the result tells how many there were. Here such sums are divided
into parts of a fixed size, and the parts among threads. Everything else that a learner computes comes out alike at any
number: element by element, products whose inner dimension is that of a layer, sums over rows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_SERIAL = 16_384  # numbers that torch adds on one thread (its limit is twice that)
_PART = 128
_ROWS = 1024  # up to as many, a product over rows is not divided


def sum_all(value: Tensor) -> Tensor:
    """Sum [] of all values [...]."""
    flat = value.flatten()
    while len(flat) > _SERIAL:
        whole = len(flat) // _PART * _PART
        flat = torch.cat((flat[:whole].view(-1, _PART).sum(1), flat[whole:]))
    return flat.sum()


def mean_all(value: Tensor) -> Tensor:
    """Mean [] of all values [...]."""
    return sum_all(value) / value.numel()


def column_sums(value: Tensor) -> Tensor:
    """Sums [n] over the rows of values [B, n]: only that of a single column is divided by torch."""
    return sum_all(value)[None] if value.shape[1] == 1 else value.sum(0)


def expand_rows(value: Tensor, like: Tensor) -> Tensor:
    """Values [n] for every row of `like` [..., n], where those are so many that the gradient would be divided."""
    return _Spread.apply(value, like.shape) if like[..., 0].numel() > _SERIAL else value  # pyright: ignore


class _Spread(torch.autograd.Function):
    """x [n] -> [..., n]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, shape: torch.Size) -> Tensor:
        return x.expand(shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (g,) = gradients
        return column_sums(g.reshape(-1, g.shape[-1])), None


class Linear(nn.Linear):
    """nn.Linear; the gradient of its weights is a sum of parts of a fixed number of rows."""

    def forward(self, input: Tensor) -> Tensor:
        """x [B, n] -> x W' + b [B, m]."""
        # `requires_grad` first: it is False in an export, where the number of rows is a symbol.
        if self.weight.requires_grad and torch.is_grad_enabled() and len(input) > _ROWS:
            return _Affine.apply(input, self.weight, self.bias)  # pyright: ignore[reportReturnType]
        return functional.linear(input, self.weight, self.bias)


class _Affine(torch.autograd.Function):
    """x [B, n] -> x W' + b [B, m]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return functional.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        (g,) = gradients
        return g @ weight if ctx.needs_input_grad[0] else None, weight_gradient(g, x), bias_gradient(g)


def bias_gradient(g: Tensor) -> Tensor:
    """Gradient [m] of a layer's biases for that of its outputs [B, m]."""
    return column_sums(g) if len(g) > _ROWS else g.sum(0)


def weight_gradient(g: Tensor, x: Tensor) -> Tensor:
    """Gradient [m, n] of a layer's weights for that of its outputs [B, m], and its inputs [B, n]."""
    return _over_rows(g, x) if len(g) > _ROWS else g.t().mm(x)


def _over_rows(a: Tensor, b: Tensor) -> Tensor:
    """a' b [m, n] of a [B, m], b [B, n], of which there are more than are multiplied at once."""
    whole = len(a) // _ROWS * _ROWS
    parts = torch.bmm(a[:whole].unflatten(0, (-1, _ROWS)).mT, b[:whole].unflatten(0, (-1, _ROWS))).sum(0)
    return parts if whole == len(a) else parts + a[whole:].mT @ b[whole:]


def gru(cell: nn.GRU, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """A GRU of one layer over x [L, B, n] from a state h [1, B, H]: outputs [L, B, H] and the state at the end."""
    read, recall, read_bias, recall_bias = cell.all_weights[0]
    if not (read.requires_grad and torch.is_grad_enabled() and len(x) * x.shape[1] > _ROWS):
        return cell(x, h)
    inputs = _Affine.apply(x.flatten(0, 1), read, read_bias).unflatten(0, x.shape[:2])  # pyright: ignore
    state, outputs = h[0], []
    for step in inputs:
        recalled = (_Affine.apply if len(state) > _ROWS else functional.linear)(state, recall, recall_bias)
        reset, update = torch.sigmoid(step + recalled)[:, : 2 * cell.hidden_size].chunk(2, dim=1)
        new = torch.tanh(step[:, 2 * cell.hidden_size :] + reset * recalled[:, 2 * cell.hidden_size :])
        state = torch.lerp(new, state, update)
        outputs.append(state)
    return torch.stack(outputs), state[None]
