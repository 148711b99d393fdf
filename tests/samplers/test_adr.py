"""Automatic domain randomization: when bounds move, by how much, and which worlds are drawn."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import snapshot
from randomization.parameters import Parameter, RandomizationError
from randomization.samplers.adr import ADR

# a may go both ways, b only upwards from its nominal value, which is its lower limit
A = Parameter("a", nominal=0.0, limits=(-0.25, 0.05), step=0.1)
B = Parameter("b", nominal=1.0, limits=(1.0, 3.0), step=0.5)
LOWER_A, UPPER_A, LOWER_B, UPPER_B = 0, 1, 2, 3


def new_adr(**settings: Any) -> ADR:
    return ADR([A, B], **({"buffer_size": 3, "thresholds": (1.0, 2.0)} | settings))


def tell(adr: ADR, boundary: int, *performance: float) -> None:
    adr.record(torch.full((len(performance),), boundary), torch.tensor(performance))


def bounds(adr: ADR) -> list[float]:
    """[lower a, upper a, lower b, upper b], rounded."""
    return [round(float(v), 9) for pair in zip(adr.lower, adr.upper, strict=True) for v in pair]


def test_a_distribution_starts_at_the_calibrated_world() -> None:
    assert bounds(new_adr()) == [0.0, 0.0, 1.0, 1.0]


def test_bounds_follow_a_hand_worked_table() -> None:
    adr = new_adr()
    # boundary | performances (m = 3)  | mean | decision          | lower a, upper a, lower b, upper b
    table = [
        (LOWER_A, (2.0, 2.0), [0.0, 0.0, 1.0, 1.0]),  # two of three: nothing yet
        (LOWER_A, (2.0,), [-0.1, 0.0, 1.0, 1.0]),  # 2 = t_H: widens downwards
        (UPPER_A, (9.0, 9.0, 9.0), [-0.1, 0.05, 1.0, 1.0]),  # 0.1, but the limit is 0.05
        (UPPER_B, (3.0, 2.0, 1.0), [-0.1, 0.05, 1.0, 1.5]),  # mean 2 = t_H: widens upwards
        (LOWER_A, (1.5, 1.5, 1.5), [-0.1, 0.05, 1.0, 1.5]),  # between the thresholds: stays
        (LOWER_A, (4.0, 4.0, 4.0), [-0.2, 0.05, 1.0, 1.5]),  # (the 1.5s are gone from the buffer)
        (LOWER_A, (2.0, 2.0, 2.0), [-0.25, 0.05, 1.0, 1.5]),  # -0.3, but the limit is -0.25
        (UPPER_B, (1.0, 1.0, 1.0), [-0.25, 0.05, 1.0, 1.0]),  # 1 = t_L: narrows back to the nominal value
        (UPPER_B, (0.0, 0.0, 0.0), [-0.25, 0.05, 1.0, 1.0]),  # never past it
        (UPPER_A, (0.0, 0.0, 3.0), [-0.25, 0.0, 1.0, 1.0]),  # mean 1: 0.05 - 0.1 stops at nominal 0
        (LOWER_A, (0.5, 0.0, 0.9), [-0.15, 0.0, 1.0, 1.0]),  # narrowing the lower side goes upwards
        (LOWER_A, (0.5, 0.0, 0.9), [-0.05, 0.0, 1.0, 1.0]),
        (LOWER_A, (0.5, 0.0, 0.9), [0.0, 0.0, 1.0, 1.0]),
        (LOWER_B, (9.0, 9.0, 9.0), [0.0, 0.0, 1.0, 1.0]),  # a side that cannot move
    ]
    for row, (boundary, performance, expected) in enumerate(table):
        tell(adr, boundary, *performance)
        assert bounds(adr) == expected, f"row {row}"
        if len(performance) == 3:
            assert adr.judged[boundary] == pytest.approx(sum(performance) / 3)


@pytest.mark.parametrize("mean", [0.0, 1.5, 9.0])
def test_a_full_buffer_is_cleared_whichever_way_the_decision_goes(mean: float) -> None:
    adr = new_adr()
    tell(adr, UPPER_B, mean, mean, mean)
    decided = bounds(adr)
    # Two more are no full buffer, whatever came before. The third decides, on these three alone.
    tell(adr, UPPER_B, 2.0, 2.0)
    assert bounds(adr) == decided
    tell(adr, UPPER_B, 2.0)
    assert bounds(adr)[3] == decided[3] + 0.5


def test_every_boundary_has_a_buffer_of_its_own() -> None:
    adr = new_adr()
    boundary = torch.tensor([UPPER_B, LOWER_A, UPPER_B, LOWER_A, UPPER_B, -1, LOWER_A])
    performance = torch.tensor([2.0, 0.0, 2.0, 0.0, 2.0, 99.0, 0.0])
    adr.record(boundary, performance)
    assert bounds(adr) == [0.0, 0.0, 1.0, 1.5]


def test_a_buffer_that_overflows_within_a_call_decides_in_order_and_takes_the_rest() -> None:
    adr = new_adr()
    # 2 2 2 -> widen to 1.5;  2 2 2 -> widen to 2;  0 0 3 (mean 1) -> narrow to 1.5;  2 2 are kept
    tell(adr, UPPER_B, 2, 2, 2, 2, 2, 2, 0, 0, 3, 2, 2)
    assert bounds(adr)[3] == 1.5
    tell(adr, UPPER_B, 2)
    assert bounds(adr)[3] == 2.0
    # with two in the buffer there is room for one: 0 0 2 (mean 2/3) narrows, and 9 9 wait for a third
    tell(adr, UPPER_B, 0, 0)
    tell(adr, UPPER_B, 2, 9, 9)
    assert bounds(adr)[3] == 1.5
    tell(adr, UPPER_B, 0)
    assert bounds(adr)[3] == 2.0


def test_one_call_equals_many_small_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    boundary = torch.randint(-1, 4, (500,), generator=generator)
    performance = 3.0 * torch.rand(500, generator=generator, dtype=torch.float64)
    at_once, by_sevens, one_by_one = new_adr(), new_adr(), new_adr()
    at_once.record(boundary, performance)
    for b, p in zip(boundary.split(7), performance.split(7), strict=True):
        by_sevens.record(b, p)
    for b, p in zip(boundary, performance, strict=True):
        one_by_one.record(b[None], p[None])
    assert bounds(at_once) == bounds(by_sevens) == bounds(one_by_one)
    torch.testing.assert_close(at_once._sum, one_by_one._sum)
    assert torch.equal(at_once._count, one_by_one._count)


def test_ordinary_episodes_move_nothing_and_an_unknown_boundary_is_an_error() -> None:
    adr = new_adr(buffer_size=1)
    tell(adr, -1, 99.0, 99.0)
    adr.record(torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    assert bounds(adr) == [0.0, 0.0, 1.0, 1.0]
    with pytest.raises(ValueError, match="boundary 4: there are 4"):
        tell(adr, 4, 1.0)


def test_entropy_is_the_mean_logarithm_of_widths_with_a_floor() -> None:
    adr = new_adr()
    assert adr.entropy() == pytest.approx(math.log(1e-6))  # width 0 counts as 1e-6: -13.8155 nats
    adr.lower, adr.upper = torch.tensor([-0.5, 1.0]).double(), torch.tensor([0.5, 1.0 + math.e]).double()
    assert adr.entropy() == pytest.approx(0.5)  # (log 1 + log e) / 2
    adr.upper[1] = 1.0
    assert adr.entropy() == pytest.approx(0.5 * math.log(1e-6))


def wide(**settings: Any) -> ADR:
    adr = new_adr(**settings)
    adr.lower, adr.upper = (
        torch.tensor([-0.2, 1.0], dtype=torch.float64),
        torch.tensor([0.05, 2.5], dtype=torch.float64),
    )
    return adr


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_boundary_episodes_have_their_share_and_every_movable_side_has_the_same(share: float) -> None:
    n = 40_000
    _, boundary = wide(boundary_probability=share).sample(n)
    count = torch.bincount(boundary + 1, minlength=5) / n  # none, lower a, upper a, lower b, upper b
    expected = [1.0 - share, share / 3, share / 3, 0.0, share / 3]  # the lower side of b cannot move
    for got, p in zip(count.tolist(), expected, strict=True):
        assert abs(got - p) <= 4.5 * (p * (1 - p) / n) ** 0.5


def test_a_boundary_world_lies_exactly_on_its_bound_and_the_rest_of_it_within() -> None:
    adr = wide()
    n = 20_000
    lam, boundary = adr.sample(n)
    assert lam.dtype == torch.float64
    assert bool((lam >= adr.lower).all())
    assert bool((lam <= adr.upper).all())
    for b, (column, value) in {0: (0, -0.2), 1: (0, 0.05), 3: (1, 2.5)}.items():
        rows = lam[boundary == b]
        assert bool((rows[:, column] == value).all())
        other = rows[:, 1 - column]
        assert len(torch.unique(other)) > 0.99 * len(rows)  # the other parameter is free
    ordinary = lam[boundary == -1]
    middle, width = (adr.lower + adr.upper) / 2, adr.upper - adr.lower
    tolerance = 4.5 * width / math.sqrt(12 * len(ordinary))
    assert bool(((ordinary.mean(0) - middle).abs() < tolerance).all())
    assert bool((ordinary.std(0) / (width / math.sqrt(12)) - 1.0).abs().max() < 0.05)


def test_without_exploration_no_episode_is_at_a_boundary() -> None:
    u = torch.rand(100, 2, dtype=torch.float64)
    lam, boundary = wide(boundary_probability=1.0).draw(u, torch.rand(100, 2), explore=False)
    assert bool((boundary == -1).all())
    torch.testing.assert_close(lam, torch.stack((-0.2 + 0.25 * u[:, 0], 1.0 + 1.5 * u[:, 1]), dim=1))


def test_a_distribution_that_cannot_move_at_all_has_no_boundary_episodes() -> None:
    adr = ADR([Parameter("fixed", nominal=2.0, limits=(2.0, 2.0))])
    lam, boundary = adr.sample(10)
    assert lam.tolist() == [[2.0]] * 10
    assert boundary.tolist() == [-1] * 10


def test_samples_depend_on_the_seed_only() -> None:
    one, two, other = wide(seed=4).sample(50), wide(seed=4).sample(50), wide(seed=5).sample(50)
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])
    assert not torch.equal(one[0], other[0])


def test_a_restored_distribution_continues_as_if_nothing_had_happened() -> None:
    adr = new_adr()
    tell(adr, UPPER_B, 2, 2, 2, 2, 2)
    tell(adr, LOWER_A, 2)
    adr.sample(7)
    saved = snapshot(adr)
    other = new_adr(seed=9)
    other.load_state_dict(saved)
    for a in (adr, other):
        tell(a, UPPER_B, 2)
        tell(a, LOWER_A, 2, 2)
    assert bounds(adr) == bounds(other) == [-0.1, 0.0, 1.0, 2.0]
    assert torch.equal(adr.moves, other.moves)
    assert adr.moves.tolist() == [1, 0, 0, 2]
    assert torch.equal(adr.judged, other.judged)
    assert torch.equal(adr.sample(20)[0], other.sample(20)[0])
    with pytest.raises(RandomizationError, match=r"\['a', 'b'\], expected \['b', 'a'\]"):
        ADR([B, A]).load_state_dict(saved)


def test_parameters_may_be_records_mappings_or_a_mapping_by_name() -> None:
    by_name = ADR(
        {"a": {"limits": (-0.25, 0.05), "step": 0.1}, "b": {"nominal": 1.0, "limits": (1.0, 3.0), "step": 0.5}}
    )
    records = ADR([{"name": "a", "limits": (-0.25, 0.05), "step": 0.1}, B])
    for adr in (by_name, records):
        assert adr.parameters == [A, B]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"boundary_probability": 1.5}, "boundary_probability: expected 0 to 1, got 1.5"),
        ({"boundary_probability": -0.1}, "boundary_probability: expected 0 to 1"),
        ({"boundary_probability": float("nan")}, "boundary_probability: expected 0 to 1"),
        ({"buffer_size": 0}, "buffer_size: expected at least 1, got 0"),
        ({"thresholds": (2.0, 1.0)}, "thresholds: low 2 is above high 1"),
    ],
)
def test_a_wrong_argument_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RandomizationError, match=message):
        new_adr(**settings)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"limits": (1.0, -1.0)}, r"p: range \[1, -1\] has its lower end above its upper"),
        ({"limits": (0.5, 1.0)}, r"p: the nominal value 0 is outside \[0.5, 1\]"),
        ({"limits": (float("nan"), 1.0)}, "p: range"),
        ({"step": 0.0}, "p: step 0 must be positive"),
        ({"step": float("nan")}, "p: step nan must be positive"),
        ({"distribution": "loguniform"}, "p: a loguniform range must be positive"),
    ],
)
def test_a_parameter_that_makes_no_sense_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(RandomizationError, match=message):
        Parameter("p", **arguments)


def test_two_parameters_of_one_name_are_refused() -> None:
    with pytest.raises(RandomizationError, match="must differ"):
        ADR([A, A])


def synthetic_success(lam: Tensor) -> Tensor:
    """A policy that copes with a from -0.62 to 0.33 and with b up to 1.7."""
    good = (lam[:, 0] > -0.62) & (lam[:, 0] < 0.33) & (lam[:, 1] < 1.7)
    return good.double()


def test_bounds_settle_where_a_policy_stops_coping() -> None:
    a = Parameter("a", nominal=0.0, limits=(-2.0, 2.0), step=0.05)
    b = Parameter("b", nominal=1.0, limits=(1.0, 3.0), step=0.1)
    adr = ADR([a, b], boundary_probability=0.5, buffer_size=20, thresholds=(0.5, 0.9), seed=0)
    history = []
    for iteration in range(400):
        lam, boundary = adr.sample(64)
        adr.record(boundary, synthetic_success(lam))
        if iteration >= 200:
            history.append(bounds(adr))
    # Every bound stays within a few steps of where success ends, and still moves there: it narrows as well as widens.
    # (Worlds beyond the end on one side fail at every other boundary too, so bounds swing by more than one step.)
    low, high = torch.tensor(history).amin(0).tolist(), torch.tensor(history).amax(0).tolist()
    for side, end, step in ((0, -0.62, 0.05), (1, 0.33, 0.05), (3, 1.7, 0.1)):
        assert end - 3 * step < low[side] <= end <= high[side] + step < end + 4 * step
        assert low[side] < high[side]
    assert low[2] == high[2] == 1.0


def test_an_episode_whose_boundary_has_moved_since_it_began_does_not_count() -> None:
    adr = ADR([Parameter("a", limits=(-1.0, 1.0), step=0.1)], buffer_size=1, thresholds=(0.0, 1.0))
    worlds = torch.zeros(2, 1, dtype=torch.float64)  # two episodes at the upper bound 0
    adr.record(torch.tensor([1]), torch.tensor([2.0]), worlds[:1])
    assert adr.upper.item() == pytest.approx(0.1)
    adr.record(torch.tensor([1]), torch.tensor([2.0]), worlds[1:])  # played at 0, not at 0.1
    assert adr.upper.item() == pytest.approx(0.1)
    adr.record(torch.tensor([1]), torch.tensor([2.0]), adr.upper[None])
    assert adr.upper.item() == pytest.approx(0.2)


class PlainADR:
    """Algorithm 1 of arXiv 1910.07113 as it is printed: one episode at a time, lists and loops."""

    def __init__(self, parameters: list[Parameter], m: int, low: float, high: float) -> None:
        self.parameters, self.m, self.thresholds = parameters, m, (low, high)
        self.phi = [[p.nominal, p.nominal] for p in parameters]
        self.buffers: list[list[list[float]]] = [[[], []] for _ in parameters]

    def episode(self, i: int, side: int, performance: float) -> None:
        buffer = self.buffers[i][side]
        buffer.append(performance)
        if len(buffer) < self.m:
            return
        mean = sum(buffer) / len(buffer)
        buffer.clear()
        outwards = 1.0 if mean >= self.thresholds[1] else -1.0 if mean <= self.thresholds[0] else 0.0
        parameter, sign = self.parameters[i], (-1.0, 1.0)[side]
        moved = self.phi[i][side] + outwards * sign * parameter.step
        inner, outer = parameter.nominal, parameter.limits[side]
        self.phi[i][side] = min(max(moved, min(inner, outer)), max(inner, outer))

    def entropy(self) -> float:
        return sum(math.log(max(high - low, 1e-6)) for low, high in self.phi) / len(self.phi)


def test_ranges_and_entropy_follow_an_independent_simulation_to_known_thresholds() -> None:
    # A policy that copes up to 0.3, 0.4, ... 0.9 away from the calibrated world, beyond that in 3 of 10 episodes.
    edges = [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    parameters = [Parameter(f"p{i}", nominal=0.1 * i, limits=(0.1 * i - 2, 0.1 * i + 2), step=0.05) for i in range(7)]
    nominal = torch.tensor([p.nominal for p in parameters], dtype=torch.float64)
    ours = ADR(parameters, boundary_probability=1.0, buffer_size=40, thresholds=(0.5, 0.85), seed=3)
    plain = PlainADR(parameters, 40, 0.5, 0.85)
    generator = torch.Generator().manual_seed(8)
    widest, late = 0.0, []
    for iteration in range(1200):
        lam, boundary = ours.sample(50)
        # Only the parameter that is at its boundary is judged: the others are where they may be.
        column = boundary // 2
        away = (lam - nominal).abs().gather(1, column[:, None]).squeeze(1)
        sure = away <= torch.tensor(edges, dtype=torch.float64)[column] + 1e-9
        performance = torch.where(sure, 1.0, (torch.rand(50, generator=generator) < 0.3).double())
        for b, p in zip(boundary.tolist(), performance.tolist(), strict=True):
            plain.episode(b // 2, b % 2, p)
        ours.record(boundary, performance)
        assert [v for pair in plain.phi for v in pair] == pytest.approx(
            torch.stack((ours.lower, ours.upper), dim=1).flatten().tolist(), abs=1e-9
        )
        assert ours.entropy() == pytest.approx(plain.entropy(), abs=1e-7)
        widest = max(widest, ours.entropy())
        if iteration >= 800:
            late.append(torch.stack((ours.lower - nominal, ours.upper - nominal), dim=1))
    # Every bound moves between the last place that is safe and one step beyond, on both sides of every parameter.
    settled = torch.stack(late)
    for i, edge in enumerate(edges):
        assert settled[:, i, 1].min() == pytest.approx(edge, abs=1e-6)
        assert settled[:, i, 1].max() == pytest.approx(edge + 0.05, abs=1e-6)
        assert settled[:, i, 0].max() == pytest.approx(-edge, abs=1e-6)
        assert settled[:, i, 0].min() == pytest.approx(-edge - 0.05, abs=1e-6)
    exact = sum(math.log(2 * edge) for edge in edges) / 7  # of ranges that end where the policy stops coping
    assert exact - 1e-6 <= ours.entropy() <= sum(math.log(2 * edge + 0.1) for edge in edges) / 7
    assert widest <= sum(math.log(2 * edge + 0.1) for edge in edges) / 7 + 1e-6
