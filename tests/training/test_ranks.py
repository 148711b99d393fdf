"""A run on many ranks is the run on one. Ranks are forks that gloo connects; benchmarks/ranks_equal.py has the rest."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from benchmarks.ranks_equal import compare, configuration, double, kills, on_ranks, train
from envs.common.ranks import ALONE, LostRankError, ProcessRanks, Ranks
from shortcuts import with_short_rehearsals
from simreal.cli.main import _report
from simreal.common.errors import ElsewhereError, UserError
from simreal.learners.normalizer import Normalizer
from simreal.training.launch import together
from simreal.training.run_config import RunConfig, parse_config
from simreal.training.shards import check_alike
from simreal.training.trainer import Trainer


def test_every_environment_is_played_by_one_rank() -> None:
    shares = [ProcessRanks(rank, 3).share(7) for rank in range(3)]
    assert [(share.start, share.count) for share in shares] == [(0, 3), (3, 2), (5, 2)]
    rows = torch.arange(7)
    assert torch.cat([share.mine(rows) for share in shares]).equal(rows)
    assert ALONE.share(7).mine(rows) is rows
    # Steps 0 to 3 of 7 environments, in any order: each is somebody's, where it stands among that rank's own.
    numbers = torch.randperm(28)
    places = [share.place(numbers) for share in shares]
    assert torch.stack([here for here, _ in places]).sum(0).eq(1).all()
    for share, (here, mine) in zip(shares, places, strict=True):
        own = share.mine(torch.arange(28).view(4, 7), dim=1).flatten()
        assert own[mine].equal(numbers[here])


def test_rows_and_statistics_are_those_of_all_ranks() -> None:
    values = torch.randn(10, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 5.0 + 100.0
    parts = values.split([0, 7, 3])

    def everything(ranks: Ranks) -> tuple[torch.Tensor, ...]:
        normalizer = Normalizer(3)
        for _ in range(2):
            normalizer.update(parts[ranks.rank], ranks)
        share = ranks.share(5)
        whole = share.gather(share.mine(values[:5]), share.mine(values.view(2, 5, 3), dim=1)[0] > 100.0)
        return (ranks.rows(parts[ranks.rank]), normalizer.mean, normalizer.var, *whole)

    alone = Normalizer(3)
    alone.update(torch.cat((values, values)))
    for rows, mean, var, whole, mask in on_ranks(3, everything):
        assert rows.equal(values)
        torch.testing.assert_close(mean, alone.mean, rtol=1e-14, atol=0.0)
        torch.testing.assert_close(var, alone.var, rtol=1e-12, atol=0.0)
        assert whole.equal(values[:5])
        assert mask.equal(values[:5] > 100.0)


@pytest.mark.parametrize(("learner", "updates"), [("ppo", 6), ("ddpg her", 10)])
def test_a_run_on_two_ranks_that_goes_on_with_three_is_the_run_on_one(
    learner: str, updates: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_short_rehearsals(monkeypatch)
    config = configuration(learner, "adr", updates)
    middle = config.train.env_steps // 2 // 4 * 4
    with double():
        train(config, tmp_path / "1")
        on_ranks(2, lambda ranks: train(config, tmp_path / "3", ranks, stop=middle))
        on_ranks(3, lambda ranks: train(config, tmp_path / "3", ranks))
    found = compare(tmp_path / "1", tmp_path / "3")
    assert found["unequal"] == []  # worlds, episodes, bounds, buffers and moves
    assert found["rest"] < 1e-9
    assert found["weights"] < 1e-10


def other(algorithm: str) -> RunConfig:
    document = {"task": "InvertedPendulum-v5", "num_envs": 2, "threads": 1, "learner": {"algorithm": algorithm}}
    return parse_config(document, "test")


@pytest.mark.parametrize(
    ("size", "algorithm", "said"),
    [(2, "dqn", "learner: dqn runs on one process only"), (3, "sac", "num_envs: expected at least 3, one for each")],
)
def test_what_ranks_cannot_do_is_refused(size: int, algorithm: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        Trainer(other(algorithm), tmp_path, ProcessRanks(0, size))


def test_what_differs_between_ranks_is_named_once() -> None:
    def look(ranks: Ranks) -> None:
        check_alike({"weights": [torch.zeros(2), torch.full((1,), float(ranks.rank == 1))], "lr": 0.1}, ranks)

    told = on_ranks(2, look)
    assert str(told[0]) == "rank 1 differs from rank 0 in weights.1; the run cannot go on"
    assert isinstance(told[1], ElsewhereError)


def test_an_error_of_the_user_is_told_by_one_rank(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(ranks: Ranks) -> None:
        def action() -> None:
            if ranks.rank > 0:
                raise UserError("no such file")

        together(ranks, action)

    told = on_ranks(3, fail)
    assert [type(error) for error in told] == [ElsewhereError, UserError, ElsewhereError]
    for error, line in ((told[0], ""), (told[1], "simreal: no such file\n")):
        with pytest.raises(SystemExit) as ended:
            _report(error)
        assert ended.value.code == 2
        assert capsys.readouterr().err == line


def test_a_rank_that_dies_ends_the_others() -> None:
    def die(ranks: Ranks) -> None:
        ranks.objects(None)
        if ranks.rank == 1:
            os._exit(0)
        ranks.sum_(torch.ones(1))

    with pytest.raises(FileNotFoundError):  # what rank 1 would have returned
        on_ranks(2, die)

    def leave(ranks: Ranks) -> None:
        ranks.objects(None)
        if ranks.rank == 0:
            ranks.sum_(torch.ones(1))

    lost, _ = on_ranks(2, leave)
    assert isinstance(lost, LostRankError)
    assert str(lost).startswith("rank 0 of 2: another rank is gone")


@pytest.mark.slow
def test_runs_whose_ranks_are_killed_end_as_one_that_nothing_happened_to() -> None:
    assert kills(4, "ppo", overlap=False)
