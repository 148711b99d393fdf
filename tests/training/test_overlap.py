"""Updates beside collecting: what comes out does not depend on when which thread does what."""

from __future__ import annotations

import copy
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.ranks_equal import compare, on_ranks
from benchmarks.ranks_equal import configuration as of_ranks
from benchmarks.ranks_equal import train as train_ranks
from resuming import advance
from shortcuts import with_short_rehearsals
from simreal.common.errors import UserError
from simreal.learners.networks import polyak_
from simreal.learners.off_policy.transitions import normalized
from simreal.training.build import make_learner
from simreal.training.checkpoint import load_checkpoint
from simreal.training.run_config import RunConfig
from simreal.training.trainer import Interrupted, NonFiniteUpdate, Trainer
from simreal.training.updates.background import Background
from simreal.training.updates.threads import UpdateThreads
from tiny import Script, configuration, differences, leaves, train, unequal

NAN = float("nan")


def overlapping(kind: str = "sac", steps: int = 240, **more: Any) -> RunConfig:
    settings = {"env_steps": steps, "log_interval": 30, "torch_threads": 1, "keep": "last", "overlap": True}
    return configuration(kind, "adr", train=settings, **more)


DQN: dict[str, Any] = {
    "learner": {"algorithm": "dqn", "hidden": [8], "batch_size": 16, "warmup_steps": 60, "updates_per_cycle": 5,
                "updates_per_step": 0.5, "n_steps": 2, "bins": 3},
}  # fmt: skip


def by_hand(config: RunConfig, folder: Path, steps: int) -> Trainer:
    """The same without threads, step by step: a cycle is played by the policy from before the update that is due at its
    beginning, and that update, on what was drawn then, is made at its end."""
    trainer = Trainer(config.model_copy(update={"train": config.train.model_copy(update={"overlap": False})}), folder)
    learner: Any = trainer.learner
    acting: Any = learner.network.actor
    drawn: Any = None
    for _ in range(steps):
        learner.behavior = acting
        trainer._collect()
        if not learner.ready():
            continue
        gradient_steps(learner, drawn)
        acting = copy.deepcopy(learner.network.actor)
        count, size = int(learner.updates_due), learner.config.batch_size
        learner.updates_due -= count
        learner._set_step_sizes()
        batch = normalized(learner._sample(size * count), learner.network.normalizer, learner.history.layout)
        drawn = batch, torch.randn(learner.NOISES, size * count, learner.spec.action_size, generator=learner.generator)
    gradient_steps(learner, drawn)
    return trainer


def gradient_steps(learner: Any, drawn: Any) -> None:
    if drawn is None:
        return
    (batch, noise), size = drawn, learner.config.batch_size
    for start in range(0, len(batch.action), size):
        learner.updates += 1
        learner._update(batch.rows(start, start + size), noise[:, start : start + size])
        if average := learner.config.average_updates:
            polyak_(learner._averaged, learner._online_policy, 1.0 / min(learner.updates, average))


def state(trainer: Trainer) -> dict[str, Any]:
    return leaves({"learner": trainer.learner.state_dict(), "environment": trainer.environment.state_dict()})


@pytest.mark.parametrize("kind", ["sac", "td3", "ddpg her", "dqn"])
def test_it_is_one_cycle_behind_and_nothing_else(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_short_rehearsals(monkeypatch)
    config = overlapping("sac", **DQN) if kind == "dqn" else overlapping(kind)
    trainer = Trainer(config, tmp_path)
    advance(trainer, 41)
    reference = by_hand(config, tmp_path, 41)
    assert trainer.learner.updates == reference.learner.updates > 20
    mine = state(trainer)
    acting = [path for path in mine if path.startswith("/learner/behavior")]
    assert acting
    assert [path for path in unequal(mine, state(reference)) if path not in acting] == []


def test_without_it_nothing_is_behind(tmp_path: Path) -> None:
    overlapped, plain = Trainer(overlapping(), tmp_path), by_hand(overlapping(), tmp_path, 0)
    for trainer in (overlapped, plain):
        advance(trainer, 52)
    assert overlapped.learner.updates == plain.learner.updates
    assert "/learner/policy/actor.net.0.weight" in unequal(state(overlapped), state(plain))


def slowly(action: Callable[..., Any], delays_ms: tuple[int, ...]) -> Callable[..., Any]:
    calls = iter(delays_ms * 1000)

    def slow(*arguments: Any, **options: Any) -> Any:
        time.sleep(next(calls) / 1000)
        return action(*arguments, **options)

    return slow


def test_the_timing_of_threads_changes_nothing(tmp_path: Path) -> None:
    def trained(collecting: tuple[int, ...], learning: tuple[int, ...]) -> dict[str, Any]:
        trainer = Trainer(overlapping(), tmp_path)
        learner: Any = trainer.learner
        trainer.environment.step = slowly(trainer.environment.step, collecting)
        learner.record = slowly(learner.record, collecting)
        learner._update = slowly(learner._update, learning)
        advance(trainer, 45)
        assert learner.updates > 20
        return leaves(load_checkpoint(trainer.save()))

    runs = [trained(*delays) for delays in (((0,), (0,)), ((0,), (4, 0, 9)), ((3, 0, 7), (0, 1)))]
    assert [unequal(runs[0], run) for run in runs[1:]] == [[], []]


@pytest.mark.parametrize("cut", [29, 31, 32])
def test_a_resumed_run_is_the_uninterrupted_one(cut: int, tmp_path: Path) -> None:
    config = overlapping()  # a cycle is three or four control steps
    whole, resumed = (Trainer(config, tmp_path / name) for name in ("whole", "resumed"))
    advance(whole, cut)
    assert whole.learner.updates
    resumed.load(load_checkpoint(whole.save()))
    for trainer in (whole, resumed):
        advance(trainer, 50 - cut)
    assert unequal(*(leaves(load_checkpoint(trainer.save())) for trainer in (whole, resumed))) == []


def test_saving_and_dying_leave_no_trace(tmp_path: Path) -> None:
    config = overlapping(steps=150)
    train(config, tmp_path / "whole")
    with pytest.raises(Exception, match=r"^$"):
        train(config, tmp_path / "other", saves={87, 114}, dies=129)
    train(config, tmp_path / "other")
    assert differences(tmp_path / "whole", tmp_path / "other") == []  # logs and checkpoints


class Interrupting(Script):
    """Sends SIGTERM at a step."""

    def update(self, steps: int, score: str, entropy: float) -> None:
        if steps == self._dies:
            signal.raise_signal(signal.SIGTERM)


def test_sigterm_saves_and_the_rest_is_as_if_nothing_had_been(tmp_path: Path) -> None:
    config = overlapping(steps=180)
    train(config, tmp_path / "whole")
    run = tmp_path / "other"
    (run / "checkpoints").mkdir(parents=True)
    trainer = Trainer(config, run)
    with pytest.raises(Interrupted):
        trainer.train(Interrupting(trainer, set(), 120))  # pyright: ignore[reportArgumentType]
    train(config, run)
    assert differences(tmp_path / "whole", run) == []


def threads_of_updates() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("update")]


def failing(after: int, action: Callable[..., Any]) -> Callable[..., Any]:
    calls = iter(range(10**6))

    def fail(*arguments: Any, **options: Any) -> Any:
        if next(calls) == after:
            raise RuntimeError("no more")
        return action(*arguments, **options)

    return fail


@pytest.mark.parametrize("where", ["collecting", "updating"])
def test_an_error_in_either_thread_ends_the_run(where: str, tmp_path: Path) -> None:
    trainer = Trainer(overlapping(), tmp_path)
    owner, name = (trainer.environment, "step") if where == "collecting" else (trainer.learner, "_update")
    setattr(owner, name, failing(40, getattr(owner, name)))
    with pytest.raises(RuntimeError, match=r"^no more$"):
        trainer.train(Script(trainer, set()))  # pyright: ignore[reportArgumentType]
    assert threads_of_updates() == []


def test_an_update_that_loses_its_numbers_is_taken_back_and_can_be_repeated(tmp_path: Path) -> None:
    def spoil(trainer: Trainer) -> None:
        run = trainer.learner._critic_pass  # pyright: ignore[reportAttributeAccessIssue]
        weights = run.weights
        run.weights = lambda gradient: [NAN * part for part in weights(gradient)]

    trainer = Trainer(overlapping(), tmp_path)
    advance(trainer, 32)
    learner: Any = trainer.learner
    before = {name: value.clone() for name, value in learner.common_state()["critic"].items()}
    updates = learner.updates
    spoil(trainer)
    with pytest.raises(NonFiniteUpdate, match=r"(not finite|is nan) after an update"):
        advance(trainer, 10)
    (kept,) = (tmp_path / "failure").glob("step_*.safetensors")
    found = load_checkpoint(kept)["learner"]
    assert all(torch.equal(value, found["critic"][name]) for name, value in before.items())
    assert found["counters"]["updates"] == updates
    assert isinstance(found["begun"]["batch"]["observation"], Tensor)
    again = Trainer(overlapping(), tmp_path)  # as simreal.training.replay_failure does it
    again.load(load_checkpoint(kept))
    assert again.due
    assert again.learn() == []  # nothing spoils the gradient there
    # and the run goes on from it, with the update that it lost
    resumed = Trainer(overlapping(), tmp_path)
    resumed.load(load_checkpoint(kept))
    assert resumed.due
    advance(resumed, 6)
    assert resumed.learner.updates > updates


@pytest.mark.parametrize(("learner", "updates"), [("ddpg her", 6), ("ppo", 3)])
def test_ranks_are_one_run(learner: str, updates: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_short_rehearsals(monkeypatch)
    config = of_ranks(learner, "adr", updates, overlap=True)
    middle = config.train.env_steps // 2 // 4 * 4
    train_ranks(config, tmp_path / "1")
    on_ranks(2, lambda ranks: train_ranks(config, tmp_path / "2", ranks, stop=middle))
    on_ranks(2, lambda ranks: train_ranks(config, tmp_path / "2", ranks))
    found = compare(tmp_path / "1", tmp_path / "2")
    assert found["unequal"] == []
    assert found["weights"] < 1e-5


def ppo_by_hand(config: RunConfig, folder: Path, rollouts: int) -> tuple[dict[str, Any], Trainer]:
    """The same with plain learners one after the other: a rollout of one of them is put into another, which learns."""
    plain = config.model_copy(update={"train": config.train.model_copy(update={"overlap": False})})
    trainer, other = Trainer(plain, folder), Trainer(plain, folder)
    learner: Any = other.learner
    learner.generator.manual_seed(plain.seed + 1)
    collector: Any = trainer.learner
    for k in range(rollouts):
        while not collector.rollout.full:
            trainer._collect()
        before = copy.deepcopy((learner.network.state_dict(), learner.critic.state_dict()))
        if k == 0:
            before = copy.deepcopy((collector.network.state_dict(), collector.critic.state_dict()))
            learner.network.load_state_dict(before[0])
            learner.critic.load_state_dict(before[1])
        learner.rollout.load_state_dict(copy.deepcopy(collector.rollout.state_dict()))
        learner._ended.copy_(collector._ended)
        learner.steps = collector.steps
        learner.update()
        collector._ended.zero_()
        collector.rollout.time = 0
        if k + 1 < rollouts:  # the weights from before the update that runs beside its next rollout
            collector.network.load_state_dict(before[0])
            collector.critic.load_state_dict(before[1])
            collector.updates = learner.updates
    return leaves({name: getattr(learner, name).state_dict() for name in ("network", "critic", "optimizer")}), trainer


def test_ppo_learns_from_its_last_rollout_while_the_next_is_collected(tmp_path: Path) -> None:
    config = overlapping("ppo")
    trainer = Trainer(config, tmp_path)
    advance(trainer, 4 * 12)
    expected, reference = ppo_by_hand(config, tmp_path, 4)
    learner: Any = trainer.learner
    assert learner.updates == 4
    found = leaves({name: getattr(learner, name).state_dict() for name in ("network", "critic", "optimizer")})
    assert unequal(found, expected) == []
    assert torch.equal(trainer.environment.observed.policy, reference.environment.observed.policy)


@pytest.mark.parametrize("cut", [24, 29])
def test_a_resumed_run_of_ppo_is_the_uninterrupted_one(cut: int, tmp_path: Path) -> None:
    config = overlapping("ppo")
    whole, resumed = (Trainer(config, tmp_path / name) for name in ("whole", "resumed"))
    advance(whole, cut)
    resumed.load(load_checkpoint(whole.save()))
    for trainer in (whole, resumed):
        advance(trainer, 50 - cut)
    assert unequal(*(leaves(load_checkpoint(trainer.save())) for trainer in (whole, resumed))) == []


@pytest.mark.parametrize("kind", ["sac", "ppo"])
def test_a_run_may_begin_to_overlap_when_it_is_resumed(kind: str, tmp_path: Path) -> None:
    plain = overlapping(kind).model_copy(
        update={"train": overlapping(kind).train.model_copy(update={"overlap": False})}
    )
    first, second, third = (Trainer(config, tmp_path) for config in (plain, overlapping(kind), plain))
    advance(first, 41)
    second.load(load_checkpoint(first.save()))
    advance(second, 20)
    learner: Any = second.learner
    assert learner.updates > first.learner.updates
    assert sum(p.isfinite().all() for p in learner.policy.parameters()) == len(list(learner.policy.parameters()))
    saved = load_checkpoint(second.save())
    if kind == "ppo":
        with pytest.raises(UserError, match=r"train\.overlap: the run has a rollout under way beside; expected true$"):
            third.load(saved)
        return
    third.load(saved)
    advance(third, 20)
    assert third.learner.updates > learner.updates


@pytest.mark.parametrize(
    ("learner", "said"),
    [
        ({"algorithm": "ppo", "memory": "lstm"}, "learner: memory: expected none with train.overlap, got lstm"),
        ({"algorithm": "ppo", "observation_history": 2}, "learner: observation_history, action_history: expected 0"),
    ],
)
def test_what_has_to_be_waited_for_is_said(learner: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(said)}"):
        Trainer(overlapping("ppo", learner=learner), tmp_path)


def test_a_learner_whose_updates_have_to_be_waited_for_says_so(tmp_path: Path) -> None:
    environment = Trainer(overlapping(), tmp_path).environment
    config = overlapping("ppo", learner={"algorithm": "distill", "teacher": "none"})
    with pytest.raises(UserError, match=r"^train\.overlap: updates of distill have to be waited for; expected false$"):
        make_learner(config, environment)


def test_an_update_has_all_processors_only_while_it_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", used.append)
    background: Background[None] = Background(torch.device("cpu"))
    threads = UpdateThreads(8, 8, True, alone=lambda: background.awaited, beside=3)
    waits = threading.Event()

    def work() -> None:
        threads.begin()
        threads.step()
        waits.set()
        while not background.awaited:
            time.sleep(1e-3)
        threads.step()
        threads.end()

    with background:
        background.start(work)
        waits.wait()
        background.finish()
    assert used == [3, 8, 1]
