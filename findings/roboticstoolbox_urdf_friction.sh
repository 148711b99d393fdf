#!/usr/bin/env bash
# roboticstoolbox-python 1.5.0: a URDF joint's dry friction is taken for its viscous friction, and its damping is left out.
#
# Expected: <dynamics damping="0.7" friction="0.3"/> becomes a viscous friction B of 0.7 N m s/rad and a Coulomb friction Tc of
# 0.3 N m: at 2 rad/s they cost 1.7 N m. Or both are left out.
# Seen: B is 0.3, the friction, Tc is 0 and the damping nowhere: `rne` says 0.6 N m at 2 rad/s. A joint with damping alone has none.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check roboticstoolbox-python==1.5.0 2> /dev/null
cd "$place"
venv/bin/python -W ignore - <<'PYTHON'
from pathlib import Path

import roboticstoolbox

ARM = """
<robot name="arm">
  <link name="base"/>
  <link name="link"><inertial><mass value="1"/><inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/></inertial></link>
  <joint name="hinge" type="revolute">
    <parent link="base"/><child link="link"/><axis xyz="0 0 1"/>
    <limit lower="-2" upper="2" effort="9" velocity="9"/><dynamics {}/>
  </joint>
</robot>"""


def friction(dynamics):
    """Of the hinge: B in N m s/rad, both Tc in N m, torque in N m at 2 rad/s."""
    Path("arm.urdf").write_text(ARM.format(dynamics))
    robot = roboticstoolbox.Robot.URDF(str(Path("arm.urdf").resolve()))
    link = next(link for link in robot.links if link.name == "link")
    return float(link.B), [float(one) for one in link.Tc], round(float(robot.rne([0.0], [2.0], [0.0])[0]), 9)


both, damped = friction('damping="0.7" friction="0.3"'), friction('damping="0.7"')
for name, (viscous, dry, torque) in (("damping 0.7, friction 0.3", both), ("damping 0.7", damped)):
    print(f"{name}: B {viscous:g}, Tc {dry}, torque at 2 rad/s {torque:g} N m")
print("expected: B 0.7 both times, torques 1.7 and 1.4 N m; seen: B 0.3 and 0, torques 0.6 and 0")
seen = both == (0.3, [0.0, 0.0], 0.6) and damped == (0.0, [0.0, 0.0], 0.0)
raise SystemExit(0 if seen else 1)
PYTHON
