"""A Rubik's Cube that turns: faces follow torques, others block, nothing comes apart, and the stickers are right."""

from __future__ import annotations

import math

import mujoco
import numpy as np
import pytest
import torch

from benchmarks.rubiks import bare_cubes, check_whole, drive, turns, wrenches
from envs.common.spatial import quat_angle, quat_conjugate, quat_multiply, uniform_quat
from envs.manipulation.rubiks.mechanism import AXES, SHARE, TOLERANCE_RAD, Mechanism
from envs.manipulation.rubiks.model import FACE_DRAG, FACE_FRICTION_NM, FACE_SPRING, PIECES, PLASTIC
from envs.manipulation.rubiks.notation import FACES
from envs.manipulation.rubiks.state import CUBELET_OF, NORMALS, SOLVED, to_string


def one(face: str, torque: float) -> torch.Tensor:
    """Torques [1, 6] of a motor on one face."""
    torques = torch.zeros(1, 6, dtype=torch.float64)
    torques[0, FACES.index(face)] = torque
    return torques


def step(mechanism: Mechanism, count: int = 1) -> None:
    """Control steps."""
    for _ in range(5 * count):
        mechanism.engine.step(1)
        mechanism.advance()


_TURNS = 2.0 * (FACE_FRICTION_NM + FACE_SPRING * math.pi / 4)  # N m, well above what holds a face back


def test_turns_by_motors_are_those_of_another_cube() -> None:
    pytest.importorskip("magiccube")
    assert turns(200, cubes=4).startswith("4 cubes, 200 quarter turns")


def test_nothing_comes_apart_under_wrenches() -> None:
    assert wrenches(200, cubes=20).startswith("20 cubes, 200 wrenches")


@pytest.mark.parametrize("face", FACES)
def test_a_face_turns_counter_clockwise_under_a_positive_torque_and_the_rest_the_other_way(face: str) -> None:
    mechanism = bare_cubes(1)
    mechanism.exert(one(face, _TURNS))
    step(mechanism, 2)
    angles = mechanism.angles()[0]
    turned, opposite = angles[FACES.index(face)], angles[(FACES.index(face) + 3) % 6]
    assert turned > 0.1
    assert -0.2 * turned < opposite <= 0.0  # the rest of the cube takes it along, by friction
    assert int((angles != 0.0).sum()) <= 2
    assert AXES[int(mechanism.axis)].count(face) == 1
    check_whole(mechanism, 0)


def test_what_friction_holds_does_not_turn() -> None:
    for face in "UR":
        mechanism = bare_cubes(1)
        mechanism.exert(one(face, 0.9 * FACE_FRICTION_NM))
        step(mechanism, 20)
        assert float(mechanism.angles().abs().max()) < 0.01


def test_a_face_is_blocked_while_its_neighbour_is_off_its_place_and_free_once_that_is_back() -> None:
    mechanism = bare_cubes(1)
    up, right = FACES.index("U"), FACES.index("R")
    mechanism.exert(one("U", 0.5 * _TURNS))
    while float(mechanism.angles()[0, up]) < 0.3:
        step(mechanism)
    hold = one("U", FACE_SPRING * float(mechanism.angles()[0, up])) + one("R", 0.05)
    mechanism.exert(hold)
    step(mechanism, 20)
    assert abs(float(mechanism.angles()[0, up])) > TOLERANCE_RAD
    assert float(mechanism.angles()[0, right]) == 0.0
    mechanism.exert(one("R", 0.05))  # the spring brings U back, then R turns
    step(mechanism, 30)
    assert float(mechanism.angles()[0, right]) != 0.0


def test_opposite_faces_turn_together() -> None:
    mechanism = bare_cubes(1)
    mechanism.exert(one("U", _TURNS) + one("D", _TURNS))
    step(mechanism, 2)
    angles = mechanism.angles()[0]
    assert angles[0] > 0.05
    assert angles[3] > 0.05
    check_whole(mechanism, 0)


def test_a_face_that_is_let_go_springs_to_the_nearest_aligned_angle() -> None:
    for until, end in ((0.5, 0.0), (0.85, math.pi / 2)):
        mechanism = bare_cubes(1)
        mechanism.exert(one("U", 0.05))
        while float(mechanism.angles()[0, 0]) < until:
            mechanism.engine.step(1)
            mechanism.advance()
        mechanism.exert(one("U", 0.0))
        if until < math.pi / 4:
            mechanism.engine.data("qvel").zero_()
        step(mechanism, 60)
        assert float(mechanism.angles()[0, 0]) == pytest.approx(end, abs=FACE_FRICTION_NM / FACE_SPRING + 0.01)
    assert int(mechanism.quarters[0, 0]) == 1
    assert to_string(mechanism.labels[0].numpy()) != to_string(SOLVED)


def test_a_face_moves_as_its_equation_says() -> None:
    mechanism = bare_cubes(1)
    engine = mechanism.engine
    model = engine.model
    inertia = float(model.body("cube_top").inertia[2])
    mass, edge, rotor = 0.08 / 3, 0.055, float(model.dof_armature[6])
    assert inertia == pytest.approx(mass * (2 * edge**2) / 12, rel=1e-6)
    whole = float(sum(model.body(name).inertia[2] for name in ("cube", "cube_top", "cube_bottom")))
    assert inertia / whole == pytest.approx(SHARE, rel=1e-6)
    mechanism.exert(one("U", 0.02))
    engine.step(1)
    # the cube turns the other way: relative acceleration by the inertia of both, 1/(1/I + 1/(whole - I))
    reduced = 1.0 / (1.0 / inertia + 1.0 / (whole - inertia))
    expected = 0.01 * (0.02 - FACE_FRICTION_NM) / (reduced + rotor + 0.01 * FACE_DRAG)
    assert float(engine.data("qvel")[0, 6]) == pytest.approx(expected, rel=0.1)


def test_a_new_axis_leaves_the_cube_where_it_is_and_its_motion_too() -> None:
    mechanism = bare_cubes(8)
    engine = mechanism.engine
    g = torch.Generator().manual_seed(1)
    quat = uniform_quat(torch.rand(8, 3, generator=g, dtype=torch.float64))
    every = torch.ones(8, dtype=torch.bool)
    mechanism.begin(every, mechanism.labels, mechanism.quarters, mechanism.axis, quat, torch.zeros(8, 2))
    engine.data("qvel")[:, :6] = torch.randn(8, 6, generator=g, dtype=torch.float64)
    engine.forward()
    assert float(quat_angle(quat_multiply(mechanism.quat(), quat_conjugate(quat))).max()) < 1e-7
    before = engine.data("geom_xpos").clone()
    momentum = [spin(mechanism, i) for i in range(8)]
    torque = torch.zeros(8, 6, dtype=torch.float64)
    torque[:, FACES.index("F")] = 0.02
    mechanism.exert(torque)
    mechanism.advance()
    mechanism.settle()
    assert mechanism.axis.tolist() == [2] * 8
    assert float(quat_angle(quat_multiply(mechanism.quat(), quat_conjugate(quat))).max()) < 1e-7
    for i in range(8):
        np.testing.assert_allclose(spin(mechanism, i), momentum[i], atol=1e-12)
        check_whole(mechanism, i)
    assert not torch.allclose(before, engine.data("geom_xpos"))  # other stickers are drawn there


def spin(mechanism: Mechanism, index: int) -> np.ndarray:
    """Angular momentum about the centre of mass, in the world."""
    model, data = mechanism.engine.export_to_mujoco(index)
    mujoco.mj_subtreeVel(model, data)
    return data.subtree_angmom[1].copy()


def test_what_presses_on_a_slab_turns_it() -> None:
    """What a finger does is seen by sensors of contact alone: no motor acts."""
    mechanism = bare_cubes(1, finger=True)
    right = FACES.index("R")
    step(mechanism, 6)
    angles = mechanism.angles()[0]
    assert float(angles[right]) < -0.09  # down at the back: clockwise
    assert float(angles.abs().sum()) - abs(float(angles[right])) < 0.02
    check_whole(mechanism, 0)


def test_the_reduced_cube_turns_top_and_bottom_only_and_the_locked_one_nothing() -> None:
    mechanism = bare_cubes(2, "top_and_bottom")
    assert bool(drive(mechanism, torch.tensor([0, 3]), torch.tensor([1, -1])).all())
    mechanism.exert(one("R", 0.1).expand(2, 6))
    step(mechanism, 10)
    assert mechanism.axis.tolist() == [0, 0]
    locked = bare_cubes(2, "none")
    locked.exert(one("U", 0.1).expand(2, 6))
    step(locked, 5)
    assert float(locked.angles().abs().max()) == 0.0
    assert locked.engine.model.nv == 6


def black_corners(mechanism: Mechanism, index: int) -> np.ndarray:
    """Directions [6, 3] in the cube's frame from the middle of each face to the black piece that is drawn there."""
    model, data = mechanism.engine.export_to_mujoco(index)
    cube = np.zeros(9)
    mujoco.mju_quat2Mat(cube, mechanism.quat()[index].numpy())
    frame, origin = cube.reshape(3, 3), data.body("cube").xpos
    found = np.zeros((6, 3))
    for piece in PIECES:
        geom = model.geom(f"look_sticker{piece.name}")
        if np.allclose(geom.rgba, PLASTIC):
            at = frame.T @ (data.geom_xpos[geom.id] - origin)
            face = int((NORMALS @ at).argmax())
            assert not found[face].any(), "two black pieces on a face"
            found[face] = at - (at @ NORMALS[face]) * NORMALS[face]
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_the_black_piece_of_a_face_is_where_the_faces_angle_says() -> None:
    """Whichever axis the cube is cut along, and on both sides of 45 degrees, where a turn is counted."""
    mechanism = bare_cubes(6)
    firsts = np.array([CUBELET_OF[9 * face] - NORMALS[face] for face in range(6)]) / math.sqrt(2.0)
    np.testing.assert_allclose(black_corners(mechanism, 0), firsts, atol=1e-6)
    g, seen, most = torch.Generator().manual_seed(3), set[tuple[int, int]](), 0.0
    for _ in range(12):
        push = torch.zeros(6, 6, dtype=torch.float64)
        push.scatter_(1, torch.randint(6, (6, 1), generator=g), 0.06 * torch.randn(6, 1, generator=g).double())
        mechanism.exert(push)
        for _ in range(4):
            step(mechanism)
            mechanism.settle()
            for i in range(6):
                angles = mechanism.angles()[i].numpy()
                # `kept` is bookkeeping alone: faces of other axes are drawn aligned.
                drawn = angles - (mechanism.off() - mechanism.by_face(mechanism.offsets))[i].numpy()
                for face, black in enumerate(black_corners(mechanism, i)):
                    turn = np.zeros(9)
                    quat = np.zeros(4)
                    mujoco.mju_axisAngle2Quat(quat, NORMALS[face].astype(float), float(drawn[face]))
                    mujoco.mju_quat2Mat(turn, quat)
                    np.testing.assert_allclose(black, turn.reshape(3, 3) @ firsts[face], atol=1e-5)
                seen |= {(int(mechanism.axis[i]), int(q) % 4) for q in mechanism.quarters[i]}
                most = max(most, float(mechanism.offsets[i].abs().max()))
    assert {axis for axis, _ in seen} == {0, 1, 2}
    assert {quarters for _, quarters in seen} == {0, 1, 2, 3}
    assert most > 0.6
