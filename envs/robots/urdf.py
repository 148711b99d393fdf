"""URDF as its own XML says it, and as MuJoCo gets it.

MuJoCo drops velocity limits, makes `mimic` a soft constraint, takes an effort of 0 for none, finds no `package://`, and
merges the base into the world: what was asked for is in the XML alone. (https://wiki.ros.org/urdf/XML)
"""

from __future__ import annotations

import copy
import math
import os
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from pathlib import Path

import mujoco
import numpy as np

from envs.common.errors import TaskError

LOADABLE = (".stl", ".obj", ".msh")  # meshes that MuJoCo reads
MOVING = ("revolute", "continuous", "prismatic", "floating", "planar")
_SCHEMES = ("package://", "model://", "file://")


@dataclass(frozen=True)
class UrdfJoint:
    """A joint; numbers that are not given are None, and NaN where they are no numbers."""

    name: str
    type: str
    parent: str
    child: str
    axis: tuple[float, ...]
    lower: float | None
    upper: float | None
    effort: float | None
    velocity: float | None
    damping: float | None
    friction: float | None
    mimic: str | None
    limited: bool  # whether there is a <limit>


@dataclass(frozen=True)
class UrdfLink:
    """A link; `inertia` are ixx, ixy, ixz, iyy, iyz, izz about its centre of mass, kg m^2."""

    name: str
    mass: float | None  # kg; None without <inertial>
    inertia: tuple[float, ...] | None
    com: tuple[float, ...]

    def matrix(self) -> np.ndarray:
        """The inertia [3, 3]."""
        xx, xy, xz, yy, yz, zz = self.inertia or (math.nan,) * 6
        return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


@dataclass
class Urdf:
    """A URDF.

    Attributes:
        path: of the file.
        tree: its XML, with meshes as MuJoCo gets them.
        links, joints: by name.
        assets: meshes by the names that `tree` has for them.
        lost: meshes that were not found or cannot be read, as the file names them; those of collisions first.
        unseen: of these, the ones that are only looks.
    """

    path: Path
    tree: ET.Element
    links: dict[str, UrdfLink]
    joints: dict[str, UrdfJoint]
    assets: dict[str, Path] = field(default_factory=dict[str, Path])
    lost: list[str] = field(default_factory=list[str])
    unseen: list[str] = field(default_factory=list[str])

    @property
    def root(self) -> str | None:
        """The link that no joint carries; None where there are none or several."""
        children = {joint.child for joint in self.joints.values()}
        roots = [name for name in self.links if name not in children]
        return roots[0] if len(roots) == 1 else None

    def spec(self) -> mujoco.MjSpec:
        """The robot for MuJoCo: its base stays a body, meshes are there, looks too. Raises TaskError."""
        data = {name: path.read_bytes() for name, path in self.assets.items()}
        try:
            spec = mujoco.MjSpec.from_string(ET.tostring(self.tree, encoding="unicode"), assets=data)
        except ValueError as error:
            raise TaskError(f"{self.path.name}: MuJoCo cannot read it: {' '.join(str(error).split())}") from None
        still = {self.root} if self.root else set[str]()
        while grown := {j.child for j in self.joints.values() if j.type == "fixed" and j.parent in still} - still:
            still |= grown
        for joint in self.joints.values():
            # MuJoCo lets neighbours through, but for a base that is fixed to the world.
            both = spec.body(joint.parent), spec.body(joint.child)
            if joint.type != "fixed" and joint.parent in still and all(body is not None for body in both):
                spec.add_exclude(name=joint.name, bodyname1=joint.parent, bodyname2=joint.child)
        return spec


def read_urdf(path: Path) -> Urdf:
    """Read a URDF; raises TaskError where it is no XML."""
    try:
        root = ET.parse(path).getroot()
    except (ET.ParseError, OSError) as error:
        raise TaskError(f"{path}: is no XML ({error})") from None
    links = {e.get("name", ""): _link(e) for e in root.findall("link")}
    joints = {e.get("name", ""): _joint(e) for e in root.findall("joint")}
    urdf = Urdf(path, copy.deepcopy(root), links, joints)
    _take_meshes(urdf)
    _compile_whole(urdf.tree)
    return urdf


def _number(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        return math.nan


def _numbers(text: str | None, fallback: tuple[float, ...]) -> tuple[float, ...]:
    if text is None:
        return fallback
    return tuple(math.nan if (value := _number(word)) is None else value for word in text.split())


def _link(element: ET.Element) -> UrdfLink:
    inertial = element.find("inertial")
    if inertial is None:
        return UrdfLink(element.get("name", ""), None, None, (0.0, 0.0, 0.0))
    mass, inertia, origin = (inertial.find(tag) for tag in ("mass", "inertia", "origin"))
    values = None
    if inertia is not None:
        given = [_number(inertia.get(key)) for key in ("ixx", "ixy", "ixz", "iyy", "iyz", "izz")]
        values = tuple(0.0 if value is None else value for value in given)
    com = _numbers(None if origin is None else origin.get("xyz"), (0.0, 0.0, 0.0))
    return UrdfLink(element.get("name", ""), None if mass is None else _number(mass.get("value")), values, com)


def _joint(element: ET.Element) -> UrdfJoint:
    def of(tag: str, key: str) -> str | None:
        child = element.find(tag)
        return None if child is None else child.get(key)

    number = lambda tag, key: _number(of(tag, key))  # noqa: E731
    return UrdfJoint(
        element.get("name", ""), element.get("type", ""), of("parent", "link") or "", of("child", "link") or "",
        _numbers(of("axis", "xyz"), (1.0, 0.0, 0.0)), number("limit", "lower"), number("limit", "upper"),
        number("limit", "effort"), number("limit", "velocity"), number("dynamics", "damping"),
        number("dynamics", "friction"), of("mimic", "joint"), element.find("limit") is not None,
    )  # fmt: skip


def _take_meshes(urdf: Urdf) -> None:
    """Point meshes of `tree` at `assets`; those that cannot be had are taken out and noted."""
    for link in urdf.tree.findall("link"):
        for kind in ("collision", "visual"):
            for element in link.findall(kind):
                mesh = element.find("geometry/mesh")
                if mesh is None:
                    continue
                asked = mesh.get("filename", "")
                found = find_mesh(asked, urdf.path)
                if found is None:
                    link.remove(element)
                    told = asked if asked else "(a mesh without a file name)"
                    if told not in urdf.lost:
                        urdf.lost.append(told)
                    if kind == "visual" and told not in urdf.unseen:
                        urdf.unseen.append(told)
                    elif kind == "collision" and told in urdf.unseen:
                        urdf.unseen.remove(told)
                    continue
                mesh.set("filename", _asset(urdf, found))


def _asset(urdf: Urdf, path: Path) -> str:
    """A name for a file that no other has: MuJoCo calls meshes by the ends of their paths."""
    for name, other in urdf.assets.items():
        if other == path:
            return name
    name = path.name
    if name in urdf.assets:
        name = f"{path.parent.name}_{path.name}"
    while name in urdf.assets:
        name = f"_{name}"
    urdf.assets[name] = path
    return name


def find_mesh(asked: str, urdf: Path) -> Path | None:
    """The file that a URDF's mesh means, in a form that MuJoCo reads; None where there is none.

    `package://NAME/REST` is looked for in the folders above the URDF, with and without NAME, and in ROS_PACKAGE_PATH. A
    mesh in a form that MuJoCo does not read (COLLADA) is replaced by one of the same name that it reads.
    """
    rest = asked
    for scheme in _SCHEMES:
        rest = rest.removeprefix(scheme)
    places = [Path(rest)] if Path(rest).is_absolute() else [urdf.parent / rest]
    if asked != rest and not Path(rest).is_absolute():
        package, _, inner = rest.partition("/")
        for folder in urdf.parents:
            places += [folder / rest, *([folder / inner] if inner else [])]
            if folder.name == package:
                break
        places += [Path(root) / rest for root in os.environ.get("ROS_PACKAGE_PATH", "").split(os.pathsep) if root]
    for place in places:
        for file in (place, *(place.with_suffix(suffix) for suffix in LOADABLE)):
            if file.suffix.lower() in LOADABLE and file.is_file():
                return file.resolve()
    return None


def _compile_whole(tree: ET.Element) -> None:
    """Have MuJoCo keep the base as a body, and the looks."""
    own = tree.find("mujoco")
    own = ET.SubElement(tree, "mujoco") if own is None else own
    compiler = own.find("compiler")
    compiler = ET.SubElement(own, "compiler") if compiler is None else compiler
    for key in ("meshdir", "assetdir", "texturedir"):
        compiler.attrib.pop(key, None)
    compiler.attrib |= {"strippath": "false", "fusestatic": "false", "discardvisual": "false"}
