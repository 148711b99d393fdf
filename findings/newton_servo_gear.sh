#!/usr/bin/env bash
# newton 1.8.0: a position servo of MJCF loses its gear, where a motor keeps it: a third of the torque, a ninth of the stiffness.
#
# Expected: <position kp="40" gear="3" forcerange="-25 25"/> acts on its joint with 40 * 3 * 3 = 360 N m/rad and at most 75 N m, in
# Newton's MuJoCo solver as in MuJoCo; or the importer names what it leaves out.
# Seen: 40 N m/rad and at most 25 N m, without a warning. Servos stand before motors, whatever the file's order, and have no names;
# gravity and timestep of the file's <option> are Newton's own (9.81, 0.002), also with `parse_mujoco_options`, whose default is True.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check 'newton[sim]==1.8.0' 2> /dev/null
cd "$place"
WARP_CACHE_PATH="$place/cache" venv/bin/python - 2> said <<'PYTHON' || { cat said; exit 1; }
import warp

warp.config.quiet = True
import mujoco
import newton

ARMS = """
<mujoco>
  <option gravity="0 0 -1.6" timestep="0.01"/>
  <worldbody>
    <body name="left"><joint name="left" axis="0 1 0"/><geom size="0.1" mass="1"/></body>
    <body name="right" pos="0 1 0"><joint name="right" axis="0 1 0"/><geom size="0.1" mass="1"/></body>
  </worldbody>
  <actuator>
    <motor name="motor" joint="right" gear="50"/>
    <position name="servo" joint="left" kp="40" gear="3" forcerange="-25 25"/>
  </actuator>
</mujoco>"""


def told(model):
    """Per actuator the joint, the gear and the stiffness at the joint in N m/rad; gravity in m/s² and timestep in s."""
    actuators = []
    for index in range(model.nu):
        joint = model.joint(model.actuator_trnid[index, 0]).name.rsplit("_", 1)[-1]
        gear = float(model.actuator_gear[index, 0])
        actuators.append((joint, gear, -float(model.actuator_biasprm[index, 1]) * gear**2))
    return actuators, round(float(model.opt.gravity[2]), 2), model.opt.timestep


builder = newton.ModelBuilder()
builder.add_mjcf(ARMS)
theirs = newton.solvers.SolverMuJoCo(builder.finalize(device="cpu"), use_mujoco_cpu=True).mj_model
wanted, seen = told(mujoco.MjModel.from_xml_string(ARMS)), told(theirs)
print(f"MuJoCo: {wanted}\nNewton: {seen}; names {[theirs.actuator(index).name for index in range(theirs.nu)]}")
print("expected: what MuJoCo says; seen: gear 1 and 40 N m/rad for the servo, which comes first")
raise SystemExit(0 if sorted(wanted[0]) != sorted(seen[0]) and seen == ([("left", 1.0, 40.0), ("right", 50.0, 0.0)], -9.81, 0.002) else 1)
PYTHON
if grep -iE "gear|gravity|timestep" said; then
    echo "which it now says"
    exit 1
fi
