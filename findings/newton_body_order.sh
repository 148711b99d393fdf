#!/usr/bin/env bash
# newton 1.8.0: SolverFeatherstone gives joint i the inertia of body i: who adds bodies in another order than joints gets another robot.
#
# Expected: the order in which `ModelBuilder.add_link` is called does not matter, for every joint names its parent and its child;
# or `add_articulation`, `finalize` or the solver refuse an order that they cannot simulate. `add_articulation` asks for
# contiguous and rising joints only, and the builder's and the solver's documentation say nothing of the order of bodies.
# Seen: 1 N m on a wheel of 1 kg m^2 and on one of 10 kg m^2 makes 1 and 0.1 rad/s in 1 s where bodies come as their joints do, and
# 0.1 and 1 rad/s where they come the other way round, without a warning.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check 'newton==1.8.0' 'numpy==2.4.6' 2> /dev/null
cd "$place"
WARP_CACHE_PATH="$place/cache" venv/bin/python - > said 2>&1 <<'PYTHON' || { cat said; exit 1; }
import newton
import numpy as np
import warp as wp


def speeds(light_first):
    """Speeds after 1 s under 1 N m, rad/s: of the light wheel and of the heavy one. Only the order of bodies differs."""
    builder = newton.ModelBuilder(gravity=(0.0, 0.0, 0.0))
    inertias = {"light": 1.0, "heavy": 10.0}  # kg m^2
    bodies = {}
    for name in ("light", "heavy") if light_first else ("heavy", "light"):
        bodies[name] = builder.add_link(mass=1.0, inertia=wp.mat33(*(inertias[name] * np.eye(3)).ravel()), label=name)
    for name in ("light", "heavy"):
        joint = builder.add_joint_revolute(-1, bodies[name], axis=(0.0, 0.0, 1.0), armature=0.0, label=name)
        builder.add_articulation([joint])
    model = builder.finalize(device="cpu", skip_validation_joint_ordering=False)
    solver = newton.solvers.SolverFeatherstone(model)
    now, then, control = model.state(), model.state(), model.control()
    control.joint_f.assign([1.0, 1.0])
    for _ in range(1000):
        now.clear_forces()
        solver.step(now, then, control, None, 0.001)
        now, then = then, now
    twists = now.body_qd.numpy()
    return [round(float(twists[bodies[name], 5]), 2) for name in ("light", "heavy")]


seen = {first: speeds(first) for first in (True, False)}
for first, (light, heavy) in seen.items():
    print(f"bodies {'as joints come' if first else 'the other way round'}: light {light}, heavy {heavy} rad/s")
print("expected: light 1, heavy 0.1 rad/s in both")
raise SystemExit(0 if seen == {True: [1.0, 0.1], False: [0.1, 1.0]} else 1)
PYTHON
grep -E "rad/s" said
