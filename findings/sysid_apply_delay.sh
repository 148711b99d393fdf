#!/usr/bin/env bash
# mujoco.sysid 4.0.0: apply_delay delays the series that it is given, in place.
#
# Expected: a delayed copy, as apply_gain and apply_bias return one; the logged series stays as it was, so that the delay
# can be tried again with another value.
# Seen: the logged series itself is delayed; each further call adds to it. A fit that evaluates the same log for several
# delays measures the sum of all that were tried.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check 'mujoco[sysid]==4.0.0'
"$place/venv/bin/python" - <<'PYTHON'
import mujoco
import numpy as np
from mujoco import sysid

model = mujoco.MjModel.from_xml_string("""
<mujoco>
  <worldbody><body><joint name="hinge"/><geom size="0.1"/></body></worldbody>
  <sensor><jointpos name="angle" joint="hinge"/></sensor>
</mujoco>""")
times = np.arange(0.0, 1.0, 0.01)


def logged():
    return sysid.TimeSeries.from_names(times, np.sin(6.0 * times)[:, None], model)


def changed_by(function, value):
    series = logged()
    function(series, "angle", sysid.Parameter("p", value, -2.0, 2.0))
    return float(np.abs(series.data - logged().data).max())


gain, bias, delay = (
    changed_by(f, v) for f, v in ((sysid.apply_gain, 2.0), (sysid.apply_bias, 1.0), (sysid.apply_delay, 0.1))
)
print(f"mujoco {mujoco.__version__}: the input changes by {gain:g} (gain), {bias:g} (bias), {delay:.3f} (delay of 0.1 s)")
print("expected: 0 for all three; seen: the delay is written into the input")
raise SystemExit(0 if gain == bias == 0.0 and delay > 0.1 else 1)
PYTHON
