#!/usr/bin/env bash
# mujoco.sysid 4.0.0: a model with a `pid` actuator has no control series.
#
# Expected: TimeSeries.from_control_names takes one column for each of the model's controls, as mjData.ctrl has.
# Seen: it goes through as many actuators as there are controls. A `pid` has two controls (position and velocity), so it asks
# for an actuator beyond the last and raises IndexError; with any names asked for, too. Without the pid the same call works.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check 'mujoco[sysid]==4.0.0'
"$place/venv/bin/python" - <<'PYTHON'
import mujoco
import numpy as np
from mujoco import sysid

ARM = """
<mujoco>
  <worldbody>
    <body><joint name="shoulder"/><geom size="0.1"/></body>
    <body><joint name="elbow"/><geom size="0.1"/></body>
  </worldbody>
  <actuator>{drive}<motor name="second" joint="elbow"/></actuator>
</mujoco>"""


def columns(drive):
    model = mujoco.MjModel.from_xml_string(ARM.format(drive=drive))
    try:
        series = sysid.TimeSeries.from_control_names(np.arange(3.0), np.zeros((3, model.nu)), model)
    except IndexError as error:
        return model.nu, f"IndexError: {error}"
    return model.nu, {name: list(map(int, where)) for name, (_, where) in series.signal_mapping.items()}


servo = columns('<position name="first" joint="shoulder" kp="10" kv="1"/>')
pid = columns('<pid name="first" joint="shoulder" kp="10" kv="1"/>')
print(f"mujoco {mujoco.__version__}: a servo and a motor: {servo[0]} controls, {servo[1]}; a pid and a motor: {pid[0]} controls, {pid[1]}")
print("expected: columns for three controls; seen: an error")
raise SystemExit(0 if servo[1] == {"first_ctrl": [0], "second_ctrl": [1]} and "IndexError" in str(pid[1]) else 1)
PYTHON
