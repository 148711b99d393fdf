"""Tasks of somebody else: by an entry point, by `module:Class`; what is wrong with one; what a run may import."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from command import Run, simreal_command
from conftest import HINGE, TinyTask, build
from envs.registry import TaskError, UnknownOptionError, UnknownTaskError, make_task, task_ids
from envs.task import ActionComponent, Component, Outcome, Task
from randomization.parameters import RandomizationError, build_parameters
from shortcuts import without_bundles
from simreal.cli.main import main
from simreal.common import trusted_code
from simreal.common.errors import UserError
from simreal.common.made_here import record_path, was_made_here
from simreal.common.trusted_code import check_code, module_of, naming, remember_made

ROOT = Path(__file__).resolve().parents[2]
CODE = f'''
import torch
import mujoco
import simreal
from helper_of_arm import GAIN

class Arm(simreal.Task):
    decimation, max_episode_steps = 5, 20

    def __init__(self, target=0.2):
        self.target = target
        self.model = mujoco.MjModel.from_xml_string("""{HINGE}""")
        self.observation = (simreal.Component("angle", 1, "rad"), simreal.Component("speed", 1, "rad/s"))
        self.action = (simreal.ActionComponent("servo", 1, "rad", (GAIN,), (0.0,)),)

    def reset(self, mask):
        qpos = self.engine.data("qpos")
        qpos[mask] = 0.4 * self.rng.episode_uniform("start", 1, mask)

    def command(self, action):
        return GAIN * action

    def observe(self):
        return torch.cat((self.engine.data("qpos"), self.engine.data("qvel")), dim=1)

    def outcome(self, action):
        distance = (self.engine.data("qpos")[:, 0] - self.target).abs()
        return simreal.Outcome(-distance, torch.zeros_like(distance, dtype=torch.bool), distance < 0.1)

not_a_class = 3

class NoTask:
    pass

class Unfinished(simreal.Task):
    def reset(self, mask):
        pass
'''
CONFIG = """
task: arm_of_mine:Arm
task_options: {target: 0.1}
num_envs: 4
learner: {algorithm: ddpg, hidden: [16], batch_size: 16, warmup_steps: 50, updates_per_step: 0.1}
randomization: {sampler: manual, parameters: {body_mass: {}, action_delay: {range: [0, 20]}}}
train: {env_steps: 200, log_interval: 100}
evaluate: {episodes: 4, num_envs: 4}
"""


def write_package(folder: Path) -> None:
    """A module and one that it imports."""
    (folder / "arm_of_mine.py").write_text(CODE)
    (folder / "helper_of_arm.py").write_text("GAIN = 0.5\n")


def announce(folder: Path, package: str, **tasks: str) -> None:
    """What an installer leaves behind: metadata with entry points."""
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = "\n".join(f"{name} = {value}" for name, value in tasks.items())
    (info / "entry_points.txt").write_text(f"[simreal.tasks]\n{lines}\n")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that Python finds modules in."""
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    forget()


def forget() -> None:
    """As if nothing of these tests had been imported, or named by the user."""
    trusted_code._trusted.clear()
    for name in ("arm_of_mine", "helper_of_arm", "broken_arm", "needy_arm"):
        sys.modules.pop(name, None)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """The command as a process of its own would run it in `tmp_path`: nothing of the last one is imported."""
    paths = list(sys.path)

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        forget()
        monkeypatch.setattr(sys, "path", list(paths))
        monkeypatch.chdir(tmp_path)
        return simreal_command(capsys, *arguments)

    yield call
    forget()


def test_a_class_is_a_task_by_its_module_and_name(installed: Path) -> None:
    write_package(installed)
    task = make_task("arm_of_mine:Arm", target=0.3)
    assert task.id == "arm_of_mine:Arm"  # it gives itself none
    environment = build(task, 3)
    assert environment.observed.policy.shape == (3, 2)
    with pytest.raises(UnknownOptionError, match=r"'targett' \(did you mean 'target'\?\); there are: target"):
        make_task("arm_of_mine:Arm", targett=0.3)


def test_an_installed_package_announces_tasks_by_entry_points(installed: Path) -> None:
    write_package(installed)
    announce(installed, "arms", **{"Arm-v0": "arm_of_mine:Arm", "HalfCheetah-v5": "arm_of_mine:Arm"})
    assert task_ids().count("Arm-v0") == 1
    assert task_ids().count("HalfCheetah-v5") == 1
    assert "arm_of_mine" not in sys.modules  # listing imports nothing
    assert type(make_task("Arm-v0")).__module__ == "arm_of_mine"
    assert type(make_task("HalfCheetah-v5")).__module__ != "arm_of_mine"  # simreal's own ids cannot be taken
    with pytest.raises(UnknownTaskError, match=r"'Arm-v1' \(did you mean 'Arm-v0'\?\)"):
        make_task("Arm-v1")


def test_an_id_that_two_packages_announce_is_refused(installed: Path) -> None:
    write_package(installed)
    announce(installed, "arms", **{"Arm-v0": "arm_of_mine:Arm"})
    announce(installed, "other_arms", **{"Arm-v0": "elsewhere:Arm"})
    with pytest.raises(TaskError, match=r"'Arm-v0' is announced by two packages.*arm_of_mine:Arm"):
        make_task("Arm-v0")


def test_gymnasium_knows_announced_tasks_after_import(tmp_path: Path) -> None:
    write_package(tmp_path)
    announce(tmp_path, "arms", **{"Arm-v0": "arm_of_mine:Arm"})
    code = "import gymnasium, simreal; print(gymnasium.make_vec('simreal/Arm-v0', num_envs=2).reset(seed=0)[0].shape)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [ROOT, tmp_path]))}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.strip() == "(2, 2)", done.stderr


@pytest.mark.parametrize(
    ("task_id", "parts"),
    [
        ("arm_of_yours:Arm", ("no module 'arm_of_yours'",)),
        ("arm_of_mine.deeper:Arm", ("no module 'arm_of_mine.deeper'",)),
        ("arm_of_mine:Arn", ("no 'Arn'", "did you mean 'Arm'?")),
        ("arm_of_mine:", ("no ''",)),
        ("arm_of_mine:NoTask", ("expected a subclass of simreal.Task, got class NoTask",)),
        ("arm_of_mine:not_a_class", ("expected a subclass of simreal.Task, got int",)),
        ("arm_of_mine:Unfinished", ("Unfinished does not define command, observe, outcome",)),
        ("needy_arm:Arm", ("module 'needy_arm' needs 'nowhere_to_be_found'",)),
        ("broken_arm:Arm", ("importing 'broken_arm' failed: SyntaxError",)),
        ("os:system", ("expected a subclass of simreal.Task, got builtin_function_or_method",)),
    ],
)
def test_what_is_no_task_is_refused_in_one_line(installed: Path, task_id: str, parts: tuple[str, ...]) -> None:
    write_package(installed)
    (installed / "needy_arm.py").write_text("import nowhere_to_be_found\n")
    (installed / "broken_arm.py").write_text("class Arm(:\n")
    with pytest.raises(TaskError) as caught:
        make_task(task_id)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"task: {task_id}: ")
    for part in parts:
        assert part in message


# What a task returns is looked at once


class Wrong(TinyTask):
    """A task of three components of one value each, with one thing wrong."""

    def __init__(self, **wrong: Any) -> None:
        super().__init__()
        self.wrong = wrong

    def command(self, action: torch.Tensor) -> torch.Tensor:
        return self.wrong.get("command", super().command(action))

    def observe(self) -> torch.Tensor:
        return self.wrong.get("observe", super().observe())

    def observe_privileged(self) -> torch.Tensor | None:
        return self.wrong.get("observe_privileged")

    def outcome(self, action: torch.Tensor) -> Outcome:
        right = super().outcome(action)
        return self.wrong.get("outcome") or Outcome(**(vars(right) | self.wrong))


NAN = torch.tensor([[0.0, float("nan"), 0.0]] * 2, dtype=torch.float64)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"observe": torch.zeros(2, 4)}, "observe: expected shape [2, 3] (position 1 + velocity 1 + clock 1)"),
        ({"observe": torch.zeros(3)}, "observe: expected shape [2, 3]"),
        ({"observe": torch.zeros(2, 3, dtype=torch.int64)}, "observe: expected a floating-point type, got int64"),
        ({"observe": NAN}, "observe: component 'velocity': expected finite values, got NaN or infinity"),
        ({"observe": [0.0]}, "observe: expected a tensor [2, 3]"),
        ({"observe_privileged": torch.zeros(2, 1)}, "observe_privileged: expected shape [2, 0] (no component)"),
        ({"command": torch.zeros(2, 2)}, "command: expected shape [2, 1] (ctrl), got [2, 2]"),
        ({"reward": torch.zeros(2, 1)}, "outcome: reward: expected shape [2], got [2, 1]"),
        ({"terminated": torch.zeros(2)}, "outcome: terminated: expected bool, got float32"),
        ({"success": torch.zeros(1, dtype=torch.bool)}, "outcome: success: expected shape [2], got [1]"),
        ({"terms": {"speed": torch.zeros(2, 2)}}, "outcome: terms: speed: expected shape [2], got [2, 2]"),
        ({"truncated": torch.zeros(2)}, "outcome: truncated: expected bool, got float32"),
        ({"outcome": (0.0, False)}, "outcome: expected a simreal.Outcome, got tuple"),
    ],
)  # fmt: skip
def test_wrong_shapes_and_types_are_named_at_the_first_reset_or_step(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskError) as caught:
        build(Wrong(**wrong), 2).step(torch.zeros(2, 1))
    assert str(caught.value).startswith(f"task: Tiny-v0: {message}")


class Declared(TinyTask):
    """A task that gets the attributes it is given."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__()
        for name, value in attributes.items():
            setattr(self, name, value)


SERVO = ActionComponent("servo", 2, "rad", (1.0,), (0.0, 0.0))


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"model": HINGE}, "model: expected MjModel, got str"),
        ({"decimation": None}, "decimation: expected int, got nothing"),
        ({"max_episode_steps": 0}, "max_episode_steps: expected at least 1, got 0"),
        ({"observation": [Component("a", 1, "m")]}, "observation: expected tuple, got list"),
        ({"observation": (Component("a", 1, "m"),) * 2}, "observation: expected components of different names"),
        ({"observation": (Component("a", 0, "m"),)}, "observation 'a': expected a size of at least 1, got 0"),
        ({"observation": ("angle",)}, "observation: expected Components, got str"),
        ({"action": (SERVO,)}, "action 'servo': scale: expected 2 values, got 1"),
        ({"goal_size": 2}, "observation: expected 'desired_goal' of size 2"),
        ({"command_fields": ("control",)}, "command_fields: expected some of ctrl, mocap_pos, mocap_quat"),
    ],
)  # fmt: skip
def test_wrong_declarations_are_named_when_the_task_is_made(attributes: dict[str, Any], message: str) -> None:
    from envs.validation.task_contract import check_task

    with pytest.raises(TaskError) as caught:
        check_task("Tiny-v0", Declared(**attributes))
    assert str(caught.value).startswith(f"task: Tiny-v0: {message}")


def test_a_task_that_cannot_be_compiled_again_says_so_of_a_centre_of_mass() -> None:
    class Ball(Task):
        id, decimation, max_episode_steps = "Ball-v0", 1, 1
        model = TinyTask(
            '<mujoco><worldbody><body name="ball"><freejoint/><geom size="0.1"/></body></worldbody></mujoco>'
        ).model
        observation = action = ()
        reset = command = observe = outcome = lambda self, *_: None  # pyright: ignore

    with pytest.raises(RandomizationError, match="ball is no body with a movable centre of mass"):
        build_parameters(Ball(), {"body_com": {"of": "ball"}})


# What a run or a bundle may import


def test_code_of_a_run_is_imported_only_where_that_is_safe_or_wanted(installed: Path) -> None:
    write_package(installed)
    for task in ("FetchPush-v4", "gymnasium:HalfCheetah-v5", "os.path:join", None, 3):
        check_code(task, "run", None)  # ids, and what is imported anyway
    for task in ("arm_of_mine:Arm", "antigravity:Arm", "gymnasium:arm_of_mine:Arm-v0"):
        with pytest.raises(UserError, match=f"run: its task is code of module .* add --task {task}"):
            check_code(task, "run", None)
        assert naming(task) == f" --task {task}"
        check_code(task, "run", task)
    with pytest.raises(UserError, match="--task other:Arm: run is about task 'arm_of_mine:Arm'"):
        check_code("arm_of_mine:Arm", "run", "other:Arm")
    announce(installed, "arms", **{"Hand-v0": "arm_of_mine.hands:Hand"})
    check_code("arm_of_mine:Arm", "run", None)  # its package is made for simreal
    assert naming("arm_of_mine:Arm") == ""
    assert module_of("gymnasium:arm_of_mine:Arm-v0") == "arm_of_mine"
    assert not {"arm_of_mine", "antigravity"} & set(sys.modules)


def test_only_the_very_run_that_was_made_from_this_folder_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    here, made = tmp_path / "here", tmp_path / "here" / "run"
    made.mkdir(parents=True)
    monkeypatch.chdir(here)
    task = "arm_of_mine:Arm"
    assert not was_made_here(made, task)
    remember_made(made, task)
    check_code(task, "run", None, made)
    assert was_made_here(made / "bundle", task) is False  # there is none
    (made / "bundle").mkdir()
    check_code(task, "run", None, made / "bundle")
    for other in ("os_of_yours:Arm", "arm_of_mine:Leg"):  # a record is of one name
        with pytest.raises(UserError, match="add --task"):
            check_code(other, "run", None, made)
    monkeypatch.chdir(tmp_path)  # modules of another folder
    with pytest.raises(UserError, match="add --task"):
        check_code(task, "run", None, made)
    monkeypatch.chdir(here)
    made.rename(here / "mine")
    shutil.copytree(here / "mine", made)  # another directory of the same name
    with pytest.raises(UserError, match="add --task"):
        check_code(task, "run", None, made)
    shutil.rmtree(made)
    (here / "mine").rename(made)
    check_code(task, "run", None, made)
    record_path().chmod(0o666)  # anybody may have written to it
    with pytest.raises(UserError, match="add --task"):
        check_code(task, "run", None, made)


def test_a_task_of_the_current_folder_is_trained_evaluated_and_exported(run: Run, tmp_path: Path) -> None:
    write_package(tmp_path)
    (tmp_path / "c.yaml").write_text(CONFIG)
    status, out, err = run("train", "c.yaml", "--run-dir", "run")
    assert status == 0, err
    assert "simreal evaluate run/bundle\n" in out  # made here, so nobody is asked for --task
    assert json.loads((tmp_path / "run/bundle/policy.json").read_text())["task"] == "arm_of_mine:Arm"
    with pytest.MonkeyPatch.context() as patch:
        without_bundles(patch)
        assert run("train", "c.yaml", "train.env_steps=300", "--run-dir", "run", "--resume")[0] == 0

    (tmp_path / "arm_of_mine.py").write_text(CODE + "\nopen('imported', 'w').close()\n")
    shutil.copytree("run", "given")  # as somebody else would hand it over
    commands = ("evaluate given", "evaluate given/bundle", "export given", "play given/bundle", "report given")
    for command in commands:
        status, _, err = run(*command.split())
        assert status == 2
        assert err.count("\n") == 1
        assert "--task arm_of_mine:Arm" in err
    assert not (tmp_path / "imported").exists()

    for path, named in (("given", ["--task", "arm_of_mine:Arm"]), ("run/bundle", [])):
        status, out, err = run("evaluate", path, "--episodes", "3", *named)
        assert status == 0, err
        assert "arm_of_mine:Arm" in out
    assert (tmp_path / "imported").exists()
    assert run("export", "run", "--output", "again")[0] == 0
    assert run("report", "run", "--no-pictures")[0] == 0
    assert "angle" in run("describe", "arm_of_mine:Arm")[1]


def test_a_bundle_of_an_installed_package_is_evaluated_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "installed"
    package.mkdir()
    write_package(package)
    announce(package, "arms", **{"Arm-v0": "arm_of_mine:Arm"})
    monkeypatch.syspath_prepend(str(package))
    announced = list(sys.path)
    forget()
    (tmp_path / "c.yaml").write_text(CONFIG.replace("arm_of_mine:Arm", "Arm-v0"))
    main(["train", str(tmp_path / "c.yaml"), "--run-dir", str(tmp_path / "run")])
    forget()
    assert sys.path == announced  # an id needs no current folder
    main(["evaluate", str(tmp_path / "run/bundle"), "--episodes", "3"])
    assert "arm_of_mine" in sys.modules
    forget()
