"""Policies say what they compute as a list of layers, and the graph written from it answers as torch does."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

from envs.registry import make_task
from simreal.common.layers import Activation, Bins, Clip, Dense, History, Layer, UnstatedError, layers_of
from simreal.deploy import Policy as Deployed
from simreal.export.bundle import export_bundle
from simreal.export.onnx_writer import write_onnx
from simreal.export.source import ExportError, prepare
from simreal.learners.base import LearnerSpec
from simreal.learners.on_policy.actor_critic import Policy
from simreal.learners.options import PPOConfig
from simreal.learners.registry import learner_class, options_class

TASK, SIZE, ACTIONS = make_task("FetchReach-v4"), 13, 4
SIZES = LearnerSpec(1, SIZE, ACTIONS, 3, 0, None, torch.device("cpu"))
KINDS: dict[str, dict[str, Any]] = {  # learners by what is special of their policies
    "gaussian": {"algorithm": "sac"},
    "deterministic": {"algorithm": "ddpg"},
    "si units": {"algorithm": "td3", "normalize_observation": False},
    "action history of 1": {"algorithm": "sac", "action_history": 1},
    "action history of 3": {"algorithm": "ddpg", "action_history": 3},
    "observation history of 1": {"algorithm": "sac", "observation_history": 1},
    "observation history of 3": {"algorithm": "td3", "observation_history": 3, "action_history": 2},
    "clip, elu": {"algorithm": "ppo", "activation": "elu", "squash": "clip"},
    "tanh, state": {"algorithm": "ppo", "activation": "tanh", "squash": "tanh", "log_std": "state"},
    "lstm": {"algorithm": "ppo", "memory": "lstm"},
    "gru": {"algorithm": "ppo", "memory": "gru", "activation": "relu"},
    "bins": {"algorithm": "ppo", "actor": "categorical", "bins": 5},
    "decoupled bins": {"algorithm": "dqn", "bins": 5},
    "decoupled bins, history": {"algorithm": "dqn", "bins": 4, "observation_history": 2},
    "bins of values": {"algorithm": "dqn", "bins": 7, "observation_history": 2},
    "lstm, bins": {"algorithm": "ppo", "actor": "categorical", "memory": "lstm"},
}


def observations(count: int) -> np.ndarray:
    """[count, 13] float32, like positions: the mean is large beside the spread."""
    return (1.3 + 0.05 * np.random.default_rng(5).standard_normal((count, SIZE))).astype(np.float32)


def make(kind: str) -> Any:
    """A policy of that kind with random weights, for FetchReach."""
    settings = KINDS[kind]
    name = settings["algorithm"]
    small = {"actor_hidden": (16, 16), "memory_size": 8} if name == "ppo" else {"hidden": (16, 16), "her_k": 0}
    options = options_class(name).model_validate(small | settings)
    policy: Any = learner_class(name)(SIZES, options, 0).policy
    torch.manual_seed(0)
    for parameter in policy.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)  # PPO starts with biases of 0 and nearly without actions
    policy.normalizer.update(torch.from_numpy(observations(500)).double())
    return policy


@pytest.mark.parametrize("kind", KINDS)
def test_every_learners_policy_is_exported_without_torchs_exporter(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "simreal.export.tracing", None)  # importing it fails
    policy = make(kind)
    bundle = export_bundle(policy, TASK, tmp_path / "bundle")
    deployed, rows = Deployed.load(bundle), observations(20)
    state = policy.initial_state(len(rows)) if hasattr(policy, "initial_state") else None
    assert (deployed.contract["recurrent_state"] is None) == (state is None)
    for _ in range(3):
        with torch.no_grad():
            given = torch.from_numpy(rows)
            expected, state = (policy(given), None) if state is None else policy(given, state)
        np.testing.assert_allclose(deployed(rows), expected.clamp(-1, 1).numpy(), rtol=0, atol=1e-5)
        rows += 0.02


@pytest.mark.parametrize("kind", KINDS)
def test_onnxs_own_evaluator_reads_the_graph_as_torch_computes(kind: str) -> None:
    source = prepare(make(kind), TASK)
    assert source.layers is not None
    model = onnx.load_from_string(write_onnx(source.layers, SIZE, ACTIONS))
    feeds = {"observation": torch.from_numpy(observations(5))}
    if source.initial is not None:
        shape = (5, *source.initial.shape)
        feeds["state"] = torch.rand(shape, generator=torch.Generator().manual_seed(1)) - 0.5
    answers: Any = ReferenceEvaluator(model).run(None, {name: value.numpy() for name, value in feeds.items()})
    for answer, expected in zip(answers, source.step(*feeds.values()), strict=True):
        np.testing.assert_allclose(answer, expected.numpy(), rtol=0, atol=1e-5)
    assert len(np.unique(answers[0])) > (3 if "bins" in kind else 19)  # 20 values that are not at bounds or constant


def test_past_actions_stand_behind_the_observation_newest_last() -> None:
    weight = np.array([[0.5, 0.1, 0.2]], np.float32)  # of the observation, the action before last, and the last
    layers: list[Layer] = [History(0, 0, 2, 1), Dense(weight, np.array([0.25], np.float32)), Clip(-1.0, 1.0)]
    graph = ReferenceEvaluator(onnx.load_from_string(write_onnx(layers, 1, 1)))
    feeds = {"observation": np.array([[1.0]], np.float32), "state": np.array([[-0.4, 0.8]], np.float32)}
    result: Any = graph.run(None, feeds)
    action, state = result
    # 0.5 * 1 + 0.1 * -0.4 + 0.2 * 0.8 + 0.25 = 0.87
    np.testing.assert_allclose(action, [[0.87]], atol=1e-6)
    np.testing.assert_allclose(state, [[0.8, 0.87]], atol=1e-6)


def test_whoever_overrides_forward_has_to_state_layers_of_its_own() -> None:
    class Doubled(Policy):
        def forward(self, observation: Tensor) -> Tensor:
            return 2.0 * super().forward(observation)

    class Halved(Doubled):
        def layers(self) -> list[Layer]:
            return [Dense(np.full((ACTIONS, SIZE), 0.5, np.float32), np.zeros(ACTIONS, np.float32))]

    options = PPOConfig.model_validate({})
    with pytest.raises(UnstatedError, match="Doubled does not say its layers"):
        layers_of(Doubled(SIZE, ACTIONS, options))
    (layer,) = layers_of(Halved(SIZE, ACTIONS, options))
    assert isinstance(layer, Dense)
    for unknown in (nn.SiLU(), nn.ELU(alpha=0.5), nn.Sequential(nn.Linear(2, 2), nn.Dropout()), nn.GRU(2, 2, 2)):
        with pytest.raises(UnstatedError):
            layers_of(unknown)


def test_a_policy_of_a_plug_in_may_state_its_layers_but_not_wrongly(tmp_path: Path) -> None:
    class Own(nn.Module):
        stated: tuple[Layer, ...] = (Activation("tanh"),)

        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(SIZE, ACTIONS, bias=False)

        def forward(self, observation: Tensor) -> Tensor:
            return torch.tanh(self.net(observation))

        def layers(self) -> list[Layer]:
            return [*layers_of(self.net), *self.stated]

    policy = Own()
    rows = observations(3)
    deployed = Deployed.load(export_bundle(policy, TASK, tmp_path / "bundle"))
    np.testing.assert_allclose(deployed(rows), policy(torch.from_numpy(rows)).detach().numpy(), atol=1e-5)
    before = (tmp_path / "bundle" / "policy.json").read_bytes()
    dense = Dense(np.ones((4, 4), np.float32), np.zeros(4))  # pyright: ignore
    wrong: list[tuple[Any, str]] = [
        ((), "differs from torch's"),
        ((History(0, 0, 2, 4),), r"expected 4 values in the end, got 12"),
        ((History(1, 0, 0, 4),), r"their state has the shape \[1\], its initial_state \[0\]"),
        ((History(1, 5, 0, 4),), "layer 1, History, of 4 values: keeps 5 of 4 values"),
        ((dense,), r"layer 1, Dense, of 4 values: expected float32 of shape \[4\], got float64 of \[4\]"),
        ((Dense(np.ones((4, 3), np.float32), np.zeros(4, np.float32)),), r"of shape \[4, 4\], got float32 of \[4, 3\]"),
        ((Bins(np.zeros(3, np.float32)),), r"layer 1, Bins, of 4 values: expected float32 of shape \[4\], got"),
        (("tanh",), r"layer 1, str, of 4 values: is no layer of simreal\.common\.layers: 'tanh'"),
    ]
    for stated, message in wrong:
        policy.stated = stated
        with pytest.raises(ExportError, match=message):
            export_bundle(policy, TASK, tmp_path / "bundle")
    assert (tmp_path / "bundle" / "policy.json").read_bytes() == before
