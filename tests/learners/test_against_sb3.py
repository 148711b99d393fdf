"""SAC, TD3 and DDPG against stable-baselines3: the same weights, batches and noise lead to the same weights.

In float64, as Adam enlarges what rounding does to small gradients.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from simreal.learners.base import LearnerSpec
from simreal.learners.off_policy.ddpg import DDPG
from simreal.learners.off_policy.sac import SAC
from simreal.learners.off_policy.td3 import TD3
from simreal.learners.off_policy.transitions import ReplayBatch
from simreal.learners.options import DDPGConfig, SACConfig, TD3Config

stable_baselines3 = pytest.importorskip("stable_baselines3")

OBSERVATION, ACTION, ROWS, UPDATES = 5, 3, 64, 30
PROBLEM = LearnerSpec(1, OBSERVATION, ACTION, 0, 0, None, torch.device("cpu"))
SETTINGS: dict[str, Any] = {
    "hidden": (32, 32), "batch_size": ROWS, "replay_size": 10, "gamma": 0.99, "tau": 0.01,
    "actor_lr": 1e-3, "critic_lr": 1e-3,
}  # fmt: skip


class _Space(gymnasium.Env[np.ndarray, np.ndarray]):
    """Spaces only: nothing is simulated."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (OBSERVATION,), np.float64)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (ACTION,), np.float32)


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def batches() -> list[ReplayBatch]:
    g = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g)

    return [
        ReplayBatch(
            draw(ROWS, OBSERVATION), draw(ROWS, ACTION).tanh(), 10.0 * draw(ROWS), draw(ROWS, OBSERVATION),
            (torch.rand(ROWS, generator=g) < 0.2).double(),
        )
        for _ in range(UPDATES)
    ]  # fmt: skip


def theirs_of(algorithm: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Their learner, which takes observations as they are: it would round them to float32."""
    settings = {
        "learning_rate": 1e-3, "gamma": 0.99, "tau": 0.01, "batch_size": ROWS, "buffer_size": 10, "device": "cpu",
        "policy_kwargs": {"net_arch": [32, 32]},
    }  # fmt: skip
    model = getattr(stable_baselines3, algorithm)("MlpPolicy", _Space(), **settings)
    model.set_logger(stable_baselines3.common.logger.configure(None, []))
    for part in ("actor", "critic", "actor_target", "critic_target"):
        if hasattr(model, part):
            monkeypatch.setattr(getattr(model, part), "extract_features", lambda observation, extractor: observation)
    return model


def layers(module: nn.Module) -> list[nn.Linear]:
    return [m for m in module.modules() if isinstance(m, nn.Linear)]


def actor_weights(actor: nn.Module) -> list[Tensor]:
    return [value for layer in layers(actor) for value in (layer.weight.data, layer.bias.data)]


def ensemble_weights(critic: nn.Module) -> list[list[Tensor]]:
    """Of every member, in the layout of nn.Linear; views."""
    net: Any = critic.get_submodule("net")
    if isinstance(net, nn.Sequential):
        return [actor_weights(net)]
    return [
        [value for w, b in zip(net.weights, net.biases, strict=True) for value in (w.data[k].T, b.data[k, 0])]
        for k in range(net.weights[0].shape[0])
    ]


def sac_actor_weights(actor: Any) -> list[Tensor]:
    """Of their actor with the heads of mean and log standard deviation as one layer."""
    heads = [torch.cat((getattr(actor.mu, n).data, getattr(actor.log_std, n).data)) for n in ("weight", "bias")]
    return [*actor_weights(actor.latent_pi), *heads]


def copy(target: list[Tensor], source: list[Tensor]) -> None:
    for mine, other in zip(target, source, strict=True):
        mine.copy_(other)


def assert_same(mine: list[Tensor], other: list[Tensor], begun: list[Tensor], moved: float = 1e-3) -> None:
    for a, b, start in zip(mine, other, begun, strict=True):
        assert (a - start).abs().max() > moved
        assert torch.allclose(a, b, rtol=0.0, atol=1e-9)


def test_updates_of_sac_are_those_of_stable_baselines3(monkeypatch: pytest.MonkeyPatch) -> None:
    model = theirs_of("SAC", monkeypatch)
    ours = SAC(PROBLEM, SACConfig(**SETTINGS, alpha_lr=1e-3, initial_alpha=1.0), seed=0)
    copy(actor_weights(ours.network.actor), sac_actor_weights(model.actor))
    for critic, other in ((ours.critic, model.critic), (ours.target_critic, model.critic_target)):
        for member, net in zip(ensemble_weights(critic), other.q_networks, strict=True):
            copy(member, actor_weights(net))
    begun = [w.clone() for w in actor_weights(ours.network.actor)]
    begun_critics = [[w.clone() for w in member] for member in ensemble_weights(ours.target_critic)]

    model.actor.action_dist.epsilon = 0.0  # which keeps their log(1 - a^2) finite; ours needs none
    model.critic.optimizer.param_groups[0]["eps"] /= 2.0  # their loss of the critics is half of ours
    pending: list[Tensor] = []
    normal = torch.distributions.Normal
    monkeypatch.setattr(normal, "rsample", lambda self, shape=None: self.loc + self.scale * pending.pop(0))
    noises = torch.randn(UPDATES, 2, ROWS, ACTION, generator=torch.Generator().manual_seed(4))
    for batch, noise in zip(batches(), noises, strict=True):
        ours._update(batch, noise)
        pending[:] = [noise[1], noise[0]]  # theirs begins with the action for the present state
        update(model, batch, monkeypatch)

    alpha, theirs = ours.log_alpha.item(), model.log_ent_coef.item()
    assert abs(alpha - theirs) < 1e-9 < abs(alpha)
    assert_same(actor_weights(ours.network.actor), sac_actor_weights(model.actor), begun)
    for critic, other in ((ours.critic, model.critic), (ours.target_critic, model.critic_target)):
        for member, net, start in zip(ensemble_weights(critic), other.q_networks, begun_critics, strict=True):
            assert_same(member, actor_weights(net), start)


def test_updates_of_ddpg_are_those_of_stable_baselines3(monkeypatch: pytest.MonkeyPatch) -> None:
    model = theirs_of("DDPG", monkeypatch)
    ours = DDPG(PROBLEM, DDPGConfig(**SETTINGS, action_penalty=0.0), seed=0)
    pairs = [
        (actor_weights(ours.network.actor), model.actor),
        (actor_weights(ours.target_actor), model.actor_target),
        (ensemble_weights(ours.critic)[0], model.critic),
        (ensemble_weights(ours.target_critic)[0], model.critic_target),
    ]
    for mine, other in pairs:
        copy(mine, actor_weights(other))
    begun = [[w.clone() for w in mine] for mine, _ in pairs]
    for batch in batches():
        ours._update(batch)
        update(model, batch, monkeypatch)
    for (mine, other), start in zip(pairs, begun, strict=True):
        assert_same(mine, actor_weights(other), start)


def test_updates_of_td3_are_those_of_stable_baselines3(monkeypatch: pytest.MonkeyPatch) -> None:
    model = theirs_of("TD3", monkeypatch)
    ours = TD3(PROBLEM, TD3Config(**SETTINGS), seed=0)
    pairs = [
        (actor_weights(ours.network.actor), actor_weights(model.actor)),
        (actor_weights(ours.target_actor), actor_weights(model.actor_target)),
    ]
    for critic, other in ((ours.critic, model.critic), (ours.target_critic, model.critic_target)):
        for member, net in zip(ensemble_weights(critic), other.q_networks, strict=True):
            pairs.append((member, actor_weights(net)))
    for mine, other in pairs:
        copy(mine, other)
    begun = [[w.clone() for w in mine] for mine, _ in pairs]
    pending: list[Tensor] = []
    monkeypatch.setattr(Tensor, "normal_", lambda self, mean, std: self.copy_(mean + std * pending.pop()))
    noises = 3.0 * torch.randn(UPDATES, 1, ROWS, ACTION, generator=torch.Generator().manual_seed(4))  # some are clipped
    for batch, noise in zip(batches(), noises, strict=True):
        ours.updates += 1
        ours._update(batch, noise)
        pending.append(noise[0])
        update(model, batch, monkeypatch)
        assert not pending
    for (mine, other), start in zip(pairs, begun, strict=True):
        assert_same(mine, other, start, moved=5e-4)  # targets follow at every second update


def update(model: Any, batch: ReplayBatch, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of theirs from the batch."""
    samples = stable_baselines3.common.type_aliases.ReplayBufferSamples(
        batch.observation, batch.action, batch.next_observation, batch.terminated[:, None], batch.reward[:, None]
    )
    monkeypatch.setattr(model.replay_buffer, "sample", lambda *_, **__: samples)
    model.train(1, ROWS)
