"""Studies: what is made, what is skipped, what is refused, and the figures of the table."""

from __future__ import annotations

import json
import math
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from envs.platform.menagerie import NOT_HERE, ModelUnavailableError
from shortcuts import made_once, with_short_rehearsals, without_bundles, without_drawings
from simreal.cli import commands
from simreal.cli.main import main
from simreal.common.errors import UserError
from simreal.evaluation.intervals import wilson
from simreal.report.records import Arm, load_run
from simreal.study.results import summarize, table
from simreal.study.spec import load_study
from simreal.training.checkpoint import checkpoints, newest_checkpoint
from simreal.training.monitoring.progress import Progress
from simreal.training.run_config import shipped_configs
from simreal.training.run_directory import run_config
from tiny import leaves

CONFIG = """
task: FetchReach-v4
num_envs: 4
learner: {algorithm: ddpg, hidden: [8], batch_size: 16, warmup_steps: 100, updates_per_cycle: 10}
randomization:
  sampler: adr
  adr: {buffer_size: 2, thresholds: [0.0, 0.0]}
  parameters:
    body_mass: {of: "robot0:*", range: [0.5, 2.0]}
    observation_noise: {of: grip_pos, range: [0, 0.01]}
train: {env_steps: 240, log_interval: 80, keep: last}
"""
STUDY: dict[str, Any] = {
    "name": "tiny",
    "description": "Is anything learnt in no time?",
    "config": "base.yaml",
    "seeds": [0, 1],
    "evaluate": {"episodes": 4, "worlds": ["nominal", "trained", "latency"]},
    "widen": {"like": "adr_large", "arms": ["none"], "episodes": 20},
    "arms": {
        "none": {"set": {"randomization.sampler": "none", "train.env_steps": 400}},
        "adr_small": {},
        "adr_large": {"continues": "adr_small", "set": {"train.env_steps": 400}},
    },
}
PPO = "{algorithm: ppo, horizon: 8, minibatches: 2, epochs: 1, lr_schedule: linear}"


def write(folder: Path, **changes: Any) -> Path:
    """A study's file, with the configuration beside it."""
    (folder / "base.yaml").write_text(CONFIG)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(STUDY | changes, sort_keys=False))
    return folder / "tiny.yaml"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    without_bundles(monkeypatch)
    without_drawings(monkeypatch)
    with_short_rehearsals(monkeypatch)
    return tmp_path


def run(*arguments: str) -> int:
    try:
        main(["study", *arguments, "--no-pictures"])
    except SystemExit as exit_:
        return int(exit_.code or 0)
    return 0


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the whole study in studies/tiny; one of its runs has a bundle. Look at it, or copy it."""

    def make(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            without_bundles(patch, but="none-0")
            without_drawings(patch)
            with_short_rehearsals(patch)
            write(folder)
            assert run("tiny.yaml") == 0

    return made_once(tmp_path_factory, "study", make)


def stamps(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_one_command_makes_runs_evaluations_table_and_report(made: Path) -> None:
    results = made / "studies" / "tiny"
    names = [f"{arm}-{seed}" for arm in ("adr_large", "adr_small", "none") for seed in (0, 1)]
    assert sorted(p.name for p in (results / "runs").iterdir()) == names
    assert (results / "runs" / "none-0" / "bundle" / "policy.onnx").is_file()
    document = json.loads((results / "study.json").read_text())
    assert [arm["name"] for arm in document["arms"]] == ["none", "adr_small", "adr_large"]
    assert [arm["env_steps"] for arm in document["arms"]] == [400, 240, 400]
    none, _, large = document["arms"]
    assert none["entropy_npd"]["upper_bound"]
    assert not large["entropy_npd"]["upper_bound"]
    assert large["groups"]["held_out"]["episodes"] == 8
    assert large["groups"]["held_out"]["above_control"]["se"] is not None
    assert (document["control"], document["warnings"]) == ("none", [])
    text = (results / "table.md").read_text()
    for part in ("| arm | steps | entropy (npd) | in training | nominal |", "held out", "adr_large", "upper bound"):
        assert part in text
    page = (results / "report.html").read_text()
    assert "Is anything learnt in no time?" in page
    assert "FetchReach-v4: study tiny" in page


def test_a_second_call_does_nothing_but_the_report(made: Path, here: Path) -> None:
    shutil.copytree(made, here, dirs_exist_ok=True)
    before = stamps(here / "studies" / "tiny" / "runs")
    assert run("tiny.yaml") == 0
    assert stamps(here / "studies" / "tiny" / "runs") == before


def test_the_written_study_is_the_study_with_everything_spelled_out(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made)
    assert load_study("studies/tiny/study.yaml").arms == load_study("tiny.yaml").arms


def test_an_arm_that_continues_another_equals_an_uninterrupted_run_bit_for_bit(made: Path, here: Path) -> None:
    continued = made / "studies" / "tiny" / "runs" / "adr_large-1"
    config = load_run(continued).config
    assert (config.seed, config.train.env_steps) == (1, 400)
    main(["train", str(continued / "config.yaml"), "--run-dir", str(here / "whole")])
    expected, actual = (leaves(newest_checkpoint(path)) for path in (here / "whole", continued))
    assert expected.keys() == actual.keys()
    for path, value in expected.items():
        if path in ("/seconds", "/config"):
            continue
        same = torch.equal(value, actual[path]) if isinstance(value, torch.Tensor) else value == actual[path]
        assert same, path
    rows = [(path / "metrics.csv").read_text().splitlines() for path in (here / "whole", continued)]
    assert [row.split(",")[0] for row in rows[0]] == [row.split(",")[0] for row in rows[1]]


def small(here: Path, **changes: Any) -> Path:
    """A study of one arm and one seed."""
    one = {"arms": {"none": STUDY["arms"]["none"]}, "seeds": [0], "widen": None}
    one["evaluate"] = {"episodes": 2, "worlds": ["nominal"]}
    return write(here, **(one | changes))


def test_other_worlds_are_evaluated_without_training_again(here: Path) -> None:
    small(here)
    assert run("tiny.yaml") == 0
    folder = here / "studies" / "tiny" / "runs" / "none-0"
    before = stamps(folder / "checkpoints")
    small(here, evaluate={"episodes": 5, "worlds": ["nominal"]})
    assert run("tiny.yaml") == 0
    worlds = json.loads((folder / "evaluation.json").read_text())["worlds"]
    assert [(w["name"], w["episodes"]) for w in worlds] == [("nominal", 5)]
    assert stamps(folder / "checkpoints") == before


def test_a_study_with_other_words_and_fewer_seeds_has_another_table(here: Path) -> None:
    small(here, seeds=[0, 1])
    assert run("tiny.yaml") == 0
    small(here, seeds=[0], description="Something else.")
    assert run("tiny.yaml") == 0
    folder = here / "studies" / "tiny"
    document = json.loads((folder / "study.json").read_text())
    assert document["seeds"] == [0]
    assert document["arms"][0]["runs"] == ["runs/none-0"]
    for name in ("table.md", "report.html"):
        assert "Something else." in (folder / name).read_text()


def test_a_world_that_was_edited_is_played_again(here: Path) -> None:
    (here / "mine.yaml").write_text("name: a|b\nphysics: {timestep_factor: 0.5}\n")
    small(here, evaluate={"episodes": 4, "worlds": ["mine.yaml"]})
    assert run("tiny.yaml") == 0
    folder = here / "studies" / "tiny"
    assert "| a&#124;b |" in (folder / "table.md").read_text()
    (here / "mine.yaml").write_text("name: other\nphysics: {cone: elliptic}\n")
    assert run("tiny.yaml") == 0
    worlds = json.loads((folder / "runs" / "none-0" / "evaluation.json").read_text())["worlds"]
    assert [world["name"] for world in worlds] == ["other"]


def test_an_interrupted_study_says_how_to_continue_and_continues_from_the_checkpoint(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small(here)
    shown = Progress.update

    def interrupt(self: Progress, steps: int, *arguments: Any) -> None:
        if steps == 200:
            signal.raise_signal(signal.SIGINT)
        shown(self, steps, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "update", interrupt)
        assert run("tiny.yaml", "--run-dir", "out") == 130
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "none-0: interrupted at step 200; to continue: simreal study tiny.yaml --run-dir out" in error
    folder = here / "out" / "runs" / "none-0"
    assert [p.name for p in checkpoints(folder / "checkpoints")] == ["step_000000000200.safetensors"]

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(commands, "evaluate_named", stop)
        assert run("tiny.yaml", "--run-dir", "out") == 130
    assert "to continue: simreal study tiny.yaml" in capsys.readouterr().err
    assert not (folder / "evaluation.json").exists()
    assert run("tiny.yaml", "--run-dir", "out") == 0
    out = capsys.readouterr().out
    assert "0 of 400 steps to be trained" in out
    assert (here / "out" / "report.html").is_file()


def test_a_run_that_never_reached_a_checkpoint_is_begun_anew(here: Path) -> None:
    small(here)
    left = here / "studies" / "tiny" / "runs" / "none-0"
    left.mkdir(parents=True)
    (here / "studies" / "tiny" / "study.yaml").write_text("")
    (left / "config.yaml").write_text("half")
    assert run("tiny.yaml") == 0
    assert (left / "evaluation.json").is_file()


def test_runs_of_other_settings_are_refused_before_anything_is_done(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small(here)
    assert run("tiny.yaml") == 0
    before = stamps(here / "studies")
    for settings, expected in (({"learner.gamma": 0.5}, "learner differs"), ({"train.env_steps": 80}, "400 steps")):
        small(here, arms={"none": {"set": STUDY["arms"]["none"]["set"] | settings}})
        capsys.readouterr()
        assert run("tiny.yaml") == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "none-0" in error
        assert expected in error
    assert stamps(here / "studies") == before
    assert run("tiny.yaml", "--run-dir", str(here)) == 2
    assert "not the folder of a study" in capsys.readouterr().err


def arms(**changes: Any) -> dict[str, Any]:
    return {"arms": STUDY["arms"] | changes}


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"sedes": [1]}, ("sedes", "seeds")),
        ({"seeds": []}, ("seeds",)),
        ({"seeds": [1, 1]}, ("seeds", "different")),
        ({"seeds": [0, -1]}, ("seeds.1", "-1")),
        ({"name": "../x"}, ("name",)),
        ({"arms": {}}, ("arms",)),
        ({"evaluate": {"episodes": 0}}, ("evaluate.episodes",)),
        ({"evaluate": {"worlds": ["latencyy"]}}, ("latencyy", "latency")),
        ({"evaluate": {"worlds": ["nominal", "extremes"]}}, ("evaluate.worlds", "arm none")),
        ({"evaluate": {"worlds": ["go1_box"]}}, ("evaluate.worlds", "go1_box", "FetchReach-v4")),
        ({"config": "bas.yaml"}, ("bas.yaml",)),
        ({"config": None}, ("config", "missing")),
        ({"widen": {"like": "none", "arms": ["none"]}}, ("widen.like", "adr")),
        ({"widen": {"like": "adr_larg", "arms": ["none"]}}, ("widen.like", "adr_large")),
        ({"widen": {"like": "adr_large", "arms": ["nne"]}}, ("widen.arms", "none")),
        (arms(bad={"set": {"learner.gama": 0.9}}), ("arms.bad", "gama", "gamma")),
        (arms(bad={"set": {"seed": 3}}), ("arms.bad.set.seed", "seeds")),
        (arms(bad={"sett": {}}), ("arms.bad.sett", "set")),
        (arms(bad={"config": "half_cheetah"}), ("different tasks",)),
        (arms(bad={"continues": "adr_smal"}), ("arms.bad.continues", "adr_small")),
        (arms(bad={"continues": "bad"}), ("arms.bad.continues", "circle")),
        (arms(bad={"starts_from": "adr_smal"}), ("arms.bad.starts_from", "adr_small")),
        (arms(bad={"starts_from": "bad"}), ("arms.bad.starts_from", "circle")),
        (arms(bad={"starts_from": "none", "continues": "adr_small"}), ("arms.bad.starts_from", "continues")),
        (arms(bad={"starts_from": "none", "set": {"learner.hidden": [9]}}), ("bad.starts_from", "networks", "none")),
        (arms(bad={"starts_from": "none", "set": {"train.from": "runs/x"}}), ("bad.set.train.from", "starts_from")),
        (arms(bad={"continues": "adr_small"}), ("arms.bad", "more than the 240", "240")),
        (arms(bad={"continues": "adr_small", "config": "base.yaml"}), ("arms.bad.config",)),
        (
            arms(bad={"continues": "adr_small", "set": {"num_envs": 8, "train.env_steps": 400}}),
            ("arms.bad.set", "num_envs", "adr_small"),
        ),
        (
            arms(
                short={"set": {"learner": yaml.safe_load(PPO)}},
                bad={"continues": "short", "set": {"train.env_steps": 400}},
            ),
            ("arms.bad.continues", "linear", "kl_adaptive"),
        ),
        (
            arms(
                short={"set": {"learner.lr_schedule": "linear"}},
                bad={"continues": "short", "set": {"train.env_steps": 400}},
            ),
            ("arms.bad.continues", "linear", "use 'constant', or"),
        ),
    ],
)
def test_a_wrong_study_is_refused_in_one_line_before_anything_is_written(
    here: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], parts: tuple[str, ...]
) -> None:
    write(here, **changes)
    assert run("tiny.yaml") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for part in parts:
        assert part in error
    assert not (here / "studies").exists()


def test_arms_that_start_from_another_begin_with_its_networks_seed_by_seed(here: Path) -> None:
    start = {"set": {"randomization.sampler": "none", "train.env_steps": 160}}
    none = {"continues": "start", "set": {"train.env_steps": 400}}
    late = {"starts_from": "start", "set": {"train.env_steps": 80}}
    write(here, arms={"late": late, "later": {"continues": "late", "set": {"train.env_steps": 240}},
                      "start": start, "none": none}, widen=None)  # fmt: skip
    study = load_study("tiny.yaml")
    assert list(study.arms) == ["start", "late", "later", "none"]
    assert [study.budget(arm) for arm in study.arms.values()] == [160, 240, 400, 400]
    assert study.warnings() == []
    assert run("tiny.yaml") == 0
    runs = here / "studies/tiny/runs"
    for seed in (0, 1):
        assert run_config(runs / f"late-{seed}").train.source == f"studies/tiny/runs/start-{seed}"
        # 80 steps are within its warm-up, before the first update: it is what it started from.
        begun, source = (newest_checkpoint(runs / f"{arm}-{seed}")["learner"] for arm in ("late", "start"))
        weights = {name: value for name, value in source["policy"].items() if "normalizer" not in name}
        assert weights
        assert all(torch.equal(begun["policy"][name], value) for name, value in weights.items())
    document = json.loads((here / "studies/tiny/study.json").read_text())
    assert document["control"] == "none"  # not the one that others start from
    assert {arm["name"]: (arm["env_steps"], arm["starts_from"]) for arm in document["arms"]} == {
        "late": (240, "start"), "later": (400, "start"), "start": (160, None), "none": (400, None)
    }  # fmt: skip
    again = load_study(str(here / "studies/tiny/study.yaml"))
    assert [arm.starts_from for arm in again.arms.values()] == [None, "start", "start", None]


def test_an_unknown_study_names_the_shipped_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fetch_pusk") == 2
    assert "fetch_push" in capsys.readouterr().err


def test_a_study_without_a_control_or_with_a_shorter_one_is_warned_about(here: Path) -> None:
    assert load_study(str(write(here))).warnings() == []
    alone = load_study(str(write(here, arms={"adr_small": {}}, widen=None, seeds=[3])))
    assert "no arm trains without randomization" in alone.warnings()[0]
    assert "one seed" in alone.warnings()[1]
    apart = {"none": STUDY["arms"]["none"], "adr": {"starts_from": "none"}}
    begins = load_study(str(write(here, arms=apart, widen=None))).warnings()
    assert begins == ["none trains for 400 steps, the longest arm for 640: no comparison at equal budgets"]
    short = write(here, **arms(none={"set": {"randomization.sampler": "none"}}))
    assert "none trains for 240 steps, the longest arm for 400" in load_study(str(short)).warnings()[0]


def test_shipped_studies_can_be_run_and_compare_at_equal_budgets() -> None:
    names = [name.removeprefix("studies/") for name in shipped_configs() if name.startswith("studies/")]
    assert {"fetch_push", "go1_velocity"} <= set(names)
    for name in names:
        try:
            found = load_study(name)
        except (UserError, ModelUnavailableError) as error:
            if NOT_HERE not in str(error):
                raise
            continue
        assert found.warnings() == []
        steps = {arm.name: found.budget(arm) for arm in found.arms.values()}
        assert steps["none"] == steps["manual"] == steps["adr_large"]
        manual, large = (found.arms[a].config.randomization.parameters for a in ("manual", "adr_large"))
        assert manual.keys() == large.keys()
        for key in manual:  # what is fixed lies within what ADR may reach
            assert large[key]["range"][0] <= manual[key]["range"][0]
            assert manual[key]["range"][1] <= large[key]["range"][1]


def test_the_figures_of_the_table_are_those_worked_out_by_hand(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made)
    found = load_study("tiny.yaml")
    rates = {"none": ((0.5, 0.2), (0.3, 0.4)), "adr_large": ((0.9, 0.7), (0.8, 0.4))}  # per seed: worlds a and b
    built = []
    for name, seeds in rates.items():
        runs = []
        for seed, values in enumerate(seeds):
            loaded = load_run(made / "studies" / "tiny" / "runs" / f"{name}-{seed}")
            assert loaded.evaluation is not None
            worlds = tuple(
                loaded.evaluation.worlds[0].model_copy(
                    update={"name": w, "group": "held_out", "episodes": 10, "success_rate": rate}
                )
                for w, rate in zip("ab", values, strict=True)
            )
            changed = loaded.evaluation.model_copy(update={"worlds": worlds})
            runs.append(type(loaded)(**{**vars(loaded), "evaluation": changed}))
        built.append(Arm(name, runs))
    document = summarize(found, built)
    none, large = (arm["groups"]["held_out"] for arm in document["arms"])
    # none: seeds 0.35 and 0.35; adr_large: seeds 0.8 and 0.6, mean 0.7, standard error 0.1; rates 0.4 0.7 0.8 0.9
    assert (none["mean"], none["se"]) == pytest.approx((0.35, 0.0))
    assert (large["mean"], large["se"], large["median"]) == pytest.approx((0.7, 0.1, 0.75))
    assert large["pooled_ci95"] == pytest.approx(list(wilson(28, 40)))
    assert large["worst"] == {"world": "b", "mean": pytest.approx(0.55)}
    assert large["above_control"] == pytest.approx({"mean": 0.35, "se": math.hypot(0.1, 0.0)})
    assert none["above_control"] is None
    text = table(document)
    assert "0.700 ± 0.100 (0.750)" in text
    assert "| held out | adr_large | 0.700 ± 0.100 | 0.750 |" in text
    assert "+0.350 ± 0.100" in text
    assert "b (0.550)" in text


def test_a_report_of_a_study_is_made_again_from_its_folder(
    made: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = made / "studies" / "tiny"
    main(["report", str(folder), "--output", "again.html", "--no-pictures"])
    one, other = ((p).read_text() for p in (folder / "report.html", here / "again.html"))
    other = other.replace(str(folder), str(folder.relative_to(made)))  # in commands, as runs were named to it
    assert re.sub(r"\s", "", one) == re.sub(r"\s", "", other)
    (here / "bad").mkdir()
    (here / "bad" / "study.json").write_text('{"name": "x"}')
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["report", "bad"])
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "study.json" in error
