"""The symmetry loss, against the definition on states in SI units."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from envs.task import Mirror
from randomization.catalogue.quantity import Parameter
from simreal.learners.base import LearnerSpec
from simreal.learners.on_policy.actor_critic import Policy
from simreal.learners.on_policy.gaussian import Gaussian
from simreal.learners.on_policy.ppo import PPO
from simreal.learners.on_policy.symmetry import mirrored, mirrored_features, symmetry_loss, with_privileged
from simreal.learners.options import PPOConfig


def settings(**changes: Any) -> PPOConfig:
    return PPOConfig.model_validate(changes)


FEET = {"L": "R", "R": "L"}
MIRROR = Mirror((0, 2, 1), (-1.0, 1.0, 1.0), (1, 0), (1.0, -1.0))


def policy() -> Policy:
    torch.manual_seed(0)
    made = Policy(3, 2, settings(actor_hidden=(8,)))
    torch.nn.init.normal_(made.actor.trunk.last.weight)
    made.normalizer.update(torch.randn(500, 3) * torch.tensor([2.0, 0.5, 3.0]) + torch.tensor([1.0, -2.0, 0.3]))
    return made


def image(raw: torch.Tensor) -> torch.Tensor:
    return torch.stack((-raw[..., 0], raw[..., 2], raw[..., 1]), dim=-1)


def test_normalized_observations_are_mirrored_as_those_in_si_units() -> None:
    made, raw = policy(), torch.randn(1, 50, 3)
    expected = made.normalizer(image(raw).double())
    torch.testing.assert_close(mirrored(made.normalizer(raw.double()), MIRROR, made.normalizer), expected)


def test_the_loss_is_zero_for_a_symmetric_policy_only() -> None:
    made, raw = policy(), torch.randn(1, 50, 3)
    x = made.normalizer(raw.double())

    def pi(raw: torch.Tensor) -> Gaussian:
        return made.actor(made.normalizer(raw.double()), raw[0, :, :0])[0]

    a, b = pi(raw).mean, pi(image(raw)).mean
    expected = ((a[..., 0] - b[..., 1]) ** 2 + (a[..., 1] + b[..., 0]) ** 2).mean()
    loss = symmetry_loss(made, x, pi(raw), MIRROR)
    torch.testing.assert_close(loss, expected)
    optimizer = torch.optim.Adam(made.actor.parameters(), lr=0.03)
    for _ in range(300):
        loss = symmetry_loss(made, x, pi(raw), MIRROR)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 1e-2 * expected.item()


def test_a_task_without_symmetry_and_a_policy_with_memory_refuse_it() -> None:
    problem = LearnerSpec(2, 3, 2, 0, 0, None, torch.device("cpu"))
    with pytest.raises(ValueError, match="mirror_coef: this task has no symmetry"):
        PPO(problem, settings(horizon=8, minibatches=2, mirror_coef=1.0), 0)
    with pytest.raises(ValueError, match="mirror_coef: works without memory only"):
        settings(memory="lstm", mirror_coef=1.0)


def test_a_policy_that_reads_the_privileged_group_is_mirrored_there_too_and_in_the_world() -> None:
    """Worked by hand: privileged values 0 and 1 change places, a coordinate its sign, two feet their frictions."""
    task = replace(MIRROR, privileged=(1, 0), privileged_sign=(1.0, 1.0), exchanged=FEET, reversed=("body_com_y",))
    world = (
        Parameter("mass", nominal=1.0, limits=(0.5, 3.0), quantity="body_mass", targets=("trunk",)),
        Parameter("com", limits=(-0.1, 0.1), quantity="body_com_y", targets=("trunk",)),
        Parameter("left", nominal=1.0, limits=(0.2, 2.0), quantity="geom_friction", targets=("L",)),
        Parameter("right", nominal=1.0, limits=(0.2, 2.0), quantity="geom_friction", targets=("R",)),
    )
    whole = with_privileged(task, 6, world)
    seen = torch.arange(1.0, 10.0)
    image = seen[list(whole.observation)] * torch.tensor(whole.observation_sign)
    assert image.tolist() == [-1, 3, 2, 5, 4, 6, -7, 9, 8]
    with pytest.raises(ValueError, match=r"nothing is the mirror image of parameter 'left' with limits \[0.2, 2.0\]"):
        with_privileged(task, 5, world[:3])
    crooked = replace(world[1], limits=(-0.1, 0.2))
    with pytest.raises(ValueError, match=r"mirror image of parameter 'com' with limits \[-0.2, 0.1\]"):
        with_privileged(task, 4, (world[0], crooked))
    with pytest.raises(ValueError, match="the task does not say how its privileged group is mirrored"):
        with_privileged(MIRROR, 6, world)


def test_a_teacher_of_a_walking_robot_is_kept_symmetric_with_a_history_of_actions() -> None:
    spec = LearnerSpec(
        4, 3, 2, 0, 2, None, torch.device("cpu"), replace(MIRROR, privileged=(1, 0), privileged_sign=(1.0, -1.0))
    )
    learner = PPO(
        spec, settings(horizon=8, minibatches=2, mirror_coef=1.0, actor_reads="privileged", action_history=2), 0
    )
    mirror, normalizer = learner._mirror, learner.network.normalizer
    assert mirror is not None
    x = torch.randn(1, 7, 5 + 2 * 2)
    image = mirrored_features(x, mirror, normalizer, learner.stacks.layout)  # pyright: ignore[reportOptionalMemberAccess]
    expected = x[..., [0, 2, 1, 4, 3, 6, 5, 8, 7]] * torch.tensor([-1.0, 1, 1, 1, -1, 1, -1, 1, -1])
    torch.testing.assert_close(image, expected)


@pytest.mark.parametrize("reads", ["policy", "privileged"])
def test_parameters_of_the_world_reach_the_network_that_reads_them_as_they_are(reads: str) -> None:
    world = (Parameter("mass", limits=(-1.0, 1.0)), Parameter("delay", limits=(0.0, 1.0)))
    spec = LearnerSpec(4, 3, 2, 0, 5, None, torch.device("cpu"), parameters=world)
    learner = PPO(spec, settings(horizon=8, minibatches=2, actor_reads=reads), 0)
    reader = learner.network if reads == "privileged" else learner.critic
    reader.normalizer.update(torch.randn(50, len(reader.normalizer.mean)) * 3.0 + 2.0)
    raw = torch.tensor([[9.0] * (len(reader.normalizer.mean) - 2) + [-1.0, 0.3]])
    assert reader.normalizer(raw)[0, -2:].tolist() == pytest.approx([-1.0, 0.3])
    assert reader.normalizer(raw)[0, -3] != 9.0
