"""A resumed run equals an uninterrupted one bit for bit; interrupting saves and exits 130."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from resuming import advance
from simreal.training.checkpoint import load_checkpoint, newest_checkpoint
from simreal.training.run_config import RunConfig, parse_config
from simreal.training.trainer import Trainer
from tiny import leaves

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
        ("FetchPickAndPlace-v4", "ddpg", 37, 110),
        ("FetchReach-v4", "sac", 50, 110),
        ("FetchReach-v4", "td3", 50, 110),
        ("FetchReach-v4", "dqn", 50, 110),
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
    advance(whole, steps)
    first = Trainer(config, tmp_path / "parts")
    advance(first, cut)
    first.save()
    second = Trainer(config, tmp_path / "parts")
    second.load(newest_checkpoint(tmp_path / "parts"))
    advance(second, steps - cut)
    whole.save()
    second.save()
    expected, actual = (leaves(newest_checkpoint(tmp_path / name)) for name in ("whole", "parts"))
    assert expected.keys() == actual.keys()
    for path, value in expected.items():
        if path in ("/seconds",):
            continue
        same = torch.equal(value, actual[path]) if isinstance(value, torch.Tensor) else value == actual[path]
        assert same, path


def test_same_seed_same_run_and_another_seed_another(tmp_path: Path) -> None:
    def weights(seed: int) -> torch.Tensor:
        config = configuration("FetchReach-v4", "ddpg").model_copy(update={"seed": seed})
        trainer = Trainer(config, tmp_path)
        advance(trainer, 60)
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


def test_interrupting_saves_exits_130_and_resuming_finishes(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "task: FetchReach-v4\nnum_envs: 4\n"
        "learner: {algorithm: ddpg, hidden: [16], batch_size: 16, warmup_steps: 100, updates_per_step: 0.1}\n"
        "train: {env_steps: 1000000, log_interval: 100}\nevaluate: {episodes: 2}\n"
    )
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "simreal.cli.main", "train", "c.yaml", "--run-dir", "run"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    metrics = tmp_path / "run" / "metrics.csv"
    deadline = time.monotonic() + 60
    while (not metrics.exists() or metrics.read_text().count("\n") < 4) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors.count("\n") == 1
    assert "--resume" in errors
    reached = newest_checkpoint(tmp_path / "run")["env_steps"]
    assert reached > 0
    done = subprocess.run(
        [*command, f"train.env_steps={reached + 200}", "--resume"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    steps = [int(row.split(",")[0]) for row in metrics.read_text().splitlines()[1:]]
    assert steps == sorted(set(steps))
    assert steps[-1] >= reached


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
    whole, first, second = (Trainer(config, tmp_path / name) for name in ("whole", "parts", "parts"))
    advance(whole, 40)
    advance(first, 13)
    first.save()
    second.load(newest_checkpoint(tmp_path / "parts"))
    advance(second, 27)
    expected, actual = (
        leaves({"learner": t.learner.state_dict(), "environment": t.environment.state_dict()}) for t in (whole, second)
    )
    assert expected.keys() == actual.keys()
    for path, value in expected.items():
        same = torch.equal(value, actual[path]) if isinstance(value, torch.Tensor) else value == actual[path]
        assert same, path
