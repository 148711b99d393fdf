"""Components that follow from what an estimator reads, by arithmetic that its contract states.

Part of `simreal.deploy`, which imports nothing else of simreal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..files import BundleError
from .rotations import quat_to_matrix

Numbers = NDArray[np.float64]
_MARKS = "marks"
_TABLES = ("first", "across", "normals", "right", "up", "out")  # of a rule "marks": directions [6, 3] each


@dataclass(frozen=True)
class Follows:
    """A component of six angles: how far the faces of a body have been turned about their normals.

    Where a mark on each face lies is read for the six sides of a frame that the body turns in: as an angle from the
    side's axis `right` towards `up`, of the face that points most to the side. The body's orientation says which face
    that is, and what the mark's direction is on it.

    Attributes:
        name: of the component.
        of: what is read: a quaternion, and the angles of marks.
        tables: directions; in the body's frame where each face's mark lies (`first`), a quarter turn further (`across`)
            and out of the face (`normals`); in the other frame each side's axes, and out of it (`out`).
    """

    name: str
    of: tuple[str, str]
    tables: Mapping[str, Numbers]

    def estimate(self, found: Mapping[str, tuple[Numbers, Numbers]]) -> tuple[Numbers, Numbers]:
        """Angles [B, 6], rad, and standard deviations, as far as the right face is looked at.

        Args:
            found: values and deviations of what is read.
        """
        (quat, turned), (marks, spread) = (found[name] for name in self.of)
        t, turn = self.tables, quat_to_matrix(quat)
        pointing = np.einsum("bij,fj->bfi", turn, t["normals"])  # [B, face, xyz]
        faces = np.stack((pointing.argmax(axis=1), pointing.argmin(axis=1)), axis=2).reshape(len(quat), 6)
        seen = np.cos(marks)[..., None] * t["right"] + np.sin(marks)[..., None] * t["up"]
        normal = np.take_along_axis(pointing, faces[..., None], axis=1)
        # What a picture from outside does not show of the direction is that it lies in the face.
        along = (seen * normal).sum(-1) / np.maximum((t["out"] * normal).sum(-1), 1e-6)
        mark = np.einsum("bji,bsj->bsi", turn, seen - along[..., None] * t["out"])
        angle = np.arctan2((mark * t["across"][faces]).sum(-1), (mark * t["first"][faces]).sum(-1))
        value, deviation = np.zeros_like(marks), np.full_like(marks, np.pi)
        np.put_along_axis(value, faces, angle, axis=1)
        np.put_along_axis(deviation, faces, np.hypot(spread, turned), axis=1)
        return value, deviation


def read_follows(contract: Mapping[str, Any], reads: Mapping[str, tuple[str, int]]) -> tuple[Follows, ...]:
    """What follows from what an estimator reads (name: kind and size), of its contract. Raises BundleError."""
    entries = contract.get("follows", [])
    if not isinstance(entries, list):
        raise BundleError("follows: expected a list of components")
    return tuple(_one(entry, f"follows[{i}]", reads) for i, entry in enumerate(entries))


def _one(entry: Any, where: str, reads: Mapping[str, tuple[str, int]]) -> Follows:
    if not isinstance(entry, dict) or entry.get("rule") != _MARKS:
        raise BundleError(f"{where}: expected a component with the rule {_MARKS!r}; a later version may know it")
    name, of = entry.get("name"), entry.get("of")
    parts = [part for part in of if isinstance(part, str)] if isinstance(of, list) else []
    if not isinstance(name, str) or [reads.get(part) for part in parts] != [("quaternion", 4), ("angles", 6)]:
        raise BundleError(f"{where}.of: expected a quaternion and six angles that are read")
    tables = entry.get("tables")
    try:
        found = {key: np.array(tables[key], dtype=np.float64) for key in _TABLES}  # type: ignore[index]
    except (KeyError, TypeError, ValueError):
        found = {}
    if not found or any(table.shape != (6, 3) or not np.isfinite(table).all() for table in found.values()):
        raise BundleError(f"{where}.tables: expected {', '.join(_TABLES)} of 6 x 3 numbers each")
    return Follows(name, (parts[0], parts[1]), found)
