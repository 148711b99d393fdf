#!/usr/bin/env bash
# urdf2mjcf 0.2.39: the mass of a robot's trunk is lost on the way to MJCF, and a finger that mimics another gets a motor of its own.
#
# Expected: <inertial> of the root link, 5 kg at 0 0 0.02, stands in the MJCF, as that of every other link does; <mimic> becomes an equality
# of joints, damping and friction arrive: MuJoCo's own URDF reader does both.
# Seen: the root's <inertial> is left out, so that MuJoCo weighs its shape at 1000 kg/m³: 1 kg at the origin. A root without a shape does not
# compile. No equality, two motors, damping and friction 0. What it prints speaks of missing metadata and of the free joint that it adds.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check urdf2mjcf==0.2.39 mujoco==4.0.0 numpy==1.26.4 scipy==1.17.1 trimesh==5.2.0 pydantic==2.14.4 2> /dev/null
cd "$place"
venv/bin/python - 2> said <<'PYTHON' || { cat said; exit 1; }
from pathlib import Path

import mujoco
from urdf2mjcf.convert import convert_urdf_to_mjcf

LINK = """
  <link name="{}">
    <inertial><origin xyz="0 0 0.02"/><mass value="{}"/><inertia ixx="0.1" iyy="0.1" izz="0.1" ixy="0" ixz="0" iyz="0"/></inertial>
    <collision><geometry><box size="0.1 0.1 0.1"/></geometry></collision>
  </link>"""
JOINT = """
  <joint name="{0}" type="prismatic">
    <parent link="trunk"/><child link="{0}"/><axis xyz="0 {1} 0"/><limit lower="0" upper="0.04" effort="20" velocity="1"/>
    <dynamics damping="0.7" friction="0.3"/>{2}
  </joint>"""
parts = [LINK.format(*link) for link in (("trunk", 5), ("left", 2), ("right", 2))]
parts += [JOINT.format("left", 1, ""), JOINT.format("right", -1, '<mimic joint="left"/>')]
Path("gripper.urdf").write_text(f'<robot name="gripper">{"".join(parts)}</robot>')
convert_urdf_to_mjcf("gripper.urdf", "gripper.xml")
wanted, model = (mujoco.MjModel.from_xml_path(name) for name in ("gripper.urdf", "gripper.xml"))
masses = {name: round(float(model.body(name).mass[0]), 6) for name in ("trunk", "left", "right")}
joint, damping = {}, {}
for name, one in (("MuJoCo's reader", wanted), ("urdf2mjcf", model)):
    joint[name], damping[name] = (one.neq, one.nu), (float(one.joint("left").damping[0]), float(one.joint("left").frictionloss[0]))
    print(f"{name}: equalities and motors {joint[name]}, damping and friction of a finger {damping[name]}")
print(f"urdf2mjcf: masses {masses} kg, the trunk's centre at {model.body('trunk').ipos}")
print("expected: 5, 2, 2 kg, the centre at 0 0 0.02, one equality; seen: 1, 2, 2 kg, the centre at 0, none")
lost = masses == {"trunk": 1.0, "left": 2.0, "right": 2.0} and not model.body("trunk").ipos.any()
freed = joint == {"MuJoCo's reader": (1, 0), "urdf2mjcf": (0, 2)} and damping == {"MuJoCo's reader": (0.7, 0.3), "urdf2mjcf": (0.0, 0.0)}
raise SystemExit(0 if lost and freed else 1)
PYTHON
if grep -iE "inertia|mass|mimic|damping|friction" said; then
    echo "which it now says"
    exit 1
fi
