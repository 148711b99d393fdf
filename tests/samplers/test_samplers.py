"""What chooses worlds besides ADR: fixed ranges, DORAEMON, and ranges of an earlier run."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from conftest import SLIDER, TinyTask, build, snapshot
from envs.common.checkpoint_files import write_tensors
from envs.environment import Environment
from envs.manipulation.fetch import FetchTask
from randomization.config import randomization_config
from randomization.parameters import Parameter, RandomizationError, build_parameters
from randomization.randomizer import DomainRandomizer
from randomization.samplers.adr import ADR
from randomization.samplers.base import Manual
from randomization.samplers.doraemon import Doraemon, beta_entropy, beta_kl
from randomization.samplers.frozen import Frozen, frozen_parameters
from simreal.export.bundle import describe_randomization
from simreal.training.run_config import parse_config


def uniform(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.rand(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_normal_ranges_have_their_mean_in_the_middle_and_end_at_two_standard_deviations() -> None:
    manual = Manual([Parameter("a", 0.0, (-1.0, 3.0), distribution="normal")])
    # middle 1, standard deviation 4 / 4 = 1; the median, and the quantiles of a normal cut at +-2: Phi(2) = 0.97725
    lam, _ = manual.draw(torch.tensor([[0.0], [0.5], [1.0], [0.5 + 0.341345 / 0.954500]]), torch.zeros(4, 2))
    torch.testing.assert_close(lam[:, 0], torch.tensor([-1.0, 1.0, 3.0, 2.0]).double(), atol=1e-4, rtol=0)
    lam, _ = manual.draw(uniform(20_000, 1), torch.zeros(20_000, 2))
    assert float(lam.mean()) == pytest.approx(1.0, abs=0.03)
    assert float(lam.std()) == pytest.approx(0.8796, abs=0.02)  # sqrt(1 - 4 phi(2) / 0.9545)
    assert bool(((lam >= -1) & (lam <= 3)).all())


def test_lognormal_ranges_are_normal_in_the_logarithm() -> None:
    manual = Manual([Parameter("a", 1.0, (0.25, 4.0), distribution="lognormal")])
    straight = Manual([Parameter("a", 0.0, (math.log(0.25), math.log(4.0)), distribution="normal")])
    u = uniform(100, 1)
    torch.testing.assert_close(manual.draw(u, u)[0].log(), straight.draw(u, u)[0])


def test_parameters_of_a_group_rise_and_fall_together() -> None:
    names = [("a", "g"), ("b", ""), ("c", "g"), ("d", "h"), ("e", "h")]
    manual = Manual([Parameter(n, 0.0, (0.0, 1.0), group=g) for n, g in names])
    lam, _ = manual.draw(uniform(500, 5), torch.zeros(500, 2))
    assert torch.equal(lam[:, 0], lam[:, 2])
    assert torch.equal(lam[:, 3], lam[:, 4])
    apart = torch.corrcoef(lam[:, [0, 1, 3]].T) - torch.eye(3)
    assert float(apart.abs().max()) < 0.2


@pytest.mark.parametrize("sampler", ["adr", "doraemon"])
@pytest.mark.parametrize(("key", "value"), [("group", "g"), ("distribution", "normal")])
def test_what_belongs_to_fixed_ranges_is_refused_elsewhere(sampler: str, key: str, value: str) -> None:
    block = {"sampler": sampler, "parameters": {"body_mass": {"of": "object0", key: value}}}
    with pytest.raises(RandomizationError, match=f"body_mass.{key}: is of fixed ranges"):
        randomization_config(block).sampler_for(FetchTask("FetchPush"))


A = Parameter("a", nominal=0.0, limits=(-1.0, 1.0))
B = Parameter("b", nominal=1.0, limits=(1.0, 3.0))
POINT = Parameter("c", nominal=2.0, limits=(2.0, 2.0))


def copes(lam: Tensor) -> Tensor:
    """A policy that succeeds for a within +-0.5 and b below 2, whatever c."""
    return ((lam[:, 0].abs() < 0.5) & (lam[:, 1] < 2.0)).double()


def play(sampler: Doraemon, round_: int, episodes: int) -> float:
    """Play a round of episodes with that policy; returns the share of successes."""
    u = uniform(episodes, len(sampler.parameters), seed=round_)
    lam, boundary = sampler.draw(u, u)
    performance = copes(lam)
    sampler.record(boundary, performance, lam)
    return float(performance.mean())


def kl_between(sampler: Doraemon, old: tuple[Tensor, Tensor]) -> float:
    moving = torch.tensor([p.limits[0] < p.limits[1] for p in sampler.parameters])
    return float((beta_kl(sampler.a, sampler.b, *old) * moving).sum())


def test_entropy_and_divergence_of_beta_distributions_are_those_of_torch() -> None:
    a, b, c, d = (1.0 + 30.0 * uniform(50, 4)).unbind(1)
    beta = torch.distributions.Beta
    torch.testing.assert_close(beta_entropy(a, b), beta(a, b).entropy())
    torch.testing.assert_close(beta_kl(a, b, c, d), torch.distributions.kl_divergence(beta(a, b), beta(c, d)))
    assert float(beta_entropy(torch.ones(1).double(), torch.ones(1).double())) == pytest.approx(0.0, abs=1e-12)


def test_doraemon_starts_around_the_calibrated_world() -> None:
    sampler = Doraemon([A, B, POINT], concentration=100.0)
    lam, boundary = sampler.draw(uniform(20_000, 3), torch.zeros(20_000, 2))
    assert set(boundary.tolist()) == {-1}
    # a: Beta(51, 51), standard deviation 0.5 / sqrt(103) of a range of 2; b: Beta(1, 101), mean 1/102 of a range of 2
    assert float(lam[:, 0].mean()) == pytest.approx(0.0, abs=0.003)
    assert float(lam[:, 0].std()) == pytest.approx(2 * 0.5 / math.sqrt(103), rel=0.02)
    assert float(lam[:, 1].mean()) == pytest.approx(1 + 2 / 102, rel=0.002)
    assert bool((lam[:, 2] == 2.0).all())
    inside = ((lam >= sampler.lower) & (lam <= sampler.upper)).double().mean(0)
    torch.testing.assert_close(inside, torch.tensor([0.95, 0.95, 1.0]).double(), atol=0.01, rtol=0)
    expected = float(beta_entropy(sampler.a, sampler.b)[:2].sum()) + 2 * math.log(2.0) + math.log(1e-6)
    assert sampler.entropy() == pytest.approx(expected / 3)


def test_doraemon_widens_as_long_as_the_policy_succeeds_and_every_step_stays_in_the_trust_region() -> None:
    sampler = Doraemon([A, B, POINT], success_rate=0.7, kl=0.05, buffer_size=400)
    rates, entropies = [], [sampler.entropy()]
    for round_ in range(60):
        old = (sampler.a.clone(), sampler.b.clone())
        rates.append(play(sampler, round_, 400))
        entropies.append(sampler.entropy())
        assert kl_between(sampler, old) <= 0.05 + 1e-9
        assert float(torch.stack((sampler.a, sampler.b)).min()) >= 1.0
    assert sampler.updates == 60
    assert entropies[:11] == sorted(entropies[:11])
    late, spread = torch.tensor(rates[30:]), torch.tensor(entropies[30:])
    assert float(late.mean()) == pytest.approx(0.7, abs=0.02)  # neither bolder nor more timid than asked for
    assert float(late.min()) > 0.6
    # The best pair of independent Betas with that success rate, by a grid over all of them, is no wider.
    assert float(spread.mean()) == pytest.approx(_best_entropy(0.7), abs=0.03)


def _best_entropy(rate: float) -> float:
    """The largest entropy per dimension of Beta(x, x) on a times Beta(y, z) on b with P(copes) >= rate."""
    t = torch.linspace(0, 1, 4001, dtype=torch.float64)[1:-1]

    def mass(a: Tensor, b: Tensor, low: float, high: float) -> Tensor:
        density = torch.distributions.Beta(a[:, None], b[:, None]).log_prob(t).exp()
        return (density * ((t > low) & (t < high))).sum(1) / density.sum(1)

    x = torch.linspace(1, 10, 91, dtype=torch.float64)
    y, z = (v.flatten() for v in torch.meshgrid(torch.linspace(1, 2, 11).double(), x, indexing="ij"))
    good_a, good_b = mass(x, x, 0.25, 0.75), mass(y, z, 0.0, 0.5)
    entropy = beta_entropy(x, x)[:, None] + beta_entropy(y, z)[None]
    best = torch.where(good_a[:, None] * good_b[None] >= rate, entropy, -torch.inf).max()
    return (float(best) + 2 * math.log(2.0) + math.log(1e-6)) / 3


def test_doraemon_reaches_uniform_ranges_where_a_policy_copes_with_everything() -> None:
    sampler = Doraemon([A, B], success_rate=0.9, kl=0.1, buffer_size=100)
    for round_ in range(80):
        lam, boundary = sampler.draw(uniform(100, 2, round_), torch.zeros(100, 2))
        sampler.record(boundary, torch.ones(100), lam)
    assert sampler.entropy() == pytest.approx(math.log(2.0), abs=0.01)
    torch.testing.assert_close(sampler.a, torch.ones(2).double(), atol=0.1, rtol=0)


def test_doraemon_backs_up_until_the_policy_copes_again() -> None:
    sampler = Doraemon([A, B], success_rate=0.6, kl=0.03, buffer_size=300, concentration=0.0)  # uniform: success 0.25
    rates, entropies = [], []
    for round_ in range(25):
        entropies.append(sampler.entropy())
        rates.append(play(sampler, round_, 300))
    assert rates[0] < 0.35
    assert 3 <= sampler.backups < 20
    assert min(entropies[3:8]) < entropies[0]
    assert sum(rates[-5:]) / 5 == pytest.approx(0.6, abs=0.05)


def test_doraemon_without_any_success_stays_within_the_trust_region() -> None:
    sampler = Doraemon([A, B], buffer_size=10)
    old = (sampler.a.clone(), sampler.b.clone())
    lam, boundary = sampler.draw(uniform(10, 2), torch.zeros(10, 2))
    sampler.record(boundary, torch.zeros(10), lam)
    assert sampler.updates == 1
    assert kl_between(sampler, old) <= sampler.kl + 1e-9
    assert bool(torch.isfinite(sampler.a).all())


def test_episodes_that_began_before_an_update_are_weighted_by_what_they_were_drawn_from() -> None:
    sampler = Doraemon([A], buffer_size=400, kl=0.05, success_rate=0.01, concentration=20.0)
    lam, boundary = sampler.draw(uniform(400, 1), torch.zeros(400, 2))
    late, code = sampler.draw(uniform(300, 1, 1), torch.zeros(300, 2))  # still under way when the update happens
    sampler.record(boundary, torch.ones(400), lam)
    assert sampler.updates == 1
    sampler.record(code, (late[:, 0] > 0).double(), late)
    # Symmetric distributions have half of their mass above 0. The sample of 300 comes from the narrower one.
    assert float(sampler.success_of(sampler.a[None], sampler.b[None])) == pytest.approx(0.5, abs=0.1)
    assert set(sampler.draw(late, late)[1].tolist()) == {-2}
    assert set(sampler.draw(late, late, explore=False)[1].tolist()) == {-1}


def test_a_restored_doraemon_continues_as_if_nothing_had_happened() -> None:
    one = Doraemon([A, B], buffer_size=100)
    for round_ in range(3):
        play(one, round_, 70)
    saved = snapshot(one)
    two = Doraemon([A, B], buffer_size=100)
    two.load_state_dict(saved)
    for sampler in (one, two):
        for round_ in range(3, 6):
            play(sampler, round_, 70)
    assert one.updates == two.updates > saved["updates"]
    assert torch.equal(one.a, two.a)
    assert torch.equal(one.lower, two.lower)
    with pytest.raises(RandomizationError, match=r"\['a', 'b'\], expected \['a'\]"):
        Doraemon([A]).load_state_dict(saved)


def test_an_environment_under_doraemon_resumes_from_a_file_bit_for_bit(tmp_path: Path) -> None:
    entries = {
        "body_mass": {"of": "box"},
        "body_com": {"of": "bystander", "range": [0, 0.02]},
        "geom_size": {"of": "box"},
    }
    block = {"sampler": "doraemon", "doraemon": {"buffer_size": 12}, "parameters": entries}

    def begun() -> Environment:
        task = TinyTask(SLIDER, max_episode_steps=3)
        return build(task, 4, DomainRandomizer(randomization_config(block).sampler_for(task)), seed=5)

    def go_on(env: Environment) -> Tensor:
        return torch.stack([env.step(torch.ones(4, 2)).observed.policy for _ in range(40)])

    one = begun()
    go_on(one)
    torch.save(one.state_dict(), tmp_path / "state.pt")
    two = begun()
    two.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(go_on(one), go_on(two))
    layer = one.layer
    assert isinstance(layer, DomainRandomizer)
    assert isinstance(layer.sampler, Doraemon)
    assert layer.sampler.updates > 3


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"sampler": "doraemon", "doraemon": {"success_rate": 0}}, "randomization.doraemon.success_rate: "),
        ({"sampler": "doraemon", "doraemon": {"kl": -1}}, "randomization.doraemon.kl: "),
        ({"doraemon": {"epsilon": 1}}, "randomization.doraemon.epsilon: unknown key"),
        ({"sampler": "frozen"}, "randomization.sampler: 'frozen' needs 'from: RUN_OR_BUNDLE'"),
        ({"sampler": "frozen", "from": "x", "parameters": {"body_mass": {}}}, "'frozen' takes them from the run"),
    ],
)
def test_wrong_settings_are_named(block: dict[str, Any], message: str) -> None:
    with pytest.raises(RandomizationError, match=re.escape(message)):
        randomization_config(block)


PARAMETERS = {
    "mass": {"quantity": "body_mass", "of": "object0", "range": [0.5, 2.0], "step": 0.25},
    "lag": {"quantity": "action_delay", "range": [0, 40], "step": 10},
}


def moved_adr() -> ADR:
    """An ADR whose ranges have moved: mass up to 1.25, delay up to 10 ms."""
    adr = ADR(build_parameters(FetchTask("FetchPush"), PARAMETERS), buffer_size=1, thresholds=(0.5, 0.9))
    adr.record(torch.tensor([1, 3]), torch.tensor([1.0, 1.0]))
    return adr


def write_run(run: Path, adr: ADR) -> None:
    """As much of a run directory as says what its ranges were."""
    (run / "checkpoints").mkdir(parents=True)
    block = {"sampler": "adr", "parameters": PARAMETERS}
    (run / "config.yaml").write_text(yaml.safe_dump({"task": "FetchPush-v4", "randomization": block}, sort_keys=False))
    for step, state in ((1, ADR(adr.parameters).state_dict()), (2, adr.state_dict())):
        content = {"environment": {"layer": {"sampler": state}}}
        with (run / "checkpoints" / f"step_{step:012d}.safetensors").open("wb") as file:
            write_tensors(file, content)


def write_bundle(bundle: Path, adr: ADR) -> None:
    bundle.mkdir()
    (bundle / "policy.json").write_text(json.dumps({"randomization": describe_randomization(adr)}))


@pytest.mark.parametrize("write", [write_run, write_bundle])
def test_frozen_ranges_are_those_that_the_source_had_reached(write: Any, tmp_path: Path) -> None:
    adr, task = moved_adr(), FetchTask("FetchPush")
    write(tmp_path / "source", adr)
    frozen = randomization_config({"sampler": "frozen", "from": str(tmp_path / "source")}).sampler_for(task)
    assert isinstance(frozen, Frozen)
    assert [p.name for p in frozen.parameters] == ["mass", "lag"]
    assert [p.targets for p in frozen.parameters] == [("object0",), ()]
    torch.testing.assert_close(frozen.lower, adr.lower)
    torch.testing.assert_close(frozen.upper, adr.upper)
    assert frozen.upper.tolist() == [1.25, 10.0]
    frozen.record(torch.tensor([-1]), torch.tensor([1.0]))
    assert frozen.upper.tolist() == [1.25, 10.0]
    assert frozen.entropy() == pytest.approx(adr.entropy())
    assert [p.limits for p in frozen_parameters(adr)] == [p.limits for p in frozen.parameters]


def test_a_run_under_frozen_ranges_no_longer_needs_their_source(tmp_path: Path) -> None:
    write_run(tmp_path / "source", moved_adr())
    document = {
        "task": "FetchPush-v4",
        "learner": {"algorithm": "ddpg"},
        "randomization": {"sampler": "frozen", "from": str(tmp_path / "source")},
    }
    config = parse_config(document, "c.yaml")
    assert config.randomization.sampler == "manual"
    assert config.randomization.parameters["mass"]["range"] == [1.0, 1.25]
    again = parse_config(yaml.safe_load(config.to_yaml()), "c.yaml")
    assert again == config


def damage(run: Path, step: int) -> None:
    (run / "checkpoints" / f"step_{step:012d}.safetensors").write_bytes(b"x")


def test_the_checkpoint_before_a_damaged_one_is_used(tmp_path: Path) -> None:
    adr = moved_adr()
    write_run(tmp_path / "source", adr)
    damage(tmp_path / "source", 3)
    frozen = randomization_config({"sampler": "frozen", "from": str(tmp_path / "source")})
    assert [p.limits for p in frozen.sampler_for(FetchTask("FetchPush")).parameters] == [
        (float(low), float(high)) for low, high in zip(adr.lower, adr.upper, strict=True)
    ]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "expected the directory of a run"),
        (lambda p: p.mkdir(), "expected the directory of a run"),
        (lambda p: (p.mkdir(), (p / "policy.json").write_text("{}")), "states no randomization"),
        (lambda p: (write_run(p, moved_adr()), damage(p, 1), damage(p, 2)), "damaged"),
    ],
)  # fmt: skip
def test_a_source_that_cannot_be_used_is_named(make: Any, message: str, tmp_path: Path) -> None:
    make(tmp_path / "source")
    config = randomization_config({"sampler": "frozen", "from": str(tmp_path / "source")})
    with pytest.raises(RandomizationError, match=f"source.*{message}"):
        config.sampler_for(FetchTask("FetchPush"))
