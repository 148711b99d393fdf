"""Ranges from a file (`randomization.from`) among those of a configuration, and parameters that vary together."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from envs.registry import make_task
from envs.task import Task
from randomization.config import RandomizationConfig, randomization_config
from randomization.parameters import RandomizationError
from randomization.samplers.adr import ADR
from randomization.samplers.base import Manual
from randomization.samplers.frozen import Frozen
from simreal.training.run_config import load_config

KNOWN = {
    "sampler": "manual",
    "parameters": {
        "pole": {"quantity": "body_mass", "of": "pole", "range": [1.1, 1.3], "nominal": 1.25},
        "cart": {"quantity": "body_mass", "of": "cart", "range": [0.7, 0.9], "nominal": 0.8},
        "action_delay": {"range": [10, 12], "nominal": 11},
    },
    "correlations": [["pole", "cart", -0.8]],
}
ASKED = {"pole": [0.3, 3], "action_delay": [0, 40]}


@pytest.fixture
def found(tmp_path: Path) -> str:
    path = tmp_path / "identified.yaml"
    path.write_text(yaml.safe_dump({"randomization": KNOWN, "asked": ASKED}, sort_keys=False))
    return str(path)


def task() -> Task:
    return make_task("InvertedPendulum-v5")


def resolved(source: str, **block: Any) -> RandomizationConfig:
    return randomization_config({"from": source, **block}).resolved(task())


def test_fixed_ranges_of_the_same_objects_are_replaced_and_others_stay(found: str) -> None:
    own = {
        "masses": {"quantity": "body_mass", "range": [0.5, 2.0]},
        "gravity": {"range": [9.0, 10.0]},
    }  # fmt: skip
    block = resolved(found, sampler="manual", parameters=own)
    assert block.sampler == "manual"
    assert block.source is None
    assert list(block.parameters) == ["gravity", "pole", "cart", "action_delay"]  # nothing is left of `masses`
    limits = {p.name: p.limits for p in block.sampler_for(task()).parameters}
    assert limits == {"gravity": (9.0, 10.0), "pole": (1.1, 1.3), "cart": (0.7, 0.9), "action_delay": (10.0, 12.0)}
    assert block.correlations == (("pole", "cart", -0.8),)


def test_what_the_file_does_not_speak_of_stays_in_an_entry_of_several(tmp_path: Path) -> None:
    path = tmp_path / "pole.yaml"
    path.write_text(yaml.safe_dump({"randomization": {"parameters": {"m": KNOWN["parameters"]["pole"]}}}))
    own = {"m": {"quantity": "body_mass", "of": "*", "range": [0.5, 2.0]}}
    block = resolved(str(path), parameters=own)
    kept, known = block.sampler_for(task()).parameters
    assert (kept.targets, kept.limits) == (("cart",), (0.5, 2.0))
    assert (known.name, known.targets, known.limits) == ("m (identified)", ("pole",), (1.1, 1.3))


def test_no_randomization_becomes_that_of_the_file(found: str) -> None:
    block = resolved(found, sampler="none")
    assert block.sampler == "manual"
    assert list(block.parameters) == ["pole", "cart", "action_delay"]


def test_a_curriculum_begins_at_the_files_values_and_may_go_beyond_them(found: str) -> None:
    own = {"masses": {"quantity": "body_mass", "range": [0.9, 4.0]}}
    block = resolved(found, sampler="adr", performance="return", parameters=own)
    sampler = block.sampler_for(task())
    assert isinstance(sampler, ADR)
    assert sampler.lower.tolist() == sampler.upper.tolist() == [1.25, 0.8, 11.0]
    # As far as the configuration, what was asked for or the file allows.
    assert [p.limits for p in sampler.parameters] == [(0.3, 4.0), (0.7, 4.0), (0.0, 40.0)]
    assert block.correlations == ()


def test_a_run_is_trained_in_the_files_ranges_from_the_command_line(found: str) -> None:
    config = load_config("inverted_pendulum", [f"randomization.from={found}"])
    assert config.randomization.source is None
    assert config.randomization.parameters["pole"]["range"] == [1.1, 1.3]
    assert "from: null" in config.to_yaml()


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (None, "no such file (did you mean"),
        ("randomization: {sampler: none}", "has no 'randomization:' block with parameters"),
        ("randomization: [1", "not valid YAML"),
        (yaml.safe_dump({"randomization": {**KNOWN, "from": "x"}}), "takes its ranges from elsewhere itself"),
        ("randomization: {parameters: {m: {quantity: body_mass, of: leg, range: [1, 2]}}}", "no body matches 'leg'"),
        (yaml.safe_dump({"randomization": KNOWN, "asked": {"pole": [3, 1]}}), "asked.pole: expected [lower, upper]"),
        (yaml.safe_dump({"randomization": KNOWN, "asked": [1]}), "asked: expected ranges by label"),
    ],
)
def test_a_file_that_is_none_is_one_line(tmp_path: Path, document: str | None, message: str) -> None:
    (tmp_path / "identified.yaml").write_text(document or "")
    name = "identified.yaml" if document else "identifed.yaml"
    with pytest.raises(RandomizationError, match=re.escape(message)) as error:
        resolved(str(tmp_path / name))
    assert str(error.value).startswith(f"randomization.from: {tmp_path / name}: ")
    assert "\n" not in str(error.value)


def test_a_run_in_the_place_of_a_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(RandomizationError, match="is a folder; expected a YAML file with ranges, or 'sampler: frozen'"):
        resolved(str(tmp_path))


def test_parameters_vary_together_and_keep_their_own_distributions() -> None:
    block = {
        "parameters": {
            "pole": {"quantity": "body_mass", "of": "pole", "range": [1.0, 2.0]},
            "cart": {"quantity": "body_mass", "of": "cart", "range": [0.5, 2.0], "distribution": "loguniform"},
            "gravity": {"range": [9.0, 10.0]},
        },
        "correlations": [["cart", "pole", -0.8]],
    }
    sampler = randomization_config(block).sampler_for(task())
    u = torch.rand(20_000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    lam, boundary = sampler.draw(u, torch.zeros(len(u), 2))
    assert bool((boundary == -1).all())
    spread = torch.stack((lam[:, 0] - 1.0, (lam[:, 1] / 0.5).log() / torch.tensor(4.0).log(), lam[:, 2] - 9.0))
    for values in spread:  # each is uniform still: quantiles to three standard errors
        quantiles = values.quantile(torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64))
        assert quantiles.tolist() == pytest.approx([0.1, 0.5, 0.9], abs=0.011)
    ranks = torch.corrcoef(spread)
    # The correlation of uniform numbers under a Gaussian copula: 6 / pi asin(r / 2) (Pearson 1907).
    assert float(ranks[0, 1]) == pytest.approx(6.0 / torch.pi * float(torch.asin(torch.tensor(-0.4))), abs=0.02)
    assert abs(float(ranks[0, 2])) < 0.02
    # What is not among them is as without them.
    plain = Manual(sampler.parameters).draw(u, torch.zeros(len(u), 2))[0]
    assert torch.allclose(plain[:, 2], lam[:, 2], rtol=1e-12)


@pytest.mark.parametrize(
    ("correlations", "message"),
    [
        ([["pole", "crt", 0.5]], "correlations: no parameter 'crt' (did you mean 'cart'?)"),
        ([["pole", "cart", 1.5]], "expected two parameters and r from -1 to 1"),
        ([["pole", "cart", 0.9], ["cart", "action_delay", 0.9], ["pole", "action_delay", -0.9]], "at once"),
    ],
)
def test_correlations_that_cannot_be_are_one_line(correlations: Any, message: str) -> None:
    with pytest.raises(RandomizationError, match=re.escape(message)):
        randomization_config({**KNOWN, "correlations": correlations}).sampler_for(task())


def test_correlations_belong_to_fixed_ranges() -> None:
    with pytest.raises(RandomizationError, match="correlations: are of fixed ranges, not of sampler 'adr'"):
        randomization_config({**KNOWN, "sampler": "adr", "performance": "return"}).sampler_for(task())


def test_a_frozen_block_keeps_them() -> None:
    parameters = randomization_config(KNOWN).sampler_for(task()).parameters
    u = torch.rand(100, 3, dtype=torch.float64)
    correlations = [("pole", "cart", -0.8)]
    frozen, manual = (kind(parameters, correlations).draw(u, torch.zeros(100, 2))[0] for kind in (Frozen, Manual))
    assert torch.equal(frozen, manual)
