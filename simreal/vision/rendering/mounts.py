"""Cameras that a user puts up beside those of a task's model: they only look, and change nothing in the simulation."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import mujoco
import numpy as np
from pydantic import Field, model_validator

from envs.common.messages import nearest
from envs.task import editing_specs, spec_edits
from simreal.common.errors import UserError
from simreal.learners.options import Strict

Point = tuple[float, float, float]


class Mount(Strict):
    """Where a camera hangs, and where it looks."""

    pos: Point = Field(description="m, in the body's frame")
    lookat: Point = Field(description="m, in the body's frame: what is in the middle of the picture")
    fovy: float = Field(45.0, gt=1, lt=170, description="vertical field of view, degrees")
    body: str = Field("world", description="that carries it")

    @model_validator(mode="after")
    def _looks_somewhere(self) -> Mount:
        if np.allclose(self.pos, self.lookat):
            raise ValueError("lookat: expected another place than pos")
        return self

    def quat(self) -> np.ndarray:
        """Orientation [4] of the camera; up in the picture is as near to the body's z axis as can be."""
        back = np.subtract(self.pos, self.lookat) / np.linalg.norm(np.subtract(self.pos, self.lookat))
        above = (0.0, 0.0, 1.0) if abs(back[2]) < 0.999 else (0.0, 1.0, 0.0)
        right = np.cross(above, back) / np.linalg.norm(np.cross(above, back))
        found = np.zeros(4)
        mujoco.mju_mat2Quat(found, np.stack((right, np.cross(back, right), back), axis=1).flatten())
        return found


@dataclass(frozen=True)
class AddCameras:
    """Puts cameras into a specification before it is compiled; see `editing_specs`. Raises UserError."""

    mounts: tuple[tuple[str, Mount], ...]

    def __call__(self, spec: mujoco.MjSpec) -> None:
        """Add the cameras that are not there yet."""
        for name, mount in self.mounts:
            bodies = {body.name: body for body in spec.bodies}
            if mount.body not in bodies:
                raise UserError(f"mounts.{name}.body: no body {mount.body!r}{nearest(mount.body, bodies)}")
            if name in {camera.name for camera in spec.cameras}:
                raise UserError(f"mounts.{name}: the model has a camera of that name; expected another name")
            bodies[mount.body].add_camera(name=name, pos=mount.pos, quat=mount.quat(), fovy=mount.fovy)


@contextmanager
def mounted(mounts: Mapping[str, Mount]) -> Generator[None]:
    """Within the block, tasks are made with these cameras. One that a block around this one puts up already, as that of
    an estimator in the environment that it looks into, is not put up twice.

    Raises:
        UserError: another camera of that name hangs elsewhere.
    """
    there = dict(pair for edit in spec_edits() if isinstance(edit, AddCameras) for pair in edit.mounts)
    for name, mount in mounts.items():
        if there.get(name, mount) != mount:
            raise UserError(f"mounts.{name}: another camera of that name hangs elsewhere; expected another name")
    added = tuple((name, mount) for name, mount in mounts.items() if name not in there)
    if not added:
        yield
        return
    with editing_specs(AddCameras(added)):
        yield
