"""The same seed gives the same result, whatever the number of threads."""

from __future__ import annotations

import functools
import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from envs.common.deterministic_ops import Linear, column_sums, expand_rows, gru, mean_all, sum_all
from envs.common.fast_matmul import fast_matmul, thread_independent
from resuming import advance
from simreal.training.run_config import parse_config
from simreal.training.trainer import Trainer
from simreal.training.updates.threads import ThreadChoice
from tiny import LEARNERS, PARAMETERS, leaves

_ON_POLICY = {"horizon": 16, "minibatches": 2, "actor_hidden": [32, 16], "critic_hidden": [24], "segment": 8}
_OFF_POLICY = {"hidden": [48, 24], "batch_size": 33_000, "replay_size": 20_000, "updates_per_step": 0.001}
_OFF_POLICY |= {"updates_per_cycle": 2}
LARGE: dict[str, dict[str, Any]] = {  # enough rows in an update for torch to divide it among threads; means from 32,768
    "ppo": LEARNERS["ppo"]["learner"] | _ON_POLICY,
    "ppo lstm": LEARNERS["ppo lstm"]["learner"] | _ON_POLICY,
    "ppo gru": LEARNERS["ppo"]["learner"] | _ON_POLICY | {"memory": "gru"},
    "trpo": LEARNERS["ppo"]["learner"] | _ON_POLICY | {"objective": "trpo"},
    "ppo bins": LEARNERS["ppo"]["learner"] | _ON_POLICY | {"actor": "categorical", "observation_history": 3},
    "sac": LEARNERS["sac"]["learner"] | _OFF_POLICY,
    "td3": LEARNERS["td3"]["learner"] | _OFF_POLICY,
    "ddpg": LEARNERS["ddpg her"]["learner"] | _OFF_POLICY,
    "dqn": LEARNERS["sac"]["learner"] | _OFF_POLICY | {"algorithm": "dqn"},
}
# One of each kind in the default run.
KINDS = {name: name if name in ("ppo lstm", "sac") else pytest.param(name, marks=pytest.mark.slow) for name in LARGE}


def result(learner: str, physics: int, updates: int | None, folder: Path) -> dict[str, Any]:
    """Everything that training leaves, with so many threads; updates None: as many as seem to pay. PPO updates once,
    in minibatches, SAC at every step."""
    document = {
        "task": "InvertedPendulum-v5",
        "num_envs": 256,
        "threads": physics,
        "learner": LARGE[learner],
        "randomization": {"sampler": "manual", "parameters": PARAMETERS},
        "train": {"torch_threads": updates},
    }
    trainer = Trainer(parse_config(document, "test"), folder)
    advance(trainer, 18)
    assert trainer.statistics.learner is not None
    return leaves({"l": trainer.learner.state_dict(), "e": trainer.environment.state_dict(), "m": trainer._row()})


@functools.cache
def alone(learner: str) -> dict[str, Any]:
    """The result with one thread."""
    with tempfile.TemporaryDirectory() as folder:
        return result(learner, 1, 1, Path(folder))


@pytest.mark.parametrize("learner", KINDS.values())
def test_one_seed_gives_one_result_at_any_number_of_threads(learner: str, tmp_path: Path) -> None:
    expected, found = alone(learner), result(learner, 3, 2, tmp_path)
    assert found.keys() == expected.keys()
    for path, value in expected.items():
        if path != "/m/seconds":
            assert torch.equal(value, found[path]) if isinstance(value, Tensor) else value == found[path], path


@pytest.mark.parametrize("learner", [KINDS[name] for name in ("ppo", "ppo lstm", "sac", "ddpg")])
def test_the_number_of_threads_may_change_within_an_update(
    learner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not thread_independent():
        pytest.skip("without oneDNN a run keeps the number of threads that it began with")
    numbers = itertools.cycle((1, 2, 3))
    used: list[int] = []

    def choose(_: ThreadChoice) -> int:
        used.append(next(numbers))
        return used[-1]

    expected = alone(learner)
    monkeypatch.setattr(ThreadChoice, "choose", choose)
    found = result(learner, 1, None, tmp_path)
    assert len(used) >= 4
    for path, value in expected.items():
        if path != "/m/seconds":
            assert torch.equal(value, found[path]) if isinstance(value, Tensor) else value == found[path], path


@pytest.fixture
def threads() -> Iterator[Callable[[Callable[[], list[Tensor]]], list[list[Tensor]]]]:
    """A function that computes the same with 1, 2, 3, 4 and 8 threads."""

    def everywhere(compute: Callable[[], list[Tensor]]) -> list[list[Tensor]]:
        results = []
        for count in (1, 2, 3, 4, 8):
            torch.set_num_threads(count)
            with fast_matmul():
                results.append([value.detach().clone() for value in compute()])
        return results

    yield everywhere
    torch.set_num_threads(1)


def same_everywhere(results: list[list[Tensor]]) -> bool:
    return all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


def test_sums_do_not_depend_on_threads_and_are_sums(threads: Any) -> None:
    x = torch.randn(100_001, generator=torch.Generator().manual_seed(0))
    assert not same_everywhere(threads(lambda: [x.sum()]))  # what torch does by itself: the test can fail
    found = threads(lambda: [sum_all(x), mean_all(x), column_sums(x[:, None]), column_sums(x[:99_999].view(-1, 3))])
    assert same_everywhere(found)
    exact = x.double()
    for value, expected in zip(
        found[0], (exact.sum(), exact.mean(), exact.sum()[None], exact[:99_999].view(-1, 3).sum(0)), strict=True
    ):
        torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(
    ("rows", "inputs", "outputs"), [(500, 45, 64), (2048, 45, 64), (5000, 45, 64), (100_001, 4, 1)]
)
def test_gradients_of_a_layer_do_not_depend_on_threads_and_are_those_of_torch(
    rows: int, inputs: int, outputs: int, threads: Any
) -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = Linear(inputs, outputs), nn.Linear(inputs, outputs)
    theirs.load_state_dict(ours.state_dict())
    x, g = torch.randn(rows, inputs, generator=generator), torch.randn(rows, outputs, generator=generator)

    def gradients(layer: nn.Linear) -> list[Tensor]:
        read = x.clone().requires_grad_()
        return list(torch.autograd.grad((layer(read) * g).sum(), [read, *layer.parameters()]))

    found = threads(lambda: gradients(ours))
    assert same_everywhere(found)
    if outputs == 1:  # the test can fail: torch divides a bias' rows on every processor, those of a product on some
        assert not same_everywhere(threads(lambda: gradients(theirs)))
    for value, expected in zip(found[0], gradients(theirs), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-4)


def test_a_gru_is_that_of_torch_and_does_not_depend_on_threads(threads: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    cell = nn.GRU(45, 16)
    x, h = torch.randn(6, 1500, 45, generator=generator), torch.randn(1, 1500, 16, generator=generator)
    g = torch.randn(6, 1500, 16, generator=generator)

    def everything(run: Callable[..., Any]) -> list[Tensor]:
        output, state = run(x, h)
        gradients = torch.autograd.grad((output * g).sum() + state.square().sum(), list(cell.parameters()))
        return [output, state, *gradients]

    found = threads(lambda: everything(lambda x, h: gru(cell, x, h)))
    assert same_everywhere(found)
    for value, expected in zip(found[0], everything(cell), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-4)


def test_a_parameter_of_every_row_has_the_gradient_of_a_broadcast(threads: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    log_std, g = torch.randn(1, requires_grad=True), torch.randn(40_000, 1, generator=generator)
    found = threads(
        lambda: list(torch.autograd.grad((expand_rows(log_std, g) * g).sum(-1).mul(g[:, 0]).sum(), log_std))
    )
    assert same_everywhere(found)
    torch.testing.assert_close(found[0][0], (g.double().square().sum()[None]).float(), rtol=1e-5, atol=0.0)
