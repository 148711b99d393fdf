#!/usr/bin/env bash
# urchin 0.0.30: a joint that mimics a joint that itself mimics another stays at zero.
#
# Expected: in a finger whose second joint mimics the first and whose third mimics the second, 0.3 rad of the first bend the
# tip by 0.9 rad, as the URDF says; or an error.
# Seen: 0.6 rad. The third joint does not move, and its offset is lost too; no error or warning. Where the third mimics the first
# directly the tip is bent by 0.9 rad. A mimic joint's offset counts only if the joint that it mimics is in the configuration.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check urchin==0.0.30 2> /dev/null
cd "$place"
venv/bin/python -W error::UserWarning - 2> said <<'PYTHON' || { cat said; exit 1; }
from pathlib import Path

import numpy as np
from urchin import URDF

FINGER = """
<robot name="finger">
  <link name="palm"/><link name="proximal"/><link name="middle"/><link name="tip"/>
  <joint name="first" type="revolute"><parent link="palm"/><child link="proximal"/>{limit}</joint>
  <joint name="second" type="revolute"><parent link="proximal"/><child link="middle"/>{limit}<mimic joint="first"/></joint>
  <joint name="third" type="revolute"><parent link="middle"/><child link="tip"/>{limit}<mimic joint="{master}" offset="{offset}"/></joint>
</robot>"""
LIMIT = '<axis xyz="0 0 1"/><limit lower="-2" upper="2" effort="1" velocity="1"/>'


def bent(master, offset=0.0, cfg=None):
    """Angle of the tip about z in rad."""
    Path("finger.urdf").write_text(FINGER.format(limit=LIMIT, master=master, offset=offset))
    pose = URDF.load("finger.urdf").link_fk(cfg=cfg, link="tip")
    return round(float(np.arctan2(pose[1, 0], pose[0, 0])), 6)


chain, direct = bent("second", cfg={"first": 0.3}), bent("first", cfg={"first": 0.3})
lost, kept, without = bent("second", 0.1, {"first": 0.3}), bent("first", 0.1, {"first": 0.3}), bent("first", 0.1)
print(f"bent by 0.3 rad at the first joint, the third mimics the second: {chain} rad; the first: {direct} rad")
print(f"with an offset of 0.1 rad: {lost} and {kept} rad; with no configuration given: {without} rad")
print("expected: 0.9, 0.9, 1.0, 1.0, 0.1; seen: 0.6, 0.9, 0.6, 1.0, 0")
raise SystemExit(0 if (chain, direct, lost, kept, without) == (0.6, 0.9, 0.6, 1.0, 0.0) else 1)
PYTHON
if [ -s said ]; then
    echo "it now says:"
    cat said
    exit 1
fi
