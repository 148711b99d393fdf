"""Options of tasks as YAML and users spell them, against what constructors take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import TinyTask
from envs.common.safe_yaml import FileError, parse_yaml
from envs.registry import TaskError, make_task
from envs.validation.task_options import checked_options
from simreal.cli.main import main


class Hinge(TinyTask):
    """A task of somebody else's."""

    def __init__(self, gain: float, limits: tuple[float, float] = (0.0, 1.0), table: np.ndarray | None = None) -> None:
        super().__init__()
        self.gain, self.limits, self.table = gain, limits, table


class Longer(Hinge):
    def __init__(self, steps: int = 7, target: float = None, **options: Any) -> None:  # pyright: ignore # noqa: RUF013
        super().__init__(**options)
        self.max_episode_steps, self.target = steps, target


def test_options_arrive_in_the_types_of_the_constructor() -> None:
    assert checked_options("Hinge", Hinge, {"gain": "1e-3", "limits": [1, float("inf")]}) == {
        "gain": 1e-3, "limits": (1.0, float("inf")),
    }  # fmt: skip
    assert checked_options("Hinge", Hinge, {"gain": np.float32(0.5)}) == {"gain": 0.5}
    # What YAML cannot write, and a default that is not of the annotated type, are left alone.
    assert checked_options("Hinge", Hinge, {"gain": 1.0, "table": [1, 2]})["table"] == [1, 2]
    assert checked_options("Longer", Longer, {"gain": 1.0, "target": None}) == {"gain": 1.0, "target": None}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gain": "fast"}, "Hinge: option 'gain': expected a valid number.*got 'fast'"),
        ({"gain": None}, "option 'gain'.*got None"),
        ({"gain": float("nan")}, "option 'gain': expected numbers, got nan"),
        ({"gain": 1, "limits": [0]}, r"option 'limits': a value is missing, got \[0\]"),
        ({"gain": 1, "limits": [0, "x"]}, r"option 'limits'\[1\]: expected a valid number.*got 'x'"),
        ({"gain": 1, "limits": [0, 1, 2]}, "option 'limits'"),
        ({}, "Hinge: task_options: missing a required argument: 'gain'"),
    ],
)
def test_options_of_another_type_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskError, match=message) as caught:
        checked_options("Hinge", Hinge, options)
    assert "\n" not in str(caught.value)


def test_options_that_a_class_hands_on_are_its_own_too() -> None:
    task: Any = make_task("test_options:Longer", steps=3, gain=2.0)
    assert (task.max_episode_steps, task.gain) == (3, 2.0)


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "1.e-3", "0.1e-2", "+1e-3", ".001e0", "1.0e-3", "0.001"])
def test_every_way_to_write_a_number_is_one(text: str) -> None:
    assert parse_yaml(text) == 0.001


def test_a_sign_may_stand_before_a_point() -> None:
    assert parse_yaml("[-.05, +.05, .05, -.5e-1]") == [-0.05, 0.05, 0.05, -0.05]


def test_numbers_that_yaml_1_1_reads_otherwise_than_people_do_are_told() -> None:
    assert parse_yaml("[1:30, 1:30.5, 12_000, 0, 0x10]") == ["1:30", "1:30.5", 12_000, 0, 16]
    assert parse_yaml(long := ":".join(["59"] * 30_000)) == long  # to YAML 1.1 a number of 50,000 digits
    with pytest.raises(FileError, match=r"line 2: '-010' begins with 0, which YAML 1.1 reads as octal"):
        parse_yaml("a: 1\nb: -010")


@pytest.mark.parametrize("text", ["e3", "1e", "v1e3", "1e3x", "1e-", "-.", "-.x", "'1e-3'"])
def test_text_stays_text(text: str) -> None:
    assert parse_yaml(text) == text.strip("'")


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("task_options.healthy_z_range=3", "healthy_z_range"),
        ("task_options.ctrl_cost_weight=abc", "ctrl_cost_weight"),
        ("task_options.xml_file=nope.xml", "nope.xml: no such file"),
        ("task_options.terminate_when_unhealthy=maybe", "terminate_when_unhealthy"),
    ],
)
def test_a_wrong_option_is_one_line_and_nothing_is_written(
    override: str, part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["train", "hopper", override, "--run-dir", str(tmp_path / "run")])
    assert exit_.value.code == 2
    err = capsys.readouterr().err
    assert part in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()
