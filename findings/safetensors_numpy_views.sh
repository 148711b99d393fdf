#!/usr/bin/env bash
# safetensors 0.8.0 (its numpy part): a transposed or sliced array is saved as the memory under it, in another order.
#
# Expected: a policy's weight matrix saved as `weight.T`, the layout of many exporters, is read back equal; or refused, as a torch
# tensor is that is not contiguous.
# Seen: the same shape with other values; a slice [::2] comes back as the first half. No error, no warning; a copy made with
# `np.ascontiguousarray` is right.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check safetensors==0.8.0 numpy==2.4.1 2> /dev/null
"$place/venv/bin/python" -W error - <<'PYTHON'
import numpy as np
from safetensors.numpy import load, save

weight = np.arange(6.0).reshape(2, 3)
arrays = {"transposed": weight.T, "every second": np.arange(6.0)[::2], "copied": np.ascontiguousarray(weight.T)}
read = load(save(arrays))
for name, array in arrays.items():
    print(f"{name}: saved {array.tolist()}, read {read[name].tolist()}")
print("expected: equal; seen: equal only where copied")
seen = [np.array_equal(read[name], array) for name, array in arrays.items()] == [False, False, True]
as_stored = np.array_equal(read["transposed"], np.arange(6.0).reshape(3, 2)) and np.array_equal(read["every second"], [0, 1, 2])
raise SystemExit(0 if seen and as_stored else 1)
PYTHON
