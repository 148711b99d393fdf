"""A policy that was compiled from C (`simreal export --c`, `make libpolicy.so`), in the place of ONNX Runtime.

Part of `simreal.deploy`, which imports nothing else of simreal.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bundle_reader import Layout
from .files import Array, BundleError, blaming, one_line

HEADER = "contract.h"
_MACRO = re.compile(r"^#define POLICY_(\w+) (.+)$", re.MULTILINE)
_FLOAT, _DOUBLE, _SPARE = 4, 8, 1 << 16  # bytes


class Compiled:
    """Answers as an `onnxruntime.InferenceSession` of the bundle's graph does.

    Args:
        library: libpolicy.so, in the folder that `simreal export --c` wrote.
        contract: of the bundle from which that folder was written.
        layout: of that contract.

    Attributes:
        tolerance: what weights of 8 bits change in an action; 0 for floats.

    Raises:
        BundleError: the library is missing, or belongs to another bundle.
    """

    def __init__(self, library: Path, contract: Mapping[str, Any], layout: Layout) -> None:
        header = library.resolve().parent / HEADER
        with blaming(header):
            if not header.is_file():
                raise BundleError(
                    "no such file; expected the folder of simreal export --c, and libpolicy.so made there"
                )
            macros = dict(_MACRO.findall(header.read_text()))
            stated = macros.get("CONTRACT_SHA256", "").strip('"')
            if stated != contract["contract_sha256"]:
                raise BundleError(f"written for another bundle: expected contract_sha256 {contract['contract_sha256']}")
            try:
                size = {name: int(macros[f"{name}_SIZE"]) for name in ("OBSERVATION", "ACTION", "WORK", "STATE")}
                adds, self.tolerance = int(macros["ADDS_TO_OBSERVED"]), float(macros["INT8_ERROR"])
            except (KeyError, ValueError) as error:
                raise BundleError(f"not as simreal export --c writes it: {one_line(error)}") from None
        with blaming(library):
            if not library.is_file():
                raise BundleError(f"no such file; make it: make -C {library.parent} {library.name}")
            try:
                code = ctypes.CDLL(str(library.resolve()))
                self._step, reset = code.policy_step, code.policy_reset
            except (OSError, AttributeError) as error:
                raise BundleError(f"cannot be loaded: {one_line(error)}") from None
        # The struct of policy.h: sent, shown, a, b, and with memory c, state, next.
        at = _DOUBLE * size["ACTION"] * (1 + adds) + 3 * _FLOAT * size["WORK"]
        self._memory = np.zeros(at + 2 * _FLOAT * size["STATE"] + _SPARE, dtype=np.uint8)
        self._state = self._memory[at : at + _FLOAT * size["STATE"]].view(np.float32)
        self._actions = size["ACTION"]
        reset(_pointer(self._memory))
        self._shape = () if layout.initial_state is None else layout.initial_state.shape

    def run(self, outputs: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        """Actions [B, A], and with memory the next states [B, *shape]; all rows one after another."""
        observations, state = feeds["observation"], feeds.get("state")
        actions = np.full((len(observations), self._actions), np.nan, dtype=np.float32)
        after = np.empty((len(observations), *self._shape), dtype=np.float32)
        for row, observation in enumerate(np.ascontiguousarray(observations)):
            if state is not None:
                self._state[:] = state[row].ravel()
            # A status that is not 0 leaves NaN in the action, which the policy refuses.
            self._step(_pointer(self._memory), _pointer(observation), _pointer(actions[row]))
            if state is not None:
                after[row] = self._state.reshape(self._shape)
        return [actions, after][: len(outputs)]


def _pointer(array: NDArray[Any]) -> ctypes.c_void_p:
    return array.ctypes.data_as(ctypes.c_void_p)
