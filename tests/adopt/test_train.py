"""`simreal adopt --train`: a robot's file to a trained, evaluated and exported policy with one command."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from broken_robots import ARM, DOG, URDF_ARM
from command import Run, refused, simreal_command
from envs.common import safe_yaml
from shortcuts import without_bundles
from simreal.training.monitoring.progress import Progress

FEW = ("train.env_steps=400", "num_envs=8", "evaluate.episodes=2", "evaluate.worlds=[nominal]")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    without_bundles(monkeypatch)
    sys.modules.pop("task", None)
    yield partial(simreal_command, capsys)
    sys.modules.pop("task", None)


def test_one_command_trains_evaluates_and_exports_and_says_what_became_of_it(run: Run) -> None:
    Path("dog.xml").write_text(DOG)
    asked = ("adopt", "dog.xml", *FEW, "--output", "made", "--train", "--json", "told.json")
    status, out, err = run(*asked)
    assert status == 0, err
    assert "dog.xml: nothing is wrong" in out
    assert "nominal: success at the last step 0.000 (95 % interval 0.000 to 0.658, 2 episodes)" in out
    assert "means over episodes" in out  # of the gait
    bundle = Path("made/runs/first/bundle")
    assert str(bundle) in out.splitlines()[-1]
    assert bundle.is_dir()
    told: dict[str, Any] = safe_yaml.read_json(Path("told.json"))
    assert (told["healthy"], told["findings"], told["folder"]) == (True, [], "made")
    trained = told["trained"]
    assert trained["bundle"] == str(bundle)
    assert trained["steps"] >= 400
    (nominal,) = trained["evaluation"]["worlds"]
    assert (nominal["name"], nominal["episodes"]) == ("nominal", 2)
    assert 0.0 < nominal["measures"]["linear_error"]["mean"] < 2.0
    assert Path("task.py").exists() is False  # all of it is in the folder
    # the same command again has nothing left to train: the same figures
    before, metrics = Path("made/task.py").stat().st_mtime_ns, Path("made/runs/first/metrics.csv").read_text()
    status, _, err = run(*asked)
    assert status == 0, err
    assert safe_yaml.read_json(Path("told.json")) == told
    assert Path("made/task.py").stat().st_mtime_ns == before
    assert Path("made/runs/first/metrics.csv").read_text() == metrics


def test_an_interrupted_training_goes_on_with_the_same_command(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("arm.urdf").write_text(URDF_ARM)
    asked = ("adopt", "arm.urdf", *FEW, "--output", "made", "--train")
    refused(run(*asked, "train.env_step=400"), "env_step", "env_steps")  # the package is there, its training is not
    update = Progress.update

    def interrupt(self: Progress, steps: int, *arguments: Any) -> None:
        update(self, steps, *arguments)
        if steps >= 160:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "update", interrupt)
        status, _, err = run(*asked)
    assert status == 130
    again = f"simreal adopt arm.urdf {shlex.join(FEW)} --output made --train"
    assert f"interrupted at step 160; to continue: {again}, or cd made && simreal train config.yaml" in err
    assert err.rstrip().endswith("--run-dir runs/first --resume")
    assert not Path("made/runs/first/bundle").exists()
    status, out, err = run(*shlex.split(again)[1:])
    assert status == 0, err
    assert "from step 160" in out
    assert Path("made/runs/first/bundle").is_dir()


def test_a_folder_of_something_else_is_refused_and_left_as_it_is(run: Run) -> None:
    Path("arm.xml").write_text(ARM)
    Path("other").mkdir()
    Path("other/notes.txt").write_text("mine")
    refused(run("adopt", "arm.xml", "--output", "other", "--train"), "other: exists", "no package of simreal adopt")
    assert [path.name for path in Path("other").iterdir()] == ["notes.txt"]
    assert run("adopt", "arm.xml", "--task", "hold", "--output", "made", "--no-smoke")[0] == 0
    again = ("adopt", "arm.xml", "--output", "made", "--train")
    refused(run(*again, "--task", "reach"), "made: holds a package for --task hold")
    refused(run("adopt", "arm.xml", "--output", "made", "--no-smoke"), "made: exists")
    Path("arm.xml").write_text(ARM.replace('mass="2"', 'mass="3"'))
    refused(run(*again), "made: holds another robot, or arm.xml has changed")
    assert not Path("made/runs").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("seed=1",), "seed=1: changes what --train trains with"),
        (("--json", "told.json"), "--json: says what --doctor or --train finds"),
        (("--doctor", "--train"), "it takes none of"),
        (("--train", "--json", "nowhere/told.json"), "nowhere/told.json: cannot be written"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_anything_is_written(
    run: Run, arguments: tuple[str, ...], expected: str
) -> None:
    Path("arm.xml").write_text(ARM)
    refused(run("adopt", "arm.xml", *arguments), expected)
    assert [path.name for path in Path.cwd().iterdir()] == ["arm.xml"]
