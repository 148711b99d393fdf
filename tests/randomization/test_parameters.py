"""What a configuration may say about worlds, and what it is told when it says something else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import SLIDER, TinyTask, build, manual_layer
from envs.manipulation.fetch import FetchTask
from envs.registry import make_task
from randomization.catalogue.table import QUANTITIES
from randomization.config import randomization_config
from randomization.parameters import RandomizationError, build_parameters
from randomization.samplers.adr import ADR
from randomization.samplers.base import Manual
from randomization.targets.names import object_places

NAN = float("nan")
MASS = {"quantity": "body_mass", "of": "object0"}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"box": {"quantity": "body_mas"}}, "box: unknown quantity 'body_mas' (did you mean 'body_mass'?)"),
        ({"body_mas": {}}, "body_mas: unknown quantity 'body_mas' (did you mean 'body_mass'?)"),
        ({"box": MASS | {"rang": [1, 2]}}, "box.rang: unknown key (did you mean 'range'?)"),
        ({"box": MASS | {"of": "objekt0"}}, "box.of: no body matches 'objekt0' (did you mean 'object0'?)"),
        ({"box": MASS | {"of": ["object0", "roboot0:*"]}}, "box.of: no body matches 'roboot0:*'"),
        ({"box": MASS | {"of": 3}}, "box.of: expected a name, a pattern or a list of them, got 3"),
        ({"box": MASS | {"of": ["object0", 3]}}, "box.of: expected a name, a pattern or a list of them"),
        ({"box": MASS | {"range": [2, 1]}}, "box.range: lower end 2 is above upper end 1"),
        ({"box": MASS | {"range": [NAN, 1]}}, "box.range: expected two numbers [lower, upper], got [nan, 1]"),
        ({"box": MASS | {"range": [1, "2"]}}, "box.range: expected two numbers [lower, upper], got [1, '2']"),
        ({"box": MASS | {"range": [1, 2, 3]}}, "box.range: expected two numbers [lower, upper], got [1, 2, 3]"),
        ({"box": MASS | {"range": 2}}, "box.range: expected two numbers [lower, upper], got 2"),
        ({"box": MASS | {"range": [0, 2]}}, "box.range: [0, 2] is not within [0.001, inf]"),
        ({"box": MASS | {"range": [1, float("inf")]}}, "box.range: expected two numbers [lower, upper], got [1, inf]"),
        ({"box": MASS | {"step": "big"}}, "box.step: expected a number, got 'big'"),
        ({"box": MASS | {"step": 0}}, "box: step 0 must be positive"),
        ({"box": MASS | {"step": NAN}}, "box.step: expected a number, got nan"),
        ({"box": MASS | {"distribution": "gauss"}}, "box.distribution: expected 'uniform', 'loguniform', 'normal', 'l"),
        ({"box": MASS | {"group": 3}}, "box.group: expected a name, got 3"),
        ({"geom_friction": {"range": [0, 1], "distribution": "loguniform"}}, "geom_friction: a loguniform range"),
        ({"box": [0.5, 2]}, "box: expected a mapping with a range, got [0.5, 2]"),
        ({"box": None}, "box: expected a mapping with a range, got None"),
        ({"lag": {"quantity": "action_delay", "of": "object0"}}, "lag.of: action_delay belongs to the whole task"),
        ({"lag": {"quantity": "action_delay", "range": [-1, 5]}}, "lag.range: [-1, 5] is not within [0, 10000]"),
        ({"fall": {"quantity": "gravity", "of": "w"}}, "fall.of: no axis matches 'w'"),
        ({"wind": {"of": "x"}}, "wind: FetchPush-v4 has no air: add air_density or air_viscosity"),
        ({"shape": {"quantity": "body_size", "of": "robot0:base_link"}}, "shape.of: robot0:base_link is no body whose"),
        ({"place": {"quantity": "body_pos_x", "of": "object0"}}, "place.of: object0 is no body placed by the model"),
        ({"joint_range": {"of": "robot0:slide*"}}, "joint_range.of: no joint that matches 'robot0:slide*' is a joint"),
        ({"observation_noise": {"of": "desired_goal"}}, "observation_noise.of: no component matches 'desired_goal'"),
        (
            {"rel": {"quantity": "observation_noise", "of": "object_rel_pos"}},
            "rel.of: no component matches 'object_rel_pos' (did you mean 'object_pos'?)",
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_answered_with_its_label_and_what_was_expected(entries: Mapping[str, Any], message: str) -> None:
    with pytest.raises(RandomizationError, match=re.escape(message)):
        build_parameters(FetchTask("FetchPush"), entries)


def test_a_mistake_is_answered_with_what_there_is() -> None:
    task = FetchTask("FetchPush")
    with pytest.raises(RandomizationError, match="there are: body_mass, body_inertia, body_com"):
        build_parameters(task, {"colour": {}})
    with pytest.raises(RandomizationError, match="FetchPush-v4 has: grip_pos, object_pos, gripper_state, object_rot"):
        build_parameters(task, {"observation_noise": {"of": "camera"}})


def test_a_task_without_actuators_says_so() -> None:
    with pytest.raises(RandomizationError, match="weak: FetchReach-v4 has no actuator to randomize actuator_gain of"):
        build_parameters(FetchTask("FetchReach"), {"weak": {"quantity": "actuator_gain"}})


@pytest.mark.parametrize(
    ("quantity", "one", "other", "what"),
    [
        ("action_delay", None, None, "action_delay"),
        ("observation_noise", "object_*", "object_pos", "observation_noise of object_pos"),
        ("observation_bias", None, "grip_pos", "observation_bias of grip_pos"),
    ],
)
def test_two_absolute_values_of_one_thing_contradict_each_other(
    quantity: str, one: str | None, other: str | None, what: str
) -> None:
    entries = {
        name: {"quantity": quantity} | ({} if of is None else {"of": of}) for name, of in (("a", one), ("b", other))
    }
    with pytest.raises(RandomizationError, match=f"b: {what} is set by 'a' already"):
        build_parameters(FetchTask("FetchPush"), entries)


def test_absolute_values_of_different_things_and_factors_on_one_thing_go_together() -> None:
    entries = {
        "near": {"quantity": "observation_noise", "of": "grip_pos"},
        "far": {"quantity": "observation_noise", "of": "object_pos"},
        "drift": {"quantity": "observation_bias", "of": "object_pos"},
        "box": MASS,
        "all": {"quantity": "body_mass", "of": "*"},
    }
    assert [p.name for p in build_parameters(FetchTask("FetchPush"), entries)] == list(entries)


def test_an_entry_becomes_a_parameter_with_the_quantitys_defaults() -> None:
    task = FetchTask("FetchPush")
    (box,) = build_parameters(task, {"box": MASS})
    assert (box.name, box.quantity, box.targets, box.mode, box.unit) == ("box", "body_mass", ("object0",), "scale", "1")
    assert (box.nominal, box.limits, box.distribution) == (1.0, (0.5, 2.0), "uniform")
    assert box.step == pytest.approx(0.15)  # a tenth of the range
    assert box.writes == ("body_mass", "body_inertia")
    (lag,) = build_parameters(task, {"action_delay": {"range": [20, 60], "step": 5}})
    assert (lag.nominal, lag.limits, lag.step, lag.unit) == (20.0, (20.0, 60.0), 5.0, "ms")  # nearest to 0 in the range
    (fixed,) = build_parameters(task, {"action_delay": {"range": [20, 20]}})
    assert (fixed.nominal, fixed.step) == (20.0, 1.0)


def test_patterns_name_objects_and_unnamed_ones_go_by_their_number() -> None:
    task = FetchTask("FetchPush")
    (fingers,) = build_parameters(task, {"joint_damping": {"of": ["robot0:*_gripper_finger_joint", "robot0:r_*"]}})
    assert sorted(fingers.targets) == ["robot0:l_gripper_finger_joint", "robot0:r_gripper_finger_joint"]
    names = list(object_places(task, "geom"))
    assert len(names) == task.model.ngeom
    assert names[1] == "geom1"
    assert next(iter(object_places(task, "body"))) == task.model.body(1).name  # the world does not move
    assert list(object_places(task, "axis")) == ["x", "y", "z"]


def test_every_quantity_has_a_nominal_value_and_a_default_range_within_its_limits() -> None:
    for quantity in QUANTITIES.values():
        low, high = quantity.default_range
        assert quantity.limits[0] <= low < high <= quantity.limits[1], quantity.name
        assert quantity.limits[0] <= quantity.nominal <= quantity.limits[1], quantity.name
        assert quantity.nominal == {"scale": 1.0, "add": 0.0}.get(quantity.mode, quantity.nominal), quantity.name
        assert quantity.description, quantity.name


def test_fixed_ranges_are_sampled_evenly_or_evenly_in_the_logarithm() -> None:
    entries = {
        "even": MASS | {"range": [0.5, 2]},
        "log": MASS | {"range": [0.3, 3], "distribution": "loguniform"},
        "fixed": {"quantity": "action_delay", "range": [20, 20]},
    }
    manual = Manual(build_parameters(FetchTask("FetchPush"), entries))
    u = torch.tensor([[0.0] * 3, [0.5] * 3, [1.0] * 3], dtype=torch.float64)
    lam, boundary = manual.draw(u, torch.zeros(3, 2))
    # middle of the logarithms of 0.3 and 3: sqrt(0.3 * 3) = 0.948683
    expected = torch.tensor([[0.5, 0.3, 20.0], [1.25, 0.9**0.5, 20.0], [2.0, 3.0, 20.0]], dtype=torch.float64)
    torch.testing.assert_close(lam, expected)
    assert boundary.tolist() == [-1, -1, -1]
    # log widths: log 1.5, log 2.7, and the floor of 1e-6
    assert manual.entropy() == pytest.approx((0.405465 + 0.993252 - 13.815511) / 3, abs=1e-5)


def test_worlds_of_an_environment_fill_their_ranges() -> None:
    task = TinyTask(SLIDER)
    entries = {"body_mass": {"of": "box", "range": [0.5, 2]}, "gravity": {"of": "z", "range": [-3, -1]}}
    layer = manual_layer(task, entries)
    build(task, 2000, layer)
    for column, (low, high) in zip(layer.lam.T, ((0.5, 2.0), (-3.0, -1.0)), strict=True):
        assert low <= float(column.min()) < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < float(column.max()) <= high
        assert abs(float(column.mean()) - (low + high) / 2) < 4.5 * (high - low) / (12 * 2000) ** 0.5
    assert abs(float(torch.corrcoef(layer.lam.T)[0, 1])) < 4.5 / 2000**0.5


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"smapler": "adr"}, "randomization.smapler: unknown key (did you mean 'sampler'?)"),
        ({"adr": {"bufer_size": 3}}, "randomization.adr.bufer_size: unknown key (did you mean 'buffer_size'?)"),
        ({"sampler": "adr", "adr": {"thresholds": [0.9, 0.5]}}, "thresholds: lower end 0.9 is above upper end 0.5"),
        ({"sampler": "adr", "adr": {"boundary_probability": 2}}, "randomization.adr.boundary_probability: "),
        ({"sampler": "random"}, "randomization.sampler: "),
        ({"parameters": {"body_mass": 3}}, "randomization.parameters.body_mass: "),
        ([1, 2], "randomization: expected a mapping, got list"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_block_is_answered_with_its_key(block: Any, message: str) -> None:
    with pytest.raises(RandomizationError, match=re.escape(message)) as error:
        randomization_config(block)
    assert "\n" not in str(error.value)


def test_a_block_chooses_its_sampler() -> None:
    task = FetchTask("FetchPush")
    parameters = {"box": MASS}
    assert randomization_config(None).sampler_for(task).parameters == []
    given = randomization_config({"parameters": parameters}).sampler_for(task)
    assert isinstance(given, Manual)  # parameters without a sampler are fixed ranges
    assert len(given.parameters) == 1
    block = {"sampler": "adr", "parameters": parameters, "adr": {"buffer_size": 7, "thresholds": [0.1, 0.2]}}
    adr = randomization_config(block).sampler_for(task)
    assert isinstance(adr, ADR)
    assert (adr.buffer_size, adr.thresholds, adr.boundary_probability) == (7, (0.1, 0.2), 0.5)
    assert randomization_config({"sampler": "none", "parameters": parameters}).sampler_for(task).parameters == []


def test_a_block_may_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "worlds.yaml"
    path.write_text("task: X\nrandomization:\n  parameters:\n    body_mass: {of: object0, range: [1, 3]}\n")
    (mass,) = randomization_config(path).sampler_for(FetchTask("FetchPush")).parameters
    assert mass.limits == (1.0, 3.0)
    with pytest.raises(FileNotFoundError, match=r"nothing\.yaml"):
        randomization_config(tmp_path / "nothing.yaml")
    path.write_text("task: X\n")
    with pytest.raises(RandomizationError, match=r"worlds\.yaml: has no 'randomization:' block"):
        randomization_config(path)
    path.write_text("randomization: [1, {")
    with pytest.raises(RandomizationError, match=r"worlds\.yaml: not valid YAML"):
        randomization_config(path)


@pytest.mark.parametrize("sampler", ["adr", "doraemon"])
def test_ranges_that_could_never_move_are_refused(sampler: str) -> None:
    block = {"sampler": sampler, "parameters": {"body_mass": {"range": [0.5, 2.0]}}}
    task = make_task("HalfCheetah-v5")
    with pytest.raises(RandomizationError, match="performance: HalfCheetah-v5 knows no success, expected 'return'"):
        randomization_config(block).sampler_for(task)
    randomization_config({**block, "performance": "return"}).sampler_for(task)
    task.has_success = task.counts_successes = True
    with pytest.raises(RandomizationError, match="counts successes, expected 'successes' or 'return'"):
        randomization_config(block).sampler_for(task)
