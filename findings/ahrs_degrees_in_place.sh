#!/usr/bin/env bash
# AHRS 0.4.0: `rpy2q(angles, in_deg=True)` turns the caller's degrees into radians; the next call gets a fiftieth of the angles.
#
# Expected: roll, pitch and yaw in degrees give a quaternion, and the same quaternion when asked again.
# Seen: the array holds radians after the first call; the second call takes them for degrees and answers a turn of
# 0.65 degrees for one of 36. No error, no warning. An array of integers fails instead.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check ahrs==0.4.0 numpy==2.4.1 2> /dev/null
"$place/venv/bin/python" -W error - <<'PYTHON'
import numpy as np
from ahrs.common.orientation import rpy2q

angles = np.array([10.0, 20.0, 30.0])
turns, left = [], []
for _ in range(2):
    turns.append(np.degrees(2 * np.arccos(rpy2q(angles, in_deg=True)[0])))
    left.append(angles.round(3).tolist())
print(f"turned by {turns[0]:.2f} degrees, the angles given are then {left[0]}; turned by {turns[1]:.2f} the next time")
print("expected: 35.82 twice, angles 10, 20, 30; seen: angles 0.175, 0.349, 0.524 and 0.65 degrees the next time")
raise SystemExit(0 if np.allclose(turns, [35.82, 0.65], atol=0.01) and left[0] == [0.175, 0.349, 0.524] else 1)
PYTHON
