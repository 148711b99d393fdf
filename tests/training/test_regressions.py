"""Faults that were found once and must not come back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import HINGE, SLIDER, TinyTask, build, only
from envs.common.rng import EpisodeRandom
from envs.engines.cpu import CpuEngine
from randomization.parameters import Parameter, RandomizationError, build_parameters
from randomization.samplers.adr import ADR
from simreal.learners.off_policy.replay import HerReplayBuffer
from simreal.training.run_config import parse_config
from simreal.training.run_directory import load_policy
from simreal.training.trainer import Trainer


def test_one_divergence_ends_one_episode(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    env = build(TinyTask(HINGE, max_episode_steps=50), 2)
    env.engine.data("qvel")[0] = 1e12
    shown = [env.step(torch.zeros(2, 1)).diverged.tolist() for _ in range(3)]
    assert shown == [[True, False], [False, False], [False, False]]
    assert env.divergences == 1


def test_every_divergence_is_noticed(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    env = build(TinyTask(HINGE, max_episode_steps=50), 1)
    for _ in range(3):
        env.engine.data("qvel")[0] = 1e12
        assert env.step(torch.zeros(1, 1)).diverged.tolist() == [True]


@pytest.mark.parametrize("call", ["reset another", "forward another", "bind late"])
def test_a_written_state_is_noticed_whatever_is_called_in_between(call: str) -> None:
    engine = build(TinyTask(HINGE), 2).engine
    place = engine.data("geom_xpos")
    engine.forward()
    engine.data("qpos")[0] = 1.0
    if call == "bind late":
        engine.data("xmat")
    else:
        getattr(engine, call.split()[0])(only(2, 1))
    engine.refresh_written()
    assert float(place[0, 0, 2]) == pytest.approx(-0.15 * 0.841471)


def test_a_draw_does_not_depend_on_whether_something_else_was_drawn_before() -> None:
    def draw(first: bool) -> torch.Tensor:
        rng = EpisodeRandom(0, 2)
        rng.next_episode(torch.ones(2, dtype=torch.bool))
        steps = torch.zeros(2, dtype=torch.int64)
        rng.set_step(steps)
        if first:
            rng.uniform("other", 1)
        steps += 1  # as Environment.step does between task.after_step and task.outcome
        return rng.uniform("mine", 1)

    assert torch.equal(draw(True), draw(False))


def test_moves_count_moves() -> None:
    adr = ADR([Parameter("a", limits=(-0.02, 0.02))], buffer_size=1, thresholds=(0.0, 1.0))
    adr.record(torch.full((5,), 1), torch.full((5,), 5.0))
    assert adr.upper.item() == 0.02
    assert adr.moves.tolist() == [0, 1]


@pytest.mark.parametrize("thresholds", [(float("nan"), 1.0), (0.0, float("nan"))])
def test_thresholds_that_are_no_numbers_are_refused(thresholds: tuple[float, float]) -> None:
    with pytest.raises(RandomizationError, match="thresholds"):
        ADR([Parameter("a")], thresholds=thresholds)


def test_an_unknown_argument_of_a_parameter_is_named() -> None:
    with pytest.raises(RandomizationError, match="nominl"):
        ADR({"a": {"nominl": 0.0}})


@pytest.mark.parametrize(
    "entry",
    [
        {"quantity": ["body_mass"]},
        {"quantity": "body_mass", "of": []},
        {"quantity": "body_mass", "of": "box", "range": [False, True]},
        {"quantity": "body_mass", "of": "box", "step": float("inf")},
        {"quantity": "body_mass", "of": "box", "step": True},
    ],
)
def test_more_mistakes_are_answered_with_their_label(entry: dict[str, Any]) -> None:
    with pytest.raises(RandomizationError, match="heavy"):
        build_parameters(TinyTask(SLIDER), {"heavy": entry})


def test_a_small_batch_finds_a_sound_transition() -> None:
    replay = HerReplayBuffer(10, 2, 1, 1)
    no = torch.zeros(2, dtype=torch.bool)
    for t in range(5):
        replay.add(
            torch.zeros(2, 1), torch.zeros(2, 1), torch.zeros(2), torch.zeros(2, 1), no, no, None,
            torch.tensor([True, t > 0]),
        )  # fmt: skip
    for seed in range(50):
        assert replay.sample(1, torch.Generator().manual_seed(seed)).observation.shape == (1, 1)


def test_a_full_ring_is_not_loaded_into_one_of_another_size() -> None:
    def filled(slots: int, steps: int) -> HerReplayBuffer:
        replay = HerReplayBuffer(slots, 1, 1, 1)
        for t in range(steps):
            replay.add(
                torch.full((1, 1), float(t)), torch.zeros(1, 1), torch.zeros(1), torch.zeros(1, 1),
                torch.zeros(1), torch.zeros(1, dtype=torch.bool),
            )  # fmt: skip
        return replay

    # 25 steps in 8 slots hold steps 17..24; in 16 slots they would be looked up in the wrong places
    with pytest.raises(ValueError, match="another size"):
        filled(16, 0).load_state_dict(filled(8, 25).state_dict())


def test_a_delay_line_does_not_stop_the_clock_when_contacts_overflow(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    boxes = "".join(
        f'<body pos="{i % 5 * 0.19} {i // 5 % 5 * 0.19} {0.1 + i // 25 * 0.19}"><freejoint/>'
        f'<geom type="box" size=".1 .1 .1"/></body>'
        for i in range(50)
    )
    xml = f"""<mujoco><size memory="400K"/><worldbody><geom type="plane" size="5 5 1"/>{boxes}
      <body mocap="true" name="m"/></worldbody></mujoco>"""
    import mujoco

    times = []
    for commands in (None, torch.zeros(1, 20, 3, dtype=torch.float64)):
        engine = CpuEngine(mujoco.MjModel.from_xml_string(xml), 1, 1)
        engine.use_commands(("mocap_pos",))
        engine.step(20, commands)
        times.append(float(engine.data("time")[0]) if not bool(engine.diverged()[0]) else 0.04)
    assert times == pytest.approx([0.04, 0.04])


def test_a_servo_factor_refuses_an_actuator_that_is_no_servo() -> None:
    servo = '<position name="servo" joint="hinge" kp="20" kv="1"/>'
    xml = HINGE.replace(servo, '<muscle name="servo" joint="hinge" lengthrange="0 1"/>')
    with pytest.raises(RandomizationError, match="servo"):  # it scales a muscle's range and scale, not its force
        build_parameters(TinyTask(xml), {"actuator_gain": {}})


def test_a_saved_state_does_not_change_when_the_environment_goes_on() -> None:
    env = build(TinyTask(HINGE), 1)
    state = env.state_dict()
    env.step(torch.ones(1, 1))
    assert state["steps"].tolist() == [0]


def test_a_result_does_not_change_when_the_environment_goes_on() -> None:
    env = build(TinyTask(HINGE), 1)
    result = env.step(torch.ones(1, 1))
    env.step(torch.ones(1, 1))
    assert result.episode_steps.tolist() == [1]


def test_recomputed_constants_leave_the_weld_of_the_fetch_arm_as_it_is() -> None:
    # mj_setConst would replace the weld's pose by that of qpos0, and the arm would leave its place.
    from simreal.training.build import make_environment

    worlds = {"parameters": {"body_mass": {"of": "robot0:*", "range": [1.0, 1.0]}}}
    shown = []
    for randomization in (None, worlds):
        env = make_environment("FetchReach-v4", 2, randomization, seed=1)
        env.reset()
        shown.append(torch.stack([env.step(torch.full((2, 4), 0.5)).final.policy for _ in range(5)]))
    torch.testing.assert_close(shown[1], shown[0], rtol=0.0, atol=1e-12)


def test_a_policy_with_memory_is_loaded_whatever_its_minibatches(tmp_path: Path) -> None:
    """A rollout of the one environment that it is loaded for has fewer sequences than training had minibatches."""
    learner = {"algorithm": "ppo", "memory": "lstm", "memory_size": 4, "horizon": 4, "segment": 4, "minibatches": 3}
    config = parse_config({"task": "InvertedPendulum-v5", "num_envs": 3, "learner": learner}, "test")
    Trainer(config, tmp_path).save()
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    assert load_policy(tmp_path).act(torch.zeros(2, 4)).shape == (2, 1)
