#!/usr/bin/env bash
# Drake 1.51.1: a position servo of MJCF loses its damping, and may push with as many newton metres as its command has radians.
#
# Expected: <position kp="10" kv="1" ctrlrange="-0.5 0.5" forcerange="-3 3"/> becomes a PD controller with 10 and 1 and an effort limit of
# 3 N m, or the parser names what it leaves out, as it does for frictionloss.
# Seen: gains 10 and 0, an effort limit of 0.5, which is the range of the command in radians; no warning.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check drake==1.51.1 2> /dev/null
"$place/venv/bin/python" - 2> "$place/said" <<'PYTHON' || { cat "$place/said"; exit 1; }
from pydrake.multibody.parsing import Parser
from pydrake.multibody.plant import MultibodyPlant

ARM = """
<mujoco model="arm">
  <worldbody><body name="link"><joint name="hinge" axis="0 1 0"/><geom size="0.1" mass="1"/></body></worldbody>
  <actuator><position name="servo" joint="hinge" kp="10" kv="1" ctrlrange="-0.5 0.5" forcerange="-3 3"/></actuator>
</mujoco>"""
plant = MultibodyPlant(0.002)
Parser(plant).AddModelsFromString(ARM, "xml")
plant.Finalize()
servo = plant.GetJointActuatorByName("servo")
gains, effort = servo.get_controller_gains(), servo.effort_limit()
print(f"gains {gains.p:g} and {gains.d:g}, effort limit {effort:g} N m")
print("expected: 10, 1 and 3; seen: 10, 0 and 0.5")
raise SystemExit(0 if (gains.p, gains.d, effort) == (10.0, 0.0, 0.5) else 1)
PYTHON
if [ -s "$place/said" ]; then
    echo "the parser now says:"
    cat "$place/said"
    exit 1
fi
