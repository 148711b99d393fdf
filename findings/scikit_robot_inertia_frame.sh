#!/usr/bin/env bash
# scikit-robot 0.4.7: the orientation of a URDF link's <inertial> frame is read and dropped, so that links are turned by the wrong torque.
#
# Expected: inertias 1, 2, 3 kg m² in a frame that is turned by 90 degrees about z are 2, 1, 3 in the link's frame: a hinge about x
# needs 2 N m for 1 rad/s².
# Seen: `torque_vector` says 1 N m, with the rpy as without it; no error or warning. Mass and centre of mass are right.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check scikit-robot==0.4.7 2> /dev/null
cd "$place"
venv/bin/python - <<'PYTHON'
from pathlib import Path

import numpy as np
from skrobot.models.urdf import RobotModelFromURDF

STEP = 0.001  # s, of the three postures that tell the acceleration
ARM = """
<robot name="arm">
  <link name="base"/>
  <link name="link">
    <inertial><origin xyz="0 0 0" rpy="0 0 {}"/><mass value="1"/>{}</inertial>
  </link>
  <joint name="hinge" type="revolute">
    <parent link="base"/><child link="link"/><axis xyz="1 0 0"/><limit lower="-2" upper="2" effort="9" velocity="9"/>
  </joint>
</robot>"""


def torque(turned, first, second):
    """N m that 1 rad/s² about x takes, with these inertias about the first two axes of a frame turned about z."""
    inertia = f'<inertia ixx="{first}" iyy="{second}" izz="3" ixy="0" ixz="0" iyz="0"/>'
    Path("arm.urdf").write_text(ARM.format(turned, inertia))
    robot = RobotModelFromURDF(urdf_file="arm.urdf")
    aside = np.array([0.5 * STEP**2])
    known = dict(av_prev=aside, av=np.zeros(1), av_next=aside, dt=STEP)
    return float(robot.torque_vector(calc_statics_p=False, gravity=np.zeros(3), **known)[0])


turned, straight, swapped = torque(np.pi / 2, 1, 2), torque(0, 1, 2), torque(0, 2, 1)
print(f"torque for 1 rad/s²: frame turned {turned:.3f} N m, not turned {straight:.3f}, the same link written without rpy {swapped:.3f}")
print("expected: 2, 1, 2; seen: 1, 1, 2")
raise SystemExit(0 if np.allclose([turned, straight, swapped], [1, 1, 2], atol=1e-3) else 1)
PYTHON
