"""What estimators read: rotations, likelihoods, intervals and the errors that become noise, against numbers that others
compute or that are worked out here."""

from __future__ import annotations

import math

import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

from envs.common.spatial import quat_to_euler, uniform_quat
from envs.registry import make_task
from randomization.samplers.base import Manual
from simreal.common.errors import UserError
from simreal.vision.estimator.assess import Readings, cut_normal, parts_of_variance, resampled, summarize_looks
from simreal.vision.estimator.looks import LookWorlds
from simreal.vision.estimator.targets import Target, find_target, geodesic, six_to_matrix

POSITION = Target("p", "position", 3, 0.01, "m", ("x", "y", "z"))
QUAT = Target("q", "quaternion", 4, 0.2, "rad", ("w", "x", "y", "z"))
EULER = Target("e", "euler", 3, 0.2, "rad", ("x", "y", "z"))
ANGLES = Target("a", "angles", 2, 0.2, "rad", ("one", "two"))


def quats(n: int, seed: int = 0) -> Tensor:
    return uniform_quat(torch.rand(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))


def test_the_geodesic_distance_is_the_angle_that_mujoco_finds_between_two_quaternions() -> None:
    a, b = quats(50), quats(50, seed=1)
    turn = np.zeros(3)
    expected = []
    for one, other in zip(a.numpy(), b.numpy(), strict=True):
        mujoco.mju_subQuat(turn, one, other)
        expected.append(np.linalg.norm(turn))
    np.testing.assert_allclose(geodesic(QUAT.to_matrix(a), QUAT.to_matrix(b)).numpy(), expected, rtol=1e-9)


def test_the_gradient_of_the_geodesic_distance_is_finite_at_both_ends() -> None:
    for other in (torch.eye(3), torch.diag(torch.tensor([1.0, -1.0, -1.0]))):
        six = torch.tensor([[1.0, 0, 0, 0, 1.0, 0]], requires_grad=True)
        geodesic(six_to_matrix(six), other[None]).square().sum().backward()
        assert six.grad is not None
        assert bool(six.grad.isfinite().all())


def test_six_numbers_become_the_rotation_that_a_qr_decomposition_gives() -> None:
    six = torch.randn(20, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    for row, matrix in zip(six.numpy(), six_to_matrix(six).numpy(), strict=True):
        q, r = np.linalg.qr(row.reshape(2, 3).T)
        np.testing.assert_allclose(matrix[:, :2], q * np.sign(np.diag(r)), atol=1e-12)
        np.testing.assert_allclose(np.linalg.det(matrix), 1.0)


@pytest.mark.parametrize("target", [QUAT, EULER])
def test_a_rotation_comes_back_in_its_components_own_numbers(target: Target) -> None:
    quat = quats(20)
    value = quat * torch.where(quat[:, :1] < 0, -1.0, 1.0) if target is QUAT else quat_to_euler(quat)
    matrix = target.to_matrix(value)
    six = torch.cat((3.0 * matrix[:, :, 0], 0.2 * matrix[:, :, 1] + matrix[:, :, 0]), dim=1)
    found, std = target.estimate(torch.cat((six, torch.full((20, 1), math.log(0.3))), dim=1))
    torch.testing.assert_close(found, value)
    torch.testing.assert_close(std, torch.full((20, 1), 0.3, dtype=torch.float64))
    assert float(target.error(found, value).max()) < 1e-6


def test_the_likelihood_is_the_one_worked_out_by_hand() -> None:
    # One of three is 0.2 off at a deviation of 0.1: 0.1 (2 + ln 0.1), the others 0.1 ln 0.1
    output = torch.tensor([[0.2, 0.0, 0.0, *[math.log(0.1)] * 3]])
    truth = torch.zeros(1, 3)
    assert float(POSITION.loss(output, truth)) == pytest.approx(0.1 * (2.0 + 3.0 * math.log(0.1)), rel=1e-5)
    # Angles 3 and -3 are 2 pi - 6 apart
    output = torch.tensor([[math.cos(3.0), 1.0, math.sin(3.0), 0.0, 0.0, 0.0]])
    residual = 2.0 * math.pi - 6.0
    assert float(ANGLES.loss(output, torch.tensor([[-3.0, 0.0]]))) == pytest.approx(0.5 * residual**2, rel=1e-4)
    assert float(ANGLES.error(*(torch.tensor([[v, 0.1]]) for v in (3.0, -3.0)))) == pytest.approx(residual, rel=1e-4)
    # A turn by 0.3 at a deviation of 0.5: 0.5 (0.18 + 3 ln 0.5)
    half = 0.15
    matrix = QUAT.to_matrix(torch.tensor([[math.cos(half), math.sin(half), 0.0, 0.0]]))
    output = torch.cat((matrix[:, :, 0], matrix[:, :, 1], torch.tensor([[math.log(0.5)]])), dim=1)
    expected = 0.5 * (0.5 * (0.3 / 0.5) ** 2 + 3.0 * math.log(0.5))
    assert float(QUAT.loss(output, torch.tensor([[1.0, 0.0, 0.0, 0.0]]))) == pytest.approx(expected, rel=1e-4)


def test_intervals_of_90_percent_hold_the_truth_in_90_percent_where_errors_are_normal() -> None:
    n, sigma, generator = 20_000, 0.1, torch.Generator().manual_seed(3)
    normal = lambda k: sigma * torch.randn(n, k, dtype=torch.float64, generator=generator)  # noqa: E731
    std = torch.full((n, 1), sigma, dtype=torch.float64)
    shares = [
        POSITION.covered(normal(3), std.expand(n, 3), torch.zeros(n, 3)),
        ANGLES.covered(normal(2) + math.pi, std.expand(n, 2), torch.full((n, 2), -math.pi)),
    ]
    turn = normal(3)
    angle = turn.norm(dim=1, keepdim=True)
    quat = torch.cat(((0.5 * angle).cos(), (0.5 * angle).sin() * turn / angle), dim=1)
    shares.append(QUAT.covered(quat, std, torch.tensor([1.0, 0, 0, 0], dtype=torch.float64).expand(n, 4)))
    for share in shares:
        assert float(share.double().mean()) == pytest.approx(0.9, abs=0.007)  # three standard errors


def test_sure_is_what_claims_to_be_right() -> None:
    """Of angles, each by itself: a camera sees one face of a cube and not the other."""
    look = LookWorlds("nominal", "nominal", Manual([]))
    half = ANGLES.claimed(torch.tensor([[0.1, 0.5], [0.1, 0.5]]))
    miss = ANGLES.misses(torch.tensor([[0.1, 3.0], [0.9, 0.1]]), torch.tensor([[0.0, -3.0], [0.0, 0.0]]))
    np.testing.assert_allclose(half, [[0.164485, 0.822427]] * 2, rtol=1e-5)
    np.testing.assert_allclose(miss, [[0.1, 2 * math.pi - 6.0], [0.9, 0.1]], rtol=1e-5)
    arrays = ({"a": part.double().numpy()} for part in (miss.amax(1), miss, half, miss))
    row = summarize_looks(look, Readings(np.arange(2), *arrays), [ANGLES])["targets"]["a"]
    assert (row["sure"], row["sure_right"]) == (0.5, 0.5)
    assert row["coverage"] == 0.75
    arrays = ({"a": part.double().numpy()} for part in (miss.amax(1), miss, 10.0 * half, miss))
    row = summarize_looks(look, Readings(np.arange(2), *arrays), [ANGLES])["targets"]["a"]
    assert (row["sure"], row["sure_right"]) == (0.0, None)


def test_targets_are_found_by_unit_and_refused_by_name() -> None:
    task = make_task("FetchPush-v4")
    assert find_target(task, "object_pos", "auto", 0.01).kind == "position"
    assert find_target(task, "object_rot", "auto", 0.1).kind == "euler"
    with pytest.raises(UserError, match=r"targets.object_poss: .* \(did you mean 'object_pos'"):
        find_target(task, "object_poss", "auto", 0.01)
    with pytest.raises(UserError, match=r"targets.grip_pos: has 3 values"):
        find_target(task, "grip_pos", "quaternion", 0.01)
    with pytest.raises(UserError, match=r"targets.joint_vel: has 16 in 'rad/s'"):
        find_target(make_task("AllegroCube-v0"), "joint_vel", "auto", 0.01)


def test_a_quaternion_read_with_the_other_sign_is_not_an_error() -> None:
    target = find_target(make_task("AllegroCube-v0"), "cube_quat", "auto", 0.3)
    truth = torch.tensor([[0.01, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, 0.0]])
    value = torch.tensor([[0.01, 0.0, 0.0, -1.0], [0.995, 0.1, 0.0, 0.0]])
    differences = target.differences(value, truth)
    torch.testing.assert_close(differences, torch.tensor([[-0.02, 0.0, 0.0, 0.0], [-0.005, 0.1, 0.0, 0.0]]))


def test_noise_and_bias_are_those_of_an_analysis_of_variance() -> None:
    # Episodes (1, 3) and (7, 9): MSW = (1 + 1 + 1 + 1) / 2 = 2, MSB = 2 (9 + 9) / 1 = 36, bias^2 = (36 - 2) / 2
    noise, bias = parts_of_variance(np.array([0, 0, 4, 4]), np.array([[1.0], [3.0], [7.0], [9.0]]))
    np.testing.assert_allclose([noise[0], bias[0]], [math.sqrt(2.0), math.sqrt(17.0)])
    generator = np.random.default_rng(0)
    episode = np.repeat(np.arange(500), 16)
    errors = generator.normal(0.0, 0.02, 500)[episode] + generator.normal(0.0, 0.05, len(episode))
    noise, bias = parts_of_variance(episode, errors[:, None])
    np.testing.assert_allclose([noise[0], bias[0]], [0.05, 0.02], rtol=0.1)


def test_intervals_are_of_episodes_and_not_of_pictures() -> None:
    # Pictures of an episode are all alike: 20 numbers, whatever the pictures
    values = np.random.default_rng(1).normal(size=20)
    episode = np.repeat(np.arange(20), 50)
    ends = resampled(episode, lambda rows: np.array([values[episode][rows].mean()]))
    error = values.std() / math.sqrt(20)
    np.testing.assert_allclose(ends[1] - ends[0], 2 * 1.96 * error, rtol=0.15)


@pytest.mark.parametrize("size", [1, 3, 6])
def test_the_smaller_errors_of_normal_ones_give_their_deviation(size: int) -> None:
    draws = np.random.default_rng(0).standard_normal((200_000, size))
    length = np.linalg.norm(draws, axis=1)
    smaller = draws[length <= np.quantile(length, 0.9)]
    assert smaller.std() == pytest.approx(cut_normal(size, 0.9), rel=5e-3)
