#!/usr/bin/env bash
# mujoco.sysid 4.0.0: commands logged once per control step are drawn out into ramps, and the fitted delay takes the blame.
#
# Expected: a command sent at 50 Hz acts on a servo until the next one comes. A log of these commands with their times,
# and of an angle that arrives 20 ms late, gives a delay of 20 ms.
# Seen: between two commands the residual interpolates linearly, so that every command seems to act half a control
# step early: the fit ends at 27 ms, with a residual near 0. With the same commands repeated for every physics step it ends at 18 ms, one
# timestep short.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check 'mujoco[sysid]==4.0.0'
"$place/venv/bin/python" - <<'PYTHON'
import contextlib
import io

import mujoco
import numpy as np
from mujoco import sysid

STEP, HOLD, LATE, STEPS = 0.002, 10, 10, 2000  # s; physics steps of a command, of the delay, of the log
ARM = """
<mujoco>
  <option timestep="0.002"/>
  <worldbody><body><joint name="hinge" damping="0.1"/><geom size="0.1" mass="0.5" pos="0 0 0.1"/></body></worldbody>
  <actuator><position name="servo" joint="hinge" kp="8" kv="0.5"/></actuator>
  <sensor><jointpos name="angle" joint="hinge"/></sensor>
</mujoco>"""
model = mujoco.MjModel.from_xml_string(ARM)
data = mujoco.MjData(model)
commands = np.cumsum(np.random.default_rng(0).normal(0.0, 0.1, STEPS // HOLD))
angles = []
for step in range(STEPS):
    data.ctrl[0] = commands[step // HOLD]
    angles.append(data.qpos[0])
    mujoco.mj_step(model, data)
late = np.concatenate((np.zeros(LATE), angles[:-LATE]))
times = np.arange(STEPS) * STEP


def fitted_delay_ms(command_times, values):
    spec = mujoco.MjSpec.from_string(ARM)
    start = sysid.create_initial_state(model, model.qpos0, np.zeros(model.nv))
    control = sysid.TimeSeries.from_control_names(command_times, values[:, None], model)
    measured = sysid.TimeSeries.from_names(times, late[:, None], model)
    log = sysid.ModelSequences("arm", spec, "log", start, control, measured)
    asked = sysid.ParameterDict()
    asked["delay"] = sysid.Parameter("delay", 0.005, 0.0, 0.1)
    transform = sysid.SignalTransform()
    transform.delay("*", asked["delay"])
    residual = sysid.build_residual_fn(models_sequences=[log], modify_residual=transform.apply, n_threads=1)
    with contextlib.redirect_stdout(io.StringIO()):
        best, _ = sysid.optimize(asked, residual, verbose=False)
    return 1e3 * float(np.asarray(best["delay"].value).item())


logged = fitted_delay_ms(times[::HOLD], commands)
held = fitted_delay_ms(times, np.repeat(commands, HOLD))
print(f"mujoco {mujoco.__version__}: true delay 20 ms; fitted from commands as logged {logged:.1f} ms, held for every step {held:.1f} ms")
print("expected: 20 both times; seen: 27 and 18")
raise SystemExit(0 if 26.0 < logged < 28.5 and 17.5 < held < 18.5 else 1)
PYTHON
