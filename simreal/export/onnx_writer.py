"""Writes a policy's layers as an ONNX graph.

Inputs `observation` [batch, nobs] and, with memory, `state` [batch, S]; outputs `action` [batch, A], `next_state`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from simreal.common.layers import (
    GRU,
    LSTM,
    Activation,
    Bins,
    Clip,
    Dense,
    History,
    Layer,
    Normalize,
    state_size,
)
from simreal.common.version import __version__

OPSET = 20
IR_VERSION = 9  # ONNX Runtime 1.17, which JetPack ships, refuses later ones; opset 20 needs no later one


def write_onnx(layers: Sequence[Layer], observations: int, actions: int) -> bytes:
    """The ONNX file of a policy, with its weights inside.

    Args:
        layers: from an observation [nobs] to an action [A]; the last one clips it.
        observations, actions: nobs, A.
    """
    graph, sizes = Graph(), [state_size(layer) for layer in layers]
    pieces = iter(graph.split("state", [size for size in sizes if size]))
    now, after = "observation", []
    for layer, size in zip(layers, sizes, strict=True):
        if layer is layers[-1]:
            graph.plain(layer, now, ["action"])
        elif size:
            now, parts = graph.remembering(layer, now, next(pieces))
            after += parts  # the action may be one of them
        else:
            now = graph.plain(layer, now)
    starts, ends = {"observation": observations}, {"action": actions}
    if any(sizes):
        graph.add("Concat", after, ["next_state"], axis=1)
        starts["state"] = ends["next_state"] = sum(sizes)
    return graph.file(starts, ends)


class Graph:
    """Nodes and weights of a graph that grows; values are called by their names."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._weights: dict[str, onnx.TensorProto] = {}

    def add(self, kind: str, inputs: Sequence[str], outputs: Sequence[str] | None = None, **attributes: Any) -> str:
        """A node; returns the name of its first output."""
        outputs = outputs or [f"{kind.lower()}_{len(self._nodes)}"]
        self._nodes.append(helper.make_node(kind, inputs, outputs, **attributes))
        return outputs[0]

    def weight(self, value: NDArray[Any] | Sequence[int] | float) -> str:
        """A constant: an array, whole numbers, or a float32 scalar."""
        array = np.asarray(value, dtype=np.float32) if isinstance(value, float) else np.asarray(value)
        name = f"weight_{len(self._weights)}"
        self._weights[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def split(self, value: str, sizes: Sequence[int]) -> list[str]:
        """`value` [batch, n] in parts of these sizes."""
        if len(sizes) < 2:
            return [value] * len(sizes)
        names = [f"{value}_{len(self._nodes)}_{i}" for i in range(len(sizes))]
        self.add("Split", [value, self.weight(sizes)], names, axis=1)
        return names

    def plain(self, layer: Layer, x: str, outputs: Sequence[str] | None = None) -> str:
        """A layer without memory."""
        match layer:
            case Normalize():
                for part in (layer.mean, layer.rest):
                    x = self.add("Sub", [x, self.weight(part)])
                x = self.add("Mul", [x, self.weight(layer.inverse)])
                return self.plain(Clip(-layer.clip, layer.clip), x) if math.isfinite(layer.clip) else x
            case Dense():
                return self.add("Gemm", [x, self.weight(layer.weight), self.weight(layer.bias)], transB=1)
            case Activation():
                return self.add(layer.kind.capitalize(), [x])
            case Bins():
                chosen = self.add("Reshape", [x, self.weight([0, -1, len(layer.values)])])
                chosen = self.add("ArgMax", [chosen], axis=2, keepdims=0)
                return self.add("Gather", [self.weight(layer.values), chosen])
            case Clip():
                return self.add("Clip", [x, self.weight(layer.low), self.weight(layer.high)], outputs)
            case _:
                raise AssertionError(f"no layer without memory: {layer}")

    def remembering(self, layer: Layer, x: str, state: str) -> tuple[str, list[str]]:
        """A layer with memory: what it puts out, and the parts of its next state."""
        match layer:
            case History():
                return self._history(layer, x, state)
            case LSTM():
                size = layer.recall.shape[1]
                x, cell = self._recurrent("LSTM", layer, [0, 3, 1, 2], x, self.split(state, [size, size]))
                return x, [x, cell]
            case GRU():
                (x,) = self._recurrent("GRU", layer, [1, 0, 2], x, [state], linear_before_reset=1)
                return x, [x]
            case _:
                raise AssertionError(f"no layer with memory: {layer}")

    def _history(self, layer: History, x: str, state: str) -> tuple[str, list[str]]:
        seen, told = layer.observations * layer.kept, layer.actions * layer.action_size
        parts = iter(self.split(state, [size for size in (seen, told, seen and 1) if size]))
        earlier, actions, begun = (next(parts) if size else "" for size in (seen, told, seen))
        values, after = [x], []
        if seen:
            present = self._columns(x, 0, layer.kept)
            still = self.add("Concat", [present] * layer.observations, axis=1)
            earlier = self.add("Where", [self.add("Greater", [begun, self.weight(0.5)]), earlier, still])
            begun = self.plain(Clip(0.0, 1.0), self.add("Add", [begun, self.weight(1.0)]))
            values, after = [x, earlier], [self._columns(earlier, layer.kept, seen), present]
        if told:
            values, after = [*values, actions], [*after, self._columns(actions, layer.action_size, told), "action"]
        return self.add("Concat", values, axis=1), [name for name in (*after, begun) if name]

    def _columns(self, x: str, start: int, stop: int) -> str:
        """x[:, start:stop]; nothing where that is empty, since some runtimes know no empty arrays."""
        if start == stop:
            return ""
        return self.add("Slice", [x, self.weight([start]), self.weight([stop]), self.weight([1])])

    def _recurrent(
        self, kind: str, layer: LSTM | GRU, order: Sequence[int], x: str, states: Sequence[str], **attributes: Any
    ) -> list[str]:
        """One step of a recurrent layer: its next states [batch, H]; `order`: ONNX's gates among torch's."""
        size, step = layer.recall.shape[1], self.weight([0])

        def gates(value: NDArray[np.float32]) -> NDArray[np.float32]:
            return np.concatenate([value[i * size : (i + 1) * size] for i in order])

        biases = np.concatenate([gates(layer.read_bias), gates(layer.recall_bias)])
        weights = [self.weight(value[None]) for value in (gates(layer.read), gates(layer.recall), biases)]
        begin = [self.add("Unsqueeze", [value, step]) for value in (x, *states)]
        after = [f"{kind.lower()}_{len(self._nodes)}_{i}" for i in range(len(states))]
        self.add(kind, [begin[0], *weights, "", *begin[1:]], ["", *after], hidden_size=size, **attributes)
        return [self.add("Squeeze", [value, step]) for value in after]

    def file(
        self, inputs: Mapping[str, int], outputs: Mapping[str, int], pictures: Mapping[str, Sequence[int]] | None = None
    ) -> bytes:
        """The whole model; of inputs that are pictures, the shapes."""
        starts, ends = (
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size]) for name, size in side.items()]
            for side in (inputs, outputs)
        )
        for name, shape in (pictures or {}).items():
            starts.append(helper.make_tensor_value_info(name, TensorProto.UINT8, ["batch", *shape]))
        graph = helper.make_graph(self._nodes, "policy", starts, ends, list(self._weights.values()))
        model = helper.make_model(
            graph, opset_imports=[helper.make_operatorsetid("", OPSET)], ir_version=IR_VERSION,
            producer_name="simreal", producer_version=__version__,
        )  # fmt: skip
        onnx.checker.check_model(model)
        return model.SerializeToString(deterministic=True)
