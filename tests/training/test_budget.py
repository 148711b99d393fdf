"""The warnings at start-up of runs that are too short."""

from __future__ import annotations

from pathlib import Path

import pytest

from randomization.parameters import Parameter
from randomization.samplers.adr import ADR
from randomization.samplers.base import Manual
from resuming import advance
from simreal.training.budget import budget_warning, expected_moves, untrained_warning
from simreal.training.trainer import Trainer
from tiny import LEARNERS, configuration

TWO_SIDED = Parameter("a", nominal=0.0, limits=(-1.0, 1.0))
ONE_SIDED = Parameter("b", nominal=1.0, limits=(1.0, 3.0))


def test_moves_are_the_episodes_at_a_boundary_by_the_size_of_its_buffer() -> None:
    adr = ADR([TWO_SIDED, ONE_SIDED], boundary_probability=0.5, buffer_size=20)
    # 120,000 steps / 50 = 2400 episodes, half of them at one of 3 boundaries: 400 each, 20 decisions
    assert expected_moves(adr, 120_000, 50) == pytest.approx(20.0)
    assert budget_warning(adr, 120_000, 50) is None


def test_the_published_buffer_is_too_large_for_a_short_run() -> None:
    ten = [Parameter(f"p{i}", nominal=0.0, limits=(-1.0, 1.0)) for i in range(10)]
    adr = ADR(ten, boundary_probability=0.5, buffer_size=240)
    # FACTS: 20,000 episodes of ten parameters move each boundary twice
    assert expected_moves(adr, 20_000 * 50, 50) == pytest.approx(20_000 * 0.5 / 20 / 240)
    warning = budget_warning(adr, 20_000 * 50, 50)
    assert warning is not None
    assert "each of 20 boundaries can move about 2.1 times" in warning
    assert "buffer_size to 50" in warning  # 240 * 2.083 / 10
    assert "train.env_steps to 4,800,000" in warning
    assert "\n" not in warning
    suggested = ADR(ten, boundary_probability=0.5, buffer_size=50)
    assert budget_warning(suggested, 20_000 * 50, 50) is None


def test_a_run_that_no_buffer_can_save_is_told_to_randomize_less() -> None:
    warning = budget_warning(ADR([TWO_SIDED], buffer_size=20), 1_000, 50)  # 20 episodes: 5 at each boundary
    assert warning is not None
    assert "randomize fewer parameters" in warning


def test_samplers_that_have_no_boundaries_are_not_warned_about() -> None:
    assert budget_warning(Manual([TWO_SIDED]), 10, 50) is None
    assert budget_warning(ADR([Parameter("c", 2.0, (2.0, 2.0))]), 10, 50) is None
    never = budget_warning(ADR([TWO_SIDED], boundary_probability=0.0), 10_000, 50)
    assert never is not None
    assert "boundary_probability" in never


@pytest.mark.parametrize("kind", LEARNERS)
def test_a_run_is_told_if_it_ends_before_its_first_update(kind: str, tmp_path: Path) -> None:
    config = configuration(kind, "manual")
    first = config.learner.first_update(config.num_envs)
    trainer = Trainer(config, tmp_path)
    while not trainer.statistics.learner:
        advance(trainer, 1)
    assert trainer.env_steps == first
    for steps, learns in ((first, True), (first - 2, True), (first - 3, False)):  # three environments
        assert (untrained_warning(configuration(kind, "manual", steps)) is None) is learns
    assert "untrained" in str(untrained_warning(configuration(kind, "manual", 1)))
