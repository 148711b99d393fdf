#!/usr/bin/env bash
# MuJoCo 4.0.0: whether a member of an enumeration equals a NumPy integer depends on the order.
#
# Expected: model.jnt_type[0] == mjJNT_HINGE is what mjJNT_HINGE == model.jnt_type[0] is, and `in` and dictionaries agree.
# Seen: True with the number first, False with the member first, in a tuple and as a key of a dictionary. No error, no
# warning: branches are not taken. int(...) around either side mends it.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check mujoco==4.0.0 numpy==2.4.6
"$place/venv/bin/python" - <<'PYTHON'
import mujoco
import numpy

model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><body><joint/><geom size='1'/></body></worldbody></mujoco>")
kind, hinge = model.jnt_type[0], mujoco.mjtJoint.mjJNT_HINGE
seen = [bool(kind == hinge), bool(hinge == kind), kind in (hinge,), kind in {hinge: 0}, bool(hinge == int(kind))]
print(f"mujoco {mujoco.__version__}, numpy {numpy.__version__}: number first, member first, in a tuple, in a dictionary, int: {seen}")
print("expected: True for all; seen: True, False, False, False, True")
raise SystemExit(0 if seen == [True, False, False, False, True] else 1)
PYTHON
