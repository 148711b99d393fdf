"""Adaptation within an episode, where the answer is known: a controller that integrates, and one that does not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from conftest import TinyTask
from envs.registry import make_task
from randomization.changes import Change, Changing
from randomization.parameters import build_parameters
from randomization.samplers.base import Manual
from simreal.cli.main import main
from simreal.common.errors import UserError
from simreal.evaluation.worlds import World
from simreal.study.adaptation import Spans, adaptation, play, table
from simreal.training.run_directory import LoadedPolicy

# 1 kg on a slide whose motor gives 10 N for an action of 1; the slope pulls with a N. Control period 20 ms.
CART = """
<mujoco>
  <option timestep="0.01" gravity="0 0 0"/>
  <worldbody>
    <body name="cart"><joint name="x" type="slide" axis="1 0 0" damping="6"/><geom size="0.1" mass="1"/></body>
  </worldbody>
  <actuator><motor joint="x" gear="10" ctrllimited="true" ctrlrange="-1 1"/></actuator>
</mujoco>
"""
BEFORE, AFTER = 0.3, 1.0  # m/s^2; a controller of u = -x stands at 0.1 a: success is |x| < 0.05, reward -x^2
OPTIONS = {"xml": CART, "decimation": 2, "max_episode_steps": 400}


class Slope(TinyTask):
    """The cart, as a task of one's own."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**(OPTIONS | options))


TASK = f"{__name__}:Slope"


def controller(integral: float) -> LoadedPolicy:
    """u = -x - integral * (sum of x over time), which is its memory."""
    memory: list[Tensor] = [torch.zeros(0)]

    def act(observation: Tensor) -> Tensor:
        x = observation[:, :1].double()
        memory[0] = memory[0] + 0.02 * x
        return (-x - integral * memory[0]).float()

    def reset(mask: Tensor) -> None:
        kept = memory[0] if len(memory[0]) == len(mask) else torch.zeros(len(mask), 1, dtype=torch.float64)
        memory[0] = torch.where(mask[:, None], 0.0, kept)

    return LoadedPolicy("controller", TASK, act, reset, [], None, None)


def world(begin: float = BEFORE) -> World:
    entries = {"slope": {"quantity": "gravity", "of": "x", "range": [begin - 0.02, begin + 0.02]}}
    change = Change(4.0, 0.0, {"slope": (AFTER - 0.02, AFTER + 0.02)})
    return World("slope", Changing(Manual(build_parameters(make_task(TASK), entries)), [change]))


@pytest.fixture(scope="module")
def figures() -> dict[float, dict[str, Any]]:
    return {integral: adaptation(controller(integral), world(), 30, 5) for integral in (0.0, 0.6)}


def of(document: dict[str, Any], a: str, measure: str) -> dict[str, Any]:
    (entry,) = (entry for entry in document["differences"] if entry["a"] == a)
    return entry[measure]


def test_who_cannot_adapt_loses_as_much_later_as_at_first(figures: dict[float, dict[str, Any]]) -> None:
    fixed = of(figures[0.0], "changes", "reward")
    # It comes to rest at 0.1 m where it stood at 0.03
    assert fixed["later"]["mean"] == pytest.approx(-(0.1**2 - 0.03**2), rel=0.05)
    assert fixed["regained"]["ci95"][1] < 0.0  # less at first only while it is still on its way there
    success = of(figures[0.0], "changes", "success")
    assert success["later"] == {"mean": -1.0, "ci95": [-1.0, -1.0]}
    assert success["regained"]["mean"] <= 0.0


def test_who_adapts_regains_what_the_change_took(figures: dict[float, dict[str, Any]]) -> None:
    success = of(figures[0.6], "changes", "success")
    assert success["first"]["ci95"][1] < -0.2
    assert success["later"]["mean"] == 0.0
    assert success["regained"]["ci95"][0] > 0.2
    low, high = success["first"]["ci95"]
    assert low <= success["first"]["mean"] <= high


def test_forgetting_costs_at_first_and_where_nothing_changes_too(figures: dict[float, dict[str, Any]]) -> None:
    document = figures[0.6]
    assert document["remembers"]
    forgotten = of(document, "stays, forgets", "reward")
    assert forgotten["first"]["ci95"][1] < 0.0
    assert abs(forgotten["later"]["mean"]) < 0.1 * abs(forgotten["first"]["mean"])
    assert not figures[0.0]["remembers"]
    assert set(figures[0.0]["arms"]) == {"changes", "stays"}
    assert "it remembers nothing" in table(figures[0.0])[-1]


def test_until_the_change_all_arms_are_one(figures: dict[float, dict[str, Any]]) -> None:
    document = figures[0.6]
    assert document["change_s"] == pytest.approx(4.0)
    before = [i for i, (_, end) in enumerate(document["bins"]) if end <= 4.0 + 1e-9]
    assert len(before) > 8
    reference = document["arms"]["stays"]["reward"]["mean"]
    for arm in document["arms"].values():
        assert [arm["reward"]["mean"][i] for i in before] == [reference[i] for i in before]
    assert document["bins"][0][0] == 0.0
    assert document["bins"][-1][1] == pytest.approx(8.0)


def test_the_curve_is_what_the_equation_of_motion_gives(figures: dict[float, dict[str, Any]]) -> None:
    # m x'' = a - 6 x' - 10 x from rest at 0.03 towards 0.1; integrated by hand at 0.1 ms
    x, v, track = 0.03, 0.0, []
    for _ in range(40_000):
        v += 1e-4 * (AFTER - 6.0 * v - 10.0 * x)
        x += 1e-4 * v
        track.append(-(x**2))
    document = figures[0.0]
    for (start, end), mean in zip(document["bins"], document["arms"]["changes"]["reward"]["mean"], strict=True):
        if start >= 4.0:
            part = track[round((start - 4.0) * 1e4) : round((end - 4.0) * 1e4)]
            assert mean == pytest.approx(float(np.mean(part)), rel=0.1)


def test_an_episode_counts_once_at_any_number_of_environments() -> None:
    policy, there = controller(0.6), world()
    few, many = (play(policy, there.make_environment(policy, n, 5), 6, 200) for n in (2, 6))
    assert np.array_equal(few.reward, many.reward)
    assert np.array_equal(few.success, many.success)


def test_what_an_episode_ended_with_holds_and_is_rewarded_no_more() -> None:
    options = {"terminate_above": 0.02}  # all end before they come to 0.03
    policy = replace(controller(0.0), task_options=options)
    course = play(policy, world().make_environment(policy, 4, 5), 4, None)
    assert (course.reward[:, -1] == 0.0).all()
    assert (course.success[:, -1] == 1.0).all()  # within 0.05 at the end


def test_spans_cover_the_episode_and_meet_at_the_change() -> None:
    for change, steps in ((25, 50), (1, 3), (49, 50), (200, 401)):
        spans = Spans.of(change, steps, None)
        assert spans.edges[0] == 0
        assert spans.edges[-1] == steps
        assert list(spans.edges) == sorted(set(spans.edges))
        assert change in spans.edges
        assert change <= spans.first[0] < spans.first[1] <= steps


def test_the_command_prints_draws_and_refuses(
    trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    late = tmp_path / "late.yaml"
    late.write_text("""
randomization: {parameters: {action_delay: {range: [0, 0]}}}
changes: [{at_share: 0.5, set: {action_delay: [100, 150]}}]
""")
    files = ["--json", str(tmp_path / "a.json"), "--picture", str(tmp_path / "a.png")]
    main(["probe", str(trained_run), "--adaptation", "--world", str(late), "--episodes", "50", *files])
    out = capsys.readouterr().out
    assert "the change" in out
    document = json.loads((tmp_path / "a.json").read_text())
    assert document["change_s"] == pytest.approx(1.0)
    assert (tmp_path / "a.png").read_bytes()[1:4] == b"PNG"
    for more, said in (
        (
            ["--adaptation", "--world", "nominal"],
            "nominal: nothing changes there within an episode; expected a --world",
        ),
        (["--adaptation", "--world", str(late), "--window", "0.7"], "--window: expected between 0.04 and 0.5 s"),
        (["--adaptation", "--at", "1"], "--at: is of the memory"),
        (["--picture", "x.png"], "--picture: is of --adaptation"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(["probe", str(trained_run), *more])
        assert stopped.value.code == 2
        assert said in capsys.readouterr().err


def test_a_world_that_stays_is_refused_by_the_function_too() -> None:
    with pytest.raises(UserError, match="nothing changes there"):
        adaptation(controller(0.0), World("calm", Manual([])), 10, 0)
