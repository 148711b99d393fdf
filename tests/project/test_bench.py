"""`simreal bench` and `benchmarks.speed`: what their figures are made of, on sizes too small to mean anything."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console

from benchmarks.speed import command
from benchmarks.speed.on_policy import bench_on_policy
from benchmarks.speed.safety import bench_safety
from benchmarks.speed.sampling import bench_adr
from benchmarks.speed.stepping import USUAL, bench_stepping
from benchmarks.speed.timing import Clocked, Row
from benchmarks.speed.training_loop import bench_loop
from envs.registry import make_task
from randomization.catalogue.table import QUANTITIES
from randomization.parameters import build_parameters
from simreal.cli import bench
from simreal.cli.describe import available
from simreal.cli.suggest import suggested_block
from simreal.common.errors import UserError

PENDULUM = "InvertedPendulum-v5"


@pytest.mark.parametrize("task_id", ["FetchPush-v4", "Ant-v5", PENDULUM])
def test_everything_means_each_quantity_that_is_not_about_looks(task_id: str) -> None:
    task = make_task(task_id)
    block = suggested_block(task)["parameters"]
    assert len(build_parameters(task, block)) == len(block)
    offered = available(task)
    missing = {name for name in offered if QUANTITIES[name].needs and QUANTITIES[name].needs not in offered}
    named = {entry.get("quantity", label) for label, entry in block.items()}  # sensors of several units have several
    assert named == {name for name in offered if QUANTITIES[name].channel != "visual"} - missing
    usual = suggested_block(task, USUAL)["parameters"]
    assert {entry.get("quantity", label) for label, entry in usual.items()} == set(USUAL) & named


def test_a_stepping_row_counts_steps_and_shares() -> None:
    row = bench_stepping(PENDULUM, 4, everything=True, repeats=5)
    assert row.ratio is not None
    assert row.reference_per_s is not None
    assert row.ratio == pytest.approx(row.ours_per_s / row.reference_per_s)
    assert row.ratio_with_resets is not None
    assert row.ratio_same_worlds is not None
    assert row.shares is not None
    assert 0.0 < row.shares["randomization"] < 1.0
    assert torch.get_num_threads() == 1


def test_time_spent_in_calls_within_calls_counts_once() -> None:
    clocked = Clocked()
    inner = SimpleNamespace(work=lambda: time.sleep(0.02))
    outer = SimpleNamespace(work=lambda: inner.work())
    clocked.watch("inner", inner, "work")
    clocked.watch("outer", outer, "work")
    began = time.perf_counter()
    outer.work()
    between = time.perf_counter() - began
    inner.work()
    total = time.perf_counter() - began
    assert 0.02 <= clocked.seconds["outer"] <= between
    assert clocked.seconds["inner"] <= total - between + 1e-3
    shares = clocked.shares(total)
    assert sum(shares.values()) == pytest.approx(1.0)


def test_the_loop_is_divided_into_physics_policy_update_and_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.speed import training_loop

    overrides = ["learner.horizon=8", "num_envs=4", "learner.minibatches=2", "learner.epochs=1"]
    load = training_loop.load_config
    monkeypatch.setattr(training_loop, "load_config", lambda name: load(name, overrides))
    row = bench_loop("inverted_pendulum", rollouts=2)
    assert row.ratio is None
    assert row.shares is not None
    assert set(row.shares) == {"physics", "policy", "update", "rest"}
    assert all(share > 0.0 for share in row.shares.values())
    assert sum(row.shares.values()) == pytest.approx(1.0)
    assert row.ours_per_s > 0.0


@pytest.mark.parametrize("learner", ["ppo", "sac"])
def test_what_safety_costs_is_divided_into_checks_the_last_good_state_and_checkpoints(
    learner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks.speed import safety

    small = {"ppo": ["horizon=8", "minibatches=2", "epochs=1"], "sac": ["algorithm=sac", "replay_size=4000"]}[learner]
    load, name = safety.load_config, {"ppo": "inverted_pendulum", "sac": "fetch_reach"}[learner]
    overrides = ["num_envs=4", *(f"learner.{setting}" for setting in small)]
    monkeypatch.setattr(safety, "load_config", lambda name: load(name, overrides))
    row = bench_safety(name, updates=2)
    assert row.shares is not None
    assert set(row.shares) == {"checks", "last good state", "checkpoints"}
    assert all(0.0 < share < 1.0 for share in row.shares.values())
    assert "checkpoint of 0." in row.name or "checkpoint of 1." in row.name


def test_updates_and_samplers_are_compared_with_their_references() -> None:
    rows = [*bench_on_policy(2, (8,), repeats=1), bench_adr(1, parameters=3, num_envs=8)]
    assert rows[0].reference == "plain torch"
    for row in rows:
        assert row.ratio is not None
        assert row.reference_per_s is not None
        assert row.ratio == pytest.approx(row.ours_per_s / row.reference_per_s)


def run(monkeypatch: pytest.MonkeyPatch, only: str | None, target: Path | None = None) -> str:
    def measured(name: str) -> Any:
        return lambda: Row(name, "nothing", 2.0, 20.0, 10.0)

    def refused() -> Row:
        raise UserError("no such thing here")

    found = [command.Case("a thing", measured("a thing")), command.Case("b thing", measured("b thing"))]
    found.append(command.Case("c", refused))
    monkeypatch.setattr(command, "cases", lambda quick: found)
    out = Console(record=True, width=200)
    command.bench_command(target, True, out, only)
    return out.export_text()


def test_only_some_rows_are_measured_when_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    target = tmp_path / "bench.json"
    shown = run(monkeypatch, "B*", target)
    assert "b thing" in shown
    assert "a thing" not in shown
    (row,) = json.loads(target.read_text())["results"]
    assert row == {"name": "b thing", "reference": "nothing", "ratio": 2.0, "ours_per_s": 20.0, "reference_per_s": 10.0}


def test_what_cannot_be_measured_here_is_said_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "not measured: no such thing here" in run(monkeypatch, None)


def test_an_unknown_row_is_answered_with_those_that_exist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    target = tmp_path / "bench.json"
    with pytest.raises(UserError, match="a thing, b thing, c"):
        run(monkeypatch, "zzz", target)
    assert not target.exists()


def test_every_case_has_a_name_of_its_own() -> None:
    names = [case.name for case in command.cases(quick=True)]
    assert len(set(names)) == len(names)
    assert "FetchPush-v4 64 everything" in names


def test_the_command_tells_a_users_speed_as_a_table_and_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_SECONDS", 0.01)
    config = tmp_path / "mine.yaml"
    config.write_text(f"task: {PENDULUM}\nnum_envs: 4\nlearner: {{algorithm: ppo, horizon: 8, minibatches: 2}}\n")
    out = Console(record=True, width=200)
    bench.bench_command([str(config)], tmp_path / "bench.json", out)
    (row,) = json.loads((tmp_path / "bench.json").read_text())["results"]
    assert (row["config"], row["task"], row["num_envs"]) == (str(config), PENDULUM, 4)
    assert row["steps_per_s"] > row["training_steps_per_s"] > 0.0 < row["update_s"]
    assert PENDULUM in out.export_text()
