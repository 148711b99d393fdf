#!/usr/bin/env bash
# pybullet 3.2.7: a URDF in one line of more than 8191 bytes is read with the end of a line in it, which may cut a number in two.
#
# Expected: the upper limit of a joint is -0.888, as the file says, whether the file has one line or two: line ends mean nothing in XML.
# Seen: loadURDF reads lines in pieces of 8191 bytes and puts the end of a line between two pieces. Where that falls into the digits
# of upper="-0.888", the joint's limit is -0.8, without a warning; in the same text with the end of a line before it, -0.888.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check 'pybullet==3.2.7' 'numpy==2.4.6' 2> /dev/null
cd "$place"
venv/bin/python - <<'PYTHON'
import pybullet

PIECE = 8191
MASS = '<inertial><mass value="1"/><inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/></inertial>'
ROBOT = (
    f'<link name="a">{MASS}</link><link name="b">{MASS}</link><joint name="j" type="revolute"><parent link="a"/>'
    '<child link="b"/><axis xyz="0 0 1"/><limit lower="-2.818" upper="-0.888" effort="1" velocity="1"/></joint></robot>'
)
CUT = ROBOT.index("-0.888") + len("-0.8")


def upper(between):
    """The joint's upper limit where a comment fills the line up to the cut, and `between` follows the comment."""
    head, name = '<robot name="robot"><!--', f"robot{len(between)}.urdf"
    with open(name, "w", encoding="utf-8") as file:
        file.write(f"{head}{'x' * (PIECE - len(head) - len('-->') - CUT)}-->{between}{ROBOT}")
    pybullet.connect(pybullet.DIRECT)
    found = pybullet.getJointInfo(pybullet.loadURDF(name, useFixedBase=True), 0)[9]
    pybullet.disconnect()
    return found


one, two = upper(""), upper("\n")
print(f"upper limit in one line: {one}; in two lines: {two}")
print("expected: -0.888 in both")
raise SystemExit(0 if (one, two) == (-0.8, -0.888) else 1)
PYTHON
