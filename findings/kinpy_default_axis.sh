#!/usr/bin/env bash
# kinpy 0.6.1: a URDF joint that states no axis turns about z, where URDF says x.
#
# Expected: a revolute or prismatic joint without <axis> has the axis 1 0 0, as the format defines. Turned by 90 degrees it
# lifts a tip at 0 0.2 0 to 0 0 0.2.
# Seen: the tip goes to -0.2 0 0, without an error or a warning; with <axis xyz="1 0 0"/> written out it is right. A slide moves along z.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check kinpy==0.6.1 numpy==1.26.4
"$place/venv/bin/python" - 2> "$place/said" <<'PYTHON' || { cat "$place/said"; exit 1; }
import kinpy
import numpy as np

ARM = """
<robot name="arm">
  <link name="base"/><link name="forearm"/><link name="tip"/>
  <joint name="elbow" type="{}">
    <parent link="base"/><child link="forearm"/>{}<limit lower="-2" upper="2" effort="1" velocity="1"/>
  </joint>
  <joint name="end" type="fixed"><origin xyz="0 0.2 0"/><parent link="forearm"/><child link="tip"/></joint>
</robot>"""


def tip(kind, axis, position):
    chain = kinpy.build_chain_from_urdf(ARM.format(kind, axis))
    return np.round(chain.forward_kinematics({"elbow": position})["tip"].pos, 6) + 0.0


stated, omitted = (tip("revolute", axis, np.pi / 2) for axis in ('<axis xyz="1 0 0"/>', ""))
slide = tip("prismatic", "", 0.1)
print(f"tip after 90 degrees: axis stated {stated}, axis omitted {omitted}; slide by 0.1 m without an axis: {slide}")
print("expected: 0 0 0.2 both times, and 0.1 0.2 0; seen: -0.2 0 0 and 0 0.2 0.1 where the axis is omitted")
seen = np.allclose(stated, [0, 0, 0.2]) and np.allclose(omitted, [-0.2, 0, 0]) and np.allclose(slide, [0, 0.2, 0.1])
raise SystemExit(0 if seen else 1)
PYTHON
if [ -s "$place/said" ]; then
    echo "it now says:"
    cat "$place/said"
    exit 1
fi
