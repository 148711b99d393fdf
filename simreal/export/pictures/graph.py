"""Convolutions and what stands around them, as nodes of an ONNX graph: from bytes [batch, K, height, width, 3] on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn

from simreal.common.layers import Activation, Layer, array, layers_of
from simreal.deploy.pictures import PIXELS
from simreal.export.onnx_writer import Graph
from simreal.learners.pixels.encoder import BYTE, HALF, Encoder
from simreal.learners.pixels.policy import PixelPolicy


def write_pixel_policy(policy: PixelPolicy, head: Sequence[Layer], components: int, actions: int) -> bytes:
    """The ONNX file of a policy that looks at pictures.

    Inputs `pixels` [batch, K, height, width, 3] uint8 and, where it reads components, `observation` [batch, k];
    output `action` [batch, A].

    Args:
        policy: the encoder's weights and layout.
        head: layers from what the actor sees to an action; the last one clips it.
        components, actions: k, A.
    """
    graph, layout = Graph(), policy.layout
    left, top, width, height = layout.crop
    x = PIXELS
    if (height, width) != (layout.height, layout.width):
        bounds = ([top, left], [top + height, left + width], [2, 3])
        x = graph.add("Slice", [x, *(graph.weight(np.array(part, dtype=np.int64)) for part in bounds)])
    x = as_maps(graph, x, 3 * layout.stack, height, width)
    x = graph.add("Sub", [graph.add("Mul", [x, graph.weight(BYTE)]), graph.weight(HALF)])
    features = _encoded(graph, x, policy.encoder)
    seen = [features]
    if components:
        now = "observation"
        for layer in layers_of(policy.normalizer):
            now = graph.plain(layer, now)
        seen = [now, features]
    now = graph.add("Concat", seen, axis=1) if len(seen) > 1 else features
    for layer in head:
        now = graph.plain(layer, now, ["action"] if layer is head[-1] else None)
    inputs = {"observation": components} if components else {}
    shape = [layout.stack, layout.height, layout.width, 3]
    return graph.file(inputs, {"action": actions}, {PIXELS: shape})


def as_maps(graph: Graph, x: str, channels: int, height: int, width: int) -> str:
    """Bytes [batch, K, height, width, 3] as float32 maps [batch, channels, height, width]."""
    x = graph.add("Transpose", [graph.add("Cast", [x], to=1)], perm=[0, 1, 4, 2, 3])
    return graph.add("Reshape", [x, graph.weight(np.array([-1, channels, height, width], dtype=np.int64))])


def _encoded(graph: Graph, x: str, encoder: Encoder) -> str:
    shrink = encoder.layout.shrink
    if shrink > 1:
        x = graph.add("AveragePool", [x], kernel_shape=[shrink, shrink], strides=[shrink, shrink])
    for convolution in encoder.convolutions:
        assert isinstance(convolution, nn.Conv2d)
        x = graph.add("Relu", [convolved(graph, x, convolution)])
    x = graph.plain(layers_of(encoder.last)[0], graph.add("Flatten", [x], axis=1))
    scale, bias = (graph.weight(array(value)) for value in (encoder.norm.weight, encoder.norm.bias))
    x = graph.add("LayerNormalization", [x, scale, bias], axis=-1, epsilon=encoder.norm.eps)
    return graph.plain(Activation("tanh"), x)


def convolved(graph: Graph, x: str, convolution: nn.Conv2d) -> str:
    """A convolution whose padding and stride are the same both ways."""
    assert isinstance(convolution.bias, Tensor)
    weights = [graph.weight(array(value)) for value in (convolution.weight, convolution.bias)]
    edge, stride, padding = convolution.kernel_size[0], convolution.stride[0], convolution.padding[0]
    return graph.add(
        "Conv", [x, *weights], kernel_shape=[edge, edge], strides=[stride, stride],
        pads=[int(padding)] * 4,
    )  # fmt: skip
