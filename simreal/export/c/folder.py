"""The folder of C code that an export writes beside a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simreal.deploy.bundle_reader import read_parts
from simreal.export.c.header import MARK
from simreal.export.c.int8 import int8_error
from simreal.export.c.writer import FILES, PRODUCTS, c_files
from simreal.export.folders import Kind
from simreal.export.source import EXTREME_TOLERANCE, EXTREME_WIDTH, ExportError, Source

_FAR_ROWS = 32

C_FOLDER = Kind("policy in C", (*FILES, *PRODUCTS), ("contract.h", MARK))


def refuse_place(folder: Path, bundle: Path) -> None:
    """Raise ExportError unless C code may be written to a folder, beside a bundle."""
    if folder == bundle or bundle in folder.parents or folder in bundle.parents:
        raise ExportError(f"{folder}: is in the way of the bundle {bundle}; name a directory for C beside it")
    C_FOLDER.refuse_foreign(folder)


def refuse_unstated(source: Source) -> None:
    """Raise ExportError unless the policy states its layers."""
    if source.layers is None:
        raise ExportError(
            f"C is written from a policy's layers, and {type(source.step.policy).__name__} does not state them; "
            "give it a method layers(), or export without --c"
        )


def c_texts(
    source: Source, contract: Mapping[str, Any], golden: Mapping[str, NDArray[Any]], int8_limit: float | None
) -> dict[str, bytes]:
    """The files of a policy in C by name.

    Raises:
        ExportError: weights of 8 bits change actions by more than the limit.
    """
    assert source.layers is not None
    error = None if int8_limit is None else int8_error(source, golden, int8_limit)
    _, action = read_parts(dict(contract))
    texts = c_files(source.layers, contract, action, {**golden, **_far(source)}, error)
    return {name: text.encode() for name, text in texts.items()}


def _far(source: Source) -> dict[str, NDArray[np.float32]]:
    """Observations far outside training, `far_observations` [K, nobs], and torch's actions to each alone."""
    rows = source.draw(_FAR_ROWS, EXTREME_WIDTH, seed=3)
    inputs = [rows] if source.initial is None else [rows, source.initial.expand(len(rows), *source.initial.shape)]
    decided = source.decided(EXTREME_TOLERANCE, *inputs)
    actions = source.step(*inputs)[0]
    return {"far_observations": rows[decided].numpy(), "far_actions": actions[decided].numpy()}
