"""Translates policies that do not say their layers, those of plug-ins: torch traces them, which takes seconds."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

import onnx
import torch
from google.protobuf.message import Message
from torch import Tensor, nn

from simreal.export.onnx_writer import IR_VERSION


def trace(step: nn.Module, size: int, initial: Tensor | None) -> bytes:
    """A module as an ONNX file with its weights inside; raises whatever torch's exporter raises.

    Args:
        step: (observation [B, size]) -> (action [B, A],), or with memory (observation, state) -> (action, state).
        size: of the observation.
        initial: [*shape] of the state; None without memory.
    """
    inputs, results, example = ["observation"], ["action"], [torch.zeros(2, size)]
    if initial is not None:
        inputs, results = [*inputs, "state"], [*results, "next_state"]
        example.append(initial.expand(2, *initial.shape).clone())
    batch = torch.export.Dim("batch")
    with _quiet():
        program = torch.onnx.export(
            step, tuple(example), dynamo=True, verbose=False, input_names=inputs, output_names=results,
            dynamic_shapes={"inputs": tuple({0: batch} for _ in inputs)},
        )  # fmt: skip
        model = program.model_proto  # pyright: ignore[reportOptionalMemberAccess]
        _forget_origin(model)
        del model.graph.value_info[:]
        model.ir_version = min(model.ir_version, IR_VERSION)
        onnx.checker.check_model(model)
        return model.SerializeToString(deterministic=True)


def _forget_origin(message: Message) -> None:
    """Remove stack traces, which name files of this machine and make equal policies differ."""
    for name in ("metadata_props", "doc_string"):
        if name in message.DESCRIPTOR.fields_by_name:
            message.ClearField(name)
    for field, value in message.ListFields():
        if field.message_type is not None:
            for child in [value] if isinstance(value, Message) else value:
                _forget_origin(child)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence prints, warnings and logs; what goes wrong is raised."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
