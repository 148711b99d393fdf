"""What installers leave behind: modules, and metadata with their entry points."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

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
