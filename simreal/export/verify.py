"""Whether ONNX Runtime answers as torch does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from simreal.deploy.files import relative_error
from simreal.export.source import EXPORT_TOLERANCE, EXTREME_TOLERANCE, EXTREME_WIDTH, ExportError, Source, first_line

_CHECK_ROWS = 256


def session_of(graph: bytes) -> onnxruntime.InferenceSession:
    """The graph of a policy on one thread. Raises ExportError where ONNX Runtime cannot load it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        raise ExportError(f"ONNX Runtime cannot load the translated policy: {first_line(error)}") from None


def verify(graph: bytes, source: Source, golden: Mapping[str, NDArray[Any]]) -> None:
    """Raise ExportError unless ONNX Runtime answers as torch does, in a batch and row by row."""
    session = session_of(graph)
    usual = torch.cat((torch.from_numpy(golden["observations"]), source.draw(_CHECK_ROWS, 1.0, seed=1)))
    extreme = source.draw(_CHECK_ROWS, EXTREME_WIDTH, seed=2)
    for rows, most in ((usual, EXPORT_TOLERANCE), (extreme, EXTREME_TOLERANCE)):
        feeds = {"observation": rows}
        if source.initial is not None:
            before = torch.cat((source.initial[None], torch.from_numpy(golden["states"])))
            feeds["state"] = before[torch.arange(len(rows)) % len(before)]
        decided = source.decided(most, *feeds.values())
        feeds = {name: value[decided] for name, value in feeds.items()}
        left = int(decided.sum())
        expected = [value.numpy() for value in source.step(*feeds.values())]
        for count in (left, 1) if left else ():
            parts = [{k: v[i : i + count].numpy() for k, v in feeds.items()} for i in range(0, left, count)]
            answers = zip(*(session.run(None, part) for part in parts), strict=True)
            for name, answer, torch_answer in zip(["action", "state"][: len(feeds)], answers, expected, strict=True):
                error = relative_error(np.concatenate(answer), torch_answer)
                if not error <= most:
                    raise ExportError(
                        f"ONNX Runtime's {name} differs from torch's by {error:.1e}, expected at most {most:g}: the "
                        f"policy does what ONNX does differently, or its weights are so large that rounding shows"
                    )
