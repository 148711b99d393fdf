"""Writes a policy's layers as C99: policy.c, contract.h and golden.h, beside files that are the same for all."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simreal.common.layers import (
    GRU,
    LSTM,
    Activation,
    Array,
    Bins,
    Clip,
    Dense,
    History,
    Layer,
    Normalize,
    state_size,
)
from simreal.deploy.bundle_reader import ActionPart
from simreal.export.c.header import MARK, contract_header, contract_tables
from simreal.export.c.int8 import int8
from simreal.export.c.targets import targets_code, targets_tables
from simreal.export.c.text import array, single
from simreal.export.source import EXPORT_TOLERANCE

SAME = ("policy.h", "test_policy.c", "Makefile")
FILES = ("policy.c", "contract.h", "golden.h", *SAME)
PRODUCTS = ("policy.o", "test_policy", "libpolicy.so")  # what the Makefile leaves beside them


def c_files(
    layers: Sequence[Layer],
    contract: Mapping[str, Any],
    action: Sequence[ActionPart],
    golden: Mapping[str, NDArray[Any]],
    int8_error: float | None,
) -> dict[str, str]:
    """Texts of the files by name.

    Args:
        layers: from an observation to an action.
        contract: policy.json, signed.
        action: its components of the action.
        golden: observations, actions, and states and targets where there are such; far_observations, far_actions.
        int8_error: weights have 8 bits, and this is what they change; None: they are floats.
    """
    nobs, size = (contract[group][-1]["index"][1] for group in ("observation", "action"))
    body = _Body(nobs, int8_error is not None)
    for layer in layers:
        body.add(layer)
    sizes = {
        "observation": nobs,
        "action": size,
        "target": action[-1].sent.stop,
        "state": body.states,
        "work": body.widest,
    }
    eight = int8_error is not None
    told = {"WEIGHTS": '"int8"' if eight else '"float32"', "INT8": str(int(eight)), "INT8_ERROR": int8_error or 0.0}
    told["ADDS_TO_OBSERVED"] = str(int(any(part.onto_columns is not None for part in action)))
    told["TOLERANCE"] = EXPORT_TOLERANCE + told["INT8_ERROR"]
    initial = np.zeros(0) if contract["recurrent_state"] is None else np.ravel(contract["recurrent_state"]["initial"])
    parts = [
        f"{MARK}: the policy itself. Written by simreal; see policy.h. */\n",
        '#include "policy.h"\n\n#include <math.h>\n#include <stdint.h>\n#include <string.h>\n',
        contract_tables(contract),
        *body.tables,
        targets_tables(action),
        array("float", "policy_initial_state", initial) if body.states else "",
        *_kernels(body.kernels | ({"tool"} if any(part.inverse is not None for part in action) else set())),
        _reset(body.states > 0),
        body.step(),
        targets_code(action),
    ]
    return {
        "policy.c": "\n".join(part for part in parts if part),
        "contract.h": contract_header(contract, sizes, told),
        "golden.h": _golden(golden),
        **{name: _file(name) for name in SAME},
    }


class _Body:
    """policy_step as it grows.

    Attributes:
        tables: definitions of weights.
        kernels: names of the kernels that are called.
        states: values of the state so far.
        widest: values that the widest layer puts out.
    """

    def __init__(self, observations: int, eight_bits: bool) -> None:
        self.tables: list[str] = []
        self.kernels: set[str] = set()
        self.states, self.widest = 0, 1
        self._eight, self._lines = eight_bits, []
        self._after: list[str] = []  # once the action is known
        self._now, self._size, self._number = "observation", observations, 0

    def add(self, layer: Layer) -> None:
        """One layer more."""
        self._number += 1
        state, self.states = self.states, self.states + state_size(layer)
        match layer:
            case Normalize():
                names = [self._weights(key, getattr(layer, key)) for key in ("mean", "rest", "inverse")]
                self._call("normalize", *names, self._now, self._to(self._size), str(self._size))
                if math.isfinite(layer.clip):
                    self.add(Clip(-layer.clip, layer.clip))
            case Dense():
                inputs, source = self._size, self._now
                self._dense("", layer.weight, layer.bias, source, self._to(len(layer.bias)), inputs)
            case Activation():
                self._call(layer.kind, self._here(), str(self._size))
            case Clip():
                self._call("clip", self._here(), single(layer.low), single(layer.high), str(self._size))
            case Bins():
                count, source = self._size // len(layer.values), self._now
                values = self._weights("values", layer.values)
                self._call("bins", values, source, self._to(count), str(count), str(len(layer.values)))
            case LSTM() | GRU():
                self._recurrent(layer, state)
            case History():
                self._history(layer, state)

    def step(self) -> str:
        """The function."""
        keep = ["memcpy(p->state, p->next, sizeof p->state);"] if self.states else []
        lines = [
            "for (i = 0; i < POLICY_OBSERVATION_SIZE; i++)",
            "    if (!isfinite(observation[i])) return POLICY_OBSERVATION_NOT_FINITE;",
            *self._lines,
            "for (i = 0; i < POLICY_ACTION_SIZE; i++)",
            f"    if (!isfinite({self._now}[i])) return POLICY_ACTION_NOT_FINITE;",
            f"memcpy(action, {self._now}, POLICY_ACTION_SIZE * sizeof *action);",
            *self._after,
            *keep,
            "for (i = 0; i < POLICY_TARGET_SIZE; i++)",
            "    if (isnan(p->sent[i]) && policy_seen[i] >= 0) p->sent[i] = (double)observation[policy_seen[i]];",
            "#if POLICY_ADDS_TO_OBSERVED",
            "for (i = 0; i < POLICY_TARGET_SIZE; i++)",
            "    if (policy_onto[i] >= 0) p->shown[i] = (double)observation[policy_onto[i]];",
            "#endif",
            "return POLICY_OK;",
        ]
        head = (
            "policy_status policy_step(policy *p, const float observation[POLICY_OBSERVATION_SIZE],\n"
            "                          float action[POLICY_ACTION_SIZE])\n{\n    int i;\n"
        )
        return head + "".join(f"{'' if line[0] == '#' else '    '}{line}\n" for line in lines) + "}\n"

    def _call(self, kernel: str, *arguments: str) -> None:
        self.kernels.add(kernel)
        self._lines.append(f"policy_{kernel}({', '.join(arguments)});")

    def _to(self, size: int) -> str:
        """The buffer that the next values go to, which are `size`."""
        self._now, self._size = "p->b" if self._now == "p->a" else "p->a", size
        self.widest = max(self.widest, size)
        return self._now

    def _here(self) -> str:
        """The buffer of the present values, which may be changed there."""
        if self._now == "observation":
            self._lines.append(f"memcpy({self._to(self._size)}, observation, {self._size} * sizeof *observation);")
        return self._now

    def _weights(self, key: str, values: Array) -> str:
        """The name of new constants."""
        name = f"layer{self._number}_{key}"
        self.tables.append(array("float", name, values))
        return name

    def _dense(self, key: str, weight: Array, bias: Array, x: str, y: str, inputs: int) -> None:
        """y = weight x + bias."""
        begin = f"{key}_" if key else ""
        sizes = str(inputs), str(len(bias))
        if not self._eight:
            weights = self._weights(f"{begin}weight", weight.T.reshape(-1)), self._weights(f"{begin}bias", bias)
            return self._call("dense", *weights, x, y, *sizes)
        whole, scale = int8(weight)
        name = f"layer{self._number}_{begin}weight"
        self.tables.append(array("int8_t", name, whole.T.reshape(-1)))
        weights = name, self._weights(f"{begin}scale", scale), self._weights(f"{begin}bias", bias)
        return self._call("dense_int8", *weights, x, y, *sizes)

    def _recurrent(self, layer: LSTM | GRU, state: int) -> None:
        kind, size = type(layer).__name__.lower(), layer.recall.shape[1]
        inputs, source = self._size, self._now
        read = self._to(len(layer.read_bias))
        self._dense("read", layer.read, layer.read_bias, source, read, inputs)
        self._dense("recall", layer.recall, layer.recall_bias, f"p->state + {state}", "p->c", size)
        self._call(kind, read, "p->c", f"p->state + {state}", f"p->next + {state}", str(size))
        self._lines.append(f"memcpy({self._to(size)}, p->next + {state}, {size} * sizeof *p->next);")

    def _history(self, layer: History, state: int) -> None:
        past, told = layer.observations * layer.kept, layer.actions * layer.action_size
        numbers = map(str, (self._size, layer.observations, layer.kept, told, layer.action_size))
        source = self._now
        y = self._to(self._size + past + told)
        self._call("history", f"p->state + {state}", source, y, f"p->next + {state}", *numbers)
        if told:
            last = state + past + told - layer.action_size
            self._after.append(f"memcpy(p->next + {last}, action, {layer.action_size} * sizeof *action);")


def _reset(remembers: bool) -> str:
    """The functions that begin an episode."""
    state = "    memcpy(p->state, policy_initial_state, sizeof p->state);\n" if remembers else ""
    return f"""void policy_reset(policy *p)
{{
{state}    memcpy(p->sent, policy_start, sizeof p->sent);
#if POLICY_ADDS_TO_OBSERVED
    {{
        int i;
        for (i = 0; i < POLICY_TARGET_SIZE; i++) p->shown[i] = NAN;
    }}
#endif
}}

void policy_reset_to(policy *p, const double targets[POLICY_TARGET_SIZE])
{{
    policy_reset(p);
    memcpy(p->sent, targets, sizeof p->sent);
}}
"""


def _golden(golden: Mapping[str, NDArray[Any]]) -> str:
    """golden.h: consecutive steps of one episode and what must come back."""
    steps, far = len(golden["observations"]), len(golden["far_observations"])
    macros = {"STEPS": steps, "TARGETS": int("targets" in golden), "FAR": far}
    tables = [array("double" if k == "targets" else "float", f"golden_{k}", v) for k, v in golden.items() if len(v)]
    heads = [f"#define GOLDEN_{name} {value}\n" for name, value in macros.items()]
    text = f"{MARK}: observations of one episode, and far ones, each the first of an episode; what must come back. */\n"
    return "\n".join(
        [text + "#ifndef SIMREAL_GOLDEN_H\n#define SIMREAL_GOLDEN_H\n", "".join(heads), *tables, "#endif\n"]
    )


@cache
def _file(name: str) -> str:
    text = (Path(__file__).parent / name).read_text()
    return text if name == "Makefile" else f"{MARK}; the same for all policies. */\n{text}"


def _kernels(names: set[str]) -> list[str]:
    """Source of the kernels of these names and of those that they call, in the file's order."""
    texts: dict[str, str] = {}
    needs: dict[str, list[str]] = {}
    for head, text in zip(*[iter(re.split(r"/\* kernel ([^*]*?) \*/\n", _file("kernels.c"))[1:])] * 2, strict=True):
        name, _, others = head.partition(": ")
        texts[name], needs[name] = text.rstrip("\n") + "\n", others.split()
    wanted, todo = set[str](), list(names)
    while todo:
        name = todo.pop()
        wanted.add(name)
        todo += needs[name]
    return [text for name, text in texts.items() if name in wanted]
