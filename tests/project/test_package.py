"""Importing simreal: cheap, lazy, and not fooled by a foreign package of the same name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def python(code: str, *paths: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*paths, ROOT]))}
    command = [sys.executable, "-c", code]  # run away from the checkout, which would come first in sys.path
    return subprocess.run(
        command, env=environment, cwd=ROOT.parent, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("name", ["envs", "randomization"])
def test_a_foreign_package_of_the_same_name_is_named_with_both_paths(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").touch()
    done = python("import simreal", tmp_path)
    assert done.returncode != 0
    error = done.stderr.splitlines()[-1]
    assert "ImportError" in error
    assert str(ROOT / name) in error
    assert str(tmp_path / name) in error


def test_importing_simreal_loads_no_torch() -> None:
    done = python("import sys, simreal; sys.exit('torch' in sys.modules)")
    assert done.returncode == 0, done.stderr
    assert done.stdout == done.stderr == ""


def test_what_is_cited_is_this_version() -> None:
    import simreal

    assert f"version: {simreal.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_everything_promised_is_there() -> None:
    done = python("import simreal; [getattr(simreal, name) for name in simreal.__all__]")
    assert done.returncode == 0, done.stderr


def test_the_command_is_also_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "simreal", "envs"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "FetchReach-v4" in done.stdout.splitlines()


def test_the_help_of_the_command_loads_nothing_that_takes_long() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "simreal", "--help"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "evaluate" in done.stdout
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "typer" in loaded
    assert not {"gymnasium", "mujoco", "numpy", "torch"} & loaded


def test_a_command_knows_the_tasks_that_gymnasium_lists_after_importing_simreal(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import gymnasium\ngymnasium.spec('FetchReach-v4')\ngymnasium.spec('simreal/FetchReach-v4')\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(tmp_path)))}
    done = subprocess.run(
        [sys.executable, "-m", "simreal", "describe", "mine:Arm"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "has no" in done.stderr or "Arm" in done.stderr, done.stderr
