"""A robot's model as files of its own: an MJCF with all that belongs to it, or a URDF as MJCF."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import mujoco
import numpy as np

from envs.robots.files import RobotFile, files_of
from simreal.common.errors import UserError

FOLDER = "model"
_SAME = ("body_mass", "body_inertia", "body_pos", "jnt_range", "jnt_axis", "dof_damping", "dof_frictionloss",
         "jnt_actfrcrange", "geom_pos", "geom_size", "geom_contype")  # fmt: skip
_CLOSE = 1e-5


def write_model(robot: RobotFile, name: str, package: Path) -> str:
    """Write the model into the package; returns where, from the package.

    Raises:
        UserError: what was written is not the same robot.
    """
    assert robot.model is not None
    if robot.urdf is None:
        made = _copied(robot, package)
    else:
        made = _converted(robot, name, package)
    try:
        model = mujoco.MjModel.from_xml_path(str(package / made))
    except ValueError as error:
        raise UserError(f"{robot.name}: its copy does not compile: {' '.join(str(error).split())}") from None
    for field in _SAME:
        old, new = getattr(robot.model, field), getattr(model, field)
        if old.shape != new.shape or not np.allclose(old, new, rtol=_CLOSE, atol=_CLOSE):
            raise UserError(f"{robot.name}: its copy as MJCF differs in {field}; name an MJCF of it instead")
    return made


def _copied(robot: RobotFile, package: Path) -> str:
    """All files of an MJCF, as they lie to each other."""
    files = [Path(os.path.normpath(file)) for file in files_of(robot.path)]
    root = Path(os.path.commonpath([file.parent for file in files]))
    for file in dict.fromkeys(files):
        target = package / FOLDER / file.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    return str(Path(FOLDER) / robot.path.relative_to(root))


def _converted(robot: RobotFile, name: str, package: Path) -> str:
    """A URDF as MJCF, its meshes beside it."""
    assert robot.urdf is not None
    spec = robot.again()
    spec.meshdir = "assets"
    spec.compile()
    folder = package / FOLDER
    folder.mkdir(parents=True)
    used = {mesh.file for mesh in spec.meshes}
    for asset, path in robot.urdf.assets.items():
        if asset in used:
            (folder / "assets").mkdir(exist_ok=True)
            shutil.copyfile(path, folder / "assets" / asset)
    (folder / f"{name}.xml").write_text(spec.to_xml())
    return f"{FOLDER}/{name}.xml"
