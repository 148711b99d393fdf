"""Moves of a cube in Singmaster's notation: `R U2 F'`.

A letter turns the face of that name by a quarter, clockwise as seen from outside; ' turns it the other way, 2 by a
half. U is up, R right, F front, D down, L left, B back.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from envs.common.errors import TaskError
from envs.common.messages import nearest

FACES = "URFDLB"  # in the order of facelet strings
OPPOSITE = dict(zip(FACES, "DLBURF", strict=True))

# The fixed fair scramble of arXiv 1910.07113, table 6: 26 quarter turns with 17 flips between them are 43 subgoals.
FAIR_SCRAMBLE = "L2 U2 R2 B D2 B2 D2 L2 F' D' R B F L U' F D' L2"

_MOVE = re.compile(r"([URFDLB])(2|'|’)?")
_SUFFIX = {1: "", 2: "2", 3: "'"}


class CubeError(TaskError):
    """A sequence of moves, or a state, that no cube has; one line that says what is wrong with it."""


@dataclass(frozen=True)
class Move:
    """A turn of one face.

    Attributes:
        face: one of `FACES`.
        quarters: 1, 2 or 3 quarter turns clockwise, as seen from outside.
    """

    face: str
    quarters: int

    def __str__(self) -> str:
        return self.face + _SUFFIX[self.quarters]

    @property
    def inverse(self) -> Move:
        """The move that takes this one back."""
        return Move(self.face, -self.quarters % 4)

    def in_quarters(self) -> list[Move]:
        """The same in quarter turns, each its shorter way: a half turn is two clockwise ones."""
        return [Move(self.face, 1)] * 2 if self.quarters == 2 else [self]


def parse_moves(text: str) -> list[Move]:
    """The moves of a line such as `R U2 F'`, separated by spaces. Raises CubeError for anything else."""
    moves = []
    for number, word in enumerate(text.split(), start=1):
        found = _MOVE.fullmatch(word)
        if found is None:
            known = [face + suffix for face in FACES for suffix in _SUFFIX.values()]
            near = nearest(word.upper(), known) if word.upper() not in known else f" (did you mean {word.upper()!r}?)"
            raise CubeError(f"move {number}, {word!r}: expected one of U, R, F, D, L, B, alone or with ' or 2{near}")
        moves.append(Move(found[1], {None: 1, "2": 2}.get(found[2], 3)))
    return moves


def to_text(moves: list[Move]) -> str:
    """Moves in notation, the reverse of `parse_moves`."""
    return " ".join(map(str, moves))


def inverse(moves: list[Move]) -> list[Move]:
    """The moves that take all of these back."""
    return [move.inverse for move in reversed(moves)]


def in_quarters(moves: list[Move]) -> list[Move]:
    """The same in quarter turns."""
    return [quarter for move in moves for quarter in move.in_quarters()]


def random_scramble(seed: int, length: int = 25) -> list[Move]:
    """A scramble by seed: no face is turned twice in a row, nor again after its opposite alone.

    Args:
        seed: of the choice.
        length: number of moves.
    """
    random = np.random.default_rng(seed)
    moves: list[Move] = []
    while len(moves) < length:
        face = FACES[random.integers(6)]
        last = [move.face for move in moves[-2:]]
        if face in last[-1:] or (len(last) == 2 and last == [face, OPPOSITE[face]]):
            continue
        moves.append(Move(face, int(random.integers(1, 4))))
    return moves
