"""Studies on a Ray cluster: the same table as without it, whatever becomes of a node."""

from __future__ import annotations

import importlib.util
import io
import tarfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from simreal.common.errors import UserError
from simreal.study import cluster
from simreal.study.cluster import Job, _bring_home, _on_node, _Work, make_on_ray, packed, unpack
from simreal.study.runner import study_command
from simreal.study.spec import load_study

STUDY: dict[str, Any] = {
    "name": "six",
    "config": {
        "task": "InvertedPendulum-v5",
        "num_envs": 4,
        "threads": 1,
        "learner": {"algorithm": "ppo", "horizon": 16, "minibatches": 2, "epochs": 1, "actor_hidden": [8]},
        "train": {"env_steps": 8000, "checkpoint_interval_s": 0.5, "keep": "last"},
    },
    "seeds": [0],
    "evaluate": {"episodes": 4, "worlds": ["nominal"]},
    "arms": {name: {"set": {"learner.lr": lr}} for name, lr in zip("abcd", (0.001, 0.002, 0.003, 0.004), strict=True)}
    | {name: {"continues": of, "set": {"train.env_steps": 10000}} for name, of in (("e", "a"), ("f", "b"))},
}


def study_file(folder: Path) -> Path:
    path = folder / "six.yaml"
    path.write_text(yaml.safe_dump(STUDY, sort_keys=False))
    return path


def test_without_ray_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(cluster.importlib.util, "find_spec", lambda name: None if name == "ray" else find(name))
    with pytest.raises(UserError, match=r"--ray needs ray, which is not installed: pip install 'simreal\[cluster\]'"):
        next(make_on_ray([], tmp_path, "local", Console(quiet=True)))


@pytest.mark.parametrize("shared", [True, False])
def test_a_node_works_in_the_folder_that_it_sees_and_else_sends_the_run_back(shared: bool, tmp_path: Path) -> None:
    study = load_study(str(study_file(tmp_path)))
    home = tmp_path / "study"
    begun = home / "runs" / "a-0"
    begun.mkdir(parents=True)
    (begun / "progress").write_text("half of it\n")
    if shared:
        (home / "token").write_text("")
    seen: list[Path] = []

    def make(folder: Path, threads: int | None, _out: Console) -> str:
        run = folder / "runs" / "a-0"
        seen.append(folder)
        (run / "progress").write_text((run / "progress").read_text() + "the rest\n")
        return f"threads {threads}"

    job = Job("a-0", "a, seed 0", study.arms["a"].config, ("a-0",), make)
    result, archive = _on_node(_Work(job, home, "token", packed([begun]), 1))
    assert result == "threads None"  # the configuration says how many
    assert (seen == [home]) is shared is (archive is None)
    _bring_home(archive, home / "runs")
    assert (begun / "progress").read_text() == "half of it\nthe rest\n"
    assert [path.name for path in (home / "runs").iterdir()] == ["a-0"]


def test_an_archive_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("../elsewhere"))
    (tmp_path / "runs").mkdir()
    with pytest.raises(tarfile.OutsideDestinationError):
        unpack(file.getvalue(), tmp_path / "runs")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.slow
def test_six_arms_on_two_nodes_of_which_one_is_killed_give_the_table_of_one_process(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    Cluster = importlib.import_module("ray.cluster_utils").Cluster  # noqa: N806

    path, folder = study_file(tmp_path), tmp_path / "ray"
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    other = nodes.add_node(num_cpus=1)
    killed: list[Path] = []

    def kill() -> None:
        while len(begun := list(folder.glob("runs/*/checkpoints/*"))) < 2:
            time.sleep(0.1)
        killed.extend(begun)
        nodes.remove_node(other, allow_graceful=False)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    try:
        study_command(str(path), folder, False, Console(quiet=True), nodes.address)
    finally:
        nodes.shutdown()
    assert killed
    study_command(str(path), tmp_path / "plain", False, Console(quiet=True))
    assert (folder / "table.md").read_text() == (tmp_path / "plain" / "table.md").read_text()
