"""A resumed run equals an uninterrupted one bit for bit; interrupting saves and exits 130."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from command import simreal_command
from resuming import advance
from shortcuts import without_bundles
from simreal.training.checkpoint import load_checkpoint, newest_checkpoint
from simreal.training.monitoring.progress import Progress
from simreal.training.run_config import RunConfig, parse_config
from simreal.training.trainer import Trainer
from tiny import leaves, unequal

LEARNER = {"hidden": [16, 16], "batch_size": 32, "warmup_steps": 60, "updates_per_cycle": 7, "replay_size": 900}
RANDOMIZATION = {
    "sampler": "adr",
    "adr": {"buffer_size": 2, "thresholds": [0.0, 0.0]},
    "parameters": {
        "body_mass": {"of": "robot0:*", "range": [0.5, 2.0]},
        "joint_damping": {"of": "robot0:*"},
        "action_delay": {"range": [0, 40]},
        "observation_noise": {"range": [0, 0.01]},
        "observation_bias": {"of": "grip_pos"},
    },
}


def configuration(task: str, algorithm: str) -> RunConfig:
    document = {
        "task": task,
        "num_envs": 3,
        "learner": {"algorithm": algorithm, **LEARNER},
        "randomization": RANDOMIZATION,
    }
    return parse_config(document, "test")


@pytest.mark.parametrize(
    ("task", "algorithm", "cut", "steps"),
    [
        ("FetchPickAndPlace-v4", "ddpg", 37, 80),
        ("FetchReach-v4", "sac", 50, 80),
        ("FetchReach-v4", "td3", 37, 80),
        ("FetchReach-v4", "dqn", 37, 80),
        pytest.param("FetchPickAndPlace-v4", "ddpg", 37, 170, marks=pytest.mark.slow),
        pytest.param("FetchPush-v4", "sac", 120, 170, marks=pytest.mark.slow),
        pytest.param("FetchReach-v4", "sac", 50, 170, marks=pytest.mark.slow),
    ],
)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    tmp_path: Path, task: str, algorithm: str, cut: int, steps: int
) -> None:
    config = configuration(task, algorithm)
    whole = Trainer(config, tmp_path / "whole")
    advance(whole, cut)
    saved = whole.save()
    resumed = Trainer(config, tmp_path / "resumed")
    resumed.load(load_checkpoint(saved))
    for trainer in (whole, resumed):
        advance(trainer, steps - cut)
    assert unequal(*(leaves(load_checkpoint(trainer.save())) for trainer in (whole, resumed))) == []


def test_same_seed_same_run_and_another_seed_another(tmp_path: Path) -> None:
    def weights(seed: int) -> torch.Tensor:
        config = configuration("FetchReach-v4", "ddpg").model_copy(update={"seed": seed})
        trainer = Trainer(config, tmp_path)
        advance(trainer, 54)  # past the first update, which comes with the end of the first episodes
        assert trainer.learner.updates
        return torch.cat([p.detach().flatten() for p in trainer.learner.policy.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_only_the_newest_checkpoints_are_kept_and_none_is_half_written(tmp_path: Path) -> None:
    trainer = Trainer(configuration("FetchReach-v4", "ddpg"), tmp_path)
    for _ in range(4):
        advance(trainer, 2)
        trainer.save()
    names = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert names == ["step_000000000018.safetensors", "step_000000000024.safetensors"]
    assert load_checkpoint(tmp_path / "checkpoints" / names[-1])["env_steps"] == 24


def test_interrupting_saves_exits_130_and_resuming_finishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without_bundles(monkeypatch)
    config = tmp_path / "c.yaml"
    config.write_text(
        "task: FetchReach-v4\nnum_envs: 4\n"
        "learner: {algorithm: ddpg, hidden: [16], batch_size: 16, warmup_steps: 100, updates_per_step: 0.1}\n"
        "train: {env_steps: 1000000, log_interval: 100}\nevaluate: {episodes: 2}\n"
    )
    shown = Progress.update

    def interrupt(self: Progress, steps: int, *arguments: Any) -> None:
        if steps == 340:
            signal.raise_signal(signal.SIGINT)
        shown(self, steps, *arguments)

    monkeypatch.setattr(Progress, "update", interrupt)
    run = tmp_path / "run"
    status, _, errors = simreal_command(capsys, "train", config, "--run-dir", run)
    assert status == 130, errors
    assert errors.count("\n") == 1
    assert "--resume" in errors
    assert newest_checkpoint(run)["env_steps"] == 340
    status, _, errors = simreal_command(capsys, "train", config, "train.env_steps=540", "--run-dir", run, "--resume")
    assert status == 0, errors
    steps = [int(row.split(",")[0]) for row in (run / "metrics.csv").read_text().splitlines()[1:]]
    assert steps == [100, 200, 300, 400, 500]
    assert newest_checkpoint(run)["env_steps"] == 540


@pytest.mark.parametrize("memory", ["none", "lstm"])
def test_a_resumed_ppo_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path: Path, memory: str) -> None:
    learner = {"algorithm": "ppo", "horizon": 8, "segment": 4, "minibatches": 2, "epochs": 2, "memory": memory}
    document = {
        "task": "Hopper-v5",
        "num_envs": 3,
        "learner": learner,
        "randomization": {"sampler": "manual", "parameters": {"body_mass": {}, "action_delay": {"range": [0, 20]}}},
    }
    config = parse_config(document, "test")
    whole, resumed = (Trainer(config, tmp_path / name) for name in ("whole", "resumed"))
    advance(whole, 13)
    resumed.load(load_checkpoint(whole.save()))
    for trainer in (whole, resumed):
        advance(trainer, 27)
    assert unequal(*(leaves(load_checkpoint(trainer.save())) for trainer in (whole, resumed))) == []
