"""A run that died anywhere, any number of times, ends as one that did not."""

from __future__ import annotations

import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from envs.common.checkpoint_files import read_tensors, write_tensors
from simreal.evaluation.evaluate import evaluate_named
from simreal.training.run_directory import load_policy
from tiny import LEARNERS, SAMPLERS, Died, configuration, differences, table, train

STEPS, ENVS = 390, 3
_folder = tempfile.TemporaryDirectory(prefix="undisturbed")


@cache
def undisturbed(learner: str, sampler: str) -> Path:
    """The run as it goes when nothing happens."""
    run = Path(_folder.name) / f"{learner}-{sampler}"
    train(configuration(learner, sampler, STEPS), run)
    return run


def figures(run: Path) -> dict[str, Any]:
    """What an evaluation of a run says, apart from its name."""
    return evaluate_named(load_policy(run), ("nominal", "trained", "extremes"), 3, None, 7) | {"policy": ""}


def check(learner: str, sampler: str, deaths: list[tuple[int, int]]) -> None:
    """Save and die again and again: (steps to a checkpoint, steps after it that are lost) each time."""
    config, whole = configuration(learner, sampler, STEPS), undisturbed(learner, sampler)
    with tempfile.TemporaryDirectory() as folder:
        run, at = Path(folder) / whole.name, 0
        for kept, lost in deaths:
            at += ENVS * kept
            if at + ENVS * lost >= STEPS:
                break
            with pytest.raises(Died):
                train(config, run, {at}, at + ENVS * lost)
        train(config, run)
        assert differences(whole, run) == []
        assert len(table(run / "metrics.csv")) == STEPS // 30
        assert figures(run) == figures(whole)


DEATHS = st.lists(st.tuples(st.integers(1, 100), st.integers(0, 40)), min_size=1, max_size=3)
KINDS = [(learner, sampler) for learner in LEARNERS for sampler in SAMPLERS]
QUIETLY: dict[str, Any] = {
    "deadline": None, "database": None, "derandomize": True, "suppress_health_check": list(HealthCheck),
}  # fmt: skip


@settings(max_examples=1, **QUIETLY)
@given(kind=st.sampled_from(KINDS), deaths=DEATHS)
def test_a_run_that_died_anywhere_ends_as_one_that_did_not(
    kind: tuple[str, str], deaths: list[tuple[int, int]]
) -> None:
    check(*kind, deaths)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=["-".join(kind) for kind in KINDS])
def test_every_learner_under_every_sampler_survives_any_death(kind: tuple[str, str]) -> None:
    @settings(max_examples=10, **QUIETLY)
    @given(deaths=DEATHS)
    def survives(deaths: list[tuple[int, int]]) -> None:
        check(*kind, deaths)

    survives()


def test_a_run_that_died_before_its_first_checkpoint_starts_anew(tmp_path: Path) -> None:
    config = configuration("ppo", "adr", STEPS)
    with pytest.raises(Died):
        train(config, tmp_path / "run", dies=150)
    train(config, tmp_path / "run")
    assert differences(undisturbed("ppo", "adr"), tmp_path / "run") == []


@pytest.mark.parametrize("name", ["metrics.csv", "adr.csv"])
def test_a_row_that_a_crash_cut_off_is_written_again(name: str, tmp_path: Path) -> None:
    whole, config = undisturbed("ppo", "adr"), configuration("ppo", "adr", STEPS)
    with pytest.raises(Died):
        train(config, tmp_path / "run", {240}, 330)
    path = tmp_path / "run" / name
    path.write_bytes(path.read_bytes()[:-9])
    train(config, tmp_path / "run")
    assert (tmp_path / "run" / "adr.csv").read_bytes() == (whole / "adr.csv").read_bytes()
    assert table(path) == table(whole / name)


def test_a_comparison_of_runs_sees_a_single_bit(tmp_path: Path) -> None:
    import torch

    whole = undisturbed("ppo", "adr")
    other = Path(shutil.copytree(whole, tmp_path / "other"))
    newest = sorted((other / "checkpoints").glob("*.safetensors"))[-1]
    content = read_tensors(newest)
    weight = content["learner"]["policy"]["actor.trunk.head.0.weight"]
    weight.view(-1)[0] = torch.nextafter(weight.view(-1)[0], torch.tensor(9.0))
    with newest.open("wb") as file:
        write_tensors(file, content)
    assert differences(whole, other) == ["/learner/policy/actor.trunk.head.0.weight"]
