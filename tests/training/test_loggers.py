"""Curves in the loggers that people have, read back by these loggers' own clients."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import pytest

from simreal.cli.main import main
from simreal.common.errors import UserError
from simreal.training.monitoring import loggers as room
from simreal.training.monitoring.loggers import KINDS, Logger, Loggers, check_loggers, final_figures
from simreal.training.monitoring.metrics_log import read_columns

SETTINGS = {"task": "T-v0", "learner": {"lr": 1e-3}}


@pytest.fixture(autouse=True)
def nobody_is_logged_in(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", "/nonexistent")


def records(path: Path) -> list[Any]:
    """What a .wandb file holds: wandb's records, framed as LevelDB frames its log."""
    proto = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    raw, at, parts, found = path.read_bytes(), 7, b"", []
    while at + 7 <= len(raw):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", raw[at : at + 7])
        parts, at = parts + raw[at + 7 : at + 7 + length], at + 7 + length
        if kind in (1, 4):  # whole, or the last part
            found.append(proto.Record.FromString(parts))
            parts = b""
    return found


def history(run: Path) -> list[dict[str, float]]:
    """The points that wandb was told, in all records of a run."""
    rows = []
    for path in sorted(run.glob("wandb/offline-run-*/*.wandb")):
        for record in records(path):
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                rows.append({"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in items})
    return rows


def both(run: Path, resume_step: int = 0) -> Loggers:
    return Loggers(("wandb", "mlflow"), run, SETTINGS, resume_step)


def test_curves_figures_and_files_are_there_and_a_resumed_run_repeats_none(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    mlflow = pytest.importorskip("mlflow.tracking")
    (tmp_path / "config.yaml").write_text("task: T-v0\n")
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "policy.json").write_text("{}")
    first = both(tmp_path)
    for step in (100, 200, 300):
        first.write(
            step, {"train/return": step / 2.0, "train/seconds": 1.0, "train/kl": math.nan, "adr/a b (1)/lower": 0.5}
        )
    first.close()
    again = both(tmp_path, 200)  # from the checkpoint of step 200: step 300 comes again
    for step in (300, 400):
        again.write(step, {"train/return": step / 2.0, "train/seconds": 2.0})
    again.close(more=True)
    said = both(tmp_path).hand_over({"evaluation/nominal/success_rate": 0.75})
    assert said[0].startswith(f"wandb sync {tmp_path}/wandb/offline-run-")
    assert said[1] == f"mlflow ui --backend-store-uri sqlite:///{tmp_path}/mlflow.db   shows it"

    state = json.loads((tmp_path / "loggers.json").read_text())
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    points = client.get_metric_history(state["mlflow"]["id"], "train/return")
    assert [(p.step, p.value) for p in points] == [(100, 50.0), (200, 100.0), (300, 150.0), (400, 200.0)]
    record = client.get_run(state["mlflow"]["id"])
    assert record.data.metrics["evaluation/nominal/success_rate"] == 0.75
    assert record.data.metrics["adr/a b _1_/lower"] == 0.5
    assert "train/kl" not in record.data.metrics
    assert record.data.params == {"task": "T-v0", "learner.lr": "0.001"}
    assert (record.info.run_name, record.info.status) == (tmp_path.name, "FINISHED")
    assert {f.path for f in client.list_artifacts(state["mlflow"]["id"])} == {"bundle", "config.yaml"}

    told = [(row["_step"], row["train/return"]) for row in history(tmp_path) if "train/return" in row]
    assert told == [(100, 50.0), (200, 100.0), (300, 150.0), (400, 200.0)]
    kept = [r for path in tmp_path.glob("wandb/offline-run-*/*.wandb") for r in records(path)]
    assert {r.run.run_id for r in kept if r.WhichOneof("record_type") == "run"} == {state["wandb"]["id"]}
    files = {e.path for r in kept if r.WhichOneof("record_type") == "request" or r.HasField("artifact")
             for e in r.artifact.manifest.contents}  # fmt: skip
    assert {"config.yaml", "bundle/policy.json"} <= files


class Failing(Logger):
    """One whose server goes away."""

    name, module, extra = "failing", "json", "failing"
    calls = 0

    def write(self, step: int, values: Any) -> None:
        Failing.calls += 1
        raise ConnectionError("no route\nto host")

    def close(self, more: bool = False) -> None:
        raise AssertionError("asked after it had failed")


def test_a_logger_that_fails_is_told_of_once_and_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(KINDS, "failing", Failing)
    all_of_them = Loggers(("failing", "tensorboard"), tmp_path, SETTINGS)
    for step in (1, 2):
        all_of_them.write(step, {"train/return": 1.0})
    all_of_them.close()
    assert Failing.calls == 1
    assert list(tmp_path.glob("events.out.tfevents.*"))
    (warning,) = [r.getMessage() for r in caplog.records]
    assert warning == "warning: train.loggers: failing: ConnectionError: no route; the run goes on without it"


def test_a_logger_that_is_not_installed_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(room, "find_spec", lambda name: None if name == "wandb" else True)
    with pytest.raises(UserError, match=r"train.loggers: wandb is not installed; pip install 'simreal\[wandb\]'"):
        check_loggers(("tensorboard", "wandb"))
    with pytest.raises(SystemExit) as stopped:
        main(["train", "inverted_pendulum", "train.loggers=[wandb]", "--run-dir", str(tmp_path / "run")])
    assert stopped.value.code == 2
    assert not (tmp_path / "run").exists()
    with pytest.raises(SystemExit) as stopped:
        main(["train", "inverted_pendulum", "train.loggers=[wandbb]", "--run-dir", str(tmp_path / "run")])
    assert stopped.value.code == 2
    assert (
        "train.loggers.0: input should be 'tensorboard', 'wandb' or 'mlflow', got 'wandbb'" in capsys.readouterr().err
    )


def test_a_training_shows_its_rows_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mlflow = pytest.importorskip("mlflow.tracking")
    run = tmp_path / "run"
    main([
        "train", "inverted_pendulum", "train.loggers=[mlflow]", "train.env_steps=2048", "train.log_interval=512",
        "train.keep=last", "evaluate.episodes=2", "evaluate.worlds=[nominal]", "--run-dir", str(run),
    ])  # fmt: skip
    assert f"mlflow ui --backend-store-uri sqlite:///{run}/mlflow.db   shows it" in capsys.readouterr().out
    assert not list(run.glob("events.out.tfevents.*"))  # TensorBoard was not asked for
    known = json.loads((run / "loggers.json").read_text())["mlflow"]["id"]
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{run}/mlflow.db")
    table = read_columns(run / "metrics.csv")
    points = client.get_metric_history(known, "train/return")
    assert [p.step for p in points] == table["env_steps"]
    assert [p.value for p in points] == pytest.approx(table["return"], rel=1e-8)
    figures = final_figures(json.loads((run / "evaluation.json").read_text()))
    assert (
        client.get_run(known).data.metrics["evaluation/nominal/return_mean"]
        == figures["evaluation/nominal/return_mean"]
    )
