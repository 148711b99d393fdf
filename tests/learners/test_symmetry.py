"""The symmetry loss, against the definition on states in SI units."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from envs.task import Mirror
from simreal.learners.base import LearnerSpec
from simreal.learners.on_policy.actor_critic import Policy
from simreal.learners.on_policy.gaussian import Gaussian
from simreal.learners.on_policy.ppo import PPO
from simreal.learners.on_policy.symmetry import mirrored, symmetry_loss
from simreal.learners.options import PPOConfig


def settings(**changes: Any) -> PPOConfig:
    return PPOConfig.model_validate(changes)


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
