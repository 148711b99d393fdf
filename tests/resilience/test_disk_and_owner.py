"""A full disk, a folder that cannot be written, two processes on one run, a clock that jumps, signals."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from shortcuts import without_bundles
from simreal.cli.main import main
from simreal.common import atomic_files
from simreal.common.atomic_files import LOCK, owned, write_text
from simreal.common.errors import UserError
from simreal.training.checkpoint import newest_checkpoint, save_checkpoint
from simreal.training.monitoring.metrics_log import CsvLog
from simreal.training.run_directory import new_run_directory
from tiny import Died, configuration, differences, leaves, train


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The one line with which a command refuses."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    said = capsys.readouterr().err
    assert (ended.value.code, said.count("\n")) == (2, 1), said
    return said


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A file system of its own. Skips the test where that is not allowed."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def config_file(folder: Path, **more: Any) -> Path:
    path = folder / "c.yaml"
    path.write_text(configuration("sac", "adr", **more).to_yaml())
    return path


@pytest.mark.parametrize("midway", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_full_disk_is_said_in_one_line_and_what_was_there_stays(
    midway: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frequent = {"env_steps": 300, "log_interval": 30, "checkpoint_interval_s": 0.02, "torch_threads": 1}
    config, path = configuration("sac", "adr", train=frequent), config_file(tmp_path, train=frequent)
    with mounted(tmp_path / "disk", "size=8m") as disk:
        run, command = disk / "run", ["train", path, "--run-dir", disk / "run"]
        if midway:
            with pytest.raises(Died):
                train(config, run, {150}, 180)
            command.append("--resume")
        size = os.statvfs(disk)
        used = (size.f_blocks - size.f_bfree) * size.f_frsize
        subprocess.run(["mount", "-o", f"remount,size={used + 6 * 4096}", str(disk)], check=True)
        said = refused(capsys, *command)
        assert "No space left on device" in said
        assert not list(disk.rglob("*.tmp"))
        if midway:
            assert newest_checkpoint(run)["env_steps"] >= 150
        subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
        train(config, run)
        train(config, tmp_path / "whole")
        assert differences(tmp_path / "whole", run) == []


def test_a_checkpoint_that_the_disk_refuses_leaves_those_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, 1, {"task": "T", "x": torch.ones(9)}, keep=2)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic_files.os, "fsync", full)
    with pytest.raises(UserError, match=r"step_000000000002.safetensors: cannot be written: No space left on device"):
        save_checkpoint(tmp_path, 2, {"task": "T", "x": torch.ones(9)}, keep=2)
    assert [p.name for p in tmp_path.iterdir()] == ["step_000000000001.safetensors"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = config_file(tmp_path)
    with mounted(tmp_path / "disk", "size=8m") as disk:
        run = disk / "run"
        train(configuration("sac", "adr", 90), run)
        before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        for arguments in (["--run-dir", disk / "new"], ["--run-dir", run, "--resume"]):
            said = refused(capsys, "train", path, *arguments)
            assert "Read-only file system" in said
            assert str(disk) in said
        assert "Read-only file system" in refused(capsys, "export", run)
        assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before
        main(["evaluate", str(run), "--episodes", "1"])  # needs to read only


def test_a_second_process_on_a_run_is_refused_and_told_who_has_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    without_bundles(monkeypatch)
    path, run = config_file(tmp_path, train={"env_steps": 120}), tmp_path / "run"
    train(configuration("sac", "adr", 90), run)
    holder = subprocess.Popen(
        [sys.executable, "-c", f"from simreal.common.atomic_files import owned\nfrom pathlib import Path\n"
         f"with owned(Path({str(run)!r})):\n    print('mine', flush=True)\n    input()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout is not None
    assert holder.stdout.readline() == "mine\n"
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    said = refused(capsys, "train", path, "--run-dir", run, "--resume")
    assert f"is in use by process {holder.pid} on {os.uname().nodename}" in said
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before
    holder.kill()  # its lock file stays, its lock does not
    holder.wait()
    assert (run / LOCK).exists()
    main(["train", str(path), "--run-dir", str(run), "--resume"])
    assert not (run / LOCK).exists()


def test_directories_that_are_named_automatically_are_never_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert [new_run_directory("a/sweep.yaml", None).name for _ in range(3)] == ["sweep-1", "sweep-2", "sweep-3"]


def test_owning_a_directory_leaves_no_trace(tmp_path: Path) -> None:
    with owned(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b" / LOCK).read_text().startswith(f"process {os.getpid()} on ")
    assert not list(tmp_path.iterdir())
    with owned(tmp_path / "a"):
        (tmp_path / "a" / "file").touch()
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["file"]


def test_a_lock_file_that_is_a_link_does_not_overwrite_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK).symlink_to(tmp_path / "precious")
    with pytest.raises(UserError, match="cannot be written"), owned(tmp_path / "run"):
        pass
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_configuration_that_fails_late_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = config_file(tmp_path, learner={"algorithm": "ppo", "horizon": 2, "minibatches": 64})
    assert "minibatches" in refused(capsys, "train", path, "--run-dir", tmp_path / "x" / "run")
    assert [p.name for p in tmp_path.iterdir()] == ["c.yaml"]


def test_what_does_not_fit_in_memory_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = config_file(tmp_path, learner={"algorithm": "sac", "replay_size": 10**15})
    assert "memory" in refused(capsys, "train", path, "--run-dir", tmp_path / "run")


def test_a_clock_that_jumps_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configuration("sac", "adr", 300)
    train(config, tmp_path / "whole")
    jumps = iter([10.0**k * (-1) ** k for k in range(1, 10)] * 10_000)
    monkeypatch.setattr(time, "time", lambda: 1.7e9 + next(jumps))
    train(config, tmp_path / "run", {150})
    assert differences(tmp_path / "whole", tmp_path / "run") == []
    assert 0.0 < newest_checkpoint(tmp_path / "run")["seconds"] < 600.0


def test_checkpoints_take_a_hundredth_of_the_time_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configuration("ppo", "adr", train={"env_steps": 600, "checkpoint_interval_s": 1.0})
    now, saved = [0.0], []

    class Slow:
        def __enter__(self) -> Slow:
            return self

        def __exit__(self, *_: object) -> None:
            return None

        def update(self, steps: int, score: str, entropy: float) -> None:
            now[0] += 0.5

    from simreal.training.trainer import Trainer

    trainer = Trainer(config, tmp_path)

    def save() -> Path:
        saved.append(now[0])
        now[0] += 0.2
        return tmp_path

    monkeypatch.setattr(trainer, "save", save)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    trainer.train(Slow())  # pyright: ignore[reportArgumentType]
    assert saved[0] == 1.5  # as configured; then 0.2 s of saving ask for 20 s without
    *regular, _ = saved  # the last one is that of the end
    assert all(later - earlier >= 20.0 for earlier, later in pairwise(regular))
    assert len(regular) == 5


@pytest.mark.parametrize("name", ["SIGTERM", pytest.param("SIGINT", marks=pytest.mark.slow)])
def test_a_signal_saves_first(name: str, tmp_path: Path) -> None:
    path, run = config_file(tmp_path, train={"env_steps": 10_000_000, "log_interval": 30}), tmp_path / "run"
    command = [sys.executable, "-m", "simreal.cli.main", "train", str(path), "--run-dir", str(run)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and (not (run / "adr.csv").exists() or (run / "adr.csv").stat().st_size < 500):
        time.sleep(0.05)
    process.send_signal(getattr(signal, name))
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert said.count("\n") == 1
    assert "--resume" in said
    rows = (run / "metrics.csv").read_text().splitlines()
    assert newest_checkpoint(run)["env_steps"] >= int(rows[-1].split(",")[0])
    assert not (run / LOCK).exists()


def test_a_table_keeps_its_rows_whatever_happens_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    log = CsvLog(path)
    for step in (10, 20, 30):
        log.write({"env_steps": step, "value": step / 3})
    log.write({"env_steps": 40, "value": 1.0, "late": 2.0})
    whole = path.read_bytes()
    assert whole.decode().splitlines() == [
        "env_steps,value,late", "10,3.33333333,", "20,6.66666667,", "30,10,", "40,1,2"
    ]  # fmt: skip
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        rows = whole[:cut].rpartition(b"\n")[0].decode().splitlines()[1:]
        CsvLog(path, 30)
        assert path.read_text().splitlines()[1:] == [row for row in rows if int(row.split(",")[0]) <= 30]


def test_devices_are_written_in_place_and_never_renamed_over(tmp_path: Path) -> None:
    # Only asked, not done: were this wrong, writing would replace the machine's own /dev/stdout.
    for name in ("/dev/stdout", "/dev/null", "/dev/fd/1", "/proc/self/fd/1"):
        assert atomic_files._is_device(Path(name))
    assert not atomic_files._is_device(tmp_path / "new.json")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE, text=True) as reader:
        write_text(pipe, "shown")
        assert reader.communicate(timeout=30)[0] == "shown"
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_comparing_checkpoints_covers_every_part_of_the_state(tmp_path: Path) -> None:
    train(configuration("ddpg her", "adr", 180), tmp_path)
    parts = [path.split("/") for path in leaves(newest_checkpoint(tmp_path))]
    names = {"/".join(part[1:3]) for part in parts if len(part) > 2}
    expected = {"learner/replay", "learner/policy", "learner/generator", "learner/history", "learner/actor_optimizer"}
    expected |= {"environment/engine", "environment/layer", "environment/rng", "environment/observed"}
    assert expected <= names
