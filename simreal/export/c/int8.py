"""Weights of 8 bits: each row of a matrix as whole numbers from -127 to 127 times a scale of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from simreal.common.layers import GRU, LSTM, Array, Dense, Layer
from simreal.export.onnx_writer import write_onnx
from simreal.export.source import ExportError, Source

INT8_LIMIT = 0.05
"""Largest difference that 8 bits may make to an action in [-1, 1], where nothing else is asked for."""

_CHECK_ROWS = 256


def int8(weight: Array) -> tuple[NDArray[np.int8], Array]:
    """Whole numbers [m, n] and scales [m] of which weight [m, n] is about the product."""
    scale = (np.abs(weight).max(axis=1) / 127.0).astype(np.float32)
    scale[scale == 0.0] = 1.0
    return np.rint(weight / scale[:, None]).astype(np.int8), scale


def rounded(layers: Sequence[Layer]) -> list[Layer]:
    """The layers with the weights that 8 bits stand for."""

    def near(weight: Array) -> Array:
        whole, scale = int8(weight)
        return whole.astype(np.float32) * scale[:, None]

    result: list[Layer] = []
    for layer in layers:
        if isinstance(layer, Dense):
            layer = replace(layer, weight=near(layer.weight))
        elif isinstance(layer, (LSTM, GRU)):
            layer = replace(layer, read=near(layer.read), recall=near(layer.recall))
        result.append(layer)
    return result


def int8_error(source: Source, golden: Mapping[str, NDArray[Any]], limit: float) -> float:
    """Largest difference that 8 bits make to an action: over the golden episode, and over further observations.

    Raises:
        ExportError: it is above `limit`.
    """
    assert source.layers is not None
    graph = write_onnx(rounded(source.layers), source.size, source.task.action_size)
    session: Any = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    further = source.draw(_CHECK_ROWS, 1.0, seed=1)
    if source.initial is None:
        rows = torch.cat((torch.from_numpy(golden["observations"]), further))
        (actions,) = session.run(None, {"observation": rows.numpy()})
        error = float(np.abs(actions - source.step(rows)[0].numpy()).max())
    else:
        before = torch.cat((source.initial[None], torch.from_numpy(golden["states"])))
        before = before[torch.arange(len(further)) % len(before)]
        actions, _ = session.run(None, {"observation": further.numpy(), "state": before.numpy()})
        error = float(np.abs(actions - source.step(further, before)[0].numpy()).max())
        state = source.initial[None].numpy()
        for observation, expected in zip(golden["observations"], golden["actions"], strict=True):
            action, state = session.run(None, {"observation": observation[None], "state": state})
            error = max(error, float(np.abs(action[0] - expected).max()))
    if not error <= limit:
        raise ExportError(
            f"--int8: weights of 8 bits change actions in [-1, 1] by up to {error:.3g}, expected at most {limit:g}; "
            "export without it, or accept that with --int8-limit"
        )
    return error
