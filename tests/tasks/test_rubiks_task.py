"""A hand with a Rubik's Cube: what it sees, when a goal counts, what comes next, how episodes end, what is resumed."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from command import refused, simreal_command
from conftest import snapshot
from envs.common.spatial import quat_angle, quat_conjugate, quat_multiply, quat_to_matrix
from envs.environment import Environment
from envs.manipulation.rubiks.goals import GOAL_DRAWS, faces_along, next_goal
from envs.manipulation.rubiks.model import COLOURS, PIECES, PLASTIC
from envs.manipulation.rubiks.notation import FACES, FAIR_SCRAMBLE, parse_moves
from envs.manipulation.rubiks.planner import UPRIGHT, flip_to, subgoals
from envs.manipulation.rubiks.state import SOLVED, after, check_labels
from envs.manipulation.rubiks.task import RubiksCube
from envs.registry import UnknownOptionError, make_task
from robots import ALLEGRO, SHADOW, needs
from simreal.training.build import make_environment

pytestmark = needs(ALLEGRO, SHADOW)


def environment(num_envs: int = 2, **options: Any) -> Environment:
    """Environments after their first reset."""
    made = make_environment("RubiksCube-v0", num_envs, seed=3, threads=1, task_options={"hand": "allegro", **options})
    made.reset()
    return made


def task_of(made: Environment) -> RubiksCube:
    assert isinstance(made.task, RubiksCube)
    return made.task


def reach(made: Environment) -> None:
    """Put all cubes into their goals, above the palm."""
    task = task_of(made)
    m, every = task.mechanism, torch.ones(made.num_envs, dtype=torch.bool)
    turned = (task.goal_quarters - m.quarters) % 4
    labels = m.labels.clone()
    for i in range(made.num_envs):
        for face, quarters in enumerate(turned[i].tolist()):
            if quarters:
                labels[i] = torch.as_tensor(
                    after(labels[i].numpy(), parse_moves(FACES[face] + ["", "'", "2", ""][quarters]))
                )
    m.begin(every, labels, task.goal_quarters.clone(), m.axis, task.goal.clone(), torch.zeros(made.num_envs, 2))
    k = len(task.parts.joints)
    made.engine.data("qpos")[:, k : k + 3] = torch.tensor(task.hand.cube_rest) + torch.tensor([0.0, 0.0, 0.02])
    made.engine.data("qvel")[:] = 0.0


def still(made: Environment) -> Tensor:
    return torch.zeros(made.num_envs, made.task.action_size)


@pytest.mark.parametrize("hand", ["allegro", "shadow"])
def test_what_is_observed_is_what_the_docstring_says(hand: str) -> None:
    made = environment(hand=hand)
    task = task_of(made)
    policy, shown = made.observed.policy, task.slices()
    assert policy.shape[1] == sum(c.size for c in task.components("policy"))
    privileged = made.observed.privileged
    assert privileged is not None
    assert privileged.shape[1] == sum(c.size for c in task.components("privileged"))
    angle, goal = policy[:, shown["face_angle"]], policy[:, shown["goal_face_angle"]]
    left = policy[:, shown["goal_rel_face_angle"]]
    apart = goal - angle - left
    assert float((apart - 2 * math.pi * torch.round(apart / (2 * math.pi))).abs().max()) < 1e-9
    up = faces_along(task.mechanism.quat(), (0.0, 0.0, 1.0))
    assert torch.allclose(policy[:, shown["side_turn"]][:, 4], left.gather(1, up[:, None])[:, 0])
    assert sorted(policy[0, shown["side_turn"]].tolist()) == pytest.approx(sorted(left[0].tolist()))
    tips = policy[:, shown["fingertip_pos"]].view(2, -1, 3)
    assert tips.shape[1] == len(task.hand.fingertips)
    assert float(tips.abs().max()) < 0.2


def test_what_is_derived_follows_what_sensors_show() -> None:
    made = environment()
    task = task_of(made)
    seen = made.task.observe()
    seen[:, task.slices()["face_angle"]] += 0.3
    out = task.derive(seen.clone())
    clean = made.task.observe()
    shown = task.slices()["goal_rel_face_angle"]
    turned = clean[:, shown] - out[:, shown]
    assert float((turned - 0.3 - 2 * math.pi * torch.round((turned - 0.3) / (2 * math.pi))).abs().max()) < 1e-9


@pytest.mark.parametrize("goals", ["spin", "flip", "face", "mixed"])
def test_a_reached_goal_is_a_success_and_another_follows(goals: str) -> None:
    made = environment(8, goals=goals)
    task = task_of(made)
    before, quarters = task.goal.clone(), task.goal_quarters.clone()
    assert not bool(made.step(still(made)).success.any())
    reach(made)
    result = made.step(still(made))
    assert bool(result.success.all())
    assert float(result.terms["success"].min()) == 5.0
    turned = quat_angle(quat_multiply(task.goal, quat_conjugate(before)))
    rolled = (task.goal_quarters - quarters).abs().sum(dim=1)
    assert bool(((turned - math.pi / 2).abs() < 1e-6).logical_xor(rolled == 1).all())
    if goals in ("spin", "flip"):
        assert int(rolled.sum()) == 0
    if goals == "face":
        assert int(rolled.min()) == 1


@pytest.mark.parametrize("goals", ["flip", "face"])
def test_with_a_free_heading_the_face_that_is_up_counts_and_no_turn_about_the_vertical(goals: str) -> None:
    made = environment(16, goals=goals, heading="free")
    task = task_of(made)
    reach(made)
    k = len(task.parts.joints)
    half = torch.linspace(-1.5, 1.5, 16, dtype=torch.float64)
    turn = torch.stack((half.cos(), torch.zeros(16), torch.zeros(16), half.sin()), dim=1)
    orientation = made.engine.data("qpos")[:, k + 3 : k + 7]
    orientation[:] = quat_multiply(turn, orientation)
    observed, wanted = task.observe(), task.goal.clone()
    shown = task.slices()
    left = observed[:, shown["goal_rel_quat"]]
    assert float(quat_angle(left).max()) < 1e-6
    assert torch.allclose(task.derive(observed.clone()), observed, atol=1e-6)
    assert bool(made.step(still(made)).success.all())
    up = (0.0, 0.0, 1.0)
    same = faces_along(wanted, up) == faces_along(task.goal, up)
    assert bool((same == (goals == "face")).all())
    # Of a goal that is a flip away what is left is a quarter turn about a horizontal axis, whichever way the cube lies.
    left = task.observe()[:, shown["goal_rel_quat"]]
    assert float(left[:, 3].abs().max()) < 1e-12
    if goals == "flip":
        assert float((quat_angle(left) - math.pi / 2).abs().max()) < 0.1
        standing = quat_multiply(left, task.mechanism.quat())
        assert torch.equal(faces_along(standing, up), faces_along(task.goal, up))


def test_neither_the_orientation_nor_a_face_alone_is_a_success() -> None:
    made = environment(1, goals="face")
    task = task_of(made)
    m, every = task.mechanism, torch.ones(1, dtype=torch.bool)
    half = torch.tensor([[math.cos(0.225), math.sin(0.225), 0.0, 0.0]], dtype=task.goal.dtype)  # 0.45 rad
    for side in range(2):
        for off, expected in ((0.15, True), (0.25, False)):
            reach(made)
            offsets = torch.zeros(1, 2)
            offsets[0, side] = off
            m.begin(every, m.labels, m.quarters, m.axis, task.goal.clone(), offsets)
            goal = task.goal.clone(), task.goal_quarters.clone()
            assert bool(task.outcome(still(made)).success[0]) is expected
            task.goal, task.goal_quarters = goal
    reach(made)
    m.begin(every, m.labels, m.quarters, m.axis, quat_multiply(half, task.goal), torch.zeros(1, 2))
    assert not bool(task.outcome(still(made)).success[0])


def test_flips_of_a_reduced_cube_and_turns_of_a_full_one_can_be_reached() -> None:
    u = torch.rand(200, GOAL_DRAWS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    quat = torch.tensor([math.sqrt(0.5), math.sqrt(0.5), 0.0, 0.0], dtype=torch.float64).expand(200, 4)  # F or B up
    zero = torch.zeros(200, 6, dtype=torch.int64)
    _, quarters = next_goal("mixed", quat, zero, u, (0, 3))
    assert int(quarters.abs().sum()) == 0  # neither U nor D is up
    goal, quarters = next_goal("mixed", quat, zero, u)
    turns = quarters.abs().sum(dim=1) == 1
    assert 0.4 < float(turns.double().mean()) < 0.6
    assert bool((goal[turns] == quat[turns]).all())


def test_a_plan_is_followed_to_its_end_as_the_planner_says() -> None:
    made = environment(1, goals="scramble")
    task = task_of(made)
    expected = subgoals(parse_moves(FAIR_SCRAMBLE), flip_to(UPRIGHT, "L"))
    assert task.sequence_length == len(expected) == 43
    made.autoreset = False
    for number, goal in enumerate(expected):
        assert task.goal_quarters[0].tolist() == goal.quarters.tolist(), number
        assert torch.allclose(quat_to_matrix(task.goal)[0], torch.as_tensor(goal.rotation).double(), atol=1e-6)
        reach(made)
        result = made.step(still(made))
        assert bool(result.success[0])
        assert int(result.episode_successes[0]) == number + 1
        assert bool(result.done[0]) is bool(result.truncated[0]) is (number == 42)
        assert not bool(result.terminated[0])


def test_a_scrambled_cube_is_solved_by_its_plan() -> None:
    pytest.importorskip("kociemba")
    made = environment(1, goals="solve", scramble="R U F'")
    task = task_of(made)
    assert (task.mechanism.labels[0].numpy() == after(SOLVED, parse_moves("R U F'"))).all()
    made.autoreset = False
    for number in range(task.sequence_length):
        reach(made)
        result = made.step(still(made))
        assert bool(result.done[0]) is bool(result.terms["solved"][0]) is (number == task.sequence_length - 1)


def test_a_cube_that_falls_ends_its_episode_and_one_that_is_not_turned_is_given_up() -> None:
    made = environment(2, goals="flip")
    task = task_of(made)
    k = len(task.parts.joints)
    made.engine.data("qpos")[0, k : k + 3] = torch.tensor([0.5, 0.0, 0.0])
    result = made.step(still(made))
    assert result.terminated.tolist() == [True, False]
    assert float(result.terms["drop"][0]) == -1.0
    task.waited[:] = task.patience_steps - 1
    result = made.step(still(made))
    assert result.truncated.tolist() == [True, True]


def test_episodes_begin_with_legal_cubes_and_are_the_same_at_any_number_of_environments() -> None:
    made, single = environment(6), environment(1)
    for labels in task_of(made).mechanism.labels:
        check_labels(labels.numpy())
    assert torch.equal(task_of(made).mechanism.labels[:1], task_of(single).mechanism.labels)
    for _ in range(5):
        a, b = (
            made.step(0.5 * torch.ones(6, made.task.action_size)),
            single.step(0.5 * torch.ones(1, made.task.action_size)),
        )
        assert torch.equal(a.observed.policy[:1], b.observed.policy)


def test_a_resumed_environment_goes_on_bit_for_bit() -> None:
    def run(made: Environment, count: int) -> list[Tensor]:
        shown = []
        for _ in range(count):
            result = made.step((2.0 * made.rng.uniform("test", made.task.action_size) - 1.0).float())
            privileged = result.observed.privileged
            assert privileged is not None
            shown += [result.observed.policy, privileged, result.reward, task_of(made).mechanism.labels]
        return shown

    made = environment(4)
    axes = task_of(made).mechanism.axis.clone()
    run(made, 30)
    state, again = snapshot(made), environment(4)
    again.load_state_dict(state)
    assert all(torch.equal(a, b) for a, b in zip(run(made, 40), run(again, 40), strict=True))
    assert not torch.equal(task_of(made).mechanism.axis, axes)  # something happened


def test_the_drawn_goal_shows_the_cube_as_it_is_to_be() -> None:
    made = environment(1, goals="scramble")
    task = task_of(made)
    model, data = made.engine.export_to_mujoco(0)
    task.draw_goal(model, data, 0)
    first = after(SOLVED, parse_moves("L"))
    left = FACES.index("L")
    assert task.goal_quarters[0, left] == -1  # clockwise
    for piece in PIECES:
        black = 3 if piece.facelet // 9 == left else 0
        colour = PLASTIC if piece.corner == black else COLOURS[int(first[piece.facelet]) // 9]
        assert model.site(f"goal_{piece.name}").rgba == pytest.approx(colour)


@pytest.mark.parametrize(("mixing", "least", "most"), [(0, 54, 54), (1, 42, 54), ([0, 1], 42, 54), (30, 6, 40)])
def test_cubes_are_mixed_as_much_as_the_option_says(mixing: Any, least: int, most: int) -> None:
    labels = task_of(environment(64, mixing=mixing)).mechanism.labels
    right = (labels // 9 == torch.arange(54) // 9).sum(dim=1)
    assert least <= int(right.min()) <= int(right.max()) <= most
    assert (len(right.unique()) > 1) == (mixing not in (0, 1))
    for row in labels[:8]:
        check_labels(row.numpy())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"hand": "none"}, "hand: expected 'allegro' or 'shadow'"),
        ({"hand": "alegro"}, "did you mean 'allegro'?"),
        ({"goals": "flips"}, "option 'goals': expected 'spin', 'flip'"),
        ({"goals": "face", "turning": "none"}, "'face' turns faces"),
        ({"goals": "scramble", "turning": "top_and_bottom"}, "turning: expected 'all'"),
        ({"goals": "mixed", "scramble": "R"}, "has no plan"),
        ({"goals": "scramble", "scramble": "R X"}, "scramble: move 2, 'X'"),
        ({"smoothing": 0.0}, "smoothing"),
        ({"heading": "any"}, "option 'heading': expected 'fixed' or 'free', got 'any'"),
        ({"heading": "free", "goals": "spin"}, "heading: 'free' leaves nothing to reach of goals: spin"),
        ({"mixing": -1}, "mixing: expected a number of turns, or the fewest and the most, got -1"),
        ({"mixing": [3, 2]}, "got [3, 2]"),
        ({"mixing": "all"}, "got 'all'"),
        ({"mixing": 1.5}, "got 1.5"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises((UnknownOptionError, ValueError)) as told:
        make_task("RubiksCube-v0", **options)
    assert said in str(told.value)
    assert "\n" not in str(told.value)


def test_solve_refuses_what_no_cube_is(capsys: pytest.CaptureFixture[str]) -> None:
    refused(
        simreal_command(capsys, "solve", "runs/none", "--scramble", "R Q"), "'Q'", "expected one of U, R, F, D, L, B"
    )
    refused(simreal_command(capsys, "solve", "runs/none", "--facelets", "U" * 54), "9 of each letter")
    refused(simreal_command(capsys, "solve", "runs/none", "--scramble", "R"), "no such run or bundle")
