"""What a task sends for actions is what the robot sends that has its contract: episode after episode, in every kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from conftest import build, manual_layer
from envs.parts.actions import ActionSpec, EndEffectorDelta, JointPosition, JointTorque, JointVelocity
from envs.parts.observations import JointState, LastTarget
from simreal.deploy import Policy
from simreal.deploy.bundle_reader import read_parts
from simreal.deploy.targets import Targets
from simreal.export.bundle import export_bundle
from simreal.export.contract import contract_of
from simreal.export.source import prepare
from small_arm import ARM, TORQUE, VELOCITY, SmallArm

KINDS: dict[str, tuple[ActionSpec | list[ActionSpec], str]] = {
    "plain": (JointPosition(), ARM),
    "smoothed from the joint": (JointPosition(0.9, offset=(0.1, 0.2, 0.3), smoothing=0.3), ARM),
    "smoothed from the offset": (JointPosition(0.9, smoothing=0.3, start="offset"), ARM),
    "limited": (JointPosition(2.0, limits=(-0.3, (0.2, 0.4, 0.6)), smoothing=0.5), ARM),
    "added to the last command": (JointPosition(0.2, relative="target"), ARM),
    "added to the last command, smoothed, limited": (
        JointPosition(0.5, relative="target", smoothing=0.6, offset=0.01, limits=(-0.8, 0.8)), ARM,
    ),
    "added to the joint": (JointPosition(0.2, relative="joint"), ARM),
    "added to the joint, smoothed": (JointPosition(0.3, relative="joint", smoothing=0.5), ARM),
    "speeds": (JointVelocity(1.5, smoothing=0.4, limits=(-1.0, 1.2)), VELOCITY),
    "torques": (JointTorque(smoothing=0.7), TORQUE),
    "tool": (EndEffectorDelta("tool", 0.03), ARM),
    "tool from the joints, smoothed": (EndEffectorDelta("tool", 0.05, relative="joint", smoothing=0.6), ARM),
    "tool with turns": (EndEffectorDelta("tool", 0.02, turn_scale=0.1, base="shoulder", of=["elbow", "pitch"]), ARM),
    "two parts, the second added to its joint": (
        [JointPosition(0.3, of=["yaw", "pitch"]), JointPosition(0.2, relative="joint", of="elbow", name="elbow")], ARM,
    ),
    "two parts": (
        [JointPosition(0.3, relative="target", of="elbow"), JointPosition(0.4, of=["m_yaw", "pitch"], smoothing=0.5,
                                                                         name="others")], ARM,
    ),
}  # fmt: skip


def answering(observations: int, actions: int) -> nn.Module:
    """A policy that nobody trained: actions of all sizes, some beyond their range."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(observations, 16), nn.Tanh(), nn.Linear(16, actions))


def actuators(task: SmallArm) -> tuple[torch.Tensor, np.ndarray]:
    """Which columns of ctrl are driven, and what a unit of each is in the contract's."""
    rules = task.scene.targets.rules
    return rules.columns, rules.factor.numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_the_robot_sends_what_the_simulated_actuators_get(kind: str) -> None:
    spec, xml = KINDS[kind]
    task = SmallArm(spec, [JointState(), LastTarget()], xml)
    policy = answering(sum(part.size for part in task.observation), task.action_size)
    observed, action = read_parts(contract_of(prepare(policy, task), task.id))
    robot = Targets(action, observed)
    assert robot.complete
    env = build(task, 3, manual_layer(task, {"observation_noise": {"of": "joint_pos", "range": [0.01, 0.05]}}))
    columns, factor = actuators(task)
    generator, moved = torch.Generator().manual_seed(0), 0.0
    seen = env.observed.policy
    # Smoothing starts where the joint is; the robot knows that from its sensors, or is told, as here.
    robot.reset(None, env.engine.data("ctrl")[:, columns].numpy() * factor)
    for _ in range(20):  # three episodes
        robot.observe(seen.float().numpy())
        actions = 1.2 * (2.0 * torch.rand(3, task.action_size, generator=generator) - 1.0)
        sent = robot.advance(actions.double().numpy())
        env.autoreset = False
        result = env.step(actions)
        reached = env.engine.data("ctrl")[:, columns].numpy() * factor
        np.testing.assert_allclose(sent, reached, rtol=1e-5, atol=2e-6)
        if xml == ARM:
            shown = result.final.policy[:, task.slices()["last_target"]]
            np.testing.assert_allclose(shown, reached[:, : shown.shape[1]], rtol=1e-6, atol=1e-6)
        moved = max(moved, float(np.ptp(reached)))
        seen = result.final.policy
        if result.done.any():
            seen = env.reset(result.done).policy
            robot.reset(result.done.numpy(), env.engine.data("ctrl")[:, columns].numpy() * factor)
    assert moved > 0.05


def test_a_bundle_carries_the_way_to_the_tool(tmp_path: Path) -> None:
    task = SmallArm(EndEffectorDelta("tool", 0.04, smoothing=0.5), JointState())
    policy = Policy.load(export_bundle(answering(6, 3), task, tmp_path / "bundle"))
    entry = policy.contract["action"][0]
    assert policy.contract["schema_version"] == 2
    assert entry["initial_target"] == {"component": "joint_pos", "index": [0, 1, 2]}
    assert (entry["relative"], entry["inverse"]["root"], entry["inverse"]["tool"]) == ("target", "world", "tool")
    env, columns = build(task, 2), [0, 1, 2]
    policy.reset()
    seen = env.observed.policy
    for _ in range(13):
        action = policy(seen.numpy())
        sent = policy.targets(action)["tool_step"]
        result = env.step(torch.from_numpy(action))
        if bool(result.done.all()):
            policy.reset()
        else:
            ctrl = env.engine.data("ctrl")[:, columns].numpy() * (1.0, 1.0, 0.5)  # m_elbow's gear
            np.testing.assert_allclose(sent, ctrl, rtol=1e-5, atol=2e-6)
        seen = result.observed.policy


def test_what_older_runtimes_know_states_their_version(tmp_path: Path) -> None:
    task = SmallArm(JointPosition(smoothing=0.5), JointState())
    policy = Policy.load(export_bundle(answering(6, 3), task, tmp_path / "bundle"))
    assert policy.contract["schema_version"] == 1
    assert "relative" not in policy.contract["action"][0]


def test_targets_that_are_added_to_what_is_seen_need_an_observation(tmp_path: Path) -> None:
    task = SmallArm(JointPosition(0.2, relative="joint"), JointState())
    policy = Policy.load(export_bundle(answering(6, 3), task, tmp_path / "bundle"))
    policy.reset()
    with pytest.raises(ValueError, match="added to what 'joint_pos' shows: call the policy with 1 observation before"):
        policy.targets(np.zeros(3))
    policy(np.array([0.1, 0.2, 0.3, 0.0, 0.0, 0.0]))
    np.testing.assert_allclose(policy.targets(np.array([1.0, 0.0, -1.0]))["joint_target"], [0.3, 0.2, 0.1], rtol=1e-6)
