#!/usr/bin/env bash
# cyclonedds 11.0.1: whether a numpy array can be sent as a sequence<double> depends on its length and its value.
#
# Expected: an array is taken as a list is, as array<double, n> takes it; or it is refused.
# Seen: two or more values are refused. A single value is sent, unless it is 0.0: then `serialize` succeeds with a message that
# announces one value and holds none, which a reader cannot take apart. A robot with one joint works until its joint is at zero.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check cyclonedds==11.0.1 numpy==2.4.1
"$place/venv/bin/python" - <<'PYTHON'
from dataclasses import dataclass

import numpy as np
from cyclonedds.idl import IdlStruct
from cyclonedds.idl.types import array, float64, sequence


@dataclass
class Any(IdlStruct, typename="Any"):
    position: sequence[float64]


@dataclass
class Three(IdlStruct, typename="Three"):
    position: array[float64, 3]


def fate(kind, values):
    try:
        raw = kind(position=values).serialize()
    except Exception:
        return "refused"
    try:
        return list(kind.deserialize(raw).position)
    except Exception:
        return f"unreadable ({len(raw)} bytes)"


asked = {
    "a list of two": fate(Any, [0.5, 1.0]),
    "an array of three where three are fixed": fate(Three, np.array([0.5, 1.0, 2.0])),
    "an array of two": fate(Any, np.array([0.5, 1.0])),
    "an array of one": fate(Any, np.array([0.5])),
    "an array of one zero": fate(Any, np.array([0.0])),
    "a list of one zero": fate(Any, [0.0]),
}
for what, came in asked.items():
    print(f"{what}: {came}")
*_, two, one, zero, zero_list = asked.values()
seen = two == "refused" and one == [0.5] and str(zero).startswith("unreadable") and zero_list == [0.0]
raise SystemExit(0 if seen else 1)
PYTHON
