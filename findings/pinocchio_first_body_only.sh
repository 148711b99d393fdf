#!/usr/bin/env bash
# Pinocchio 4.1.0: of an MJCF scene only the first body of the world is read, whatever else stands there.
#
# Expected: buildModelFromMJCF gives every joint of the scene, as MuJoCo does, or says that it reads one tree only.
# Seen: without a word, two robots are one, and a scene with the table before the robot has no joint at all; the same scene
# with the table after the robot has the robot's.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check pin==4.1.0 mujoco==4.0.0
cd "$place"
venv/bin/python - <<'PYTHON'
from pathlib import Path

import mujoco
import pinocchio

TABLE = '<body name="table"><geom type="box" size="0.5 0.5 0.1"/></body>'
ROBOT = '<body name="{0}_link" pos="0 0 1"><joint name="{0}"/><geom size="0.1"/></body>'
left, right = ROBOT.format("left"), ROBOT.format("right")
scenes = {"left, right": left + right, "table, left": TABLE + left, "left, table": left + TABLE}
seen = {}
for name, bodies in scenes.items():
    Path("scene.xml").write_text(f"<mujoco><worldbody>{bodies}</worldbody></mujoco>")
    theirs, ours = pinocchio.buildModelFromMJCF("scene.xml"), mujoco.MjModel.from_xml_path("scene.xml")
    seen[name] = (ours.nq, theirs.nq)
    print(f"{name}: MuJoCo has {ours.nq} joints, Pinocchio {theirs.nq}: {list(theirs.names)[1:]}")
print("expected: 2, 1 and 1 in both; seen: Pinocchio has 1, 0 and 1")
raise SystemExit(0 if seen == {"left, right": (2, 1), "table, left": (1, 0), "left, table": (1, 1)} else 1)
PYTHON
