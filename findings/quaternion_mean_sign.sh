#!/usr/bin/env bash
# numpy-quaternion 2024.0.13: the mean of orientations depends on the signs of the quaternions, which mean nothing for an orientation.
#
# Expected: the mean of two headings, 0 and 20 degrees, is 10 degrees, with q as with -q, which is the same heading and what an
# IMU or a conversion from a matrix may give.
# Seen: 10 degrees with signs alike, -170 with signs that differ, without a warning; q and -q together give not a number. SciPy's
# `Rotation.mean` says 10 each time.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check numpy-quaternion==2024.0.13 numpy==2.4.1 scipy==1.17.1 2> /dev/null
"$place/venv/bin/python" - <<'PYTHON'
import numpy as np
import quaternion
from scipy.spatial.transform import Rotation


def heading(half):
    """Of a quaternion about z, in degrees."""
    return np.degrees(2 * np.arctan2(half[3], half[0]))


def mean(first, second):
    rows = np.array([[np.cos(angle / 2), 0.0, 0.0, np.sin(angle / 2)] for angle in np.radians([0.0, 20.0])])
    rows *= np.array([[first], [second]])
    theirs = quaternion.as_float_array(quaternion.mean_rotor_in_chordal_metric(quaternion.as_quat_array(rows)))
    return round(float((heading(theirs) + 180) % 360 - 180), 6), Rotation.from_quat(rows, scalar_first=True).mean().as_euler("zyx", degrees=True)[0]


same, other = mean(1, 1), mean(1, -1)
with np.errstate(invalid="ignore"):
    both = quaternion.as_float_array(quaternion.mean_rotor_in_chordal_metric(quaternion.as_quat_array([[1.0, 0, 0, 0], [-1.0, 0, 0, 0]])))
print(f"mean of 0 and 20 degrees: signs alike {same[0]}, signs differ {other[0]}; SciPy {same[1]:.3f} and {other[1]:.3f}; mean of q and -q {both}")
print("expected: 10 and 10; seen: 10 and -170")
seen = same[0] == 10.0 and other[0] == -170.0 and np.allclose([same[1], other[1]], 10.0) and not np.isfinite(both).all()
raise SystemExit(0 if seen else 1)
PYTHON
