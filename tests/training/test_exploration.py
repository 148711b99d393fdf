"""A policy that does well only with the noise of its exploration: training says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from simreal.evaluation.metrics import RETURN, SUCCESS, SUCCESSES, Metric
from simreal.training.monitoring.exploration import noise_remarks


def world(group: str, rate: float) -> dict[str, Any]:
    """An evaluation of 100 episodes, as far as it is read."""
    return {
        "name": group, "group": group, "success_rate": rate, "success_ci95": [rate - 0.1, rate + 0.1],
        "successes_mean": 10 * rate, "successes_ci95": [10 * rate - 1, 10 * rate + 1],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("trained", "measure", "said"),
    [
        (0.6, SUCCESS, "success at the last step: 0.940 at the end of the training, 0.600 (trained)"),
        (0.62, SUCCESS, None),  # 0.72 may be three quarters of 0.94
        (0.6, SUCCESSES, "successes per episode: 9.40 at the end of the training, 6.00 (trained)"),
        (0.9, SUCCESSES, None),
        (0.1, RETURN, None),
    ],
)
def test_a_policy_that_lives_on_noise_is_told_of(
    tmp_path: Path, trained: float, measure: Metric, said: str | None
) -> None:
    rates = [0.0, 0.1, 0.94, 0.9, 0.98, 0.94, 0.94]
    rows = [f"{i},{rate},{10 * rate},{rate}" for i, rate in enumerate(rates)]
    (tmp_path / "metrics.csv").write_text("\n".join(["env_steps,success_rate,successes,return", *rows, "7,,,", ""]))
    lines = noise_remarks(tmp_path, {"worlds": [world("nominal", 0.1), world("trained", trained)]}, measure)
    assert len(lines) == int(said is not None)
    assert said is None or said in lines[0]


def test_without_randomization_the_nominal_world_is_the_trained_one_and_without_rows_nothing_is_said(
    tmp_path: Path,
) -> None:
    figures = {"worlds": [world("nominal", 0.2)]}
    assert noise_remarks(tmp_path, figures, SUCCESS) == []
    (tmp_path / "metrics.csv").write_text("env_steps,success_rate\n1,0.9\n")
    assert "0.200 (nominal)" in noise_remarks(tmp_path, figures, SUCCESS)[0]
    assert noise_remarks(tmp_path, {"worlds": [world("held out", 0.2)]}, SUCCESS) == []
