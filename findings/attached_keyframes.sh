#!/usr/bin/env bash
# MuJoCo 4.0.0: MjSpec.attach brings the child's keyframes along, but not to where the child is.
#
# Expected: a robot with a free joint that is attached 5 m to the side has its keyframe there too, as its default pose
# (qpos0) and its mocap bodies are.
# Seen: root pose and mocap target of the keyframe are those of the child alone. Of two copies of a robot the second one's
# keyframe puts both into the same place.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check mujoco==4.0.0
"$place/venv/bin/python" - <<'PYTHON'
import mujoco

ROBOT = """
<mujoco>
  <worldbody>
    <body name="robot" pos="0 0 1"><freejoint/><geom size="0.1"/></body>
    <body name="target" mocap="true" pos="1 0 1"><geom size="0.1" contype="0" conaffinity="0"/></body>
  </worldbody>
  <keyframe><key name="home" qpos="0 0 1 1 0 0 0" mpos="1 0 1"/></keyframe>
</mujoco>"""
scene = mujoco.MjSpec()
for prefix, x in (("first_", 0.0), ("second_", 5.0)):
    scene.attach(mujoco.MjSpec.from_string(ROBOT), frame=scene.worldbody.add_frame(pos=[x, 0, 0]), prefix=prefix)
model = scene.compile()
key = model.key("second_home").id
default, root, target = float(model.qpos0[7]), float(model.key_qpos[key, 7]), float(model.key_mpos[key, 3])
print(f"mujoco {mujoco.__version__}: second robot by default at x = {default:g} m; in second_home at {root:g} m, target at {target:g} m")
print("expected: 5, 5 and 6; seen: 5, 0 and 1")
raise SystemExit(0 if (default, root, target) == (5.0, 0.0, 1.0) else 1)
PYTHON
