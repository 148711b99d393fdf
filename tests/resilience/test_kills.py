"""SIGKILL at any moment leaves a run that can be read and resumed."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from simreal.common import atomic_files
from simreal.common.atomic_files import new_folder, write_text
from simreal.common.errors import UserError
from simreal.training import checkpoint
from simreal.training.checkpoint import checkpoints, load_checkpoint, newest_checkpoint, save_checkpoint
from soak import soak, tiny_config
from tiny import configuration, differences, fork, train

SOAK = Path(__file__).with_name("soak.py")


def content(steps: int) -> dict[str, Any]:
    return {"task": "T", "weights": torch.full((1000,), float(steps)), "names": ["a", "b"]}


def dies_at(call: int, action: Callable[[], Any]) -> bool:
    """Do something in a process that vanishes before its nth operation on the disk. False if it made fewer."""
    child = fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    count = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == call:
                os._exit(9)
            return function(*arguments, **options)

        return called

    try:
        for owner, names in (
            (os, ("fsync", "open")),
            (Path, ("open", "replace", "rename", "unlink", "mkdir")),
            (shutil, ("rmtree",)),
            (atomic_files, ("_exchange",)),
            (checkpoint, ("write_tensors",)),
        ):
            for name in names:
                setattr(owner, name, counted(getattr(owner, name)))
        action()
        os._exit(0)
    finally:
        os._exit(1)


def test_a_kill_before_any_operation_of_a_save_leaves_a_checkpoint_to_resume(tmp_path: Path) -> None:
    call = 0
    while True:
        call += 1
        folder = tmp_path / str(call)
        for steps in (1, 2):
            save_checkpoint(folder, steps, content(steps), keep=2)
        died = dies_at(call, lambda folder=folder: save_checkpoint(folder, 3, content(3), keep=2))
        newest = load_checkpoint(checkpoints(folder)[-1])
        assert newest["env_steps"] in ((2, 3) if died else (3,))
        assert torch.equal(newest["weights"], content(newest["env_steps"])["weights"])
        save_checkpoint(folder, 4, content(4), keep=2)  # goes on, and tidies up
        assert [p.name for p in sorted(folder.iterdir())][-1] == "step_000000000004.safetensors"
        assert len(list(folder.iterdir())) == 2
        if not died:
            break
    assert call > 5


def test_a_kill_before_any_operation_of_a_rewrite_leaves_the_old_or_the_new_file(tmp_path: Path) -> None:
    for call in range(1, 20):
        path = tmp_path / f"{call}.json"
        write_text(path, "old")
        died = dies_at(call, lambda path=path: write_text(path, "new"))
        assert path.read_text() in (("old", "new") if died else ("new",))
        if not died:
            return
    raise AssertionError


def test_a_kill_before_any_operation_of_an_export_leaves_the_old_or_the_new_folder(tmp_path: Path) -> None:
    def put(target: Path, text: str) -> None:
        with new_folder(target) as folder:
            for name in ("one", "two"):
                (folder / name).write_text(text)

    for call in range(1, 40):
        target = tmp_path / str(call) / "bundle"
        target.parent.mkdir()
        put(target, "old")
        died = dies_at(call, lambda target=target: put(target, "new"))
        texts = {(target / name).read_text() for name in ("one", "two")}
        assert texts in (({"old"}, {"new"}) if died else ({"new"},))
        put(target, "newer")
        assert [p.name for p in target.parent.iterdir()] == ["bundle"]  # what was left behind is gone
        if not died:
            return
    raise AssertionError


def test_a_folder_that_another_process_is_filling_is_left_alone(tmp_path: Path) -> None:
    with new_folder(tmp_path / "bundle") as first:
        (first / "file").write_text("mine")
        with new_folder(tmp_path / "bundle") as second:
            (second / "file").write_text("yours")
        assert (first / "file").read_text() == "mine"
    assert (tmp_path / "bundle" / "file").read_text() == "mine"


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_it_is_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = configuration("sac", "adr", 330)
    train(config, tmp_path / "whole", {270})
    run = Path(shutil.copytree(tmp_path / "whole", tmp_path / "run"))
    newest = run / "checkpoints" / "step_000000000330.safetensors"
    raw = newest.read_bytes()
    at = (8 + int.from_bytes(raw[:8], "little") + len(raw)) // 2  # in the middle of the tensors
    for damaged in (raw[:-1000], raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :], b"", b"no checkpoint"):
        newest.write_bytes(damaged)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert newest_checkpoint(run)["env_steps"] == 270
        (said,) = caplog.messages
        assert newest.name in said
        assert "step_000000000270.safetensors is used" in said
    train(config, run)
    assert differences(tmp_path / "whole", run) == []


def test_damaged_checkpoints_alone_are_refused_not_forgotten(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    for steps in (1, 2):
        save_checkpoint(folder, steps, content(steps), keep=2)
    for path in checkpoints(folder):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="step_000000000002"):
        newest_checkpoint(tmp_path)


def run_soak(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(SOAK), *arguments], capture_output=True, text=True, timeout=3000, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_kill_changes_nothing(tmp_path: Path) -> None:
    tally, found = soak(tiny_config(tmp_path, "ppo", "adr", 1200), kills=1, seed=0, folder=tmp_path, longest_s=0.1)
    assert (found, len(tally.lost_steps), tally.finished) == ([], 1, 0)


@pytest.mark.slow
def test_kills_change_nothing() -> None:
    assert "3 kills" in run_soak("--kills", "3", "--steps", "4000", "--longest", "0.1", "--learner", "ppo")


@pytest.mark.slow
@pytest.mark.parametrize(("learner", "sampler"), [("ddpg her", "adr"), ("ppo lstm", "doraemon")])
def test_fifty_kills_change_nothing(learner: str, sampler: str) -> None:
    assert "50 kills" in run_soak("--learner", learner, "--sampler", sampler, "--kills", "50", "--steps", "30000")
