"""Policies that choose among bins: their distribution against torch's, symmetry, learning, export with ties."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Independent, kl_divergence

from envs.registry import make_task
from envs.task import Mirror
from simreal import deploy
from simreal.export.bundle import export_bundle
from simreal.learners.on_policy.actor_critic import Policy, RecurrentPolicy
from simreal.learners.on_policy.categorical import Categorical
from simreal.learners.on_policy.symmetry import symmetry_loss
from simreal.learners.options import PPOConfig


def config(**settings: Any) -> PPOConfig:
    small = {"actor": "categorical", "bins": 5, "actor_hidden": (16,), "critic_hidden": (16,), "horizon": 8}
    return PPOConfig(**(small | settings))


def logits(seed: int, *shape: int) -> Tensor:
    return 2.0 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def test_probabilities_entropy_and_kl_are_torchs() -> None:
    a, b = logits(0, 2, 20, 3, 5), logits(1, 2, 20, 3, 5)
    one, other = (Independent(TorchCategorical(logits=x), 1) for x in (a, b))
    u = torch.randint(5, (2, 20, 3), generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(Categorical(a).log_prob(u.float()), one.log_prob(u))
    torch.testing.assert_close(Categorical(a).entropy(u.float()), one.entropy())
    torch.testing.assert_close(Categorical(a).kl(Categorical(b)), kl_divergence(one, other))
    # The variance of a value chosen with these probabilities, from its definition
    p, values = a.softmax(-1), torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0]).double()
    mean = (p * values).sum(-1, keepdim=True)
    torch.testing.assert_close(Categorical(a).std(), (p * (values - mean).square()).sum(-1).sqrt())


def test_bins_are_drawn_as_often_as_they_are_likely_and_never_if_impossible() -> None:
    p = torch.tensor([0.0, 0.5, 0.125, 0.375, 0.0])
    drawn = Categorical(p.log().clamp(min=-1e30).expand(40_000, 2, 5)).sample(torch.Generator().manual_seed(0))
    for actuator in drawn.unbind(1):
        share = torch.bincount(actuator.long(), minlength=5) / 40_000
        assert share[[0, 4]].tolist() == [0.0, 0.0]
        assert (share - p).abs().max() < 4.0 * 0.5 / 200.0  # four standard errors
    assert abs(float(torch.corrcoef(drawn.T)[0, 1])) < 0.02  # each actuator draws for itself


def test_actions_are_evenly_spaced_and_of_equally_likely_ones_the_first_is_taken() -> None:
    u = torch.tensor([[0.0, 1.0, 2.0, 3.0, 4.0]])
    assert Categorical(torch.zeros(1, 5, 5)).action(u).tolist() == [[-1.0, -0.5, 0.0, 0.5, 1.0]]
    tied = torch.tensor([[0.0, 3.0, 1.0, 3.0, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0]])
    assert Categorical(tied).mode().tolist() == [-0.5, 1.0]


def test_where_two_bins_are_nearly_as_likely_the_choice_counts_as_undecided() -> None:
    rows = [[2.0, 2.0, 0.0], [2.0, 2.0 - 1e-6, 0.0], [2.0, 1.9, 0.0], [200.0, 200.0 - 1e-3, 0.0]]
    assert Categorical(torch.tensor(rows)[:, None]).undecided(1e-5).tolist() == [False, True, False, True]


def test_the_mirror_image_exchanges_actuators_and_reverses_bins() -> None:
    mirror = Mirror((0, 2, 1), (-1.0, 1.0, 1.0), (1, 0), (1.0, -1.0))
    torch.manual_seed(0)
    policy = Policy(3, 2, config())
    torch.nn.init.normal_(policy.actor.trunk.last.weight)
    x = torch.randn(1, 50, 3)

    def p(x: Tensor) -> Tensor:
        return policy.actor(x, x[0, :, :0])[0].probabilities()

    a, b = p(x), p(torch.stack((-x[..., 0], x[..., 2], x[..., 1]), dim=-1))
    # Actuator 0 is what actuator 1 does in the mirror; actuator 1 the opposite of what actuator 0 does there.
    expected = (a[..., 0, :] - b[..., 1, :]).square().sum(-1) + (a[..., 1, :] - b[..., 0, :].flip(-1)).square().sum(-1)
    loss = symmetry_loss(policy, x, policy.actor(x, x[0, :, :0])[0], mirror)
    torch.testing.assert_close(loss, expected.mean())
    assert loss.item() > 0.01


def test_a_choice_needs_two_bins_and_what_is_of_a_gaussian_is_not_in_its_way() -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 2"):
        config(bins=1)
    assert config(initial_std=0.35, bound_coef=0.01, squash="tanh").actor == "categorical"


@pytest.mark.parametrize("memory", ["none", "lstm"])
def test_the_exported_graph_puts_out_the_bins_values_and_the_first_of_tied_ones(tmp_path: Path, memory: str) -> None:
    torch.manual_seed(1)
    make = Policy if memory == "none" else RecurrentPolicy
    policy = make(4, 1, config(memory=memory, memory_size=8, segment=4, bins=11))
    torch.nn.init.normal_(policy.actor.trunk.last.weight)
    last = policy.actor.trunk.last  # bins 2k and 2k + 1 are equally likely everywhere
    with torch.no_grad():
        last.weight[1:10:2] = last.weight[0:10:2]
        last.weight[10] -= 100.0
    loaded = deploy.Policy.load(export_bundle(policy, make_task("InvertedPendulum-v5"), tmp_path / "bundle"))
    observations = torch.randn(200, 4, generator=torch.Generator().manual_seed(2))
    actions = torch.from_numpy(loaded(observations.numpy()))
    inputs = (observations,) if memory == "none" else (observations, torch.zeros(200, 16))
    decided = ~policy.undecided(1e-5, *inputs)
    assert decided.float().mean() > 0.99
    expected = policy(*inputs) if memory == "none" else policy(*inputs)[0]
    assert torch.equal(actions[decided], expected[decided])
    bins = ((actions + 1.0) * 5.0).round()
    torch.testing.assert_close(actions, bins / 5.0 - 1.0)
    assert sorted(set(bins.flatten().tolist()) - {10.0}) == [0.0, 2.0, 4.0, 6.0, 8.0]


def test_a_bundle_of_nearly_tied_bins_is_written_and_its_golden_actions_are_decided(tmp_path: Path) -> None:
    """One bin in a hundred thousand better than another: torch and ONNX Runtime may round to either."""
    torch.manual_seed(1)
    policy = Policy(4, 1, config(bins=2))
    last = policy.actor.trunk.last
    with torch.no_grad():
        last.weight[1] = last.weight[0] * (1.0 + 3e-5)
        last.weight *= 100.0
    bundle = export_bundle(policy, make_task("InvertedPendulum-v5"), tmp_path / "bundle")
    golden = np.load(bundle / "golden.npz")
    kept = torch.from_numpy(golden["observations"])
    assert 0 < len(kept) < 64
    assert not policy.undecided(1e-5, kept).any()
    assert deploy.Policy.load(bundle)(golden["observations"]).tolist() == golden["actions"].tolist()
