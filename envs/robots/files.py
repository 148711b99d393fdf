"""A robot's file as somebody has it: MJCF, URDF, or the name of a model of MuJoCo Menagerie."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import mujoco

from envs.common.errors import TaskError
from envs.common.messages import near_file
from envs.platform.menagerie import robot_path
from envs.robots.urdf import Urdf, read_urdf

_KINDS = {"mujoco": "mjcf", "mujocoinclude": "mjcf", "robot": "urdf"}
_SUFFIXES = (".xml", ".mjcf", ".urdf", ".sdf", ".xacro", ".usd", ".usda", ".usdc", ".dae", ".stl", ".obj", ".world")
_FOLDERS = {  # element -> attributes of <compiler> that say where its file lies, the first that is given
    "mesh": ("meshdir", "assetdir"), "texture": ("texturedir", "assetdir"), "hfield": ("meshdir", "assetdir"),
    "skin": ("meshdir", "assetdir"), "flexcomp": ("meshdir", "assetdir"),
}  # fmt: skip
_MOST_FILES = 2000  # of one robot


@dataclass
class RobotFile:
    """A robot's file, read as far as that goes.

    Attributes:
        name: as the user called it.
        path: of the file.
        kind: of the file.
        model: the same compiled, as it stands; None where it does not compile.
        error: why not, in MuJoCo's words; "" where it does.
        urdf: what the URDF itself says, of which MuJoCo takes over a part; None of an MJCF.
        missing: files that it names and that are not there.
    """

    name: str
    path: Path
    kind: Literal["mjcf", "urdf"]
    model: mujoco.MjModel | None = None
    error: str = ""
    urdf: Urdf | None = None
    missing: list[str] = field(default_factory=list[str])

    def again(self) -> mujoco.MjSpec:
        """The specification once more, to edit. Raises TaskError where MuJoCo cannot read the file."""
        if self.urdf is not None:
            return self.urdf.spec()
        try:
            return mujoco.MjSpec.from_file(str(self.path))
        except ValueError as error:
            raise TaskError(f"{self.name}: MuJoCo cannot read it: {_plain(error)}") from None


def open_robot(name: str) -> RobotFile:
    """Find and read a robot.

    Args:
        name: a path, or a name of MuJoCo Menagerie ("unitree_go2", "wonik_allegro/right_hand").

    Raises:
        TaskError: there is no such robot, or it is neither MJCF nor URDF; one line.
    """
    path = Path(name)
    if not path.is_file():
        if path.is_dir():
            files = sorted(p.name for p in path.iterdir() if p.suffix in (".xml", ".urdf"))
            raise TaskError(f"{name}: is a folder; expected the file of a robot{_as(path, files)}")
        if path.suffix.lower() in _SUFFIXES or len(path.parts) > 2:
            raise TaskError(f"{name}: no such file{near_file(path)}; expected MJCF, URDF or a Menagerie name")
        path = robot_path(name)
    path = path.resolve()
    robot = RobotFile(name, path, _kind(name, path))
    try:
        if robot.kind == "urdf":
            robot.urdf = read_urdf(path)
            robot.missing = robot.urdf.lost
        else:
            robot.missing = [str(file) for file in files_of(path) if not file.is_file()]
        robot.model = robot.again().compile()
    except TaskError as error:
        robot.error = str(error).removeprefix(f"{name}: MuJoCo cannot read it: ")
    except ValueError as error:
        robot.error = _plain(error)
    return robot


def _as(folder: Path, files: list[str]) -> str:
    return f", as {folder / files[0]}" if files else ""


def _plain(error: Exception) -> str:
    return " ".join(str(error).split())


def _kind(name: str, path: Path) -> Literal["mjcf", "urdf"]:
    """What a file is, by its root element. Raises TaskError for anything else."""
    try:
        root = ET.parse(path).getroot()
    except (ET.ParseError, UnicodeDecodeError, OSError, LookupError) as error:
        raise TaskError(f"{name}: is no XML ({_plain(error)}); expected MJCF or URDF") from None
    tag = root.tag.rpartition("}")[2]
    if any("xacro" in str(element.tag) for element in root.iter()):
        raise TaskError(f"{name}: is a xacro; expected what it makes: xacro {path.name} > robot.urdf")
    if tag == "sdf":
        raise TaskError(f"{name}: is an SDF, which MuJoCo does not read; expected MJCF or URDF of the same robot")
    if tag not in _KINDS:
        raise TaskError(f"{name}: begins with <{tag}>; expected <mujoco> (MJCF) or <robot> (URDF)")
    return "mjcf" if _KINDS[tag] == "mjcf" else "urdf"


def files_of(path: Path) -> Iterator[Path]:
    """The files that an MJCF file is made of, itself first; those that are not there too.

    Raises:
        TaskError: it is no XML, or names too many.
    """
    folders: dict[str, str] = {}
    trees: list[ET.Element] = []
    waiting, seen = [path], set[Path]()
    while waiting:
        here = waiting.pop(0)
        if here in seen:
            continue
        seen.add(here)
        yield here
        if not here.is_file():
            continue
        try:
            root = ET.parse(here).getroot()
        except ET.ParseError as error:
            raise TaskError(f"{here}: is no XML ({_plain(error)})") from None
        trees.append(root)
        for compiler in root.iter("compiler"):
            folders |= {key: value for key, value in compiler.attrib.items() if key.endswith("dir")}
        waiting += [path.parent / e.attrib["file"] for e in root.iter("include") if "file" in e.attrib]
        waiting += [here.parent / e.attrib["file"] for e in root.iter("model") if "file" in e.attrib]
        if len(seen) > _MOST_FILES:
            raise TaskError(f"{path}: is made of more than {_MOST_FILES} files")
    for root in trees:
        for element in root.iter():
            where = _FOLDERS.get(str(element.tag))
            if where is None:
                continue
            folder = next((folders[key] for key in where if key in folders), "")
            for key, value in element.attrib.items():
                if key.startswith("file") and value and (found := (path.parent / folder / value)) not in seen:
                    seen.add(found)
                    yield found
