"""What `describe` offers loads, for any model: each line by itself, and all of them together."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import gymnasium
import gymnasium_robotics
import pytest
import torch
from rich.console import Console
from test_actuator_forces import zoo

from any_model import EDGES, MUSCLE, NAMES, OFF, STILL, AnyModel
from conftest import build, manual_layer
from envs.common.safe_yaml import parse_yaml
from envs.platform.menagerie import robot_path
from randomization.catalogue.table import QUANTITIES
from randomization.parameters import RandomizationError, build_parameters
from robots import GO1, missing
from simreal.cli.describe import available, describe
from simreal.cli.suggest import suggested_block, suggested_yaml

INLINE = {"muscle": MUSCLE, "names": NAMES, "edges": EDGES, "off": OFF, "still": STILL, "actuators": zoo()}


def packaged() -> list[Path]:
    """A model of each kind from the packages that are installed, and a robot where it can be had."""
    robotics, plain = (Path(str(p.__file__)).parent for p in (gymnasium_robotics, gymnasium))
    return [
        robotics / "envs/assets/fetch/push.xml",
        robotics / "envs/assets/adroit_hand/adroit_relocate.xml",
        robotics / "envs/assets/hand/manipulate_block.xml",
        *(plain / f"envs/mujoco/assets/{name}.xml" for name in ("humanoid", "swimmer", "reacher")),
        *([] if missing(GO1) else [robot_path(GO1, scene=True)]),
    ]


_QUICK = (*INLINE, "push", "reacher")  # the large models take seconds each
SOURCES = [
    pytest.param(source, id=name, marks=() if name in _QUICK else pytest.mark.slow)
    for name, source in (INLINE | {path.stem: str(path) for path in packaged()}).items()
]


def entries_of(text: str) -> dict[str, Any]:
    """The entries of a suggested block."""
    return parse_yaml(text)["randomization"]["parameters"] or {}


def switched_on(text: str) -> str:
    """A suggested block with the comment signs before its entries taken away."""
    return re.sub(r"^    # (?=\w+: \{)", "    ", text, flags=re.MULTILINE)


@pytest.mark.parametrize("source", SOURCES)
def test_each_suggested_line_loads_by_itself(source: str) -> None:
    task = AnyModel(source)
    text = suggested_yaml(task)
    every, offered = entries_of(switched_on(text)), available(task)
    assert {entry.get("quantity", label) for label, entry in every.items()} == {
        name for name in offered if not (QUANTITIES[name].needs and QUANTITIES[name].needs not in offered)
    }
    for name, entry in every.items():
        together = {name: entry}
        for needed in re.findall(rf"\b{name}: {{.*; goes with (\w+)", text):
            together[needed] = every[needed]
        assert [p.name for p in build_parameters(task, together)] == list(together)


@pytest.mark.parametrize("source", SOURCES)
def test_all_suggested_lines_together_make_worlds_that_run(source: str) -> None:
    task = AnyModel(source)
    for entries in (
        entries_of(suggested_yaml(task)),
        entries_of(switched_on(suggested_yaml(task))),
        suggested_block(task)["parameters"],
    ):
        env = build(task := AnyModel(source), 2, manual_layer(task, entries))
        for _ in range(2):
            env.step(torch.zeros(2, task.action_size))
        assert bool(torch.isfinite(env.observed.policy).all())


@pytest.mark.parametrize("source", INLINE.values(), ids=INLINE)
def test_every_label_that_describe_prints_names_one_object(source: str) -> None:
    task = AnyModel(source)
    describe(task, Console(width=200, quiet=True))
    offered = available(task)
    for name, names in offered.items():
        quantity = QUANTITIES[name]
        assert len(set(names)) == len(names)
        for label in {*names[:2], *names[-1:]}:
            of = {"of": label} | (
                {"range": list(quantity.default_range)} if quantity.mode != "add" else {"range": [0, 0]}
            )
            needs = {quantity.needs: {"of": label}} if quantity.needs in offered and names else {}
            if name == "wind":
                needs["air_density"] = {}
            assert build_parameters(task, {name: of} | needs)[0].targets == (label,)


def test_what_the_model_has_switched_off_is_refused_and_not_offered() -> None:
    task = AnyModel(OFF)
    offered = available(task)
    for name, flag in (
        ("gravity", "gravity"), ("base_acceleration", "gravity"), ("joint_range", "limit"), ("joint_damping", "damper"),
        ("joint_frictionloss_added", "frictionloss"), ("joint_stiffness", "spring"), ("geom_solref", "contact"),
    ):  # fmt: skip
        assert name not in offered
        with pytest.raises(RandomizationError, match=f"^{name}: any has {flag} switched off"):
            build_parameters(task, {name: {}})
    assert offered["actuator_strength"] == offered["actuator_stuck"] == ["actuator0"]
    with pytest.raises(RandomizationError, match="off belongs to a group of actuators that the model has switched off"):
        build_parameters(task, {"actuator_strength": {"of": "off"}})


def test_slack_and_its_spread_are_offered_for_the_same_actuators() -> None:
    offered = available(AnyModel(MUSCLE))
    assert offered["actuator_backlash"] == offered["actuator_backlash_spread"] == ["filt"]
