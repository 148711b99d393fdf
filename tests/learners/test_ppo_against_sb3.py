"""PPO against stable-baselines3: from the same weights and batches, updates lead to the same weights, in float64."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from simreal.learners.base import LearnerSpec
from simreal.learners.on_policy.ppo import PPO
from simreal.learners.on_policy.rollout import RolloutBatch, WholeRollout
from simreal.learners.options import PPOConfig

stable_baselines3 = pytest.importorskip("stable_baselines3")

OBSERVATION, ACTION, BINS, ROWS, UPDATES = 5, 3, 7, 64, 20
SPEC = LearnerSpec(ROWS, OBSERVATION, ACTION, 0, 0, None, torch.device("cpu"))
SETTINGS: dict[str, Any] = {
    "actor_hidden": (32, 32), "critic_hidden": (32, 32), "activation": "tanh", "horizon": 1, "minibatches": 1,
    "epochs": 1, "lr": 3e-3, "entropy_coef": 0.01, "max_grad_norm": 0.5, "normalize_observation": False,
    "normalize_value": False,
}  # fmt: skip


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


class _Spaces(gymnasium.Env[np.ndarray, np.ndarray]):
    """Spaces only: nothing is simulated."""

    def __init__(self, actor: str) -> None:
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (OBSERVATION,), np.float64)
        box = gymnasium.spaces.Box(-1.0, 1.0, (ACTION,), np.float32)
        self.action_space: Any = gymnasium.spaces.MultiDiscrete([BINS] * ACTION) if actor == "categorical" else box


def theirs(actor: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Their learner, which takes observations as they are: it would round them to float32."""
    model = stable_baselines3.PPO(
        "MlpPolicy", _Spaces(actor), learning_rate=3e-3, n_steps=ROWS, batch_size=ROWS, n_epochs=1, ent_coef=0.01,
        normalize_advantage=False, device="cpu", seed=0, policy_kwargs={"net_arch": [32, 32], "log_std_init": -0.5},
    )  # fmt: skip
    model.set_logger(stable_baselines3.common.logger.configure(None, []))
    monkeypatch.setattr(model.policy, "extract_features", lambda observation, extractor=None: observation)
    return model


def weights(*parts: nn.Module) -> list[Tensor]:
    layers = [m for part in parts for m in part.modules() if isinstance(m, nn.Linear)]
    return [value for layer in layers for value in (layer.weight.data, layer.bias.data)]


def pairs(ours: PPO, model: Any) -> list[tuple[Tensor, Tensor]]:
    policy: Any = model.policy
    actor: Any = ours.policy.actor
    found = list(zip(weights(actor.trunk), weights(policy.mlp_extractor.policy_net, policy.action_net), strict=True))
    found += zip(weights(ours.critic.trunk), weights(policy.mlp_extractor.value_net, policy.value_net), strict=True)
    return found + ([(actor.log_std.data, policy.log_std.data)] if hasattr(policy, "log_std") else [])


@pytest.mark.parametrize("actor", ["gaussian", "categorical"])
def test_updates_of_ppo_are_those_of_stable_baselines3(actor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = theirs(actor, monkeypatch)
    more = {"actor": actor, "bins": BINS} if actor == "categorical" else {}
    ours = PPO(SPEC, PPOConfig(**(SETTINGS | more)), seed=0)
    for mine, other in pairs(ours, model):
        mine.copy_(other)
    begun = [mine.clone() for mine, _ in pairs(ours, model)]
    draw = torch.Generator().manual_seed(3)
    zero, no = torch.zeros(1, ROWS, 0), torch.zeros(1, 1, dtype=torch.bool)
    for _ in range(UPDATES):
        x, advantage, target = (torch.randn(1, ROWS, *shape, generator=draw) for shape in ((OBSERVATION,), (), ()))
        with torch.no_grad():
            old, _ = ours.actor(x + 0.3 * torch.randn(x.shape, generator=draw), zero[0])  # of another policy
            u = old.sample(draw).double()
            log_prob = old.log_prob(u)
        batch = RolloutBatch(
            x, u, old.map(lambda v: v.expand(1, ROWS, *v.shape[(v.dim() > 1) * 2 :])), log_prob, advantage, advantage,
            target, torch.ones(1, ROWS), no, zero, zero, torch.zeros(1, 1, dtype=torch.int64),
        )  # fmt: skip
        ours._epoch(WholeRollout(batch, batch.advantage, batch.weight, ours.share), [], None)
        sample = stable_baselines3.common.type_aliases.RolloutBufferSamples(
            x[0], u[0], advantage[0], log_prob[0], advantage[0], target[0]
        )
        monkeypatch.setattr(model.rollout_buffer, "get", lambda size, sample=sample: iter([sample]))
        model.rollout_buffer.values = model.rollout_buffer.returns = np.zeros((1, 1))  # for their log only
        model.train()
    for (mine, other), start in zip(pairs(ours, model), begun, strict=True):
        assert (mine - start).abs().max() > 1e-4
        torch.testing.assert_close(mine, other, rtol=0.0, atol=1e-9)
