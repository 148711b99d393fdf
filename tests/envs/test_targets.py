"""What a robot is sent is what the actuators were told in training, step by step: limits, smoothing, and its start."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from conftest import build
from envs.environment import Environment
from envs.task import ActionComponent, Component, Outcome, Task
from simreal.deploy import BundleError, Policy
from simreal.deploy.files import UNSIGNED
from simreal.export import bundle
from simreal.export.bundle import ExportError, export_bundle

MODEL = """
<mujoco>
  <option timestep="0.005" gravity="0 0 0"/>
  <worldbody>
    <body>
      <joint name="lift" type="hinge" axis="0 1 0" damping="1"/>
      <geom type="capsule" fromto="0 0 0 0.3 0 0" size="0.02"/>
      <body pos="0.3 0 0">
        <joint name="turn" type="hinge" axis="0 0 1" damping="1"/>
        <geom type="capsule" fromto="0 0 0 0.2 0 0" size="0.02"/>
      </body>
    </body>
  </worldbody>
  <actuator>
    <position name="turner" joint="turn" kp="20"/>
    <position name="lifter" joint="lift" kp="20" gear="2"/>
  </actuator>
</mujoco>
"""
SCALE, OFFSET, LOW, HIGH = (1.5, 0.8), (0.1, -0.2), (-1.0, -0.5), (1.0, 0.4)
SMOOTHING = 0.25


class Arm(Task):
    """Two joints told smoothed targets; the actuators stand in another order, and one has a gear.

    Args:
        start: what the last command is when an episode starts: "zero", "joints" (where they are), "offset" (kept in
            the task, and not in `ctrl`), or "secret" (random, and not observed).
        stated: `initial_target` of the contract.
    """

    id, decimation, max_episode_steps = "Arm-v0", 4, 50

    def __init__(self, start: str = "zero", stated: Any = None, smoothing: float = SMOOTHING) -> None:
        self.start, self.smoothing = start, smoothing
        self.model = mujoco.MjModel.from_xml_string(MODEL)
        self.observation = (
            Component("speeds", 2, "rad/s", "joint", joints=("turn", "lift")),
            Component("angles", 2, "rad", "joint", joints=("lift", "turn")),
        )
        self.action = (
            ActionComponent(
                "target", 2, "rad", SCALE, OFFSET, joints=("turn", "lift"), actuators=("turner", "lifter"),
                target_limits=(LOW, HIGH), smoothing=smoothing, initial_target=stated,
            ),
        )  # fmt: skip

    def on_attach(self) -> None:
        self.qpos, self.qvel = self.engine.data("qpos"), self.engine.data("qvel")
        as_tensor = lambda x: torch.tensor(x, dtype=torch.float64)  # noqa: E731
        self.scale, self.offset, self.low, self.high = map(as_tensor, (SCALE, OFFSET, LOW, HIGH))
        self.last = torch.zeros(self.engine.num_envs, 2, dtype=torch.float64)

    def reset(self, mask: Tensor) -> None:
        u = self.rng.episode_uniform("start", 4)
        self.qpos.copy_(torch.where(mask[:, None], u[:, :2] - 0.5, self.qpos))
        begin = {
            "zero": torch.zeros_like(self.last), "joints": self.qpos.flip(1),
            "offset": self.offset.expand_as(self.last), "secret": u[:, 2:],
        }[self.start]  # fmt: skip
        self.last = torch.where(mask[:, None], begin, self.last)

    def command(self, action: Tensor) -> Tensor:
        target = torch.clamp(self.offset + self.scale * action, self.low, self.high)
        return self._follow(target) * torch.tensor([1.0, 2.0])

    def _follow(self, target: Tensor) -> Tensor:
        self.last = self.last + self.smoothing * (target - self.last)
        return self.last

    def observe(self) -> Tensor:
        return torch.cat((self.qvel.flip(1), self.qpos), dim=1)

    def outcome(self, action: Tensor) -> Outcome:
        zero = self.qpos[:, 0] * 0.0
        return Outcome(zero, zero > 1.0, zero > 1.0)


class Swinging(nn.Module):
    """A policy of what it sees that reaches the ends of its range."""

    def forward(self, observation: Tensor) -> Tensor:
        return torch.sin(20.0 * observation[:, 2:] + 3.0 * observation[:, :2] + 1.0)


Export = Callable[..., Policy]
_translate, _translated = bundle._translate, list[bytes]()


@pytest.fixture(autouse=True)
def translated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """All bundles here are of `Swinging`: one graph, which takes longer to make than all else that is exported."""

    def translate(source: Any) -> bytes:
        _translated[:] = _translated or [_translate(source)]
        return _translated[0]

    monkeypatch.setattr(bundle, "_translate", translate)


@pytest.fixture
def export(tmp_path: Path) -> Export:
    """Loads a bundle of `Swinging` for an arm."""
    return lambda **options: Policy.load(export_bundle(Swinging(), Arm(**options), tmp_path / "bundle"))


def told(environment: Environment) -> np.ndarray:
    """What the actuators were told [N, 2], rad: the second has a gear of 2."""
    return environment.engine.data("ctrl").numpy() / (1.0, 2.0)


def begin(environment: Environment) -> list[float]:
    """What the task of the only row starts from."""
    assert isinstance(environment.task, Arm)
    return environment.task.last[0].tolist()


def mapping(observation: np.ndarray) -> dict[str, np.ndarray]:
    return {"angles": observation[..., 2:], "speeds": observation[..., :2]}


@pytest.mark.parametrize("start", ["zero", "joints", "offset", "secret"])
def test_the_robot_is_sent_what_the_actuators_were_told_in_training_in_every_episode(
    start: str, export: Export
) -> None:
    policy, environment = export(start=start), build(Arm(start), 1)
    environment.autoreset = False
    for flat in (True, False):
        environment.reset()
        policy.reset(targets={"target": begin(environment)} if start == "secret" else None)
        sent = np.zeros(2)
        for _ in range(12):
            observation = environment.observed.policy[0].numpy()
            action = policy(observation if flat else mapping(observation))
            sent = policy.targets(action)["target"]
            environment.step(torch.from_numpy(action)[None])
            np.testing.assert_allclose(sent, told(environment)[0], rtol=0, atol=1e-6)
        assert np.abs(sent).max() > 0.05


def test_every_row_of_a_batch_starts_anew_where_the_mask_says(export: Export) -> None:
    policy, environment = export(start="joints"), build(Arm("joints"), 3)
    environment.autoreset = False
    environment.reset()
    policy.reset()
    for step in range(12):
        if step in (4, 7):
            mask = torch.tensor([step == 4, False, True])
            environment.reset(mask)
            policy.reset(mask.numpy())
        action = policy(environment.observed.policy.numpy())
        sent = policy.targets(action)["target"]
        environment.step(torch.from_numpy(action))
        np.testing.assert_allclose(sent, told(environment), rtol=0, atol=1e-6)


def test_the_contract_says_from_where_smoothing_starts(export: Export) -> None:
    initial = lambda **options: export(**options).contract["action"][0]["initial_target"]  # noqa: E731
    assert initial(start="zero") == [0.0, 0.0]
    assert initial(start="offset") == list(OFFSET)  # the task keeps it; `ctrl` is 0 then
    # angles come as lift, turn; targets as turn, lift
    assert initial(start="joints") == {"component": "angles", "index": [1, 0]}
    assert initial(start="secret") is None
    assert initial(start="secret", smoothing=1.0) is None
    with pytest.raises(ExportError, match=r"initial_target: element '\d': expected what the task starts from, 0, got"):
        export(start="zero", stated="angles")


def test_limits_and_smoothing_in_numbers(export: Export) -> None:
    policy = export(start="zero")
    # turn: target min(0.1 + 1.5, 1.0) = 1.0; 0 + 0.25 * (1 - 0) = 0.25; 0.25 + 0.25 * 0.75 = 0.4375; ...
    # lift: target max(-0.2 - 0.8, -0.5) = -0.5; -0.125; -0.21875; ...
    expected = [[0.25, -0.125], [0.4375, -0.21875], [0.578125, -0.2890625]]
    for numbers in expected:
        np.testing.assert_allclose(policy.targets([1.0, -1.0])["target"], numbers, atol=1e-12)
    np.testing.assert_allclose(policy.unsmoothed_targets([1.0, -1.0])["target"], [1.0, -0.5], atol=1e-12)
    np.testing.assert_allclose(policy.unsmoothed_targets([0.0, 9.0])["target"], [0.1, 0.4], atol=1e-12)  # 9 is 1
    policy.reset()
    np.testing.assert_allclose(policy.targets([[1.0, -1.0]])["target"], [expected[0]], atol=1e-12)
    policy.reset(targets=[1.0, -0.5])  # where the robot is already
    np.testing.assert_allclose(policy.targets([1.0, -1.0])["target"], [1.0, -0.5], atol=1e-12)


def test_one_action_of_the_policy_is_one_step_however_often_its_targets_are_asked_for(export: Export) -> None:
    policy = export(start="zero")
    action = policy(np.zeros(4))
    first = policy.targets(action)["target"].copy()
    policy.targets(action)["target"][:] = 99.0  # what the caller does with the numbers is his business
    np.testing.assert_array_equal(policy.targets(action)["target"], first)
    second = policy.targets(policy(np.zeros(4)))["target"]
    target = policy.unsmoothed_targets(action)["target"]
    np.testing.assert_allclose(second, first + SMOOTHING * (target - first), atol=1e-7)


def test_an_unknown_start_is_said_in_one_line(export: Export) -> None:
    policy = export(start="secret")
    policy(np.zeros(4))
    with pytest.raises(ValueError, match=r"where 'target' starts is not known: call reset\(targets=.* in rad$"):
        policy.targets([0.0, 0.0])
    policy = export(start="joints")
    with pytest.raises(ValueError, match="'target' starts is seen in 'angles' of the episode's first observation"):
        policy.targets([0.0, 0.0])
    with pytest.raises(ValueError, match=r"unknown action component 'targt' \(did you mean 'target'\?\)"):
        policy.reset(targets={"targt": [0.0, 0.0]})
    for wrong in ([0.0], {"target": [0.0, np.nan]}, [["a", "b"]]):
        with pytest.raises(ValueError, match="targets: "):
            policy.reset(targets=wrong)
    policy.reset(targets=[[0.0, 0.0]] * 2)
    with pytest.raises(ValueError, match=r"action: 3 rows|targets: 3 rows"):
        policy.targets(np.zeros((3, 2)))
    with pytest.raises(ValueError, match="action: value 1 is nan"):
        policy.targets([0.0, np.nan])


def resign(bundle: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a contract and make its digests right again."""
    contract = json.loads((bundle / "policy.json").read_text()) | {"contract_sha256": UNSIGNED}
    change(contract)
    raw = (bundle / "golden.npz").read_bytes()
    contract["files"]["golden.npz"] = {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    text = json.dumps(contract)
    (bundle / "policy.json").write_text(text.replace(UNSIGNED, hashlib.sha256(text.encode()).hexdigest(), 1))


def without(bundle: Path, *names: str) -> None:
    """Make a bundle one of an earlier version: golden actions alone, and entries of the contract left out."""
    golden = dict(np.load(bundle / "golden.npz"))
    golden.pop("targets", None)
    np.savez(bundle / "golden.npz", **golden)
    resign(bundle, lambda contract: [contract["action"][0].pop(name) for name in names])


def test_bundles_of_earlier_versions_do_what_they_state(export: Export, tmp_path: Path) -> None:
    export(start="zero")
    without(tmp_path / "bundle", "initial_target")
    policy = Policy.load(tmp_path / "bundle")
    with pytest.raises(ValueError, match="not known: call reset"):
        policy.targets([1.0, -1.0])
    policy.reset(targets=[0.0, 0.0])
    np.testing.assert_allclose(policy.targets([1.0, -1.0])["target"], [0.25, -0.125], atol=1e-12)
    without(tmp_path / "bundle", "smoothing", "target_limits")
    policy = Policy.load(tmp_path / "bundle")
    np.testing.assert_allclose(policy.targets([1.0, -1.0])["target"], [1.6, -1.0], atol=1e-12)


def test_golden_targets_are_those_of_one_episode_and_have_to_come_back(export: Export, tmp_path: Path) -> None:
    export(start="joints")
    golden = np.load(tmp_path / "bundle" / "golden.npz")
    last, expected = golden["observations"][0, [3, 2]].astype(np.float64), []
    for action in golden["actions"].astype(np.float64):
        last = last + SMOOTHING * (np.clip(np.add(OFFSET, SCALE * action), LOW, HIGH) - last)
        expected.append(last)
    np.testing.assert_allclose(golden["targets"], expected, rtol=0, atol=1e-12)
    for change in (
        lambda c: c["action"][0].update(smoothing=0.5),
        lambda c: c["action"][0].update(initial_target=[0.3, 0.3]),
        lambda c: c["action"][0].update(target_limits=None),
    ):
        before = (tmp_path / "bundle" / "policy.json").read_bytes()
        resign(tmp_path / "bundle", change)
        with pytest.raises(BundleError, match=r"golden\.npz: policy\.json answers with another target"):
            Policy.load(tmp_path / "bundle")
        (tmp_path / "bundle" / "policy.json").write_bytes(before)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"smoothing": 0}, r"action\[0\]\.smoothing: expected a number in \(0, 1\]"),
        ({"smoothing": "0.2"}, r"action\[0\]\.smoothing"),
        ({"target_limits": [[0.0], [1.0]]}, r"action\[0\]\.target_limits: expected null, or 2 lowest and 2 highest"),
        ({"target_limits": [[1.0, 0.0], [0.0, 1.0]]}, r"action\[0\]\.target_limits: expected lowest before highest"),
        ({"initial_target": [0.0]}, r"action\[0\]\.initial_target: expected 2 numbers"),
        ({"initial_target": {"component": "angle", "index": [0, 1]}}, r"initial_target\.component: .*got 'angle'"),
        ({"initial_target": {"component": "angles", "index": [0, 2]}}, r"initial_target\.index: expected 2 places"),
        ({"initial_target": 3}, r"action\[0\]\.initial_target: expected numbers"),
    ],
)  # fmt: skip
def test_a_contract_that_smooths_or_limits_in_a_way_that_makes_no_sense_is_refused(
    entry: dict[str, Any], message: str, export: Export, tmp_path: Path
) -> None:
    export(start="zero")
    resign(tmp_path / "bundle", lambda contract: contract["action"][0].update(entry))
    with pytest.raises(BundleError, match=message) as caught:
        Policy.load(tmp_path / "bundle")
    assert "\n" not in str(caught.value)


def test_limits_without_an_end_are_null_and_limit_nothing_there(export: Export, tmp_path: Path) -> None:
    export(start="zero")
    without(tmp_path / "bundle")
    resign(tmp_path / "bundle", lambda c: c["action"][0].update(target_limits=[[None, None], [0.5, None]], smoothing=1))
    targets = Policy.load(tmp_path / "bundle").targets([[1.0, 1.0], [-1.0, -1.0]])["target"]
    np.testing.assert_allclose(targets, [[0.5, 0.6], [-1.4, -1.0]], atol=1e-12)


def test_an_export_in_the_middle_of_training_changes_nothing_there(tmp_path: Path) -> None:
    def train(export: bool) -> list[Tensor]:
        environment, seen = build(Arm("joints"), 2), []
        torch.manual_seed(0)
        for step in range(6):
            if export and step == 3:
                export_bundle(Swinging(), environment.task, tmp_path / "bundle")
            result = environment.step(2.0 * torch.rand(2, 2) - 1.0)
            seen.append(torch.cat((result.observed.policy, environment.engine.data("ctrl")), dim=1))
        return seen

    assert all(torch.equal(a, b) for a, b in zip(train(True), train(False), strict=True))
