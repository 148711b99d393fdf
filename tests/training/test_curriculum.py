"""What ails a curriculum is said, with the figure and what to do, and nothing of one that is well."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from randomization.parameters import Parameter
from simreal.cli.main import main
from simreal.report.records import load_run
from simreal.training.monitoring.curriculum import Concern, concerns
from simreal.training.monitoring.metrics_log import read_columns

MASS = Parameter("mass", 1.0, (0.5, 2.0), 0.15)
DELAY = Parameter("delay", 0.0, (0.0, 40.0), 4.0, "ms")
STEPS = [1000.0 * k for k in range(1, 31)]
NAN = math.nan
BUSY = [0.75 + 0.01 * (k % 7) for k in range(30)]  # a new mean in every row: decisions


def table() -> dict[str, list[float]]:
    """adr.csv of ranges that widen as they should."""
    out = {
        "env_steps": STEPS,
        "entropy_npd": [-5.0 + 0.1 * k for k in range(30)],
        "mass.lower": [max(0.5, 1.0 - 0.02 * k) for k in range(30)],
        "mass.upper": [1.0 + 0.03 * k for k in range(30)],
        "delay.lower": [0.0] * 30,
        "delay.upper": [1.2 * k for k in range(30)],
    }
    out |= {f"{name}_performance": BUSY for name in ("mass.lower", "mass.upper", "delay.lower", "delay.upper")}
    return out


def said(adr: dict[str, list[float]], total: int = 30_000, **others: dict[str, list[float]]) -> dict[str, str]:
    metrics, judged = others.get("metrics", {}), others.get("judged", {})
    found: list[Concern] = concerns([MASS, DELAY], (0.3, 0.7), adr, metrics, judged, total)
    assert all("\n" not in concern.text for concern in found)
    return {concern.kind: concern.text for concern in found}


def test_nothing_is_said_of_a_curriculum_that_widens() -> None:
    assert said(table()) == {}


def test_nothing_is_said_early() -> None:
    shut = {f"{name}.{side}": [nominal] * 30 for name, nominal in (("mass", 1.0), ("delay", 0.0))
            for side in ("lower", "upper")}  # fmt: skip
    assert "closed" in said(table() | shut)
    assert said(table() | shut, total=200_000) == {}


def test_ranges_that_never_open_are_the_tasks_fault() -> None:
    poor = [0.1 + 0.01 * (k % 3) for k in range(30)]
    shut = table() | {"mass.lower": [1.0] * 30, "mass.upper": [1.0] * 30, "delay.upper": [0.0] * 30}
    shut |= {key: poor for key in shut if key.endswith("_performance")}
    text = said(shut)["closed"]
    assert "no range has opened after 30,000 steps: performance is 0.11 in the nominal world" in text
    assert "widens at 0.7" in text


@pytest.mark.parametrize(
    ("at", "performance", "remedy"),
    [
        (12.0, 0.1, "it fails there: give it what tells it of that parameter"),
        (12.0, 0.5, "between the thresholds nothing moves"),
        (0.0, 0.1, "they have not opened"),
    ],
)
def test_a_boundary_that_is_judged_and_stays_is_named_with_its_figure(
    at: float, performance: float, remedy: str
) -> None:
    stuck = [min(1.2 * k, at) for k in range(30)]
    means = [performance + 0.01 * (k % 3) for k in range(30)]
    text = said(table() | {"delay.upper": stuck, "delay.upper_performance": means})["standing"]
    assert f"1 of 3 boundaries stand still over the last 10,000 steps (performance of delay (upper) at {at:g}" in text
    assert f"{at:g}: {performance + 0.01:.2f};" in text
    assert remedy in text


def test_a_boundary_at_its_limit_does_not_stand_still() -> None:
    assert said(table() | {"delay.upper": [min(4.0 * k, 40.0) for k in range(30)]}) == {}


def test_a_boundary_that_swings_wants_a_smaller_step() -> None:
    swinging = [8.0 + 4.0 * (k % 2) for k in range(30)]
    text = said(table() | {"delay.upper": swinging})["swinging"]
    assert "delay (upper) swings: delay (upper) turned 9 times between 8 and 12: a smaller step (now 4" in text
    assert "(now 4, a tenth of what its limits span: state one)" in text
    stated = replace(DELAY, limits=(0.0, 60.0))  # of which 4 is no tenth
    found = concerns([MASS, stated], (0.3, 0.7), table() | {"delay.upper": swinging}, {}, {}, 30_000)
    assert any("a smaller step (now 4), or a larger" in concern.text for concern in found)


def test_ranges_that_the_budget_ends_are_told_with_where_they_will_be() -> None:
    wide = [replace(MASS, limits=(0.5, 9.0)), replace(DELAY, limits=(0.0, 400.0))]
    slow = {"delay.upper": [0.5 * k for k in range(30)]}

    def said_of(total: int, busy: float = 0.0) -> dict[str, str]:
        adr = table() | slow | {"delay.upper_performance": [p - busy for p in BUSY]}
        return {c.kind: c.text for c in concerns(wide, (0.3, 0.7), adr, {}, {}, total)}

    text = said_of(60_000)["starved"]
    # mass.upper goes on by 0.03 in 1,000 steps, from 1.87; delay.upper by 0.5 ms, from 14.5
    assert "ends 2 of 3 ranges" in text
    assert "delay (upper) at 14.5, 29.5 at the end, of 400" in text
    assert "mass (upper) at 1.87, 2.77 at the end, of 9" in text
    assert "starved" not in said_of(60_000, busy=0.2)  # the policy ends one of them: it is no longer most


def test_a_boundary_without_a_decision_is_told() -> None:
    text = said(table() | {"delay.upper": [0.0] * 30, "delay.upper_performance": [NAN] * 30})["undecided"]
    assert "1 of 3 boundaries of ADR have not been decided about once after 100% of the run (delay (upper))" in text


def test_ranges_that_reach_their_limits_early_could_be_wider() -> None:
    full = {
        "mass.lower": [max(1.0 - 0.1 * k, 0.5) for k in range(30)],
        "mass.upper": [min(1.0 + 0.1 * k, 2.0) for k in range(30)],
        "delay.upper": [min(5.0 * k, 40.0) for k in range(30)],
    }
    assert "every range reached its limits at step 11,000" in said(table() | full)["finished"]
    late = full | {"delay.upper": [min(1.5 * k, 40.0) for k in range(30)]}
    assert "finished" not in said(table() | late)


def test_a_step_size_that_goes_while_ranges_widen_is_told() -> None:
    rates = {"lr": [3e-4 * (1.0 - k / 30) for k in range(30)]}
    assert (
        "entropy +1.00 over the last third) while the learner's step size is 3% of"
        in said(table(), metrics=rates)["slow"]
    )
    assert said(table() | {"entropy_npd": [-1.0] * 30}, metrics=rates) == {}
    assert said(table(), metrics={"lr": [3e-4] * 30}) == {}


def test_a_nominal_world_that_is_forgotten_is_told_beyond_doubt_only() -> None:
    judged = {"env_steps": [5000.0, 10_000.0], "nominal_low": [0.9, 0.5], "nominal_high": [1.0, 0.7]}
    text = said(table(), judged=judged)["forgotten"]
    assert "0.90 to 1.00 at step 5,000, 0.50 to 0.70 now" in text
    assert said(table(), judged=judged | {"nominal_high": [1.0, 0.92]}) == {}


def test_a_training_says_it_and_so_does_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([
        "train", "inverted_pendulum", "randomization.sampler=adr", "randomization.performance=return",
        "randomization.parameters={body_mass: {of: pole, range: [0.5, 2]}}", "randomization.adr.buffer_size=2",
        "randomization.adr.thresholds=[500, 900]", "train.env_steps=6144", "train.log_interval=256",
        "train.judge_interval=2048", "train.judge_episodes=10", "evaluate.episodes=1", "evaluate.worlds=[nominal]",
        "--run-dir", str(tmp_path / "run"),
    ])  # fmt: skip
    out = " ".join(capsys.readouterr().out.split())
    assert out.count("curriculum: no range has opened after") == 1
    judged = read_columns(tmp_path / "run" / "judged.csv")
    assert [*judged] == [
        "env_steps",
        "nominal",
        "nominal_low",
        "nominal_high",
        "trained",
        "trained_low",
        "trained_high",
    ]
    assert judged["nominal_low"] < judged["nominal"] < judged["nominal_high"]
    assert [concern.kind for concern in load_run(tmp_path / "run").concerns] == ["closed"]
