"""What is sent for an action, as C99: tables and policy_targets. `simreal.deploy.targets` says what they mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from simreal.deploy.bundle_reader import ActionPart
from simreal.deploy.kinematics import InverseKinematics
from simreal.export.c.text import array, number


def targets_tables(parts: Sequence[ActionPart]) -> str:
    """Tables by value of the action (offset, scale) and by what is sent (all others)."""
    columns: dict[str, list[Any]] = {key: [] for key in ("offset", "scale", "low", "high")}
    smoothing, start, seen, onto = [], [], [], []
    for part in parts:
        size, looks_back = len(part.low), part.smoothing < 1.0 or part.onto_last
        for key, values in columns.items():
            values += getattr(part, key).tolist()
        smoothing += [part.smoothing] * size
        known = part.initial if looks_back else np.zeros(size)
        start += [math.nan] * size if known is None else known.tolist()
        seen += part.initial_columns.tolist() if looks_back and part.initial_columns is not None else [-1] * size
        onto += [-1 if part.onto_last else -2] * size if part.onto_columns is None else part.onto_columns.tolist()
    tables = [array("double", f"policy_{key}", values) for key, values in columns.items()]
    tables += [array("double", "policy_smoothing", smoothing), array("double", "policy_start", start)]
    tables += [array("int", "policy_seen", seen), array("int", "policy_onto", onto)]
    tools = [part.inverse.tables() for part in parts if part.inverse is not None]
    for i, tool in enumerate(tools):
        slides = tool.pop("slides")
        tables.append(array("int", f"policy_tool{i}_slides", slides.astype(int)))
        tables += [array("double", f"policy_tool{i}_{key}", values.reshape(-1)) for key, values in tool.items()]
    return "".join(tables)


def targets_code(parts: Sequence[ActionPart]) -> str:
    """The function policy_targets."""
    tools = [part.inverse for part in parts if part.inverse is not None]
    if not tools:
        return _CODE.format(room="", steps="", step="policy_offset[i] + policy_scale[i] * policy_clipped(action[i])")
    most = 6 * max(tool.joints for tool in tools)
    room = f"    double value[POLICY_ACTION_SIZE], base[POLICY_TARGET_SIZE], step[POLICY_TARGET_SIZE], j[{most}];\n"
    lines, number_of = [_VALUES], 0
    for part in parts:
        begin, size = part.sent.start, part.sent.stop - part.sent.start
        if part.inverse is None:
            lines.append(f"    for (i = 0; i < {size}; i++) step[{begin} + i] = value[{part.start} + i];\n")
        else:
            lines.append(_call(part.inverse, number_of, begin, part.start))
            number_of += 1
    return _CODE.format(room=room, steps="".join(lines), step="step[i]")


def _call(tool: InverseKinematics, number_of: int, begin: int, start: int) -> str:
    tables = ", ".join(f"policy_tool{number_of}_{key}" for key in ("slides", "pos", "fixed", "axis", "zero", "tip"))
    sizes = f"{number(tool.damping)}, {tool.joints}, {tool.size}"
    return f"    policy_tool({tables},\n                {sizes}, base + {begin}, value + {start}, j, step + {begin});\n"


_VALUES = """    for (i = 0; i < POLICY_ACTION_SIZE; i++)
        value[i] = policy_offset[i] + policy_scale[i] * policy_clipped(action[i]);
    for (i = 0; i < POLICY_TARGET_SIZE; i++) {
        base[i] = policy_onto[i] == -1 ? p->sent[i] : 0.0;
#if POLICY_ADDS_TO_OBSERVED
        if (policy_onto[i] >= 0) base[i] = p->shown[i];
#endif
    }
"""

_CODE = """static double policy_clipped(float a)
{{
    return a < -1.0f ? -1.0 : (a > 1.0f ? 1.0 : (double)a);
}}

policy_status policy_targets(policy *p, const float action[POLICY_ACTION_SIZE],
                             double targets[POLICY_TARGET_SIZE])
{{
    int i;
{room}    for (i = 0; i < POLICY_ACTION_SIZE; i++)
        if (isnan(action[i])) return POLICY_ACTION_NOT_FINITE;
    for (i = 0; i < POLICY_TARGET_SIZE; i++) {{
        if ((policy_smoothing[i] < 1.0 || policy_onto[i] == -1) && !isfinite(p->sent[i])) return POLICY_START_NOT_KNOWN;
#if POLICY_ADDS_TO_OBSERVED
        if (policy_onto[i] >= 0 && !isfinite(p->shown[i])) return POLICY_START_NOT_KNOWN;
#endif
    }}
{steps}    for (i = 0; i < POLICY_TARGET_SIZE; i++) {{
        double target = {step};
        if (policy_onto[i] == -1) target = p->sent[i] + target;
#if POLICY_ADDS_TO_OBSERVED
        if (policy_onto[i] >= 0) target = p->shown[i] + target;
#endif
        target = target < policy_low[i] ? policy_low[i] : target;
        target = target > policy_high[i] ? policy_high[i] : target;
        if (policy_smoothing[i] < 1.0) target = p->sent[i] + policy_smoothing[i] * (target - p->sent[i]);
        p->sent[i] = targets[i] = target;
    }}
    return POLICY_OK;
}}
"""
