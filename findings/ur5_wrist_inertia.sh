#!/usr/bin/env bash
# example-robot-data 6.0.0: the wrists of the UR5 are stated with a hundred times the inertia that they can have; UR3's and UR10's are not.
#
# Expected: a moment of inertia is at most mass times the square of the farthest point's distance from the axis: the collision mesh of a
# wrist of 1.2 kg reaches some 7 cm, so 0.006 kg m² at most (and about 0.0022 for a cylinder of that size).
# Seen: 0.219 kg m², the radius of gyration is 42 cm; of the last wrist (0.19 kg) 0.034, likewise. The six numbers are those of a solid
# cylinder of 60 cm radius. Nothing that loads the file objects, since each tensor by itself is one that a body could have.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps example-robot-data==6.0.0 2> /dev/null
"$place/venv/bin/python" - "$place" <<'PYTHON'
import math
import struct
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

folder = next(Path(sys.argv[1]).rglob("ur_description"))
wrong = []
for robot in ("ur3", "ur5", "ur10"):
    for link in ElementTree.parse(folder / "urdf" / f"{robot}_robot.urdf").getroot().iter("link"):
        mesh = link.find("collision/geometry/mesh")
        if mesh is None or not link.get("name", "").startswith("wrist"):
            continue
        mass = float(link.find("inertial/mass").get("value"))
        most = max(float(link.find("inertial/inertia").get(axis)) for axis in ("ixx", "iyy", "izz"))
        data = (folder / mesh.get("filename").split("ur_description/")[1]).read_bytes()
        (count,) = struct.unpack_from("<I", data, 80)
        points = [struct.unpack_from("<3f", data, 84 + 50 * i + 12 * k) for i in range(count) for k in (1, 2, 3)]
        middle = [(min(p[i] for p in points) + max(p[i] for p in points)) / 2 for i in range(3)]
        reach = max(math.dist(p, middle) for p in points)
        print(f"{robot} {link.get('name')}: {mass} kg, reaches {reach:.3f} m: at most {mass * reach**2:.4f} kg m^2, stated {most:.4f}")
        if most > 10 * mass * reach**2:
            wrong.append(f"{robot} {link.get('name')}")
print("expected: none states more than ten times what its shape can have; seen:", ", ".join(wrong))
raise SystemExit(0 if wrong == [f"ur5 wrist_{i}_link" for i in (1, 2, 3)] else 1)
PYTHON
