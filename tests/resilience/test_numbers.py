"""NaN, infinity and wrong shapes: noticed where they arise, said by name, kept from everything else."""

from __future__ import annotations

import logging
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import HINGE, SLIDER, TinyTask, build, manual_layer
from envs.environment import StepResult
from envs.registry import TaskError
from envs.task import Outcome
from resuming import advance
from simreal.cli.main import main
from simreal.training.checkpoint import load_checkpoint
from simreal.training.trainer import NonFiniteUpdate, Trainer
from simreal.training.updates.nan_guard import NanGuard
from tiny import configuration, leaves, unequal

NAN, INF = float("nan"), float("inf")


class Spoilt(TinyTask):
    """From step 3 of its episodes on, environment 1 shows, or is rewarded with, what is no number."""

    def __init__(self, where: str, value: float, everywhere: bool = False) -> None:
        super().__init__(HINGE, max_episode_steps=50, spread=0.2)
        self.where, self.value, self.everywhere = where, value, everywhere

    def _now(self) -> Tensor:
        late = self.engine.data("time") > 0.1  # control steps take 0.04 s
        return late & (torch.ones_like(late) if self.everywhere else torch.arange(len(late)) == 1)

    def observe(self) -> Tensor:
        shown = super().observe()
        if self.where == "velocity":
            shown[:, 1] = shown[:, 1].masked_fill(self._now(), self.value)
        return shown

    def outcome(self, action: Tensor) -> Outcome:
        reward = torch.ones(len(action), dtype=torch.float64)
        if self.where == "reward":
            reward = reward.masked_fill(self._now(), self.value)
        return Outcome(reward, reward < -1e9, reward < -1e9)


def finite(result: StepResult) -> bool:
    parts = (result.observed.policy, result.final.policy, result.reward, result.episode_return)
    return all(bool(part.isfinite().all()) for part in parts)


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize(
    ("where", "said"), [("velocity", r"observation component velocity\[0\]"), ("reward", "reward")]
)
def test_what_is_no_number_ends_one_episode_and_is_said_by_name(
    where: str, said: str, value: float, caplog: pytest.LogCaptureFixture
) -> None:
    env, whole = build(Spoilt(where, value), 3), build(Spoilt("nowhere", value), 3)
    diverged = []
    with caplog.at_level(logging.WARNING):
        for _ in range(8):
            one, other = (e.step(torch.full((3, 1), 0.3)) for e in (env, whole))
            assert finite(one)
            diverged += one.diverged.nonzero().flatten().tolist()
            for i in (0, 2):  # the others do not notice
                assert torch.equal(one.observed.policy[i], other.observed.policy[i])
                assert one.reward[i] == other.reward[i]
                assert not one.done[i]
    assert diverged == [1, 1]
    assert env.divergences == 2
    (message,) = caplog.messages  # once, not at every step
    assert re.search(rf"Tiny-v0: environment 1, step 3: {said} is {value}; its episode ends", message)


def test_a_task_that_shows_nothing_but_nan_is_stopped() -> None:
    env = build(Spoilt("velocity", NAN, everywhere=True), 2)

    def go_on() -> None:
        for _ in range(60):
            env.engine.data("time")[...] = 1.0
            env.step(torch.zeros(2, 1))

    with pytest.raises(TaskError, match=r"environment 0, step \d+: observation component velocity\[0\] is nan, and no"):
        go_on()


@pytest.mark.parametrize(
    ("method", "value", "said"),
    [
        ("observe", lambda task: TinyTask.observe(task)[:, :2], r"observe: expected shape \[3, 3\] \(position 1 \+ "),
        ("observe", lambda task: TinyTask.observe(task)[:1], "observe: expected shape"),
        ("outcome", lambda task, action: Outcome(action, action[:, 0] > 9, action[:, 0] > 9), "outcome: reward"),
        ("outcome", lambda task, action: Outcome(action[:, 0], action > 9, action[:, 0] > 9), "outcome: terminated"),
        ("command", lambda task, action: action[:, :0], r"command: expected shape \[3, 1\]"),
    ],
)
def test_a_shape_that_becomes_wrong_in_the_midst_of_a_run_is_said(method: str, value: Any, said: str) -> None:
    task = TinyTask(HINGE, max_episode_steps=50)
    env = build(task, 3)
    for _ in range(3):
        env.step(torch.zeros(3, 1))
    setattr(task, method, lambda *arguments: value(task, *arguments))
    with pytest.raises(TaskError, match=f"Tiny-v0: {said}"):
        env.step(torch.zeros(3, 1))


def test_an_action_that_is_no_number_is_the_callers_fault_and_named() -> None:
    env = build(TinyTask(HINGE), 2)
    with pytest.raises(ValueError, match=r"environment 1, step 0: ctrl\[0\] is nan"):
        env.step(torch.tensor([[0.0], [NAN]]))


def test_divergence_under_randomization_is_never_learnt_from_and_never_stops_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo leaves a log where it warns
    task = TinyTask(SLIDER, spread=0.1, max_episode_steps=20)
    env = build(task, 4, manual_layer(task, {"action_delay": {"range": [0, 60]}, "observation_noise": {}}))
    seen = 0
    for step in range(60):
        if step % 7 == 3:
            env.engine.data("qvel")[step % 4] = 1e12
        result = env.step(torch.rand(4, 2, generator=torch.Generator().manual_seed(step)) * 2 - 1)
        assert finite(result)
        assert not result.success[result.diverged].any()
        seen += int(result.diverged.sum())
    assert seen == env.divergences == 9


def _spoil_experience(trainer: Trainer) -> None:
    """Rewards beyond float32: the loss becomes infinite."""
    learner: Any = trainer.learner
    if hasattr(learner, "rollout"):
        learner.rollout.reward.fill_(1e38)
    else:
        learner.replay._rows[..., -2] = 1e38


def _spoil_gradient(trainer: Trainer) -> None:
    """A loss that is finite and has no finite gradient."""
    learner: Any = trainer.learner
    if hasattr(learner, "_critic_pass"):  # written out
        weights = learner._critic_pass.weights
        learner._critic_pass.weights = lambda gradient: [NAN * part for part in weights(gradient)]
    else:
        next(learner.critic.parameters()).register_hook(lambda gradient: gradient * NAN)


FAULTS: dict[str, Callable[[Trainer], None]] = {"loss": _spoil_experience, "gradient": _spoil_gradient}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("learner", ["ppo", "ppo lstm", "sac", "td3", "ddpg her"])
def test_an_update_that_loses_its_numbers_stops_and_leaves_the_state_before_it(
    learner: str, fault: str, tmp_path: Path
) -> None:
    trainer = Trainer(configuration(learner, "adr"), tmp_path)
    while not trainer.learner.updates:
        advance(trainer, 1)
    while True:
        trainer._collect()
        if trainer.learner.ready():
            break
    FAULTS[fault](trainer)
    before = leaves(trainer.learner.state_dict())
    before = {path: value.clone() if isinstance(value, Tensor) else value for path, value in before.items()}
    with pytest.raises(NonFiniteUpdate, match=r"step \d+: .*(is (nan|inf)|not finite) after an update") as caught:
        trainer._learn()
    said = str(caught.value)
    assert "\n" not in said
    (kept,) = (tmp_path / "failure").glob("step_*.safetensors")
    assert f"python -m simreal.training.replay_failure {kept}" in said
    after = leaves(load_checkpoint(kept)["learner"])
    assert after.keys() == before.keys()
    for path, value in before.items():
        assert torch.equal(value, after[path]) if isinstance(value, Tensor) else value == after[path], path
    assert all(bool(v.isfinite().all()) for p, v in after.items() if isinstance(v, Tensor) and p.startswith("/policy"))


def test_the_file_repeats_the_failure_and_another_learning_rate_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # A step so large that the networks overflow: it happens in the run itself, with no fault put in.
    import yaml

    document = yaml.safe_load(configuration("sac", "adr").to_yaml())
    document["learner"]["critic_lr"] = document["learner"]["actor_lr"] = 1e30
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(document))
    run = tmp_path / "run"
    with pytest.raises(SystemExit) as ended:
        main(["train", str(tmp_path / "c.yaml"), "--run-dir", str(run)])
    assert ended.value.code == 2
    capsys.readouterr()
    (kept,) = (run / "failure").glob("step_*.safetensors")
    assert kept.name in (run / "failure" / "README.txt").read_text()
    monkeypatch.setattr(sys, "argv", ["replay_failure", str(kept)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("simreal.training.replay_failure", run_name="__main__")
    said = capsys.readouterr()
    assert not ended.value.code, said.err
    assert re.search(r"is (not finite|-?inf|nan)\b", said.out), said.out
    # The run itself is intact: the checkpoint before the update is its newest one.
    assert load_checkpoint(sorted((run / "checkpoints").glob("*.safetensors"))[-1])["env_steps"] == int(kept.stem[5:])


@pytest.mark.parametrize("learner", ["ppo lstm", "sac", "td3", "ddpg her"])
def test_an_update_that_is_taken_back_might_as_well_not_have_been(learner: str, tmp_path: Path) -> None:
    def trained(undo: bool) -> dict[str, Any]:
        trainer = Trainer(configuration(learner, "adr"), tmp_path)
        for _ in range(60):
            trainer._collect()
            if undo and trainer.learner.ready():
                trainer._guard.snapshot()
                trainer.learner.update()
                trainer._guard.restore()
            trainer._learn()
        assert trainer.learner.updates > 1
        return leaves(load_checkpoint(trainer.save()))

    assert unequal(trained(False), trained(True)) == []


def test_the_guard_sees_a_weight_and_a_loss_that_are_not_finite(tmp_path: Path) -> None:
    trainer = Trainer(configuration("ddpg her", "manual"), tmp_path)
    guard = NanGuard(trainer.learner)
    guard.snapshot()
    assert guard.nonfinite({"loss": 1.0}) == []
    assert guard.nonfinite({"loss": NAN}) == ["loss is nan"]
    with torch.no_grad():
        next(trainer.learner.policy.parameters())[0, 0] = INF
    assert guard.nonfinite({"loss": 1.0}) == ["a weight is not finite"]
    guard.restore()
    assert guard.nonfinite({}) == []
