"""What `simreal describe` says can vary, and that the block it suggests works as it stands."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from rich.console import Console

from conftest import HINGE, SLIDER, TinyTask
from envs.registry import make_task
from envs.task import ActionComponent, Component
from randomization.catalogue.table import QUANTITIES
from randomization.config import randomization_config
from randomization.parameters import build_parameters
from simreal.cli.describe import available, describe, nominal_text, sensible_range
from simreal.cli.main import main
from simreal.cli.suggest import suggested_yaml
from simreal.training.build import make_environment

LARGE = ("HalfCheetah-v5", "HandManipulateBlock-v1", "AdroitHandHammer-v1")
TASKS = (
    "FetchPush-v4", "Ant-v5",
    *(pytest.param(i, marks=pytest.mark.slow) for i in LARGE),
)  # fmt: skip


@pytest.mark.parametrize("task_id", TASKS)
def test_the_suggested_block_loads_back_and_runs(
    task_id: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["describe", task_id, "--yaml"])
    path = tmp_path / "worlds.yaml"
    path.write_text(capsys.readouterr().out)
    config = randomization_config(path)
    assert config.sampler == "manual"
    assert {"body_mass", "geom_friction", "joint_damping", "gravity", "timestep", "action_delay"} <= set(
        config.parameters
    )
    env = make_environment(task_id, 3, path, threads=1)
    env.reset()
    for _ in range(3):
        env.step(torch.zeros(3, env.task.action_size))
    assert bool(torch.isfinite(env.observed.policy).all())
    assert env.divergences == 0


@pytest.mark.parametrize("task_id", TASKS)
def test_every_entry_in_a_comment_works_too(task_id: str) -> None:
    text = suggested_yaml(make_task(task_id))
    everything = yaml.safe_load(re.sub(r"^    # (?=\w+: \{)", "    ", text, flags=re.MULTILINE))["randomization"]
    task = make_task(task_id)
    assert {e.get("quantity", label) for label, e in everything["parameters"].items()} <= set(available(task))
    parameters = build_parameters(task, everything["parameters"])
    assert len(parameters) > 50
    env = make_environment(task_id, 2, everything, threads=1)
    env.reset()
    env.step(torch.zeros(2, env.task.action_size))


def test_a_task_is_not_offered_what_it_has_no_objects_for() -> None:
    fetch, ant, humanoid = (available(make_task(t)) for t in ("FetchPush-v4", "Ant-v5", "Humanoid-v5"))
    assert not any(name.startswith("actuator_gain") for name in fetch)  # driven by a mocap body
    assert not any(name.startswith(("tendon", "actuator_k")) for name in ant)
    assert "joint_stiffness" not in ant
    assert len(ant["joint_stiffness_added"]) == 8  # not the torso's free joint
    assert len(humanoid["joint_stiffness"]) == 14  # the others have none
    assert fetch["body_size"]
    assert "joint_frictionloss" not in ant  # zero everywhere: a factor would do nothing
    assert len(ant["joint_range"]) == 8  # not the torso's free joint


def test_nominal_values_are_shown_with_their_units() -> None:
    task = make_task("FetchPush-v4")
    assert nominal_text(task, QUANTITIES["body_mass"], ["object0"]) == "2 kg"
    assert nominal_text(task, QUANTITIES["gravity"], ["z"]) == "-9.81 m/s^2"
    assert nominal_text(task, QUANTITIES["timestep"], []) == "0.002 s"
    assert nominal_text(task, QUANTITIES["action_delay"], []) == "0"


def test_every_servo_is_listed_with_its_gains_and_limits(capsys: pytest.CaptureFixture[str]) -> None:
    task = make_task("AdroitHandDoor-v1")
    component = ActionComponent(
        "joint_target", 2, "rad", (0.5, 0.25), (0.1, -0.2), ("hip", "knee"), ("hip", "knee"),
        actuators=("hip_motor", "knee_motor"),
        stiffness=(35.0, 36.0), damping=(0.8, 0.9), effort_limit=(23.7, 35.5), target_limits=((-0.3, -0.4), (0.6, 0.7)),
        smoothing=0.3,
    )  # fmt: skip
    task.action = (component,)
    describe(task, Console(width=200))
    out = capsys.readouterr().out
    knee = next(line for line in out.splitlines() if "knee_motor" in line)
    for part in ("0.25 * a -0.2", "-0.4 to 0.7", "36", "0.9", "35.5"):
        assert part in knee
    for part in ("stiffness (kp), N m/rad", "damping (kd), N m s/rad", "effort limit, N m", "moves by 0.3"):
        assert part in out


def test_suggested_ranges_follow_units_and_nominal_values() -> None:
    xml = SLIDER.replace('type="hinge" axis="0 1 0" damping="0.2"', 'type="hinge" axis="0 1 0" frictionloss="1"')

    class Measures(TinyTask):
        def __init__(self) -> None:
            super().__init__(xml)
            self.observation = tuple(
                Component(name, 1, unit) for name, unit in (("angle", "rad"), ("gyro", "rad/s"), ("place", "m"))
            )

    task = Measures()
    entries = yaml.safe_load(suggested_yaml(task))["randomization"]["parameters"]
    noise = {tuple(e["of"]): e["range"] for e in entries.values() if e.get("quantity") == "observation_noise"}
    assert noise == {("angle",): [0, 0.01], ("gyro",): [0, 0.1], ("place",): [0, 0.005]}
    names = available(task)["joint_frictionloss_added"]
    assert sensible_range(task, QUANTITIES["joint_frictionloss_added"], names) == (0.0, 0.25)  # a quarter of 1 N m
    without = TinyTask(HINGE)
    assert sensible_range(without, QUANTITIES["joint_frictionloss_added"], ["hinge"]) == (0.0, 0.05)
    parameters = build_parameters(task, entries)
    assert {"observation_noise_turning", "observation_bias_angles"} <= {p.name for p in parameters}


def test_groups_and_json_of_describe(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    main(["describe", "HalfCheetah-v5", "--group", "action"])
    out = capsys.readouterr().out
    assert "action_delay" in out
    assert "body_mass" not in out
    assert "Observation" not in out
    file = tmp_path / "d.json"
    main(["describe", "HalfCheetah-v5", "--json", str(file)])
    document = json.loads(file.read_text())
    task = make_task("HalfCheetah-v5")
    assert sum(c["size"] for c in document["observation"]) == 17  # Gymnasium's observation
    assert sum(c["size"] for c in document["action"]) == 6
    assert document["control_period_s"] == 0.05
    assert [q["name"] for q in document["randomization"]] == list(available(task))
    assert {q["group"] for q in document["randomization"]} >= {"physics", "action", "observation", "visual"}
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        main(["describe", "HalfCheetah-v5", "--group", "phisics"])
    assert exit_.value.code == 2
    assert "did you mean 'physics'" in capsys.readouterr().err
