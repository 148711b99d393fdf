"""Learners from other packages: registered, announced, configured, trained, resumed, exported; and what is refused."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
import yaml
from pydantic import BaseModel

import simreal
from command import Run, refused, simreal_command
from plugin_files import PLUGIN, announce, unpacked
from shortcuts import without_bundles
from simreal.learners import registry
from simreal.learners.options import SACConfig
from simreal.training.run_config import RunConfig, load_config
from tiny import differences

CONFIG = """
task: InvertedPendulum-v5
num_envs: 16
threads: 1
learner: {algorithm: cem}
train: {env_steps: 3200, log_interval: 800}
evaluate: {episodes: 4, worlds: [nominal]}
"""


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the example is installed in, without a network: by pip, where its build backend is there."""
    folder = tmp_path_factory.mktemp("plugin")
    source = shutil.copytree(PLUGIN, folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    site = folder / "site"
    if importlib.util.find_spec("hatchling") and importlib.util.find_spec("pip"):
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
        done = subprocess.run([*pip, "--target", site, source], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return site
    return unpacked(site)


@pytest.fixture(autouse=True)
def nothing_else() -> Iterator[None]:
    """As if no other package had registered learners, before and after."""
    before = dict(registry._LEARNERS)
    yield
    registry._LEARNERS.clear()
    registry._LEARNERS.update(before)
    for name in ("simreal_cem", "other_cem", "broken_cem"):
        sys.modules.pop(name, None)


@pytest.fixture
def installed(built: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The example is installed."""
    monkeypatch.syspath_prepend(str(built))
    return built


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command in `tmp_path`, which holds c.yaml."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(CONFIG)

    return partial(simreal_command, capsys)


@pytest.mark.usefixtures("installed")
def test_a_learner_of_another_package_trains_resumes_bit_for_bit_and_exports(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_bundles(monkeypatch, but="whole")
    assert "simreal_cem" not in sys.modules  # and is imported once it is asked for
    status, _, err = run("train", "c.yaml", "--run-dir", "whole")
    assert status == 0, err
    assert run("train", "c.yaml", "train.env_steps=1600", "--run-dir", "parts")[0] == 0
    assert run("train", "c.yaml", "--run-dir", "parts", "--resume")[0] == 0
    assert [d for d in differences(tmp_path / "whole", tmp_path / "parts") if not d.startswith("/config")] == []
    text = (tmp_path / "whole/config.yaml").read_text()
    assert text.startswith("# learner 'cem' is of Python package 'simreal_cem'\n")
    document = yaml.safe_load(text)
    assert document["learner"] == {
        "algorithm": "cem", "population": 32, "elite": 8, "initial_std": 1.0, "extra_std": 0.1,
    }  # fmt: skip
    assert RunConfig.model_validate(document).to_yaml() == text
    loaded = simreal.load(tmp_path / "whole")
    exported = simreal.deploy.Policy.load(tmp_path / "whole/bundle")
    observation = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    expected = loaded.act(torch.from_numpy(observation)).numpy()
    np.testing.assert_allclose([exported(row) for row in observation], expected, rtol=1e-5, atol=1e-6)
    assert run("evaluate", "whole", "--world", "nominal", "--episodes", "2")[0] == 0


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(("steps", "least"), [(50_000, 300.0), pytest.param(160_000, 950.0, marks=pytest.mark.slow)])
def test_the_example_learns_to_balance(run: Run, steps: int, least: float, monkeypatch: pytest.MonkeyPatch) -> None:
    # A return of 950 is what Gymnasium calls solved; before the first update episodes last a few steps
    without_bundles(monkeypatch)
    status, _, err = run("train", "c.yaml", f"train.env_steps={steps}", "--run-dir", "run")
    assert status == 0, err
    (world,) = json.loads(Path("run/evaluation.json").read_text())["worlds"]
    assert world["return_mean"] > least


@pytest.mark.usefixtures("installed")
def test_the_schema_for_editors_has_it(run: Run) -> None:
    schema = json.loads(run("schema")[1])
    assert set(schema["properties"]["learner"]["discriminator"]["mapping"]) == set(registry.learner_names())
    assert "cem" in registry.learner_names()
    assert schema["$defs"]["CEMOptions"]["properties"]["elite"]["minimum"] == 2
    assert schema["$defs"]["SACConfig"]["properties"]["alpha_lr"]["exclusiveMinimum"] == 0


@pytest.mark.usefixtures("installed")
def test_its_keys_and_its_name_are_checked_as_those_of_the_built_in_ones(run: Run) -> None:
    refused(run("train", "c.yaml", "learner.elit=3"), "learner.elit", "did you mean 'elite'?", "known keys:")
    refused(run("train", "c.yaml", "learner.elite=1"), "learner.elite", "greater than or equal to 2", "got 1")
    refused(
        run("train", "c.yaml", "learner.algorithm=cemm"),
        "'cemm'",
        "did you mean 'cem'?",
        "cem, ddpg, ",
    )
    refused(run("train", "c.yaml", "learner={}"), "learner.algorithm", "no 'algorithm'", "cem, ddpg")


def test_a_run_whose_package_is_missing_says_which(
    installed: Path, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = load_config("c.yaml")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text(config.to_yaml())
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(installed)])
    del registry._LEARNERS["cem"]
    for command in (("evaluate", "run"), ("export", "run"), ("play", "run", "--video", "v.mp4")):
        refused(run(*command), "run/config.yaml", "'cem'", "'simreal_cem'", "not installed")
    refused(
        run("train", "c.yaml", "--run-dir", "run", "--resume"), "config.yaml", "its learner 'cem' is of Python package"
    )


@pytest.mark.usefixtures("installed")
def test_two_packages_with_one_name_are_named(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    announce(tmp_path, "other_cem", {"learners": "cem"}, "raise AssertionError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    refused(run("train", "c.yaml"), "'cem'", "simreal_cem", "other_cem")


@pytest.mark.parametrize(
    ("code", "said"), [("import nothing_of_this_name", "nothing_of_this_name"), ("", "does not register it")]
)
def test_a_broken_package_is_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, said: str
) -> None:
    announce(tmp_path, "broken_cem", {"learners": "cem"}, code)
    monkeypatch.syspath_prepend(str(tmp_path))
    refused(run("train", "c.yaml"), "'cem'", "broken_cem", said)


class _Mine(simreal.LearnerOptions):
    algorithm: Literal["mine"]


class _Sac(simreal.LearnerOptions):
    algorithm: Literal["sac"] = "sac"


class _Cem(simreal.LearnerOptions):
    algorithm: Literal["cem"] = "cem"


class _Nameless(simreal.LearnerOptions):
    population: int = 3


class _Anything(simreal.LearnerOptions):
    algorithm: str = "mine"


class _Other(BaseModel):
    algorithm: Literal["mine"] = "mine"


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("name", "options", "learner", "said"),
    [
        ("sac", _Sac, "m:C", "learner 'sac' is taken by simreal.learners.options.SACConfig"),
        ("cem", _Cem, "m:C", "learner 'cem' is taken by module 'simreal_cem' of an installed package"),
        ("mine", _Nameless, "m:C", "_Nameless needs a field `algorithm: Literal['mine']`"),
        ("mine", _Anything, "m:C", "needs a field `algorithm: Literal"),
        ("mine", _Sac, "m:C", "needs a field `algorithm: Literal['mine']`"),
        ("mine", _Other, "m:C", "expected a subclass of simreal.LearnerOptions"),
        ("mine", _Mine, dict, "expected a subclass of simreal.Learner, got"),
    ],
)
def test_what_cannot_be_registered_is_one_line(name: str, options: Any, learner: Any, said: str) -> None:
    with pytest.raises(simreal.UserError) as caught:
        simreal.register_learner(name, options, learner)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "mine" not in registry.learner_names()


def test_the_very_same_learner_may_be_registered_twice() -> None:
    for _ in range(2):
        simreal.register_learner("mine", _Mine, "math:pi")
        simreal.register_learner("sac", SACConfig, "simreal.learners.off_policy.sac:SAC")
    assert registry.learner_names().count("mine") == 1
    with pytest.raises(simreal.UserError, match=r"'mine' is taken by .*_Mine"):
        simreal.register_learner("mine", _Mine, "math:e")
    with pytest.raises(simreal.UserError, match=r"expected a subclass of simreal\.Learner, got 3\.14"):
        registry.learner_class("mine")


@pytest.mark.parametrize(
    "code", ["from simreal.cli.main import main; main(['--help'])", "import simreal.learners.registry"]
)
def test_neither_help_nor_the_names_of_learners_need_torch(code: str) -> None:
    script = f"""
import sys
sys.argv[0] = "simreal"
try:
    {code}
except SystemExit:
    pass
assert "torch" not in sys.modules and "mujoco" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
