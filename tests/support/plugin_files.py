"""What installers leave behind: modules, and metadata with their entry points."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from randomization.catalogue import table
from randomization.catalogue.quantity import QUANTITIES
from simreal.learners import registry

# A flywheel: a motor of 5 N m per unit of control that saturates at 2 N m, behind a gear of 3; beside it a ball.
WHEEL = """
<mujoco>
  <option timestep="0.004" gravity="0 0 0"/>
  <worldbody>
    <body name="wheel"><joint name="axle" axis="0 0 1" damping="0.4"/><geom size="0.1" mass="20"/></body>
    <body name="ball" pos="1 0 0"><joint name="socket" type="ball" damping="0.2"/><geom size="0.1" mass="1"/></body>
  </worldbody>
  <actuator>
    <general name="motor" joint="axle" gainprm="5" gear="3" forcelimited="true" forcerange="-2 2"/>
    <motor name="free" joint="socket" gear="0 0 1 0 0 0"/>
  </actuator>
</mujoco>
"""

PLUGIN = Path(__file__).resolve().parents[2] / "examples" / "plugin"


def announce(folder: Path, module: str, named: Mapping[str, str], code: str) -> None:
    """A module of that code, announced as "learners" or "quantities" of these names."""
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    groups = [f"[simreal.{group}]\n{name} = {module}\n" for group, name in named.items()]
    (info / "entry_points.txt").write_text("\n".join(groups))
    (folder / f"{module}.py").write_text(code)


def unpacked(site: Path) -> Path:
    """A folder with the files of examples/plugin and what it announces."""
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())
    info = site / "simreal_example_plugin-0.2.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: simreal-example-plugin\nVersion: 0.2.0\n")
    groups = project["project"]["entry-points"].items()
    lines = [line for group, named in groups for line in (f"[{group}]", *(f"{n} = {m}" for n, m in named.items()))]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    for file in project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]:
        (site / file).write_text((PLUGIN / file).read_text())
    return site


@contextmanager
def installed_from(site: Path) -> Iterator[Path]:
    """Python finds the modules and packages of a folder; afterwards it is as if none had registered anything."""
    registers: list[Any] = [QUANTITIES, table._HOMES, registry._LEARNERS]
    before, modules, path = [dict(one) for one in registers], set(sys.modules), list(sys.path)
    sys.path.insert(0, str(site))
    try:
        yield site
    finally:
        sys.path[:] = path
        for present, known in zip(registers, before, strict=True):
            present.clear()
            present.update(known)
        for name in set(sys.modules) - modules:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(site.parent)):
                del sys.modules[name]
