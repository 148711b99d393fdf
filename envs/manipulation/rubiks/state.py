"""States of a cube: stickers on facelets, 54-letter strings, and poses of its 26 cubelets.

The cube's frame has its origin at the centre, x out of R, y out of B and z out of U. A state is kept as labels: which
of the 54 stickers lies on each facelet. Facelet 9 f + 3 r + c is in row r and column c of face f of `FACES`, as
programs that solve cubes have it (URFDLB, each face seen from outside: U with B on top, D with F on top, the others
with U on top). Stickers are numbered by where they lie on a solved cube. So labels say of every cubelet where it is
and how it is turned; centres only spin, which a facelet string does not show.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cache

import numpy as np

from envs.manipulation.rubiks.notation import FACES, CubeError, Move

# Of each face: out of it, along a row, down a column.
_VIEWS = {
    "U": ((0, 0, 1), (1, 0, 0), (0, -1, 0)),
    "R": ((1, 0, 0), (0, 1, 0), (0, 0, -1)),
    "F": ((0, -1, 0), (1, 0, 0), (0, 0, -1)),
    "D": ((0, 0, -1), (1, 0, 0), (0, 1, 0)),
    "L": ((-1, 0, 0), (0, -1, 0), (0, 0, -1)),
    "B": ((0, 1, 0), (-1, 0, 0), (0, 0, -1)),
}
NORMALS = np.array([_VIEWS[face][0] for face in FACES])  # [6, 3]
SOLVED = np.arange(54)


def _places() -> tuple[np.ndarray, np.ndarray]:
    """Of every facelet [54, 3]: the cubelet that it is on, in steps from the centre, and the direction that it
    faces."""
    cubelets, normals = [], []
    for face in FACES:
        out, right, down = (np.array(v) for v in _VIEWS[face])
        for row in range(3):
            for column in range(3):
                cubelets.append(out + (column - 1) * right + (row - 1) * down)
                normals.append(out)
    return np.array(cubelets), np.array(normals)


CUBELET_OF, NORMAL_OF = _places()
CUBELETS = np.array([(x, y, z) for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1) if (x, y, z) != (0, 0, 0)])
_INDEX = {(*map(int, c), *map(int, n)): i for i, (c, n) in enumerate(zip(CUBELET_OF, NORMAL_OF, strict=True))}
_CUBELET_INDEX = {tuple(map(int, c)): i for i, c in enumerate(CUBELETS)}
FACELETS_OF = [[i for i in range(54) if (CUBELET_OF[i] == c).all()] for c in CUBELETS]  # of each cubelet's place


def quarter_turn(normal: np.ndarray, quarters: int) -> np.ndarray:
    """The rotation [3, 3] by quarter turns about a unit axis along x, y or z, counter-clockwise as seen from its
    end."""
    x, y, z = (float(v) for v in normal)
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    once = np.eye(3) + cross + cross @ cross
    return np.rint(np.linalg.matrix_power(once, quarters % 4)).astype(int)


def facelet_at(cubelet: np.ndarray, normal: np.ndarray) -> int:
    """The facelet of a place (in steps from the centre) that faces along `normal`."""
    return _INDEX[*(int(v) for v in np.rint(cubelet)), *(int(v) for v in np.rint(normal))]


def relabelled(rotation: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Where the stickers come from, [54], when cubelets turn: facelet i then shows what facelet result[i] did.

    Args:
        rotation: [3, 3] of the cubelets that turn.
        chosen: [54] bool, facelets of these.
    """
    source = np.arange(54)
    for old in np.flatnonzero(chosen):
        source[facelet_at(rotation @ CUBELET_OF[old], rotation @ NORMAL_OF[old])] = old
    return source


@cache
def _turn(face: str, quarters: int) -> np.ndarray:
    out = NORMALS[FACES.index(face)]
    return relabelled(quarter_turn(out, -quarters), CUBELET_OF @ out == 1)


def turn(move: Move) -> np.ndarray:
    """Where the stickers come from, [54], when a face turns; see `relabelled`."""
    return _turn(move.face, move.quarters)


def after(labels: np.ndarray, moves: Iterable[Move]) -> np.ndarray:
    """The labels [54] after moves."""
    for move in moves:
        labels = labels[turn(move)]
    return labels


def to_string(labels: np.ndarray) -> str:
    """The facelet string of labels [54]: 54 letters of URFDLB."""
    return "".join(FACES[int(label) // 9] for label in labels)


def is_solved(labels: np.ndarray) -> bool:
    """Whether every face shows one colour."""
    return bool((np.asarray(labels) // 9 == SOLVED // 9).all())


def _cycle(place: int) -> list[int]:
    """The facelets of a place, of a corner clockwise as seen from outside: the same order for all."""
    facelets = list(FACELETS_OF[place])
    if len(facelets) == 3 and np.linalg.det(NORMAL_OF[facelets]) > 0:
        facelets[1], facelets[2] = facelets[2], facelets[1]
    return facelets


_CYCLES = [_cycle(place) for place in range(26)]
_CORNERS = [cycle for cycle in _CYCLES if len(cycle) == 3]
_EDGES = [cycle for cycle in _CYCLES if len(cycle) == 2]


def from_string(facelets: str) -> np.ndarray:
    """The labels [54] of a facelet string.

    Raises:
        CubeError: the string is not that of a cube, or of one that was taken apart and put together wrongly.
    """
    if len(facelets) != 54:
        raise CubeError(f"facelets: expected 54 letters of {FACES}, got {len(facelets)}")
    for i, letter in enumerate(facelets):
        if letter not in FACES:
            raise CubeError(f"facelets: letter {i + 1} is {letter!r}, expected one of {', '.join(FACES)}")
    counts = Counter(facelets)
    if wrong := [f"{counts[face]} of {face}" for face in FACES if counts[face] != 9]:
        raise CubeError(f"facelets: expected 9 of each letter, got {', '.join(wrong)}")
    for f, face in enumerate(FACES):
        if facelets[9 * f + 4] != face:
            raise CubeError(f"facelets: the centre of {face} is {facelets[9 * f + 4]}; centres do not move: {FACES}")
    labels = SOLVED.copy()
    parities = []
    for kind, cycles in (("corner", _CORNERS), ("edge", _EDGES)):
        turned, order = _identify(facelets, kind, cycles, labels)
        if turned % len(cycles[0]):
            raise CubeError(f"facelets: impossible: one {kind} is {'twisted' if kind == 'corner' else 'flipped'}")
        parities.append(_parity(order))
    if parities[0] != parities[1]:
        raise CubeError("facelets: impossible: two edges, or two corners, have changed places (parity)")
    return labels


def _identify(facelets: str, kind: str, cycles: list[list[int]], labels: np.ndarray) -> tuple[int, list[int]]:
    """Write the labels of one kind of cubelets; returns by how much all are turned together, and which is where."""
    known = {
        tuple(FACES[cycle[(i + k) % len(cycle)] // 9] for i in range(len(cycle))): (home, k)
        for home, cycle in enumerate(cycles)
        for k in range(len(cycle))
    }
    turned, order = 0, []
    for cycle in cycles:
        colours = tuple(facelets[i] for i in cycle)
        if colours not in known:
            place = "".join(FACES[i // 9] for i in cycle)
            raise CubeError(f"facelets: the {kind} at {place} shows {''.join(colours)}, and no {kind} of a cube does")
        home, k = known[colours]
        if home in order:
            raise CubeError(f"facelets: the {kind} {''.join(colours)} is there twice")
        order.append(home)
        turned += k
        for i, facelet in enumerate(cycle):
            labels[facelet] = cycles[home][(i + k) % len(cycle)]
    return turned, order


def _parity(order: list[int]) -> int:
    """0 for an even permutation, 1 for an odd one."""
    seen, odd = set[int](), 0
    for start in range(len(order)):
        at, size = start, 0
        while at not in seen:
            seen.add(at)
            at, size = order[at], size + 1
        odd ^= max(size - 1, 0) & 1
    return odd


def check_labels(labels: np.ndarray) -> None:
    """Raise CubeError unless labels [54] are those of a cube that was only turned."""
    if sorted(int(v) for v in labels) != list(range(54)) or not (from_string(to_string(labels)) == labels).all():
        raise CubeError("labels: a sticker is not on its cubelet; expected stickers that were moved by turns of faces")


def cubelet_poses(
    labels: np.ndarray, angles: np.ndarray | None = None, quarters: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Where the cubelets are, in the cube's frame: centres [26, 3] in units of a cubelet's edge and rotations
    [26, 3, 3] from the solved cube, both by cubelet in the order of `CUBELETS`.

    Args:
        labels: [54].
        angles: [6] of the faces from aligned, rad, counter-clockwise as seen from outside, of two opposite faces at
            most; None: aligned.
        quarters: [6] by how many quarter turns each centre has spun, counter-clockwise; None: not at all.
    """
    angles = np.zeros(6) if angles is None else np.asarray(angles, dtype=float)
    turning = {frozenset((i % 3,)) for i in np.flatnonzero(angles)}
    if len(turning) > 1:
        raise CubeError(f"angles: only opposite faces can be off their places together, got {angles.tolist()}")
    places, rotations = np.zeros((26, 3)), np.zeros((26, 3, 3))
    for place, facelets in enumerate(FACELETS_OF):
        stickers = [int(labels[i]) for i in facelets]
        home = _CUBELET_INDEX[tuple(int(v) for v in CUBELET_OF[stickers[0]])]
        if len(facelets) == 1:
            spun = 0 if quarters is None else int(quarters[facelets[0] // 9])
            rotation = quarter_turn(NORMAL_OF[facelets[0]], spun).astype(float)
        else:
            rotation = _rotation(NORMAL_OF[stickers[:2]], NORMAL_OF[facelets[:2]])
        centre = CUBELETS[place].astype(float)
        for face, angle in enumerate(angles):
            if angle and CUBELETS[place] @ NORMALS[face] == 1:
                off = _about(NORMALS[face], float(angle))
                centre, rotation = off @ centre, off @ rotation
        places[home], rotations[home] = centre, rotation
    return places, rotations


def _rotation(before: np.ndarray, now: np.ndarray) -> np.ndarray:
    """The rotation that takes two directions [2, 3], at right angles, to two others."""
    full = lambda pair: np.stack((*pair, np.cross(*pair)), axis=1).astype(float)  # noqa: E731
    return full(now) @ full(before).T


def _about(axis: np.ndarray, angle: float) -> np.ndarray:
    x, y, z = (float(v) for v in axis)
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * cross @ cross


def from_poses(places: np.ndarray, rotations: np.ndarray, tolerance_rad: float = 0.3) -> np.ndarray:
    """The labels [54] of cubelets [26, 3] and [26, 3, 3] as in `cubelet_poses`, all near to aligned.

    Raises:
        CubeError: a cubelet is not in a place of the cube, or turned by no quarter turns, or they are in places that
            turns of faces do not lead to.
    """
    labels = np.full(54, -1)
    for home, (centre, rotation) in enumerate(zip(np.asarray(places), np.asarray(rotations), strict=True)):
        name = "".join(FACES[i // 9] for i in FACELETS_OF[home])
        at, near = np.rint(centre), np.rint(rotation)
        off = np.arccos(np.clip((np.trace(near.T @ rotation) - 1.0) / 2.0, -1.0, 1.0))
        proper = (np.abs(near).sum(axis=0) == 1).all() and (np.abs(near).sum(axis=1) == 1).all()
        if tuple(at.astype(int)) not in _CUBELET_INDEX or np.abs(centre - at).max() > 2.0 * tolerance_rad:
            raise CubeError(f"poses: cubelet {name} is at {np.round(centre, 2).tolist()}, which is no place of a cube")
        if not proper or off > tolerance_rad:
            raise CubeError(f"poses: cubelet {name} is turned by no quarter turns, expected within {tolerance_rad} rad")
        for sticker in FACELETS_OF[home]:
            facelet = _INDEX.get((*at.astype(int).tolist(), *(near @ NORMAL_OF[sticker]).astype(int).tolist()))
            if facelet is None or labels[facelet] >= 0:
                raise CubeError(f"poses: cubelet {name} is not in a place of its kind, or not alone there")
            labels[facelet] = sticker if len(FACELETS_OF[home]) > 1 else 9 * (facelet // 9) + 4
            if len(FACELETS_OF[home]) == 1 and facelet != sticker:
                raise CubeError(f"poses: the centre {name} is at {FACES[facelet // 9]}; centres only spin")
    check_labels(labels)
    return labels
