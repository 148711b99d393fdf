"""World files that say what happens within an episode: what they may say, and who heeds it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from randomization.changes import Changing
from randomization.randomizer import DomainRandomizer
from robots import skipping_missing
from scripted import reaching, standing
from simreal.common.errors import UserError
from simreal.evaluation.evaluate import evaluate, run_episodes
from simreal.evaluation.worlds import find_world
from simreal.robot.process.simulation import Simulation

LATE = """
randomization: {parameters: {action_delay: {range: [0, 10]}, noise: {quantity: observation_noise, range: [0, 0]}}}
changes:
  - {at_s: 0.8, set: {action_delay: [200, 240]}}
  - {at_share: 0.25, over_s: 0.5, set: {noise: 0.02}}
"""


def world(folder: Path, text: str) -> str:
    path = folder / "world.yaml"
    path.write_text(text)
    return str(path)


def test_times_are_seconds_or_shares_and_come_in_order(tmp_path: Path) -> None:
    sampler = find_world(world(tmp_path, LATE), reaching()).sampler
    assert isinstance(sampler, Changing)
    first, second = sampler.changes
    assert (first.at_s, first.over_s, first.values) == (0.5, 0.5, {"noise": (0.02, 0.02)})  # episodes last 2 s
    assert (second.at_s, second.over_s, second.values) == (0.8, 0.0, {"action_delay": (200.0, 240.0)})
    assert sampler.parameters[0].limits == (0.0, 240.0)


def test_evaluation_plays_what_happens_and_its_episodes_depend_on_nothing_else(tmp_path: Path) -> None:
    policy, found = reaching(), find_world(world(tmp_path, LATE), reaching())
    results = [run_episodes(policy, found.make_environment(policy, n, 3), 12) for n in (3, 12)]
    assert torch.equal(results[0].returns, results[1].returns)
    assert torch.equal(results[0].actions, results[1].actions)
    calm = find_world(world(tmp_path, LATE[: LATE.index("changes")]), policy)
    stays = run_episodes(policy, calm.make_environment(policy, 12, 3), 12)
    assert not torch.equal(stays.actions, results[0].actions)
    assert found.signature() != calm.signature()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ("{at_s: 2, set: {action_delay: 1}}", "changes.0.at_s: episodes last 2 s, it would never come"),
        ("{at_share: 1, set: {action_delay: 1}}", "changes.0.at_share: episodes last 2 s, it would never come"),
        ("{at_s: 0, set: {action_delay: 1}}", "changes.0.at_s: episodes would begin so: state the ranges themselves"),
        ("{set: {action_delay: 1}}", "changes.0.at_s: expected either it or at_share"),
        ("{at_s: 1, at_share: 0.5, set: {action_delay: 1}}", "changes.0.at_s: expected either it or at_share"),
        ("{at_s: 1, over_s: 1, over_share: 0.5, set: {action_delay: 1}}", "changes.0.over_s: expected either it or"),
        ("{at_s: 1, set: {action_delay: [3, 1]}}", "changes.0.set.action_delay: lower end 3 is above upper end 1"),
        ("{at_s: 1, set: {}}", "changes.0.set: "),
        ("{at_s: 1, set: {action_delay: late}}", "changes.0.set.action_delay"),
        ("{at_s: 1, set: {action_delay: 1}, over: 1}", "changes.0.over: unknown key (did you mean 'over_s'?)"),
        ("{at_s: 1, set: {action_dela: 1}}", "action_dela: no such parameter (did you mean 'action_delay'?)"),
        ("{at_s: 1, set: {action_delay: 1e6}}", "action_delay: 1e+06 is not within [0, 10000]"),
    ],
)  # fmt: skip
def test_what_a_file_cannot_say_is_one_line(tmp_path: Path, changes: str, said: str) -> None:
    path = world(
        tmp_path, f"randomization: {{parameters: {{action_delay: {{range: [0, 10]}}}}}}\nchanges: [{changes}]\n"
    )
    with pytest.raises(UserError) as caught:
        find_world(path, reaching())
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(path)


@pytest.mark.parametrize(
    ("task_id", "names"),
    [
        ("FetchPush-v4", {"loose_camera", "delay_rises", "friction_drops"}),
        ("Go1Velocity-v0", {"battery", "delay_rises", "friction_drops", "backlash_stiction"}),
        ("AllegroCube-v0", {"loose_camera", "delay_rises", "friction_drops", "backlash_stiction"}),
    ],
)
def test_shipped_worlds_change_within_an_episode(task_id: str, names: set[str]) -> None:
    with skipping_missing():
        policy = standing(task_id)
    files = {"Fetch": "fetch_loose_camera", "Allegro": "cube_loose_camera hand_backlash_stiction", "Go1": "go1_battery"}
    own = next(value.split() for key, value in files.items() if task_id.startswith(key))
    for name in sorted(names):
        file = next((file for file in own if file.endswith(name)), name)
        found = find_world(file, policy)
        assert (found.name, found.group) == (name, "unmodelled")
        environment = found.make_environment(policy, 2, 0)
        layer = environment.layer
        assert isinstance(layer, DomainRandomizer)
        environment.reset()
        before = layer.lam.clone()
        environment.steps += environment.max_episode_steps - 3
        for _ in range(2):
            environment.step(torch.zeros(2, environment.task.action_size))
        assert torch.equal(before, layer.lam) == (name == "backlash_stiction")


def test_a_table_shows_a_world_that_changes_beside_the_others(tmp_path: Path) -> None:
    policy = reaching()
    worlds = [find_world(name, policy) for name in ("nominal", world(tmp_path, LATE))]
    document = evaluate(policy, worlds, 10, None, 0)
    assert [row["name"] for row in document["worlds"]] == ["nominal", "world"]
    assert document["worlds"][0]["samples"]["actions"] != document["worlds"][1]["samples"]["actions"]


def test_the_process_robot_lives_through_it(tmp_path: Path) -> None:
    path = world(
        tmp_path,
        """
randomization: {parameters: {weight: {quantity: gravity, of: z, range: [0, 0]}}}
changes: [{at_s: 0.1, set: {weight: -9.81}}]
""",
    )
    speeds = {}
    for name in (path, None):
        robot = Simulation("InvertedPendulum-v5", name)
        robot.hold()
        for _ in range(round(0.3 / robot.timestep_s)):
            robot.step()
            speeds.setdefault(name, []).append(robot.truth()["fastest_joint"])
    changed = np.flatnonzero(~np.isclose(speeds[path], speeds[None], rtol=1e-9, atol=0.0))
    assert round(changed[0] * robot.timestep_s, 3) == pytest.approx(0.1, abs=0.003)
    assert speeds[path][-1] > 1.3 * speeds[None][-1]  # it falls faster


@pytest.mark.parametrize(
    ("entries", "value", "said"),
    [
        (
            "gains: {quantity: actuator_kp, range: [1, 1]}",
            "gains: 0.5",
            "actuator_kp writes gains, which a robot is told",
        ),
        ("action_dropout: {range: [0, 0]}", "action_dropout: 0.5", "drop-outs of messages cannot be in a world that"),
    ],
)
def test_what_the_process_robot_cannot_live_through_is_one_line(
    tmp_path: Path, entries: str, value: str, said: str
) -> None:
    path = world(tmp_path, f"randomization: {{parameters: {{{entries}}}}}\nchanges: [{{at_s: 1, set: {{{value}}}}}]\n")
    with skipping_missing(), pytest.raises(UserError, match=said) as caught:
        Simulation("go1", path)
    assert "\n" not in str(caught.value)
