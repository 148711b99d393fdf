"""The command line: what it prints, what it refuses, and that nothing is overwritten."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import pytest
import yaml

from command import Run, refused, simreal_command
from conftest import TINY
from envs.environment import Environment
from shortcuts import without_drawings
from simreal.deploy import Policy
from simreal.training.checkpoint import checkpoints


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    without_drawings(monkeypatch)
    return partial(simreal_command, capsys)


@pytest.fixture
def trained(trained_run: Path) -> Path:
    return trained_run


def test_a_run_directory_holds_everything(trained: Path) -> None:
    assert yaml.safe_load((trained / "config.yaml").read_text())["learner"]["gamma"] == 0.98  # defaults written out
    header, *rows = (trained / "metrics.csv").read_text().splitlines()
    assert header.startswith("env_steps,episodes,success_rate")
    assert len(rows) == 6
    adr = (trained / "adr.csv").read_text().splitlines()
    assert adr[0].startswith("env_steps,entropy_npd,body_mass.lower,body_mass.upper,action_delay.lower")
    assert float(adr[-1].split(",")[1]) > float(adr[1].split(",")[1])  # thresholds of 0 widen always
    assert list(trained.glob("events.out.tfevents*"))
    assert (trained / "bundle" / "policy.onnx").is_file()
    worlds = json.loads((trained / "evaluation.json").read_text())["worlds"]
    assert [w["name"] for w in worlds] == ["nominal", "trained"]


def test_evaluate_writes_the_promised_json_for_a_run_and_its_bundle(run: Run, trained: Path, tmp_path: Path) -> None:
    documents = []
    for path in (trained, trained / "bundle"):
        status, out, err = run("evaluate", path, "--episodes", "6", "--world", "nominal", "--json", tmp_path / "f.json")
        assert status == 0, err
        assert "nominal" in out
        documents.append(json.loads((tmp_path / "f.json").read_text()))
    of_run, of_bundle = documents
    assert set(of_run) == {"task", "policy", "adr_entropy_npd", "worlds"}
    figures = {"success_rate", "success_ci95", "return_mean", "return_se", "return_median", "return_cvar10"}
    more = {"group", "successes_mean", "successes_median", "successes_ci95", "measures", "samples"}
    assert set(of_run["worlds"][0]) == {"name", "episodes", *figures, *more}
    assert of_run["adr_entropy_npd"] == pytest.approx(of_bundle["adr_entropy_npd"])
    assert of_run["worlds"][0]["return_mean"] == pytest.approx(of_bundle["worlds"][0]["return_mean"], abs=0.5)


def test_export_writes_a_bundle_elsewhere(run: Run, trained: Path, tmp_path: Path) -> None:
    status, _, err = run("export", trained, "--output", tmp_path / "policy")
    assert status == 0, err
    assert json.loads((tmp_path / "policy" / "policy.json").read_text())["task"] == "FetchReach-v4"


def test_a_bundle_states_no_figures_of_an_earlier_checkpoint(run: Run, trained: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(trained, tmp_path / "run")
    figures = json.loads((copied / "evaluation.json").read_text())
    assert figures["checkpoint"] == checkpoints(copied / "checkpoints")[-1].name
    assert json.loads((copied / "bundle" / "policy.json").read_text())["evaluation"] is not None
    (copied / "evaluation.json").write_text(json.dumps(figures | {"checkpoint": "step_000000000001.safetensors"}))
    _, out, _ = run("export", copied)
    assert "is of an earlier checkpoint" in out
    assert json.loads((copied / "bundle" / "policy.json").read_text())["evaluation"] is None


def test_a_report_names_arms_with_other_options_of_the_task(run: Run, trained: Path, tmp_path: Path) -> None:
    for name, options in (("same", "{}"), ("other", "{dense: true}")):
        config = shutil.copytree(trained, tmp_path / name) / "config.yaml"
        text = config.read_text().replace("\nseed: 0\n", "\nseed: 1\n").replace("gamma: 0.98", "gamma: 0.97")
        config.write_text(text.replace("task_options: {}", f"task_options: {options}"))
        page = tmp_path / f"{name}.html"
        status, _, err = run("report", trained, tmp_path / name, "--no-pictures", "--output", page)
        assert status == 0, err
        assert (f"Not of the same task_options as run: {name}." in page.read_text()) == (name == "other")


def test_describe_prints_the_three_tables_with_units(run: Run) -> None:
    status, out, _ = run("describe", "FetchPush-v4")
    assert status == 0
    for part in ("Observation", "Action", "Randomization", "object_rel_pos", "rad", "action_delay", "ms", "0.04 s"):
        assert part in out


def test_envs_lists_every_task(run: Run) -> None:
    _, out, _ = run("envs")
    assert {"FetchReach-v4", "FetchPushDense-v4", "FetchPickAndPlace-v4"} <= set(out.split())


def test_unknown_tasks_name_the_nearest(run: Run, tmp_path: Path) -> None:
    refused(run("describe", "FetchPsh-v4"), "FetchPsh-v4", "FetchPush-v4")
    (tmp_path / "c.yaml").write_text(TINY.replace("FetchReach-v4", "FetchRech-v4"))
    refused(run("train", "c.yaml"), "c.yaml", "FetchRech-v4", "FetchReach-v4")


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("learner.gama=0.9", ("learner.gama", "gamma")),
        ("learner.gamma=2", ("gamma", "less than 1")),
        ("num_env=3", ("num_env", "num_envs")),
        ("learner.algorithm=dppg", ("learner", "ddpg")),
        ("randomization.parameters.body_mass.range=[2, 1]", ("body_mass.range", "2", "above", "1")),
        ("randomization.parameters.body_mass.of=robot9", ("body_mass.of", "robot9")),
        ("randomization.parameters.bodymass={}", ("bodymass", "body_mass")),
        ("randomization.parameters.actuator_gain={}", ("actuator_gain", "no actuator")),
        ("randomization.adr.thresholds=[1, 0]", ("thresholds", "above")),
        ("randomization.sampler=adrr", ("randomization.sampler",)),
        ("train.env_steps=-5", ("train.env_steps",)),
        ("train", ("train", "key.sub=value")),
    ],
)
def test_wrong_settings_are_named_and_nothing_is_written(
    run: Run, tmp_path: Path, override: str, parts: tuple[str, ...]
) -> None:
    (tmp_path / "c.yaml").write_text(TINY)
    refused(run("train", "c.yaml", override, "--run-dir", "out"), *parts)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.yaml"]


@pytest.mark.parametrize("command", ["evaluate", "record", "play"])
def test_an_interrupted_command_says_so_and_does_not_count_as_done(
    run: Run, trained: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """Typer turns the interrupt into a return value, and the exit status was 0."""
    monkeypatch.setattr(Environment, "step", Mock(side_effect=KeyboardInterrupt))
    output = {"record": ["--output", "a.npz"], "play": ["--video", "a.gif"], "evaluate": ["--episodes", "1"]}[command]
    status, _, err = run(command, trained, *output)
    assert (status, err) == (130, "simreal: interrupted\n")
    assert not Path(output[1]).exists()


def test_missing_and_broken_files_are_named(run: Run, tmp_path: Path) -> None:
    refused(run("train", "fetch_rech.yaml"), "fetch_rech.yaml", "fetch_reach")
    (tmp_path / "broken.yaml").write_text("task: [FetchReach-v4")
    refused(run("train", "broken.yaml"), "broken.yaml", "YAML")
    refused(run("evaluate", "nowhere"), "nowhere")
    refused(run("evaluate", tmp_path), "config.yaml")
    refused(run("train"), "CONFIG")


def test_a_filled_run_directory_is_not_overwritten(run: Run, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(TINY)
    before = {p: p.stat().st_mtime_ns for p in trained.rglob("*")}
    refused(run("train", "c.yaml", "--run-dir", trained), str(trained), "not empty")
    assert before == {p: p.stat().st_mtime_ns for p in trained.rglob("*")}


def test_resume_refuses_another_task_and_other_settings(run: Run, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(TINY)
    refused(run("train", "c.yaml", "num_envs=8", "--run-dir", trained, "--resume"), "num_envs")
    shutil.copytree(trained, tmp_path / "other")
    changed = (tmp_path / "other" / "config.yaml").read_text().replace("FetchReach-v4", "FetchReachDense-v4")
    (tmp_path / "other" / "config.yaml").write_text(changed)
    refused(run("evaluate", tmp_path / "other"), "step_", "FetchReach-v4", "FetchReachDense-v4")
    refused(run("train", "c.yaml", "--run-dir", "nowhere", "--resume"), "nowhere")


def test_truncated_checkpoints_and_altered_bundles_are_refused(run: Run, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "cut")
    newest = sorted((tmp_path / "cut" / "checkpoints").glob("*.safetensors"))[-1]
    newest.write_bytes(newest.read_bytes()[:5000])
    best = tmp_path / "cut" / "best" / newest.name
    best.write_bytes(best.read_bytes()[:500])
    refused(run("evaluate", tmp_path / "cut"), newest.name)
    (tmp_path / "c.yaml").write_text(TINY)
    refused(run("train", "c.yaml", "--run-dir", tmp_path / "cut", "--resume"), newest.name)
    shutil.copytree(trained / "bundle", tmp_path / "bundle")
    onnx = tmp_path / "bundle" / "policy.onnx"
    onnx.write_bytes(onnx.read_bytes()[:-1] + b"x")
    refused(run("evaluate", tmp_path / "bundle"), "policy.onnx")
    refused(run("play", tmp_path / "bundle", "--video", tmp_path / "v.mp4"), "policy.onnx")


def test_worlds_are_checked(run: Run, trained: Path, tmp_path: Path) -> None:
    refused(run("evaluate", trained, "--world", "latencyy"), "latencyy", "latency")
    (tmp_path / "w.yaml").write_text("randomization: {parameters: {body_mass: {of: no_such_body}}}")
    refused(run("evaluate", trained, "--world", "w.yaml"), "w.yaml", "no_such_body")
    status, out, err = run("evaluate", trained, "--world", "latency", "--episodes", "4")
    assert status == 0, err
    assert "latency" in out


def test_names_are_printed_as_they_are(run: Run, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "a[b]")
    (tmp_path / "w.yaml").write_text("name: '[/x] :warning: load'")
    status, out, err = run("evaluate", "a[b]", "--world", "w.yaml", "--episodes", "1")
    assert status == 0, err
    for part in ("a[b] on FetchReach-v4", "[/x] :warning: load"):
        assert part in out


def test_policies_are_compared_in_one_table_and_one_document(run: Run, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "other")
    arguments = ("--world", "nominal", "--world", "trained", "--episodes", "5", "--json", "c.json")
    status, out, err = run("evaluate", trained, tmp_path / "other", trained / "bundle", *arguments)
    assert status == 0, err
    document = json.loads((tmp_path / "c.json").read_text())
    assert set(document) == {"policies", "differences"}
    assert [p["policy"] for p in document["policies"]] == ["run", "other", "bundle"]
    same = next(d for d in document["differences"] if d["a"] == "other" and d["world"] == "nominal")
    figures = {"success", "success_ci95", "successes", "successes_ci95", "return", "return_ci95"}
    assert set(same) == {"world", "a", "b"} | figures
    assert (same["b"], same["success"], same["return"], same["return_ci95"]) == ("run", 0.0, 0.0, [0.0, 0.0])
    for name in ("other", "bundle"):
        assert {d["world"] for d in document["differences"] if d["a"] == name} == {"nominal", "trained"}
    for part in ("Differences from run", "other", "bundle", "nominal"):
        assert part in out
    status, out, err = run("evaluate", trained, tmp_path / "other", "--baseline", "other", "--episodes", "2")
    assert status == 0, err
    assert "Differences from other" in out


def test_baselines_play_the_worlds_of_the_first_run(run: Run, trained: Path, tmp_path: Path) -> None:
    arguments = ("--baseline", "still", "--episodes", "3", "--json", "c.json")
    status, out, err = run("evaluate", "random", trained, "still", *arguments)
    assert status == 0, err
    assert "Differences from still" in out
    document = json.loads((tmp_path / "c.json").read_text())
    assert [p["policy"] for p in document["policies"]] == ["random", "run", "still"]
    assert [p["adr_entropy_npd"] is None for p in document["policies"]] == [True, False, True]
    compared = {(d["world"], d["a"], d["b"]) for d in document["differences"]}
    assert compared == {(w, a, "still") for w in ("nominal", "trained") for a in ("random", "run")}
    lone = run("evaluate", trained, "random", "--world", "trained", "--episodes", "3", "--json", "d.json")
    assert lone[0] == 0, lone[2]
    again = json.loads((tmp_path / "d.json").read_text())["policies"][1]["worlds"][0]
    assert again == document["policies"][0]["worlds"][1]  # whatever else is played


def test_baselines_need_a_run_and_give_way_to_one_of_their_name(run: Run, trained: Path, tmp_path: Path) -> None:
    refused(run("evaluate", "random", "still"), "random", "at least one run")
    refused(run("evaluate", trained, "randon"), "randon", "no such run", "'random'")
    refused(run("evaluate", trained, "still", "still"), "still", "twice")
    refused(run("evaluate", "still", "--envelope"), "still", "no such run")
    shutil.copytree(trained, tmp_path / "still")
    status, _, err = run("evaluate", "still", "--episodes", "2", "--json", "s.json")
    assert status == 0, err
    assert json.loads((tmp_path / "s.json").read_text())["adr_entropy_npd"] is not None


def test_policies_that_cannot_be_compared_are_named_and_nothing_is_written(
    run: Run, trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained / "bundle", tmp_path / "dense")
    contract = tmp_path / "dense" / "policy.json"
    text = re.sub(r'"contract_sha256": "[0-9a-f]{64}"', f'"contract_sha256": "{"0" * 64}"', contract.read_text())
    text = text.replace('"task": "FetchReach-v4"', '"task": "FetchReachDense-v4"')
    contract.write_text(text.replace("0" * 64, hashlib.sha256(text.encode()).hexdigest(), 1))
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    json_file = ("--json", "f.json")
    refused(run("evaluate", trained, "dense", *json_file), "run is of FetchReach-v4", "dense of FetchReachDense-v4")
    refused(run("evaluate", trained, "empty", *json_file), "empty", "config.yaml")
    refused(run("evaluate", trained, trained, *json_file), "given twice")
    refused(run("evaluate", trained, trained / "bundle", "--baseline", "bundel", *json_file), "bundel", "'bundle'")
    refused(run("evaluate", trained, "--world", "held_ot", *json_file), "held_ot", "did you mean 'held_out'")
    refused(run("evaluate", trained, "--world", "go1_payload", *json_file), "Go1*", "FetchReach-v4")
    refused(run("evaluate", trained, "--world", "extremes", "--ranges-of", "dense", *json_file), "FetchReachDense-v4")
    refused(run("evaluate", trained, "--json", tmp_path / "no" / "f.json"), "f.json")
    assert sorted(tmp_path.rglob("*")) == before


def test_an_envelope_is_written_into_the_run_and_its_bundle(run: Run, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "r")
    small = ("--envelope", "--episodes", "2", "--points", "3", "--threshold", "0", "--pair", "body_mass,action_delay")
    status, out, err = run("evaluate", "r", *small)
    assert status == 0, err
    document = json.loads((tmp_path / "r" / "envelope.json").read_text())
    assert [p["name"] for p in document["parameters"]] == ["body_mass", "action_delay", "observation_noise"]
    assert [(p["x"], p["y"]) for p in document["pairs"]] == [("body_mass", "action_delay")]
    assert document["box"]["lower_bound"] >= 0.0
    assert "action_delay" in out
    assert Policy.load(tmp_path / "r" / "bundle").contract["envelope"] == document
    evaluation = Policy.load(tmp_path / "r" / "bundle").contract["evaluation"]
    assert evaluation["worlds"][0]["name"] == "nominal"
    assert "samples" not in evaluation["worlds"][0]
    document["checkpoint"] = "step_000000000001.safetensors"  # measured of another checkpoint: of no use any more
    (tmp_path / "r" / "envelope.json").write_text(json.dumps(document))
    assert run("export", "r", "--output", "b")[0] == 0
    assert Policy.load(tmp_path / "b").contract["envelope"] is None


def test_wrong_requests_for_an_envelope_write_nothing(run: Run, trained: Path, tmp_path: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in trained.rglob("*")}
    refused(run("evaluate", trained / "bundle", "--envelope"), "bundle", "run directory")
    refused(run("evaluate", trained, "--envelope", "--pair", "body_mass"), "--pair", "PARAMETER,PARAMETER")
    refused(run("evaluate", trained, "--points", "3"), "--points: says what --envelope measures; give --envelope too")
    refused(run("evaluate", trained, "--envelope", "--pair", "body_mas,action_delay"), "body_mas", "'body_mass'")
    refused(run("evaluate", trained, "--envelope", "--criterion", "return"), "--criterion", "NAME>=NUMBER")
    refused(run("evaluate", trained, "--envelope", "--world", "nominal"), "--world")
    refused(run("evaluate", trained, "--envelope", "--engine", "gpu"), "--engine")
    refused(run("evaluate", trained, "--criterion", "return>=1"), "--envelope")
    refused(run("evaluate", trained, "--envelope", "--threshold", "1"), "threshold")
    refused(run("evaluate", trained, "--envelope", "--reach", "inf"), "--reach")
    assert before == {p: p.stat().st_mtime_ns for p in trained.rglob("*")}
    refused(run("train", trained.parent / "tiny.yaml", "evaluate.worlds=[nominal, latncy]"), "latncy", "'latency'")
    assert list(tmp_path.iterdir()) == []
