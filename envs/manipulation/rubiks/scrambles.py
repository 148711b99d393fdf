"""States of mixed cubes that episodes of a Rubik's Cube begin with."""

from __future__ import annotations

import numpy as np

from envs.manipulation.rubiks.mechanism import face_turns
from envs.manipulation.rubiks.state import SOLVED

STATES = 8192


def scrambled_states(fewest: int, most: int) -> np.ndarray:
    """Labels [STATES, 54] of cubes mixed with so many turns; the first is the solved cube."""
    random = np.random.default_rng(STATES)
    counts = random.integers(fewest, most + 1, STATES)
    labels, turned = np.tile(SOLVED, (STATES, 1)), face_turns().reshape(6, 4, 54)[:, 1:].reshape(18, 54)
    for move in range(most):
        source = turned[random.integers(len(turned), size=STATES)]
        labels = np.where((move < counts)[:, None], np.take_along_axis(labels, source, axis=1), labels)
    labels[0] = SOLVED
    return labels
