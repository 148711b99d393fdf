"""States of a Rubik's Cube, its notation and the planner, against cubes that others wrote."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from benchmarks.rubiks import planner
from envs.manipulation.rubiks.notation import (
    FAIR_SCRAMBLE,
    CubeError,
    Move,
    in_quarters,
    inverse,
    parse_moves,
    random_scramble,
    to_text,
)
from envs.manipulation.rubiks.planner import UPRIGHT, face_up, solution, subgoals
from envs.manipulation.rubiks.state import (
    CUBELETS,
    FACELETS_OF,
    NORMAL_OF,
    SOLVED,
    after,
    check_labels,
    cubelet_poses,
    from_poses,
    from_string,
    is_solved,
    to_string,
)

magiccube = pytest.importorskip("magiccube")
pycuber = pytest.importorskip("pycuber")
_COLOURS = {"yellow": "U", "orange": "R", "green": "F", "white": "D", "red": "L", "blue": "B"}  # of pycuber's faces


def by_pycuber(moves: str) -> str:
    """The facelet string after moves."""
    cube = pycuber.Cube()
    cube(pycuber.Formula(moves))
    return "".join(_COLOURS[square.colour] for face in "URFDLB" for row in cube.get_face(face) for square in row)


@pytest.mark.parametrize("seed", range(5))
def test_a_state_after_moves_is_that_of_two_other_cubes(seed: int) -> None:
    moves = random_scramble(seed, 40)
    cube = magiccube.Cube(3)
    cube.rotate(to_text(moves))
    ours = to_string(after(SOLVED, moves))
    assert ours == cube.get_kociemba_facelet_positions()
    assert ours == by_pycuber(to_text(moves))


def test_every_single_move_is_that_of_another_cube() -> None:
    for face in "URFDLB":
        for suffix in ("", "2", "'"):
            cube = magiccube.Cube(3)
            cube.rotate(face + suffix)
            assert to_string(after(SOLVED, parse_moves(face + suffix))) == cube.get_kociemba_facelet_positions()


def test_notation_is_read_and_written() -> None:
    assert parse_moves("R U2 F'") == [Move("R", 1), Move("U", 2), Move("F", 3)]
    assert to_text(parse_moves(" R  U2 F’ ")) == "R U2 F'"
    assert to_text(inverse(parse_moves("R U2 F'"))) == "F U2 R'"
    assert to_text(in_quarters(parse_moves("R U2 F'"))) == "R U U F'"
    moves = random_scramble(3)
    assert is_solved(after(SOLVED, [*moves, *inverse(moves)]))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("R Q", "move 2, 'Q'"),
        ("r", "did you mean 'R'?"),
        ("R3", "move 1, 'R3'"),
        ("RU", "'RU'"),
        ("U''", 'did you mean "U\'"?'),
    ],
)
def test_unknown_moves_are_named(text: str, said: str) -> None:
    with pytest.raises(CubeError, match="expected one of U, R, F, D, L, B") as told:
        parse_moves(text)
    assert said in str(told.value)


def test_scrambles_are_the_same_for_a_seed_and_turn_no_face_twice_in_a_row() -> None:
    assert random_scramble(5) == random_scramble(5) != random_scramble(6)
    for seed in range(20):
        faces = [move.face for move in random_scramble(seed, 60)]
        assert all(a != b for a, b in pairwise(faces))


def exchanged(facelets: str, *pairs: tuple[int, int]) -> str:
    """A string with letters that have changed places."""
    letters = list(facelets)
    for a, b in pairs:
        letters[a], letters[b] = letters[b], letters[a]
    return "".join(letters)


def test_strings_of_cubes_that_were_taken_apart_are_refused_and_say_why() -> None:
    mixed = to_string(after(SOLVED, random_scramble(1)))
    assert to_string(from_string(mixed)) == mixed
    wrong = {
        "54 letters": mixed[:-1],
        "letter 3 is 'X'": mixed[:2] + "X" + mixed[3:],
        "9 of each letter": "U" * 10 + mixed[10:] if mixed[9] != "U" else "D" + mixed[1:],
        "centres do not move": exchanged(to_string(SOLVED), (4, 13)),
        "corner is twisted": exchanged(exchanged(to_string(SOLVED), (8, 9)), (9, 20)),
        "edge is flipped": exchanged(to_string(SOLVED), (7, 19)),
        "parity": exchanged(to_string(SOLVED), (19, 10), (7, 5)),
        "no corner of a cube does": exchanged(to_string(SOLVED), (8, 9)),
        "there twice": exchanged(to_string(SOLVED), (10, 25)),
    }
    for said, facelets in wrong.items():
        with pytest.raises(CubeError, match=said):
            from_string(facelets)


def test_stickers_that_are_not_on_their_cubelets_are_refused() -> None:
    labels = after(SOLVED, random_scramble(2)).copy()
    check_labels(labels)
    labels[[0, 2]] = labels[[2, 0]]
    with pytest.raises(CubeError):
        check_labels(labels)


def test_poses_of_cubelets_and_labels_are_two_ways_to_say_the_same() -> None:
    for seed in range(10):
        labels = after(SOLVED, random_scramble(seed))
        places, rotations = cubelet_poses(labels)
        assert (from_poses(places, rotations) == labels).all()
    places, rotations = cubelet_poses(SOLVED)
    np.testing.assert_array_equal(places, CUBELETS)
    np.testing.assert_array_equal(rotations, np.tile(np.eye(3), (26, 1, 1)))


def test_a_face_that_is_off_its_place_carries_nine_cubelets() -> None:
    labels = after(SOLVED, random_scramble(4))
    places, _ = cubelet_poses(labels, np.array([0.25, 0, 0, -0.1, 0, 0]))
    aligned, _ = cubelet_poses(labels)
    assert (np.linalg.norm(places - aligned, axis=1) > 1e-9).sum() == 16  # but for the two centres
    assert (from_poses(*cubelet_poses(labels, np.array([0.25, 0, 0, -0.1, 0, 0]))) == labels).all()
    with pytest.raises(CubeError, match="only opposite faces"):
        cubelet_poses(labels, np.array([0.25, 0.1, 0, 0, 0, 0]))
    with pytest.raises(CubeError, match=r"turned by no quarter turns|no place of a cube"):
        from_poses(*cubelet_poses(labels, np.array([0.7, 0, 0, 0, 0, 0])))


def test_poses_of_a_cubelet_that_was_turned_by_hand_are_refused() -> None:
    places, rotations = cubelet_poses(SOLVED)
    corner = next(i for i, facelets in enumerate(FACELETS_OF) if len(facelets) == 3)
    n = NORMAL_OF[FACELETS_OF[corner]]
    rotations[corner] = np.stack((n[1], n[2], n[0]), axis=1) @ np.stack(tuple(n), axis=1).T
    with pytest.raises(CubeError, match="twisted"):
        from_poses(places, rotations)


def test_plans_solve_scrambles_in_another_cube() -> None:
    pytest.importorskip("kociemba")
    assert planner(12).startswith("12 scrambles solved")
    assert solution(SOLVED) == []  # the package answers with 13 moves


def test_subgoals_turn_the_face_that_is_up_and_end_with_the_cube_solved() -> None:
    moves = parse_moves(FAIR_SCRAMBLE)
    for seed in range(5):
        moves = random_scramble(seed)
        rotation, labels = UPRIGHT, SOLVED
        for goal in subgoals(moves):
            if goal.move is None:
                assert (goal.rotation != rotation).any()
                rotation = goal.rotation
            else:
                assert face_up(rotation) == goal.move.face
                assert goal.move.quarters != 2
                labels = after(labels, [goal.move])
        assert (labels == after(SOLVED, moves)).all()


def test_the_fair_scramble_has_43_subgoals() -> None:
    from envs.manipulation.rubiks.planner import flip_to

    steps = subgoals(parse_moves(FAIR_SCRAMBLE), flip_to(UPRIGHT, "L"))
    assert len(steps) == 43  # arXiv 1910.07113: 43 successes are all of it, 22 half
    assert sum(step.kind == "turn" for step in steps) == 26
