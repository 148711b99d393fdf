"""What commands say: at once that they begin, and of wrong input what it was."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

from command import Run, refused, simreal_command
from conftest import TINY
from envs.common.messages import near_file, nearest, warn_again
from envs.registry import make_task
from simreal.cli.describe import describe
from simreal.common.errors import UserError
from simreal.evaluation import worlds
from simreal.learners.options import PPOConfig
from simreal.report import sections
from simreal.report.records import load_run

MINE = "import simreal\n\n\nclass Mine(simreal.Task):\n    pass\n"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    return partial(simreal_command, capsys)


def test_commands_say_that_they_begin_before_they_import_what_takes_long() -> None:
    program = """
import sys
from simreal.cli import main
main.app.registered_callback = None
for slow in ("torch", "mujoco"):
    sys.modules[slow] = None  # an import of it fails
for line in ("check", "describe", "new", "export", "evaluate", "record --output a.npz", "play"):
    command, *options = line.split()
    try:
        main.main([command, "nothing", *options])
    except (SystemExit, ImportError):
        pass
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert said.stdout.splitlines() == ["nothing: loading ..."] * 7, said.stderr


def test_what_is_no_task_is_called_what_it_is(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "c.yaml").write_text("learner: {}\ntask: 'mine:Mine' # here\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "mine.py").write_text(MINE)
    for command in ("check", "describe"):
        refused(run(command, "mine.py"), "mine.py: is a file; expected an id or MODULE:CLASS, as mine:Mine")
        refused(run(command, "mine.py:Mine"), "as mine:Mine")
        refused(run(command, "sub/mine.py"), "as mine:Mine in the folder sub")
        refused(run(command, "mime.py"), "mime.py: no such file (did you mean 'mine.py'?)")
        refused(run(command, "c.yaml"), "c.yaml: is a YAML file; expected a task, as mine:Mine, which it names")
    refused(run("describe", "robot.xml"), "robot.xml: no such file", "`simreal new ROBOT.xml`")


def test_only_what_is_near_is_suggested(run: Run, tmp_path: Path) -> None:
    (tmp_path / "runs" / "reach-1").mkdir(parents=True)
    (tmp_path / "late_80.yaml").write_text("")
    assert "did you mean" not in run("evaluate", "runs/xyz")[2]  # it was: 'random'
    refused(run("evaluate", "runs/reach-2"), "runs/reach-2: no such run or bundle (did you mean 'runs/reach-1'?)")
    refused(run("evaluate", "rundom"), "did you mean 'random'?")
    assert near_file(Path("late80.yaml")) == " (did you mean 'late_80.yaml'?)"
    with pytest.raises(UserError, match=r"late80.yaml: no such world or file \(did you mean 'late_80.yaml'"):
        worlds._find_file("late80.yaml")
    with pytest.raises(UserError, match=r"unseen/late.yaml: no such world or file; "):  # it was: 'latency'
        worlds._find_file("unseen/late.yaml")
    assert nearest("joint_hip", ["hip", "knee"]) == " (did you mean 'hip'?)"
    refused(run("train", "late_8.yaml"), "did you mean 'late_80.yaml'?")


def test_arguments_are_explained_as_they_are_refused(run: Run) -> None:
    refused(
        run("export", "--c", "runs/x"), "RUN: expected a run directory (--c took runs/x", "simreal export RUN --c DIR"
    )
    for size in ("5000", "big", "64x"):
        refused(
            run("play", "r", "--video", "v.mp4", "--size", size),
            "640x480, or one number for both, of 16 to 4096 pixels",
        )


def test_a_refused_resume_names_the_key_that_differs(run: Run, trained_run: Path, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(TINY)
    resume = partial(run, "train", "c.yaml", "--run-dir", trained_run, "--resume")
    refused(resume("learner.gamma=0.5"), "learner.gamma: is 0.5, expected 0.98", "config.yaml")
    refused(
        resume("randomization.parameters.body_mass.range=[0.5, 3.0]"),
        "randomization.parameters.body_mass.range: is [0.5, 3.0], expected [0.5, 2.0]",
    )


def test_a_checkpoint_of_an_earlier_version_is_named_once(
    trained_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from envs.common.checkpoint_files import read_newest

    folder = Path(shutil.copytree(trained_run / "checkpoints", tmp_path / "checkpoints"))
    (folder / "step_999999999.pt").write_bytes(b"old")
    warn_again()
    for _ in range(2):
        read_newest(folder)
    assert [record.message.count("step_999999999.pt") for record in caplog.records] == [1]


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_describe_breaks_no_word(width: int, tmp_path: Path) -> None:
    with (tmp_path / "said.txt").open("w+") as file:
        describe(make_task("FetchPush-v4"), Console(highlight=False, width=width, file=file))
        file.seek(0)
        text = file.read()
    assert max(map(len, text.splitlines())) <= width
    for word in ("grip_displacement", "robot0:r_gripper_finger_joint", "action_noise_multiplicative", "displacement"):
        assert word in text


def test_the_report_speaks_of_what_the_learner_has(trained_run: Path) -> None:
    run = load_run(trained_run)
    assert run.config.learner.algorithm == "ddpg"
    # It has neither an aim for KL nor, unless set, limits of targets.
    assert sections._quiet([run]).endswith("saturated actions, no unstable simulation")
    ppo = replace(run, config=run.config.model_copy(update={"learner": PPOConfig.model_validate({"algorithm": "ppo"})}))
    assert "KL within 4 times its aim" in sections._quiet([ppo])
