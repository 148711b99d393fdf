"""`train.keep: best`: a policy is replaced by one that is better beyond doubt, and by no other; training has the same
bits as without."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from command import Run, simreal_command
from conftest import TinyTask
from envs import registry
from shortcuts import without_bundles
from simreal.evaluation.metrics import RETURN, SUCCESS
from simreal.learners.off_policy.ddpg import DDPG
from simreal.training.best import better, judge_interval
from simreal.training.checkpoint import checkpoints, newest_checkpoint
from simreal.training.monitoring.progress import Progress
from simreal.training.run_config import RunConfig, parse_config
from simreal.training.trainer import Trainer
from tiny import leaves

HOLD = "HoldStill-v0"  # the action 0 succeeds in every episode, the action 1 in none
LEARNER = {"algorithm": "ddpg", "hidden": [8], "batch_size": 8, "warmup_steps": 20, "updates_per_cycle": 5}


@pytest.fixture(autouse=True)
def task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._TASKS, HOLD, (TinyTask, {"spread": 0.02}))


def config(steps: int, **train: Any) -> RunConfig:
    document = {
        "task": HOLD, "num_envs": 4, "learner": LEARNER, "evaluate": {"episodes": 10, "worlds": ["nominal"]},
        "train": {"env_steps": steps, "log_interval": 40, "judge_episodes": 12} | train,
    }  # fmt: skip
    return parse_config(document, "test")


def put_out(monkeypatch: pytest.MonkeyPatch, values: dict[int, float]) -> None:
    """From each of these numbers of steps on, updates make a policy whose action is the value."""

    def update(self: DDPG, _: Any = None) -> dict[str, float]:
        self.updates_due = 0.0
        self.updates += 1
        value = next(v for steps, v in sorted(values.items(), reverse=True) if self.steps >= steps)
        last = list(self.network.actor.parameters())
        for parameter in last:
            parameter.data.zero_()
        last[-1].data.fill_(np.arctanh(np.clip(value, -0.999, 0.999)))
        return {}

    monkeypatch.setattr(DDPG, "update", update)


def evaluation(success: list[int], returns: list[float] | None = None) -> dict[str, Any]:
    values = [float(s) for s in success] if returns is None else returns
    return {"worlds": [{"samples": {"success": success, "return": values}}]}


@pytest.mark.parametrize(
    ("candidate", "kept", "replaced"),
    [
        ([1] * 96 + [0] * 4, [1] * 70 + [0] * 30, True),
        ([1] * 70 + [0] * 30, [1] * 96 + [0] * 4, False),
        ([1] * 72 + [0] * 28, [1] * 70 + [0] * 30, False),  # two of a hundred: 0.02 - 1.96 * 0.014 < 0
        ([1] * 76 + [0] * 24, [1] * 70 + [0] * 30, True),  # six of a hundred: 0.06 - 1.96 * 0.024 > 0
        ([1] * 100, [1] * 100, False),
        ([1, 1], [0, 0], False),  # two pairs prove nothing: (1 - d)^2 = 0.025 at d = 0.84
    ],
)
def test_success_has_to_be_better_beyond_doubt(candidate: list[int], kept: list[int], replaced: bool) -> None:
    zeros = [0.0] * len(kept)
    assert better(evaluation(candidate, zeros), evaluation(kept, zeros), SUCCESS) == replaced


def test_return_decides_where_success_does_not_and_only_then() -> None:
    slow, fast = [-10.0 - 0.1 * (k % 5) for k in range(50)], [-8.0 - 0.1 * (k % 5) for k in range(50)]
    always, mostly = [1] * 50, [1] * 49 + [0]
    assert better(evaluation(always, fast), evaluation(always, slow), SUCCESS)
    assert not better(evaluation(always, slow), evaluation(always, fast), SUCCESS)
    assert not better(evaluation(mostly, fast), evaluation(always, slow), SUCCESS)  # more return, less success
    assert better(evaluation([0] * 50, fast), evaluation([0] * 50, slow), RETURN)


def test_judgements_are_seldom_enough_to_be_cheap() -> None:
    # 12 episodes of 10 steps in one world are 120 steps, a quarter of 480 of an off-policy run
    assert judge_interval(config(1000), 10) == 480
    assert judge_interval(config(100_000), 10) == 10_000
    assert judge_interval(config(1000, judge_interval=77), 10) == 77


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    without_bundles(monkeypatch)
    return partial(simreal_command, capsys)


def test_a_resume_that_spoils_the_policy_does_not_replace_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_out(monkeypatch, {0: 0.0, 201: 1.0})
    (tmp_path / "c.yaml").write_text(config(200).to_yaml())
    assert run("train", "c.yaml", "--run-dir", "r")[0] == 0
    shutil.copytree("r", "last")
    status, out, _ = run("train", "c.yaml", "train.env_steps=400", "--run-dir", "r", "--resume")
    assert status == 0
    assert "judged at step 400: success 0.000; the kept policy of step 200: success 1.000; stays" in out
    assert "The policy is that of step 200: no later one was shown to be better." in out
    document = json.loads((tmp_path / "r" / "evaluation.json").read_text())
    assert (document["worlds"][0]["success_rate"], document["checkpoint"]) == (1.0, "step_000000000200.safetensors")
    assert newest_checkpoint(tmp_path / "r")["env_steps"] == 400
    # the figures are of the policy that is evaluated, so they are not called outdated
    assert "earlier checkpoint" not in run("export", "r")[1]
    _, out, _ = run("train", "c.yaml", "train.env_steps=400", "train.keep=last", "--run-dir", "last", "--resume")
    document = json.loads((tmp_path / "last" / "evaluation.json").read_text())
    assert (document["worlds"][0]["success_rate"], document["checkpoint"]) == (0.0, "step_000000000400.safetensors")


def test_a_run_that_kept_its_last_policy_is_protected_too(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_out(monkeypatch, {0: 0.0, 201: 1.0})
    (tmp_path / "c.yaml").write_text(config(200, keep="last").to_yaml())
    run("train", "c.yaml", "--run-dir", "r")
    assert not (tmp_path / "r" / "best").exists()
    run("train", "c.yaml", "train.env_steps=400", "train.keep=best", "--run-dir", "r", "--resume")
    assert json.loads((tmp_path / "r" / "evaluation.json").read_text())["worlds"][0]["success_rate"] == 1.0


def test_the_best_of_several_is_kept_whenever_it_was(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_out(monkeypatch, {0: 1.0, 101: 0.0, 201: 1.0})
    (tmp_path / "c.yaml").write_text(config(400, judge_interval=100).to_yaml())
    _, out, _ = run("train", "c.yaml", "--run-dir", "r")
    assert "judged at step 200: success 1.000; the kept policy of step 100: success 0.000; replaced" in out
    assert "judged at step 400: success 0.000; the kept policy of step 200: success 1.000; stays" in out
    assert checkpoints(tmp_path / "r" / "best")[-1].name == "step_000000000200.safetensors"


def trained(settings: RunConfig, folder: Path, resume: bool = False) -> Trainer:
    trainer = Trainer(settings, folder)
    if resume:
        trainer.load(newest_checkpoint(folder))
    folder.mkdir(exist_ok=True)
    trainer.train(Progress(settings.train.env_steps, trainer.env_steps, Console(quiet=True), adr=False))
    return trainer


def test_training_has_the_same_bits_whether_it_is_judged_or_not(tmp_path: Path) -> None:
    judged = trained(config(240, judge_interval=60), tmp_path / "judged")
    plain = trained(config(240, keep="last"), tmp_path / "plain")
    a, b = (
        leaves({"learner": t.learner.state_dict(), "environment": t.environment.state_dict()}) for t in (judged, plain)
    )
    assert all(torch.equal(a[k], b[k]) if isinstance(a[k], torch.Tensor) else a[k] == b[k] for k in b)


def test_a_run_killed_between_judgements_keeps_what_an_uninterrupted_one_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_out(monkeypatch, {0: 1.0, 121: 0.5, 181: 0.0, 301: 1.0})
    whole = trained(config(360, judge_interval=60), tmp_path / "whole")
    first = trained(config(160, judge_interval=60), tmp_path / "parts")  # as a checkpoint at step 160 would be
    ahead = trained(config(300, judge_interval=60), tmp_path / "parts", resume=True)  # and is killed: go back to 160
    checkpoints(tmp_path / "parts" / "checkpoints")[-1].unlink()
    again = trained(config(360, judge_interval=60), tmp_path / "parts", resume=True)
    assert (first.env_steps, ahead.env_steps) == (160, 300)
    names = [checkpoints(tmp_path / name / "best")[-1].name for name in ("whole", "parts")]
    assert names[0] == names[1]
    a, b = (leaves({"policy": t.learner.policy.state_dict()}) for t in (whole, again))
    assert all(torch.equal(a[k], b[k]) for k in a)
