#!/usr/bin/env bash
# pybullet 3.2.7: a shape on a link that is fixed to the first link of a robot with a fixed base touches nothing that stands still.
#
# Expected: a ball on a vertical slide falls onto the plane and stays there, wherever in the tree its shape is: on the link that
# slides, or on a link that is fixed to it.
# Seen: it stays there if the shape is on the sliding link; with the shape on a link fixed to that, it falls through the plane (a body
# without mass) without a warning. With an empty fixed link listed first, which carries nothing, it stays there again.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check 'pybullet==3.2.7' 'numpy==2.4.6' 2> /dev/null
cd "$place"
venv/bin/python - <<'PYTHON'
import pybullet

EMPTY = '<inertial><mass value="0"/><inertia ixx="0" iyy="0" izz="0" ixy="0" ixz="0" iyz="0"/></inertial>'
MASS = '<inertial><mass value="1"/><inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/></inertial>'
BALL = '<collision><geometry><sphere radius="0.1"/></geometry></collision>'
SLIDE = '<limit lower="-100" upper="100" effort="0" velocity="100"/><axis xyz="0 0 1"/><origin xyz="0 0 0.2"/>'


def link(name, inside):
    return f'<link name="{name}">{inside}</link>'


def joint(kind, parent, child, inside=""):
    return f'<joint name="to_{child}" type="{kind}"><parent link="{parent}"/><child link="{child}"/>{inside}</joint>'


CASES = {
    "shape on the sliding link": link("ball", MASS + BALL) + joint("prismatic", "base", "ball", SLIDE),
    "shape on a link fixed to it": link("ball", MASS) + joint("prismatic", "base", "ball", SLIDE)
    + link("shape", EMPTY + BALL) + joint("fixed", "ball", "shape"),
}
CASES["the same behind an empty first link"] = (
    link("first", EMPTY) + joint("fixed", "base", "first") + CASES["shape on a link fixed to it"]
)


def height(parts):
    """Of the ball's lowest point above the plane after 1 s, m."""
    world = pybullet.connect(pybullet.DIRECT)
    pybullet.setGravity(0, 0, -9.81)
    pybullet.createMultiBody(0.0, pybullet.createCollisionShape(pybullet.GEOM_PLANE))
    name = f"robot{world}_{len(parts)}.urdf"
    with open(name, "w", encoding="utf-8") as file:
        file.write(f'<robot name="robot">{link("base", EMPTY)}{parts}</robot>')
    robot = pybullet.loadURDF(name, useFixedBase=True, flags=pybullet.URDF_MAINTAIN_LINK_ORDER)
    index = next(i for i in range(pybullet.getNumJoints(robot)) if pybullet.getJointInfo(robot, i)[12] == b"ball")
    pybullet.setJointMotorControl2(robot, index, pybullet.VELOCITY_CONTROL, force=0)
    for _ in range(240):
        pybullet.stepSimulation()
    found = 0.2 + pybullet.getJointState(robot, index)[0] - 0.1
    pybullet.disconnect()
    return round(found, 2)


seen = {name: height(parts) for name, parts in CASES.items()}
for name, value in seen.items():
    print(f"{name}: {value} m above the plane after 1 s")
print("expected: 0.0 m in all three")
first, second, third = seen.values()
raise SystemExit(0 if abs(first) < 0.02 and second < -1.0 and abs(third) < 0.02 else 1)
PYTHON
