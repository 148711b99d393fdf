"""A control step as one graph means what the step means.

A tape stands for a CUDA graph: it writes down every operation on tensors and every call of the engine, and repeats them
with the same memory and without the host's code in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.speed.gpu import Clock, Lengths, bench_one_graph
from benchmarks.speed.gpu_graph import Carried, GraphError, StepGraph
from benchmarks.speed.gpu_update import MinibatchGraph
from conftest import SLIDER, TinyTask, build, manual_layer
from envs.common.rng import _MIX1, EpisodeRandom, _EpisodeNumbers, _Request, mix
from envs.environment import Environment
from robots import skipping_missing
from simreal.learners.base import LearnerSpec
from simreal.learners.on_policy.ppo import PPO
from simreal.learners.on_policy.rollout import Minibatch, RolloutBatch
from simreal.learners.options import PPOConfig
from simreal.training.build import make_environment

pytestmark = pytest.mark.gpu

EFFECTS: dict[str, Any] = {
    "observation_noise": {"of": "position", "range": [0, 0.1]},
    "actuator_backlash": {"of": "push", "range": [0, 0.1]},
}


class Tape(TorchDispatchMode):
    """Operations in the order in which they were made."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Callable[..., Any], Any, Any, Any]] = []
        self.on = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if self.on:
            self.calls.append((func, args, dict(kwargs or {}), out))
        return out

    @torch.no_grad()
    def replay(self) -> None:
        for function, args, kwargs, out in self.calls:
            again = function(*args, **kwargs)
            for old, new in zip(_tensors(out), _tensors(again), strict=True):
                if old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [t for part in value for t in _tensors(part)] if isinstance(value, (tuple, list)) else []


@contextmanager
def tape(environment: Environment) -> Iterator[Callable[[], None]]:
    """Record a step; calls of the CPU engine, and sequences of launches of the GPU engine, as a whole."""
    made, engine = Tape(), environment.engine
    names = ("step", "forward", "reset", "set_const", "diverged", "write_command", "refresh_written")
    owner: Any = engine
    if hasattr(engine, "recorded"):
        owner, names = engine._recorder, ("run",)  # type: ignore[attr-defined]

    def whole(name: str) -> Callable[..., Any]:
        real = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            made.on = False
            out = real(*args, **kwargs)
            made.calls.append((real, args, kwargs, out))
            made.on = True
            return out

        return call

    for name in names:
        setattr(owner, name, whole(name))
    try:
        with made:
            made.on = True
            yield made.replay
    finally:
        for name in names:
            delattr(owner, name)


class LikeCuda(TorchFunctionMode):
    """Tensors say that they are on a GPU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        return True if func == Tensor.is_cuda.__get__ else func(*args, **(kwargs or {}))  # type: ignore[attr-defined]


@pytest.fixture
def like_a_gpu(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[None]:
    """What looks at numbers on a CPU does not, as on a GPU."""

    def of_episodes(self: EpisodeRandom, request: _Request, rows: Tensor | None) -> Tensor:
        if request not in self._alone:
            self._alone[request] = _EpisodeNumbers([request], self._offsets, self.device)
        return self._alone[request].draw(self._key if rows is None else self._key[rows])[:, : request.size]

    def mixed(self: EpisodeRandom, tag: str, uniforms: int, normals: int) -> tuple[Tensor, Tensor]:
        return self._mixed((tag, uniforms, normals), mix(self._key + (self._step + 1) * _MIX1))

    monkeypatch.setattr(EpisodeRandom, "_of_episodes", of_episodes)
    monkeypatch.setattr(EpisodeRandom, "mixed", mixed)
    for place in ("actions.noise", "actions.delay_buffer", "sensors.errors", "parameter_index"):
        monkeypatch.setattr(f"randomization.effects.{place}.chosen_rows", lambda mask: None)
    with nullcontext() if "warp" in request.node.name else LikeCuda():  # the engine would take it for memory of CUDA's
        yield


def tiny(entries: dict[str, Any] | None) -> Environment:
    task = TinyTask(SLIDER, spread=0.1, max_episode_steps=5, terminate_above=0.05)
    environment = build(task, 6, manual_layer(task, entries) if entries else None)
    environment.sync_allowed = environment.checks.sync_allowed = False
    return environment


def go1() -> Environment:
    with skipping_missing():
        environment = make_environment("Go1Velocity-v0", 4, engine="cpu", threads=1)
    environment.sync_allowed = environment.checks.sync_allowed = False
    environment.reset()
    environment.stagger()
    return environment


def on_warp() -> Environment:
    pytest.importorskip("mujoco_warp")
    environment = make_environment("InvertedPendulum-v5", 4, engine="gpu")
    if environment.device.type == "cuda":
        pytest.skip("a tape is for a CPU")
    environment.sync_allowed = environment.checks.sync_allowed = False
    environment.reset()
    return environment


@pytest.mark.usefixtures("like_a_gpu")
@pytest.mark.parametrize(
    "make", [lambda: tiny(None), lambda: tiny(EFFECTS), go1, on_warp], ids=["plain", "effects", "go1", "warp"]
)
def test_replays_of_a_recorded_step_are_the_steps(make: Callable[[], Environment]) -> None:
    reference, environment = make(), make()
    size = environment.task.action_size
    for _ in range(3):
        reference.step(torch.zeros(environment.num_envs, size))
    graph = StepGraph(environment, record=tape)
    reference.step(torch.zeros(environment.num_envs, size))  # on a GPU recording runs nothing; a tape is made by a step
    assert graph.carried > 3
    ended = 0
    for step in range(8 if make is on_warp else 25):  # a step of warp on a CPU takes 0.3 s
        generator = torch.Generator().manual_seed(step)
        action = 2.0 * torch.rand(environment.num_envs, size, generator=generator) - 1.0
        expected, result = reference.step(action), graph.step(action)
        for name in ("reward", "done", "success", "episode_return", "episode_steps"):
            assert torch.equal(getattr(result, name), getattr(expected, name)), (step, name)
        assert torch.equal(result.observed.policy, expected.observed.policy), step
        assert torch.equal(result.final.policy, expected.final.policy), step
        ended += int(result.done.sum())
    assert ended > 0 or environment.max_episode_steps > 25


class Holder:
    """Something with state."""

    def __init__(self, **state: Any) -> None:
        self.__dict__.update(state)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


def test_what_changes_places_or_is_made_anew_comes_back_to_where_it_was_read() -> None:
    a, b, c = torch.tensor([1.0]), torch.tensor([2.0]), torch.tensor([3.0])
    holder = Holder(a=a, b=b, inner={"c": c}, pair=(torch.tensor([4.0]),))
    carried, pair = Carried(holder), holder.pair
    holder.inner["c"] = c + 10.0
    holder.__dict__.update(a=b, b=a, pair=(torch.tensor([5.0]),))
    assert carried.back() == 4
    assert holder.a is a
    assert holder.b is b
    assert holder.inner["c"] is c
    assert holder.pair is pair
    assert [t.item() for t in (a, b, c, pair[0])] == [2.0, 1.0, 13.0, 5.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 2}, r"^environment\.count: 1 became 2 in a control step$"),
        ({"x": None}, r"^environment\.x: a tensor \[1\] of float32 became nothing in a control step$"),
        ({"x": torch.zeros(2)}, r"^environment\.x: a tensor \[1\] of float32 became a tensor \[2\] of float32"),
        ({"new": 1}, r"^environment: new came or went in a control step$"),
        ({"x": torch.zeros(1), "y": torch.ones(1)}, r"^environment\.y and environment\.x were one tensor"),
    ],
)
def test_a_step_that_does_more_on_the_host_is_refused_with_the_name_of_what_it_changes(
    change: dict[str, Any], message: str
) -> None:
    x = torch.ones(1)
    holder = Holder(count=1, x=x, y=x)
    carried = Carried(holder)
    holder.__dict__.update(change)
    with pytest.raises(GraphError, match=message):
        carried.back()


@pytest.mark.usefixtures("like_a_gpu")
def test_a_delay_which_counts_on_the_host_is_refused() -> None:
    with pytest.raises(GraphError, match=r"^environment\.layer\..*: \d became \d in a control step$"):
        StepGraph(tiny({"action_delay": {"range": [0, 50]}}), record=tape)


@pytest.mark.usefixtures("like_a_gpu")
def test_the_benchmark_says_how_fast_a_graph_is_or_why_there_is_none() -> None:
    clock, lengths = Clock(torch.device("cpu")), Lengths(1, 1, 1)
    found = bench_one_graph(tiny(None), lengths, clock, tape)
    assert found["one_graph_per_s"] > 0.0
    assert found["one_graph_carries"] > 3
    refused = bench_one_graph(tiny({"action_delay": {"range": [0, 50]}}), lengths, clock, tape)
    assert refused["one_graph"].endswith("in a control step")
    assert bench_one_graph(tiny(None), lengths, clock) == {"one_graph": "needs CUDA"}


def test_ranges_that_move_are_refused() -> None:
    worlds = {"sampler": "adr", "performance": "return", "parameters": {"body_mass": {"range": [0.5, 2.0]}}}
    environment = make_environment("InvertedPendulum-v5", 2, worlds, engine="cpu")
    with pytest.raises(GraphError, match=r"^sampler: its ranges move"):
        StepGraph(environment, record=tape)


def test_a_minibatch_that_is_replayed_makes_the_learners_step() -> None:
    """Three minibatches, from the same parameters: replays of the first one's operations, and the learner's own."""

    def learner() -> PPO:
        environment = make_environment("InvertedPendulum-v5", 8, engine="cpu", threads=1)
        environment.reset()
        made = PPO(LearnerSpec.of(environment, environment.device), PPOConfig.model_validate({"horizon": 12}), 0)
        while not made.ready():
            observed = environment.observed
            action = made.act(observed)
            made.record(observed, action, environment.step(action))
        return made

    def parts(learner: PPO) -> list[RolloutBatch]:
        return list(learner._prepare()[0].batch.minibatches(3))

    @contextmanager
    def record() -> Iterator[Callable[[], None]]:
        before = [p.detach().clone() for p in replayed._params]
        made = Tape()
        with made:
            made.on = True
            yield made.replay
        with torch.no_grad():  # a tape is made by a step, which a CUDA graph is not
            for p, value in zip(replayed._params, before, strict=True):
                p.copy_(value)

    plain, replayed = learner(), learner()
    for part in parts(plain):
        loss, _ = plain._loss(Minibatch.alone(part, False))
        plain._gradient.zero_()
        loss.backward()
        plain._gradient.mul_((plain.config.max_grad_norm / (plain._gradient.norm() + 1e-6)).clamp_(max=1.0))
        plain.optimizer.step()
    pieces = parts(replayed)
    graph = MinibatchGraph(replayed, pieces[0], record)
    for state in graph._optimizer.state.values():
        for value in state.values():
            value.zero_()
    for part in pieces:
        graph.step(part)
    for mine, theirs in zip(replayed._params, plain._params, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)
    assert not torch.equal(replayed._params[0], learner()._params[0])
