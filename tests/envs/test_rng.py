"""Random numbers that belong to an episode, a step and a tag, and to nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from conftest import only
from envs.common.rng import EpisodeRandom, mix

N = 20_000
TOLERANCE = 4.5 / math.sqrt(N)  # standard deviations of a mean of N numbers of variance 1


def begun(seed: int = 0, num_envs: int = N) -> EpisodeRandom:
    """Every environment in its first episode."""
    rng = EpisodeRandom(seed, num_envs)
    rng.next_episode(torch.ones(num_envs, dtype=torch.bool))
    return rng


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack((a.flatten(), b.flatten())))[0, 1])


@pytest.mark.parametrize("draw", [EpisodeRandom.uniform, EpisodeRandom.episode_uniform])
def test_uniform_numbers_fill_the_interval_evenly(draw: Callable[[EpisodeRandom, str, int], Tensor]) -> None:
    u = draw(begun(), "tag", 3)
    assert u.shape == (N, 3)
    assert u.dtype == torch.float64
    assert float(u.min()) > 0.0
    assert float(u.max()) < 1.0
    for column in u.T:
        assert abs(float(column.mean()) - 0.5) < TOLERANCE / math.sqrt(12)
        # variance 1/12; the variance of (u - 1/2)^2 is 1/80 - 1/144 = 1/180
        assert abs(float((column - 0.5).square().mean()) - 1 / 12) < TOLERANCE / math.sqrt(180)
        counts = torch.histc(column, 20, 0.0, 1.0)
        # chi-squared with 19 degrees of freedom exceeds 53 with odds below 1e-4
        assert float(((counts - N / 20).square() / (N / 20)).sum()) < 53.0


@pytest.mark.parametrize("draw", [EpisodeRandom.normal, EpisodeRandom.episode_normal])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_normal_numbers_have_the_moments_of_a_normal_distribution(
    draw: Callable[[EpisodeRandom, str, int], Tensor], size: int
) -> None:
    z = draw(begun(), "tag", size)
    assert z.shape == (N, size)
    for column in z.T:
        # moments 0, 1, 0, 3, whose estimates have variances 1, 2, 15, 96
        for power, moment, variance in ((1, 0.0, 1), (2, 1.0, 2), (3, 0.0, 15), (4, 3.0, 96)):
            assert abs(float(column.pow(power).mean()) - moment) < TOLERANCE * math.sqrt(variance)
    if size > 1:  # Box-Muller makes the columns in pairs
        upper = torch.corrcoef(z.T).triu(1)
        assert float(upper.abs().max()) < TOLERANCE


def test_tags_steps_episodes_and_seeds_have_independent_numbers() -> None:
    rng = begun()
    everyone = torch.ones(N, dtype=torch.bool)
    first = rng.uniform("a", 1)
    others = {"tag": rng.uniform("b", 1), "per episode": rng.episode_uniform("a", 1)}
    rng.set_step(torch.ones(N, dtype=torch.int64))
    others["step"] = rng.uniform("a", 1)
    rng.next_episode(everyone)
    others["episode"] = rng.uniform("a", 1)
    others["seed"] = begun(seed=1).uniform("a", 1)
    # environment i + 1 of the first round is the next episode of environment i
    others["neighbour"] = first.roll(1, dims=0)
    for name, numbers in others.items():
        assert abs(correlation(first, numbers)) < TOLERANCE, name
        assert not (first == numbers).any(), name


def test_steps_of_one_episode_are_independent() -> None:
    rng = begun(num_envs=1)
    series = []
    for step in range(N):
        if step % 10:
            continue
        rng.set_step(torch.tensor([step]))
        series.append(rng.normal("noise", 1))
    z = torch.cat(series).flatten()
    for lag in (1, 2, 7):
        assert abs(correlation(z[lag:], z[:-lag])) < 4.5 / math.sqrt(len(z))


def test_a_draw_depends_on_seed_episode_step_and_tag_only() -> None:
    rng, again = begun(seed=7, num_envs=3), begun(seed=7, num_envs=3)
    a = rng.uniform("a", 4)
    again.normal("something else", 5)
    again.uniform("b", 2)
    assert torch.equal(again.uniform("a", 4), a)
    assert torch.equal(rng.uniform("a", 4), a)  # the same step gives the same numbers again
    kept = rng.episode_uniform("a", 4)
    rng.set_step(torch.tensor([5, 5, 5]))
    assert torch.equal(rng.episode_uniform("a", 4), kept)
    assert not torch.equal(rng.uniform("a", 4), a)


def test_environment_i_of_n_plays_episodes_i_and_every_nth_after_it() -> None:
    rng = begun(seed=2, num_envs=3)
    assert rng.episode.tolist() == [0, 1, 2]
    rng.next_episode(only(3, 1))
    assert rng.episode.tolist() == [0, 4, 2]
    alone = EpisodeRandom(2, 1)
    for _ in range(5):
        alone.next_episode(torch.tensor([True]))
    assert alone.episode.tolist() == [4]
    assert torch.equal(alone.episode_uniform("a", 2)[0], rng.episode_uniform("a", 2)[1])


def test_a_masked_episode_change_leaves_other_streams_alone() -> None:
    rng = begun(num_envs=3)
    before = rng.episode_normal("a", 2)
    rng.next_episode(only(3, 2))
    after = rng.episode_normal("a", 2)
    assert torch.equal(after[:2], before[:2])
    assert (after[2] != before[2]).all()


def test_restored_random_numbers_continue_where_they_were_saved() -> None:
    rng = begun(seed=3, num_envs=4)
    rng.set_step(torch.tensor([1, 2, 3, 4]))
    saved = rng.state_dict()
    expected = rng.normal("a", 3)
    rng.next_episode(torch.ones(4, dtype=torch.bool))
    later = rng.uniform("a", 3)
    other = EpisodeRandom(99, 4)
    other.load_state_dict(saved)
    assert torch.equal(other.normal("a", 3), expected)
    other.next_episode(torch.ones(4, dtype=torch.bool))
    assert torch.equal(other.uniform("a", 3), later)


def test_any_integer_is_a_seed() -> None:
    draws = [begun(seed, 1).uniform("a", 1).item() for seed in (0, 1, -1, 2**63 - 1, 2**64 + 5, 10**30)]
    assert len(set(draws)) == len(draws)


def test_the_mixing_function_is_splitmix64s_finalizer() -> None:
    # SplitMix64 seeded with 1234567 first puts out 6457827717110365317 and 3203168211198807973: the known test
    # vectors of its reference code, mix(seed + k * golden)
    golden = 0x9E3779B97F4A7C15
    state = [(1234567 + k * golden) % 2**64 for k in (1, 2)]
    signed = torch.tensor([s - 2**64 if s >= 2**63 else s for s in state])
    assert [int(value) % 2**64 for value in mix(signed)] == [6457827717110365317, 3203168211198807973]


def test_episodes_that_go_on_keep_their_numbers_when_others_begin() -> None:
    rng, coin = begun(seed=5, num_envs=6), torch.Generator().manual_seed(0)
    for _ in range(20):
        fresh = EpisodeRandom(0, 6)
        fresh.load_state_dict(rng.state_dict())
        assert torch.equal(rng.episode_uniform("a", 3), fresh.episode_uniform("a", 3))
        assert torch.equal(rng.episode_normal("a", 3), fresh.episode_normal("a", 3))
        rng.episode_uniform("a", 3).zero_()  # what a caller does with them is the caller's business
        rows = torch.tensor([4, 1])
        assert torch.equal(rng.episode_normal("a", 3, rows), fresh.episode_normal("a", 3)[rows])
        rng.next_episode(torch.rand(6, generator=coin) < 0.3)


def test_numbers_of_an_episode_do_not_depend_on_what_else_was_asked_for() -> None:
    asked = [("uniform", "a", 3), ("normal", "b", 5), ("uniform", "c", 1), ("normal", "a", 4), ("normal", "d", 1)]
    together, coin = begun(seed=9, num_envs=7), torch.Generator().manual_seed(1)
    for _ in range(6):
        for kind, tag, size in asked:
            alone = EpisodeRandom(0, 7)
            alone.load_state_dict(together.state_dict())
            drawn, expected = (getattr(r, f"episode_{kind}")(tag, size) for r in (together, alone))
            assert drawn.shape == (7, size)
            assert torch.equal(drawn, expected), (kind, tag)
        together.next_episode(torch.rand(7, generator=coin) < 0.5)


def test_normal_numbers_of_a_mixed_draw_are_normal_as_far_as_the_tails() -> None:
    z = begun().mixed("step", 2, 201)[1]
    assert z.shape == (N, 201)
    assert z.dtype == torch.float64
    flat = z.flatten()
    for power, moment, variance in ((1, 0.0, 1), (2, 1.0, 2), (3, 0.0, 15), (4, 3.0, 96)):
        assert abs(float(flat.pow(power).mean()) - moment) < 4.5 * math.sqrt(variance / len(flat))
    for level in (0.5, 1.0, 2.0, 3.0, 4.0):
        beyond = 1.0 - math.erf(level / math.sqrt(2.0))
        assert abs(float((flat.abs() > level).double().mean()) - beyond) < 4.5 * math.sqrt(beyond / len(flat))
    columns = torch.corrcoef(z[:, :40].T).triu(1)
    assert float(columns.abs().max()) < TOLERANCE
    squares = torch.corrcoef(z.square()[:, ::5].T).triu(1)
    assert float(squares.abs().max()) < 2.0 * TOLERANCE  # squares have heavier tails


def test_numbers_drawn_ahead_are_those_of_the_step_whoever_begins_an_episode() -> None:
    # `mixed` keeps blocks of steps; another generator, asked for one step at a time, keeps none that fits
    rng, coin = begun(seed=5, num_envs=6), torch.Generator().manual_seed(0)
    steps = torch.zeros(6, dtype=torch.int64)
    for _ in range(60):
        rng.set_step(steps)
        uniform, normal = (numbers.clone() for numbers in rng.mixed("step", 3, 5))
        fresh = EpisodeRandom(5, 6)
        fresh.load_state_dict(rng.state_dict())
        for drawn, expected in zip((uniform, normal), fresh.mixed("step", 3, 5), strict=True):
            assert torch.equal(drawn, expected)
        assert torch.equal(uniform, rng.uniform("step", 9)[:, :3])
        begins = torch.rand(6, generator=coin) < 0.15
        steps = torch.where(begins, 0, steps + 1)
        rng.next_episode(begins)
        if float(torch.rand((), generator=coin)) < 0.1:
            steps = steps + torch.arange(6)  # as `Environment.stagger` does
