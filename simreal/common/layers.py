"""What a policy computes, as a list of layers: policies state themselves in it, and exports are written from it.

A layer maps values x [n] of one robot to values [m]. Layers that remember have a state [S]; that of a policy is the
states of its layers, one after the other. Weights are float32, shaped as torch has them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Union

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from envs.common.deterministic_ops import Linear

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Normalize:
    """x -> (x - mean - rest) * inverse within +-clip; mean, rest, inverse [n], see `Normalizer.forward`."""

    mean: Array
    rest: Array
    inverse: Array
    clip: float


@dataclass(frozen=True)
class History:
    """x [n] -> x, then what it was in its first `kept` values in earlier steps [observations * kept], then the policy's
    last actions [actions * action_size], oldest first each.

    Both are the state, and where observations > 0 then 1 once the episode has begun: until then all the earlier steps'
    values are the present ones.
    """

    observations: int
    kept: int
    actions: int
    action_size: int


@dataclass(frozen=True)
class Dense:
    """x [n] -> weight x + bias; weight [m, n], bias [m]."""

    weight: Array
    bias: Array


@dataclass(frozen=True)
class Activation:
    """x -> max(x, 0); x or exp(x) - 1 below 0; tanh x."""

    kind: Literal["relu", "elu", "tanh"]


@dataclass(frozen=True)
class LSTM:
    """x [n] -> h [H], of torch's gates i, f, g, o; the state is h, then c.

    read [4H, n], recall [4H, H], read_bias and recall_bias [4H].
    """

    read: Array
    recall: Array
    read_bias: Array
    recall_bias: Array


@dataclass(frozen=True)
class GRU:
    """x [n] -> h [H], of torch's gates r, z, n; the state is h. read [3H, n], recall [3H, H], biases [3H]."""

    read: Array
    recall: Array
    read_bias: Array
    recall_bias: Array


@dataclass(frozen=True)
class Bins:
    """x [A * K] -> of each K values after one another where the largest is, as its number in `values` [K]; [A].

    Of several that are as large the first.
    """

    values: Array


@dataclass(frozen=True)
class Clip:
    """x within [low, high]."""

    low: float
    high: float


Layer = Union[Normalize, History, Dense, Activation, LSTM, GRU, Bins, Clip]  # noqa: UP007


class UnstatedError(TypeError):
    """A module that does not say its layers."""


def layers_of(module: nn.Module) -> list[Layer]:
    """The layers of a module of torch, or of one of ours or of a plug-in that has a method `layers() -> list[Layer]`.

    A class that overrides `forward` of one that states its layers has to state its own.

    Raises:
        UnstatedError: it, or a part of it, does not say them.
    """
    for kind in type(module).__mro__:
        if "layers" in vars(kind):
            return list(module.layers())  # pyright: ignore[reportCallIssue]
        if "forward" in vars(kind):
            break
    if type(module) is nn.Sequential:
        return [layer for part in module for layer in layers_of(part)]
    return [_builtin(module)]


def outputs(layers: list[Layer], share: int) -> list[Layer]:
    """The same layers with only the first 1 / `share` of what the last one, a dense one, puts out."""
    *before, last = layers
    assert isinstance(last, Dense)
    count = len(last.bias) // share
    return [*before, Dense(last.weight[:count], last.bias[:count])]


def state_size(layer: Layer) -> int:
    """S of a layer; 0 where it remembers nothing."""
    if isinstance(layer, History):
        begun = 1 if layer.observations else 0
        return layer.observations * layer.kept + layer.actions * layer.action_size + begun
    if isinstance(layer, (LSTM, GRU)):
        return layer.recall.shape[1] * (2 if isinstance(layer, LSTM) else 1)
    return 0


def width_after(layer: Any, n: int) -> int:
    """Values that a layer makes of n values.

    Raises:
        ValueError: it is no layer, or its numbers are not float32 of shapes that fit.
    """
    expected: list[tuple[Any, tuple[int, ...]]] = []
    width = n
    match layer:
        case Normalize():
            expected = [(value, (n,)) for value in (layer.mean, layer.rest, layer.inverse)]
        case Dense():
            width = len(layer.bias)
            expected = [(layer.weight, (width, n)), (layer.bias, (width,))]
        case LSTM() | GRU():
            width = layer.recall.shape[-1]
            rows = width * (4 if isinstance(layer, LSTM) else 3)
            biases = [(value, (rows,)) for value in (layer.read_bias, layer.recall_bias)]
            expected = [(layer.read, (rows, n)), (layer.recall, (rows, width)), *biases]
        case Bins():
            width = n // len(layer.values)
            expected = [(layer.values, (n // max(width, 1),))]
        case History():
            width = n + layer.observations * layer.kept + layer.actions * layer.action_size
            if layer.observations and layer.kept > n:
                raise ValueError(f"keeps {layer.kept} of {n} values")
        case Activation(kind="relu" | "elu" | "tanh") | Clip():
            pass
        case _:
            raise ValueError(f"is no layer of simreal.common.layers: {layer!r:.60}")
    for value, shape in expected:
        if getattr(value, "shape", None) != shape or value.dtype != np.float32:
            raise ValueError(f"expected float32 of shape {list(shape)}, got {_described(value)}")
    return width


def _described(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return type(value).__name__ if shape is None else f"{value.dtype} of {list(shape)}"


def _builtin(module: Any) -> Layer:
    """The layer of one of torch's modules."""
    if type(module) in (Linear, nn.Linear):
        bias = torch.zeros(module.out_features) if module.bias is None else module.bias
        return Dense(array(module.weight), array(bias))
    if type(module) is nn.ReLU:
        return Activation("relu")
    if type(module) is nn.Tanh:
        return Activation("tanh")
    if type(module) is nn.ELU and module.alpha == 1.0:
        return Activation("elu")
    plain = (module.num_layers == 1 and not module.bidirectional) if isinstance(module, nn.RNNBase) else False
    if type(module) in (nn.LSTM, nn.GRU) and plain and module.bias and not getattr(module, "proj_size", 0):
        kind = LSTM if type(module) is nn.LSTM else GRU
        names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        return kind(*(array(getattr(module, name)) for name in names))
    raise UnstatedError(f"{type(module).__qualname__} does not say its layers")


def array(value: Tensor) -> Array:
    """Numbers of a layer, float32."""
    return value.detach().cpu().numpy().astype(np.float32)
