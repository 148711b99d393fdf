#!/usr/bin/env bash
# mujoco 4.0.0: `Batch.forward(ids, stage)` of one simulation gives its bound outputs of later stages the values of another one.
#
# Expected: with stage=mjSTAGE_POS the fields of later stages (actuator_force, qacc, cvel, the later part of sensordata) stay what they
# were for this simulation, as they do in an MjData of its own: mj_fwdPosition does not write them.
# Seen: simulation 0 then shows the actuator force of simulation 2, the last one that its thread has computed. Every output of a
# simulation that took part is copied out, whichever stages were asked for, from memory that the thread shares among simulations.
# Which one it is depends on the number of threads. Nothing in the docstrings of forward() and bind() says so.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check mujoco==4.0.0 2> /dev/null
"$place/venv/bin/python" - <<'PYTHON'
import mujoco
from mujoco.batch import Batch

MODEL = """<mujoco><worldbody><body><joint name="hinge" axis="0 1 0"/><geom size="0.1" pos="0.3 0 0"/></body></worldbody>
<actuator><position joint="hinge" kp="20"/></actuator></mujoco>"""
model = mujoco.MjModel.from_xml_string(MODEL)
alone = mujoco.MjData(model)
alone.ctrl[:] = 0.1
mujoco.mj_forward(model, alone)
mujoco.mj_fwdPosition(model, alone)
batch = Batch(model, 3, 1)
force = batch.bind("actuator_force")
batch.bind("ctrl")[:, 0] = 0.1, 0.2, 0.3
batch.forward()
before = force[:, 0].copy()
batch.forward([0], int(mujoco.mjtStage.mjSTAGE_POS))
print(f"before: {before}; an MjData of its own after mj_fwdPosition: {alone.actuator_force}")
print(f"expected of simulation 0: {before[0]}; seen: {force[0, 0]}, that of simulation 2 is {before[2]}")
raise SystemExit(0 if alone.actuator_force[0] == before[0] and force[0, 0] == before[2] != before[0] else 1)
PYTHON
