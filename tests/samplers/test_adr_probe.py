"""ADR around a frozen policy stops where the policy stops."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks import adr_probe
from conftest import HINGE, TinyTask
from envs import registry
from envs.task import Outcome
from randomization.config import RandomizationConfig, randomization_config
from shortcuts import without_bundles
from simreal.cli.main import main
from simreal.common.errors import UserError
from simreal.evaluation.evaluate import run_episodes
from simreal.evaluation.worlds import find_world
from simreal.study.adr_probe import QUIET_DECISIONS, widen
from simreal.training.build import make_environment
from simreal.training.run_directory import LoadedPolicy


class Sagging(TinyTask):
    """The arm on its servo: it succeeds where gravity bends it by less than 0.05 rad."""

    def __init__(self) -> None:
        super().__init__(HINGE, max_episode_steps=10)

    def outcome(self, action: Tensor) -> Outcome:
        angle = self.engine.data("qpos")[:, 0]
        return Outcome(-angle.square(), torch.zeros_like(angle, dtype=torch.bool), angle.abs() < 0.05)


@pytest.fixture
def policy(monkeypatch: pytest.MonkeyPatch) -> LoadedPolicy:
    monkeypatch.setitem(registry._TASKS, "Sagging-v0", (Sagging, {}))
    return LoadedPolicy("still", "Sagging-v0", lambda o: torch.zeros(len(o), 1), lambda mask: None, [], None, None)


def block(low: float, high: float, sampler: str = "adr") -> RandomizationConfig:
    return randomization_config({
        "sampler": sampler,
        "adr": {"buffer_size": 2, "thresholds": [0.5, 0.9]},
        "parameters": {"gravity": {"of": "z", "range": [low, high], "step": 1.0}},
    })  # fmt: skip


def holds(gravity: float) -> bool:
    """Whether the policy succeeds in the world with that gravity, found without ADR."""
    environment = make_environment("Sagging-v0", 1, {"parameters": {"gravity": {"of": "z", "range": [gravity] * 2}}})
    environment.reset()
    for _ in range(9):
        environment.step(torch.zeros(1, 1))
    return bool(environment.step(torch.zeros(1, 1)).success)


def test_ranges_stop_within_a_step_of_where_the_policy_fails(policy: LoadedPolicy) -> None:
    fails_at = next(g for g in range(1, 20) if not holds(g))
    assert 3 <= fails_at <= 10  # weight 1 kg at 0.15 m on 20 N m/rad: 0.05 rad at 6.7 m/s^2 if it were at rest
    found = widen(policy, block(-20.0, 2.0), episodes=2000, num_envs=3)
    (gravity,) = found["parameters"]
    assert gravity["upper"] == 2.0  # the limit
    assert gravity["lower"] in (-fails_at, -(fails_at - 1))  # it fails there, narrows, and tries again
    assert found["stopped"] == "quiet"
    assert found["quiet_episodes"] == QUIET_DECISIONS * 2 * 2
    assert found["entropy_npd"] == pytest.approx(torch.tensor(gravity["upper"] - gravity["lower"]).log().item())


def test_a_budget_ends_it_and_a_seed_repeats_it(policy: LoadedPolicy) -> None:
    short = widen(policy, block(-20.0, 20.0), episodes=8, num_envs=4)
    assert (short["stopped"], short["episodes"]) == ("budget", 8)
    assert short == widen(policy, block(-20.0, 20.0), episodes=8, num_envs=4)
    assert short != widen(policy, block(-20.0, 20.0), episodes=8, num_envs=4, seed=1)


def test_what_cannot_be_widened_is_refused(policy: LoadedPolicy) -> None:
    with pytest.raises(UserError, match="got 'manual'"):
        widen(policy, block(-1.0, 1.0, "manual"), episodes=8)
    with pytest.raises(ValueError, match="no boundary can move"):
        widen(policy, block(0.0, 0.0), episodes=8)


def test_the_policy_is_left_as_it_was(policy: LoadedPolicy) -> None:
    nominal = find_world("nominal", policy)
    before = run_episodes(policy, nominal.make_environment(policy, 2, 3), 4)
    widen(policy, block(-3.0, 3.0), episodes=50)
    assert torch.equal(run_episodes(policy, nominal.make_environment(policy, 2, 3), 4).returns, before.returns)


TINY = """
task: FetchReach-v4
num_envs: 4
learner: {algorithm: ddpg, hidden: [16], batch_size: 16, warmup_steps: 100}
train: {env_steps: 200}
evaluate: {episodes: 2}
"""


def test_the_command_needs_a_block_of_adr_and_writes_what_it_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    without_bundles(monkeypatch)
    (tmp_path / "c.yaml").write_text(TINY)
    main(["train", str(tmp_path / "c.yaml"), "--run-dir", str(tmp_path / "run")])

    def refused(*arguments: str) -> str:
        with pytest.raises(SystemExit) as exit_:
            adr_probe.main([str(tmp_path / "run"), *arguments])
        assert exit_.value.code == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    assert "--like" in refused()
    assert "sampler is 'none', expected 'adr'" in refused("--like", str(tmp_path / "run"))
    assert "FetchPush-v4, expected FetchReach-v4" in refused("--like", "fetch_push")
    assert "fetch_rech" in refused("--like", "fetch_rech")
    assert "folder" in refused("--like", "fetch_reach", "--json", str(tmp_path / "no" / "f.json"))
    adr_probe.main([str(tmp_path / "run"), "--like", "fetch_reach", "--episodes", "10", "--json", str(tmp_path / "f")])
    assert json.loads((tmp_path / "f").read_text())["episodes"] >= 10
    assert "entropy" in capsys.readouterr().out
