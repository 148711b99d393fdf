"""Exported policies answer as torch does, and a bundle that was changed or is incomplete is refused."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import simreal.export.bundle as exporting
from conftest import build
from envs.registry import make_task
from randomization.parameters import Parameter
from randomization.samplers.adr import ADR
from simreal.deploy import BundleError, Policy
from simreal.deploy.policy import UNSIGNED
from simreal.export.bundle import ExportError, describe_randomization, export_bundle
from simreal.learners.base import LearnerSpec
from simreal.learners.normalizer import Normalizer
from simreal.learners.registry import learner_class, options_class

ROOT = Path(__file__).resolve().parents[2]
FILES = ("policy.json", "policy.onnx", "golden.npz")
SIZE = 13  # of FetchReach's observation
TASK = make_task("FetchReach-v4")
Bundles = dict[str, Path]


def observations(count: int, seed: int = 5) -> np.ndarray:
    """[count, 13] float64, like positions: the mean is large beside the spread."""
    return 1.3 + 0.05 * np.random.default_rng(seed).standard_normal((count, SIZE))


def normalizer() -> Normalizer:
    """Statistics of such observations."""
    result = Normalizer(SIZE)
    result.update(torch.from_numpy(observations(500, seed=3)))
    return result


class Remembering(nn.Module):
    """A policy with memory whose episodes do not start from zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.normalizer, self.cell, self.head = normalizer(), nn.GRUCell(SIZE, 7), nn.Linear(7, 4)

    def initial_state(self, batch: int) -> Tensor:
        return torch.full((batch, 7), 0.25)

    def forward(self, observation: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        state = self.cell(self.normalizer(observation), state)
        return torch.tanh(self.head(state)), state


def acting(act: Callable[[Tensor], Any]) -> nn.Module:
    """A policy that does what it is given."""
    return type("Acting", (nn.Module,), {"forward": lambda self, observation: act(observation)})()


def make_policy(kind: str, hidden: int = 64) -> Any:
    """A policy for FetchReach with random weights."""
    torch.manual_seed(0)
    if kind == "recurrent":
        return Remembering()
    spec = LearnerSpec.of(build(make_task(TASK.id), 1), torch.device("cpu"))
    options = options_class(kind).model_validate({"hidden": (hidden,) * 3, "her_k": 0, "replay_size": 1000})
    policy: Any = learner_class(kind)(spec, options, 0).policy
    policy.normalizer = normalizer()
    return policy


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    """Bundles by kind of policy; tests that change one take `bundle`."""
    folder = tmp_path_factory.mktemp("bundles")
    return {kind: export_bundle(make_policy(kind), TASK, folder / kind) for kind in ("ddpg", "sac", "recurrent")}


@pytest.fixture
def bundle(exported: Bundles, tmp_path: Path) -> Path:
    """A copy of a DDPG bundle to spoil."""
    return Path(shutil.copytree(exported["ddpg"], tmp_path / "bundle"))


def resign(bundle: Path, change: Callable[[dict[str, Any]], Any] = lambda contract: None) -> None:
    """Make digests right again after a change, as somebody who wants to deceive would."""
    contract = json.loads((bundle / "policy.json").read_text()) | {"contract_sha256": UNSIGNED}
    for name in FILES[1:]:
        raw = (bundle / name).read_bytes()
        contract["files"][name] = {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    other = change(contract)
    text = other if isinstance(other, str) else json.dumps(contract)
    (bundle / "policy.json").write_text(text.replace(UNSIGNED, hashlib.sha256(text.encode()).hexdigest(), 1))


def refused(bundle: Path, name: str) -> str:
    """The one line with which loading refuses the bundle; it names the file."""
    with pytest.raises(BundleError) as caught:
        Policy.load(bundle)
    message = str(caught.value)
    assert message.startswith(str(bundle / name))
    assert "\n" not in message
    return message


@pytest.mark.parametrize("kind", ["ddpg", "sac"])
def test_onnx_runtime_answers_as_torch(kind: str, exported: Bundles) -> None:
    policy = Policy.load(exported[kind])
    for width in (1.0, 1000.0):  # far outside training, observations are clipped
        x = (width * observations(200)).astype(np.float32)
        with torch.no_grad():
            expected = make_policy(kind)(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(policy(x), expected, rtol=0, atol=1e-5)
        np.testing.assert_allclose(policy(x[7]), expected[7], rtol=0, atol=1e-5)
        assert (policy(x[7]).shape, policy(x[7]).dtype) == ((4,), np.float32)


def test_a_bundle_is_three_files_with_all_weights_in_one_graph(tmp_path: Path) -> None:
    bundle = export_bundle(make_policy("ddpg", hidden=512), TASK, tmp_path / "bundle")
    assert sorted(p.name for p in bundle.iterdir()) == sorted((*FILES, "example_loop.py"))
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]
    raw = (bundle / "policy.onnx").read_bytes()
    assert len(raw) > 4 * 2 * 512 * 512
    assert b".py" not in raw  # the exporter would leave stack traces of this machine
    session = onnxruntime.InferenceSession(raw)
    assert [(i.name, i.shape) for i in session.get_inputs()] == [("observation", ["batch", 13])]
    assert [(o.name, o.shape) for o in session.get_outputs()] == [("action", ["batch", 4])]


def test_export_prints_nothing_changes_nothing_and_repeats_itself_byte_for_byte(
    exported: Bundles, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    first, policy = exported["sac"], make_policy("sac").train()
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    again = export_bundle(policy, TASK, tmp_path / "again")
    assert capfd.readouterr() == ("", "")
    assert not [record for record in caplog.records if record.levelno >= logging.INFO]
    assert policy.training
    assert all(p.requires_grad for p in policy.parameters())
    assert all(torch.equal(value, before[name]) for name, value in policy.state_dict().items())
    assert all((again / name).read_bytes() == (first / name).read_bytes() for name in FILES)


def test_the_contract_states_the_task_and_the_normalizer_to_the_last_bit(exported: Bundles) -> None:
    policy, statistics = Policy.load(exported["ddpg"]), normalizer()
    contract, entries = policy.contract, policy.contract["observation"]
    assert contract["task"] == "FetchReach-v4"
    assert policy.control_period_s == TASK.control_period_s == 0.04
    for component, entry in zip(TASK.components("policy"), entries, strict=True):
        assert (entry["name"], entry["shape"]) == (component.name, [component.size])
        assert slice(*entry["index"]) == TASK.slices()[component.name]
        assert (entry["unit"], entry["frame"]) == (component.unit, component.frame)
        assert (tuple(entry["joints"]), tuple(entry["bodies"])) == (component.joints, component.bodies)
    assert [v for e in entries for v in e["offset"]] == statistics.mean.tolist()
    assert [v for e in entries for v in e["scale"]] == statistics.scale().tolist()
    lower = statistics.mean - 3.0 * statistics.var.sqrt()
    assert [v for e in entries for v in e["training_range"]["lower"]] == lower.tolist()
    assert contract["observation_clip"] == statistics.clip
    assert [(e["scale"], e["limits"]) for e in contract["action"]] == [([0.05] * 3, [-1, 1]), ([0.0], [-1, 1])]


def test_a_policy_that_sees_si_units_still_says_what_it_has_seen(tmp_path: Path) -> None:
    made, statistics = make_policy("sac"), normalizer()
    made.normalizer.active, made.normalizer.clip = False, np.inf
    policy = Policy.load(export_bundle(made, TASK, tmp_path / "bundle"))
    x, entries = torch.from_numpy(observations(6)), policy.contract["observation"]
    with torch.no_grad():
        np.testing.assert_allclose(policy(x.numpy()), made.actor(x.float()).numpy(), atol=1e-5)
    assert {v for e in entries for v in e["offset"]} == {0.0}
    assert {v for e in entries for v in e["scale"]} == {1.0}
    assert policy.contract["observation_clip"] is None
    upper = statistics.mean + 3.0 * statistics.var.sqrt()
    assert [v for e in entries for v in e["training_range"]["upper"]] == upper.tolist()


def test_what_export_is_told_goes_into_the_bundle_with_null_for_infinite_figures(tmp_path: Path) -> None:
    sampler = ADR([Parameter("mass", 1.0, (0.5, 2.0), mode="scale", quantity="body_mass", targets=("gripper",))])
    sampler.lower[0], sampler.upper[0] = 0.9, 1.2
    told = {"evaluation": {"cvar": [np.nan, 1]}, "randomization": describe_randomization(sampler)}
    policy, x = acting(lambda x: x[:, :4]), observations(5)
    bundle = export_bundle(policy, TASK, tmp_path / "bundle", task_name="Mine-v0", observations=x, **told)
    contract, golden = Policy.load(bundle).contract, np.load(bundle / "golden.npz")
    (ranges,) = contract["randomization"]["parameters"]
    assert (ranges["name"], ranges["targets"]) == ("mass", ["gripper"])
    assert (ranges["lower"], ranges["nominal"], ranges["upper"], ranges["limits"]) == (0.9, 1.0, 1.2, [0.5, 2.0])
    assert (contract["task"], contract["evaluation"]) == ("Mine-v0", {"cvar": [None, 1]})
    np.testing.assert_array_equal(golden["observations"], x.astype(np.float32))
    with pytest.raises(ExportError, match=r"run\.when: expected numbers.*got object"):
        export_bundle(policy, TASK, bundle, run={"when": object()})
    for wrong in (np.zeros((5, 12)), np.zeros(13), np.zeros((0, 13)), np.full((1, 13), np.nan)):
        with pytest.raises(ExportError, match="observations: expected"):
            export_bundle(policy, TASK, bundle, observations=wrong)


@pytest.mark.parametrize("kind", ["ddpg", "recurrent"])
def test_golden_actions_come_back_step_by_step_and_again_after_a_reset(kind: str, exported: Bundles) -> None:
    golden, policy = np.load(exported[kind] / "golden.npz"), Policy.load(exported[kind])
    assert golden["observations"].shape == (64, 13)
    for _ in range(2):
        policy.reset()
        actions = np.stack([policy(observation) for observation in golden["observations"]])
        np.testing.assert_allclose(actions, golden["actions"], rtol=0, atol=1e-5)
    remembers = np.abs(policy(golden["observations"][0]) - golden["actions"][0]).max() > 1e-4
    assert remembers == (kind == "recurrent")


def test_components_go_in_and_targets_come_out_by_name(exported: Bundles) -> None:
    policy, x = Policy.load(exported["ddpg"]), observations(6)
    index = {entry["name"]: slice(*entry["index"]) for entry in reversed(policy.contract["observation"])}
    for rows in (x, x[2]):
        np.testing.assert_array_equal(policy({name: rows[..., where] for name, where in index.items()}), policy(rows))
    targets = policy.targets([[1.0, -0.5, 0.0, 1.0]])
    # displacement = 0 + 0.05 m * action; FetchReach keeps its fingers closed (scale 0)
    np.testing.assert_allclose(targets["grip_displacement"], [[0.05, -0.025, 0.0]])
    np.testing.assert_allclose(targets["gripper"], [[0.0]])
    with pytest.raises(ValueError, match=r"action: expected shape \[4\]"):
        policy.targets([0.0, 0.0])


def test_what_is_wrong_with_an_observation_is_named(exported: Bundles) -> None:
    policy, x = Policy.load(exported["ddpg"]), observations(1)[0]
    good = {entry["name"]: x[slice(*entry["index"])] for entry in policy.contract["observation"]}
    nan, many = x.copy(), np.stack((x, x))
    nan[1], many[1, 11] = np.nan, np.inf
    wrong: list[tuple[Any, str]] = [
        (good | {"grip_poss": x[:3]}, r"unknown observation component 'grip_poss' \(did you mean 'grip_pos'\?\)"),
        ({k: v for k, v in good.items() if k != "grip_velp"}, "'grip_velp' is missing"),
        (good | {"grip_pos": x[:2]}, r"'grip_pos': expected shape \[3\], got \[2\]"),
        (good | {"grip_velp": np.zeros((2, 3))}, r"'grip_velp': expected shape \[3\], got \[2, 3\]"),
        (good | {"grip_pos": ["a", "b", "c"]}, "'grip_pos': expected numbers"),
        (x[:12], r"expected shape \[13\] or \[B, 13\], got \[12\]"),
        (np.zeros((0, 13)), r"expected shape \[13\] or \[B, 13\], got \[0, 13\]"),
        (nan, "'grip_pos': element 'y' is nan"),
        (many, "'desired_goal': element 'y' is inf"),
        (good | {"grip_pos": [0.0, 0.0, 1e39]}, "'grip_pos': element 'z' is inf"),
    ]
    for observation, message in wrong:
        with pytest.raises(ValueError, match=message):
            policy(observation)


def test_robots_have_the_runtime_that_a_graph_needs(bundle: Path) -> None:
    assert onnx.load(bundle / "policy.onnx").ir_version <= 9  # ONNX Runtime 1.17 (JetPack) refuses 10


def test_memory_is_explicit_in_the_graph_and_kept_for_every_row(exported: Bundles) -> None:
    policy, x = Policy.load(exported["recurrent"]), observations(3)
    assert policy.contract["recurrent_state"] == {"shape": [7], "initial": [0.25] * 7}
    session = onnxruntime.InferenceSession((exported["recurrent"] / "policy.onnx").read_bytes())
    assert {i.name: i.shape for i in session.get_inputs()} == {"observation": ["batch", 13], "state": ["batch", 7]}
    assert {o.name: o.shape for o in session.get_outputs()} == {"action": ["batch", 4], "next_state": ["batch", 7]}
    first = policy(x)
    policy(x)
    policy.reset([False, True, False])
    third = policy(x)
    np.testing.assert_allclose(third[1], first[1], atol=1e-6)
    assert not np.allclose(third[[0, 2]], first[[0, 2]], atol=1e-4)
    with pytest.raises(ValueError, match=r"2 rows after 3 in one episode; call reset\(\)"):
        policy(x[:2])
    with pytest.raises(ValueError, match=r"mask: expected \[3\]"):
        policy.reset([True])


@pytest.mark.parametrize("name", FILES)
def test_an_altered_byte_a_shorter_or_a_missing_file_is_refused_with_its_name(name: str, bundle: Path) -> None:
    raw = (bundle / name).read_bytes()
    for position in range(0, len(raw), len(raw) // 40):
        spoilt = bytearray(raw)
        spoilt[position] ^= 1
        (bundle / name).write_bytes(spoilt)
        refused(bundle, name)
    (bundle / name).write_bytes(raw[: len(raw) // 2])
    refused(bundle, name)
    (bundle / name).unlink()
    assert "no such file" in refused(bundle, name)
    shutil.rmtree(bundle)
    assert "no such bundle" in refused(bundle, "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: "[]", "json: expected a JSON object"),
        (lambda c: "[" * 100_000, "json: not a whole JSON document"),
        (lambda c: c.update(format="zip"), "json: format: expected 'simreal-policy', got 'zip'"),
        (lambda c: c.update(schema_version=4), "json: schema_version: expected 1 or 2 or 3, got 4"),
        (lambda c: c.update(schema_version=3), "json: pictures: expected what is said of a camera"),
        (lambda c: c.pop("contract_sha256") and None, "json: contract_sha256"),
        (lambda c: c["files"].update({"../secret": {}}), "json: files: expected plain file names, got '../secret'"),
        (lambda c: c["files"].update({"/etc/passwd": {}}), "json: files: expected plain file names"),
        (lambda c: c["files"].pop("golden.npz"), "json: files: expected at least"),
        (lambda c: c.update(control_period_s=0), "json: control_period_s: expected a positive number"),
        (lambda c: c["observation"][1].update(index=[2, 4]), "json: observation[1].index: expected [3, 5]"),
        (lambda c: c["action"][0].update(scale=[1, 2, 10**400]), "json: action[0].scale"),
        (lambda c: c["action"][1].update(name="grip_displacement"), "appears twice"),
        (lambda c: c.update(recurrent_state={"shape": [2], "initial": [0]}), "json: recurrent_state"),
        (lambda c: c["observation"].pop(), "onnx: inputs per row: expected {'observation': [10]}"),
        (lambda c: c.update(recurrent_state={"shape": [1], "initial": [0]}), "'state': [1]"),
    ],
)  # fmt: skip
def test_a_contract_that_contradicts_itself_or_the_graph_is_refused(change: Any, message: str, bundle: Path) -> None:
    resign(bundle, change)
    assert message in refused(bundle, "policy.")


def test_a_graph_that_is_absurdly_large_elsewhere_in_parts_or_junk_is_refused(bundle: Path, tmp_path: Path) -> None:
    path = bundle / "policy.onnx"
    graph = onnx.load(path)
    os.truncate(path, 1 << 40)  # a sparse file
    assert "expected 1073741824 at most" in refused(bundle, path.name)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert "leads out of the bundle" in refused(bundle, path.name)
    path.unlink()
    onnx.save(graph, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    resign(bundle)
    assert "weights in another file" in refused(bundle, path.name)
    path.write_bytes(b"no graph")
    resign(bundle)
    assert "cannot load it" in refused(bundle, path.name)


def test_golden_actions_that_do_not_come_back_are_refused_and_run_no_code(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return Path.touch, (Path("sprung"),)

    golden = dict(np.load(bundle / "golden.npz"))
    monkeypatch.chdir(bundle)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"actions": np.zeros((64, 4), np.float32)}, "another action on this machine: off by"),
        ({"actions": np.full((64, 4), np.nan, np.float32)}, "off by nan"),
        ({"actions": np.zeros((63, 4), np.float32)}, "actions: expected float32 of shape (64, 4)"),
        ({"observations": np.array([Trap()], dtype=object)}, "allow_pickle=False"),
    ]
    for arrays, message in wrong:
        np.savez(bundle / "golden.npz", **(golden | arrays))
        resign(bundle)
        assert message in refused(bundle, "golden.npz")
    assert not Path("sprung").exists()


@pytest.mark.parametrize("alone", [False, True])
def test_a_bundle_runs_on_one_thread_without_torch_and_mujoco(alone: bool, exported: Bundles, tmp_path: Path) -> None:
    path, module, blocked = ROOT, "simreal.deploy", ["torch", "mujoco", "gymnasium", "pydantic", "yaml", "onnx"]
    if alone:  # the folder, copied to a robot under any name
        path, module, blocked = tmp_path, "runtime", [*blocked, "simreal", "envs", "randomization"]
        shutil.copytree(ROOT / "simreal" / "deploy", tmp_path / "runtime")
    code = f"""import sys
sys.modules |= dict.fromkeys({blocked})
sys.path.insert(0, {str(path)!r})
from {module} import Policy
policy = Policy.load({str(exported["ddpg"])!r})
print(policy([1.3] * 13).shape, policy._session.get_session_options().intra_op_num_threads)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.stdout, done.stderr) == ("(4,) 1\n", "")


def test_export_replaces_bundles_even_damaged_ones_and_nothing_else(bundle: Path, tmp_path: Path) -> None:
    policy = make_policy("sac")
    (bundle / "golden.npz").write_bytes(b"damaged")
    export_bundle(policy, TASK, bundle)
    Policy.load(bundle)
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]
    (bundle / "notes.txt").write_text("calibrated on Monday")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "policy.json").write_text("{}")
    for target, message in (
        (bundle, "bundle: holds 'notes.txt' and is no bundle"),
        (bundle / "notes.txt", "notes.txt: is a file"),
        (tmp_path / "other", "other: holds 'policy.json' and is no bundle"),
    ):
        with pytest.raises(ExportError, match=message):
            export_bundle(policy, TASK, target)
    assert (bundle / "notes.txt").exists()
    assert (tmp_path / "other" / "policy.json").read_text() == "{}"


@pytest.mark.parametrize(("key", "most"), [("actor.net.6.bias", "1e-05"), ("clip", "0.001")])
def test_export_fails_where_onnx_runtime_differs_from_torch(
    key: str, most: str, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, translate = (bundle / "policy.json").read_bytes(), exporting._translate

    def translate_another(source: Any) -> bytes:
        other: Any = exporting.prepare(source.step.policy, source.task).step.policy
        if key == "clip":
            other.normalizer.clip = 1e6  # this shows far outside training only
        else:
            other.get_parameter(key).add_(1e-3)
        return translate(exporting.prepare(other, source.task))

    monkeypatch.setattr(exporting, "_translate", translate_another)
    with pytest.raises(ExportError, match=f"ONNX Runtime's action differs from torch's by .*expected at most {most}"):
        export_bundle(make_policy("ddpg"), TASK, bundle)
    assert (bundle / "policy.json").read_bytes() == before  # the bundle that was there is untouched
    assert [p.name for p in bundle.parent.iterdir()] == ["bundle"]


def test_a_policy_that_cannot_be_exported_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    for act, message in (
        (lambda x: torch.rand_like(x[:, :4]), "differs from torch's"),
        (lambda x: x[:, :4] * float("nan"), "NaN or infinity"),
        (lambda x: x[:, :3], r"action: expected shape \[3, 4\] for 3 rows, got \[3, 3\]"),
        (lambda x: x @ torch.zeros(12, 4), r"does not take FetchReach-v4's observations \[B, 13\]"),
        (lambda x: x[:, :4] if x.sum() > 0 else x[:, 1:5], "torch.onnx cannot translate the policy"),
    ):
        with pytest.raises(ExportError, match=message) as caught:
            export_bundle(acting(act), TASK, tmp_path / "bundle")
        assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_actions_outside_the_range_are_clipped_in_the_graph_as_in_the_environment(tmp_path: Path) -> None:
    policy = Policy.load(export_bundle(acting(lambda x: x[:, :4]), TASK, tmp_path / "bundle"))
    np.testing.assert_allclose(policy([-2.0, 1.5, 0.5, -0.25] + [0.0] * 9), [-1.0, 1.0, 0.5, -0.25])


def test_the_code_of_the_deployment_page_runs(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bundle.parent)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    sizes = {"grip_pos": 3, "gripper_state": 2, "grip_velp": 3, "gripper_vel": 2, "desired_goal": 3}
    sent: list[Any] = []
    robot = {"measure": lambda: {name: np.zeros(size) for name, size in sizes.items()}, "send": sent.append}
    page = (ROOT / "docs" / "deploy.md").read_text()
    for block in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL):
        exec(compile(block, "docs/deploy.md", "exec"), robot)
    assert [sorted(targets) for targets in sent] == [["grip_displacement", "gripper"]] * 50
    assert Policy.load(bundle).contract.keys() <= {*re.findall(r"`([a-z_0-9]+)`", page), "format", "schema_version"}
