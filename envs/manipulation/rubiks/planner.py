"""Which faces to turn to solve a cube, and what a hand does for it: turn the cube until a face is up, then turn that
face.

The moves are found by `kociemba` (Kociemba's two-phase algorithm; pip install 'simreal[cube]'), 20 or so in about 20
ms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from envs.common.errors import TaskError
from envs.manipulation.rubiks.notation import FACES, Move, in_quarters, parse_moves
from envs.manipulation.rubiks.state import NORMALS, is_solved, quarter_turn, to_string

UPRIGHT = np.eye(3, dtype=int)  # U up, R along the palm's x axis


def solution(labels: np.ndarray) -> list[Move]:
    """Moves that solve a cube with these labels [54]; none for a solved one, for which the package has 13.

    Raises:
        TaskError: the package is not installed.
    """
    if is_solved(labels):
        return []
    try:
        import kociemba
    except ImportError:
        raise TaskError("goals: a plan needs the package kociemba: pip install 'simreal[cube]'") from None
    return parse_moves(kociemba.solve(to_string(labels)))


@dataclass(frozen=True)
class Subgoal:
    """What a hand is to do next.

    Attributes:
        kind: "flip" turns the cube as a whole, "turn" its top face.
        rotation: [3, 3] of the cube in the palm, when it is done.
        quarters: [6] by how many quarter turns each face has then turned in all, counter-clockwise as seen from
            outside.
        move: the face and the direction, of a turn.
    """

    kind: Literal["flip", "turn"]
    rotation: np.ndarray
    quarters: np.ndarray
    move: Move | None = None

    def __str__(self) -> str:
        up = FACES[int((self.rotation @ NORMALS.T)[2].argmax())]
        return f"flip until {up} is up" if self.move is None else f"turn the top face: {self.move}"


def face_up(rotation: np.ndarray) -> str:
    """Which face of a cube with this rotation [3, 3] in the palm is up."""
    return FACES[int((rotation @ NORMALS.T)[2].argmax())]


def flip_to(rotation: np.ndarray, face: str) -> np.ndarray:
    """The rotation [3, 3] with another face up that is the nearest: a quarter turn, or half a turn about the palm's y
    axis where that face is below."""
    out = rotation @ NORMALS[FACES.index(face)]
    if out[2] == 1:
        return rotation
    axis = np.array([0, 1, 0]) if out[2] == -1 else np.cross(out, [0, 0, 1])
    return quarter_turn(axis, 2 if out[2] == -1 else 1) @ rotation


def subgoals(moves: list[Move], rotation: np.ndarray = UPRIGHT, quarters: np.ndarray | None = None) -> list[Subgoal]:
    """What a hand does to make moves one after another, each by turning the top face.

    Args:
        moves: of faces; a half turn is two quarter turns.
        rotation: [3, 3] of the cube in the palm, aligned with it.
        quarters: [6] by how much faces have turned so far; None: not at all.
    """
    done = np.zeros(6, dtype=int) if quarters is None else np.asarray(quarters).copy()
    found = []
    for move in in_quarters(moves):
        if face_up(rotation) != move.face:
            rotation = flip_to(rotation, move.face)
            found.append(Subgoal("flip", rotation, done.copy()))
        done[FACES.index(move.face)] += -1 if move.quarters == 1 else 1
        found.append(Subgoal("turn", rotation, done.copy(), move))
    return found
