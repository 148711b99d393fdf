"""What `simreal view` does to a simulation, without a browser: worlds, pushes, commands, checkpoints, time."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from randomization.samplers.base import Manual
from simreal.common.errors import UserError
from simreal.training.run_directory import load_policy
from simreal.vision.live.dials import Dial, make_dials
from simreal.vision.live.history import History
from simreal.vision.live.loop import Loop
from simreal.vision.live.player import Player
from simreal.vision.live.source import find_source
from simreal.vision.live.strips import strip
from toy_robot import Clock

# 2 kg on a rail, and nothing that slows it down.
RAIL = """
<mujoco>
  <option timestep="0.002" gravity="0 0 0"/>
  <worldbody>
    <body name="cart">
      <joint name="x" type="slide" axis="1 0 0"/>
      <geom name="box" type="box" size=".1 .1 .1" mass="2"/>
    </body>
  </worldbody>
  <actuator><motor name="push" joint="x"/></actuator>
</mujoco>
"""


def rail(**entries: Any) -> Player:
    policy = find_source("conftest:TinyTask", "zero", None, {"xml": RAIL, "max_episode_steps": 1000}).policy
    dials = make_dials(policy)
    chosen = [dial for dial in dials if dial.label in entries] if entries else dials
    return Player(policy, chosen, 3)


def value(player: Player, field: str) -> Any:
    return player.environment.engine.field(field)[0].tolist()


def test_a_quantity_that_is_set_is_in_the_model_of_the_next_step() -> None:
    player = rail()
    assert {"body_mass", "action_delay", "observation_noise"} <= {dial.parameter.quantity for dial in player.dials}
    player.step()
    assert value(player, "body_mass") == [0.0, 2.0]
    player.set("body_mass", 1.25)
    assert value(player, "body_mass") == [0.0, 2.0]
    player.step()
    assert value(player, "body_mass") == [0.0, 2.5]
    player.reset()
    player.step()
    assert value(player, "body_mass") == [0.0, 2.5]  # later episodes begin in that world
    player.set("body_mass", 1e9)
    assert player.wanted("body_mass") == next(d.parameter.limits[1] for d in player.dials if d.label == "body_mass")


def test_what_holds_for_an_episode_changes_with_the_next_one() -> None:
    player = rail(timestep=True)
    (dial,) = player.dials
    assert dial.fixed
    before = value(player, "opt.timestep")
    player.set("timestep", 1.1)
    player.step()
    assert value(player, "opt.timestep") == before
    player.reset()
    assert value(player, "opt.timestep") == pytest.approx(1.1 * 0.002)


def test_a_push_gives_a_body_the_momentum_that_it_says() -> None:
    # 10 N for 0.2 s on 2 kg: 1 m/s; a control step is 20 * 0.002 s, so five of them
    player = rail()
    player.push(1, np.array([10.0, 0.0, 0.0]), 0.2)
    for _ in range(8):
        player.step()
    assert float(player.environment.engine.data("qvel")[0, 0]) == pytest.approx(1.0, rel=1e-6)
    assert not player.pushes
    assert float(player.environment.engine.data("xfrc_applied").abs().sum()) == 0.0


@pytest.mark.parametrize("task", ["FetchReach-v4", "InvertedPendulum-v5"])
def test_with_all_sliders_where_they_begin_it_is_the_calibrated_world(task: str) -> None:
    policy = find_source(task, "random", None, {}).policy
    player = Player(policy, make_dials(policy), 5)
    shown = [player.step().final.policy[0].clone() for _ in range(20)]
    plain = policy.make_environment(1, Manual([]), 5)
    observed = plain.reset()
    expected = []
    for _ in range(20):
        result = plain.step(policy.act(observed.policy))
        observed = result.observed
        expected.append(result.final.policy[0])
    torch.testing.assert_close(torch.stack(shown), torch.stack(expected), rtol=1e-9, atol=1e-9)


def test_a_goal_that_is_wanted_is_the_tasks_and_what_the_policy_reads() -> None:
    policy = find_source("FetchReach-v4", "zero", None, {}).policy
    player = Player(policy, [], 0)
    assert player.steering is not None
    before = player.steering.present
    low, high = np.array(player.steering.low), np.array(player.steering.high)
    assert (high - low > 0.2).all()  # goals are drawn within 0.15 m
    player.step()
    assert player.steering.present == before
    wanted = (0.5 * (low + high)).tolist()
    player.steering.wanted = wanted
    player.step()
    assert player.environment.task.goal[0].tolist() == pytest.approx(wanted)
    where = player.environment.task.slices("policy")["desired_goal"]
    assert player.observed.policy[0, where].tolist() == pytest.approx(wanted)
    player.reset()
    assert player.environment.task.goal[0].tolist() == pytest.approx(wanted)


def test_checkpoints_of_a_run_are_found_and_played(trained_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    files = sorted((run / "checkpoints").glob("step_*"))
    early = tmp_path / files[-1].name
    shutil.move(files[-1], early)
    for file in files[:-1]:
        file.unlink()
    shutil.rmtree(run / "best", ignore_errors=True)
    source = find_source(str(run), "zero", None, {})
    assert source.waits
    assert source.checkpoints() == {}
    player = Player(source.policy, make_dials(source.policy), 0)
    assert float(player.policy.act(player.observed.policy).abs().sum()) == 0.0
    shutil.move(early, run / "checkpoints" / early.name)  # as a training writes it
    (name,) = source.checkpoints()
    assert name == f"step {int(early.stem[5:]):,}"
    player.play(source.load(source.checkpoints()[name]))
    observed = player.observed.policy
    torch.testing.assert_close(player.policy.act(observed), load_policy(run).act(observed))
    assert {p.name for p in player.policy.parameters} == {"body_mass", "action_delay", "observation_noise"}
    with pytest.raises(UserError, match="no such checkpoint"):
        source.load(run / "checkpoints" / "step_000000000001.safetensors")


def test_sliders_of_a_run_show_what_was_trained_and_proven(trained_run: Path) -> None:
    policy = load_policy(trained_run)
    trained = {p.name: p.limits for p in policy.parameters}
    curve = {"name": "body_mass", "values": [0.5, 1.0, 2.0], "success": [0.2, 1.0, 0.4]}
    document = {"parameters": [curve], "box": {"ranges": {"body_mass": [0.8, 1.2]}}}
    dials = {dial.label: dial for dial in make_dials(policy, document)}
    dial = dials["body_mass"]
    assert dial.trained == trained["body_mass"]
    low, high = dial.parameter.limits
    assert low < trained["body_mass"][0]
    assert high > trained["body_mass"][1]
    assert dial.proven == (0.8, 1.2)
    drawn = strip(dial)
    assert "trained" in drawn
    assert "proven 0.8 to 1.2" in drawn
    assert drawn.count(",") >= 3  # the curve's points
    assert "gravity" in dials
    assert dials["gravity"].trained is None
    assert strip(dials["gravity"]) == ""


def test_real_time_passes_as_the_clock_says_and_what_is_asked_for_comes_first() -> None:
    player, clock = rail(body_mass=True), Clock(0.0)
    shown: list[float] = []
    loop = Loop(player, lambda: shown.append(clock.now), lambda: None, fps=10.0, clock=clock)
    loop._answer = _at_once(loop, clock)  # type: ignore[method-assign]
    while clock.now < 1.0:
        loop.once()
    assert player.time_s == pytest.approx(1.0, abs=0.05)  # steps of 0.04 s
    assert len(shown) == pytest.approx(10, abs=1)
    loop.pause(False)
    before = player.time_s
    loop.later(lambda: player.set("body_mass", 1.5))
    loop.once()
    loop.step()
    assert player.time_s == pytest.approx(before + 0.04)
    assert value(player, "body_mass") == [0.0, 3.0]


def _at_once(loop: Loop, clock: Clock) -> Any:
    """What waits in a loop, on a clock that stands still: time passes, and nobody waits."""
    answer = Loop._answer

    def waits(wait_s: float) -> None:
        clock.sleep(wait_s)
        answer(loop, 0.0)

    return waits


def test_a_history_keeps_the_newest_rows_in_order() -> None:
    history = History(("a", "b"), 3)
    for i in range(5):
        history.add(float(i), np.array([10.0 * i, -i]))
    times, b = history.columns([1])
    assert times.tolist() == [2.0, 3.0, 4.0]
    assert b.tolist() == [-2.0, -3.0, -4.0]


def test_what_cannot_be_shown_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such run or bundle"):
        find_source(str(tmp_path / "nothing"), "zero", None, {})
    with pytest.raises(Exception, match=r"unknown task 'FetchReech-v4' \(did you mean"):
        find_source("FetchReech-v4", "zero", None, {})
    with pytest.raises(UserError, match=r"no config\.yaml"):
        find_source(str(tmp_path), "zero", None, {})


def test_dials_are_only_those_that_a_world_can_have() -> None:
    policy = find_source("FetchReach-v4", "zero", None, {}).policy
    for dial in make_dials(policy):
        low, high = dial.parameter.limits
        assert low <= dial.parameter.nominal <= high
        assert isinstance(dial, Dial)
